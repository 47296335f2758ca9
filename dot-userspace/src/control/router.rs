//! The two routers: JSON for `dotd status` and other verbs, metrics and health for monitoring.
//!
//! Before: `control::serve` accepted a connection. After: one small response made from the [`Source`].
//! Never: changes anything except through the [`Source`]; answers later than [`REQUEST_TIMEOUT`], except a reload;
//! changes anything for HTTP without the token of the page.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Request, State as Shared},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use super::{
    Source, State, Status, acme, bans, cache, certificates, config, drain, explain, log, metrics, misuse,
    page, policy, reload, switch, tickets, top, trace, upstream,
};

/// The state that answers need.
type AnySource = Arc<dyn Source>;

/// `/acme`, `/status`, `/stats`, `/xdp`, `/backend`, `/bans`, `/cache`, `/config`, `/dot`, `/drain`, `/explain`, `/log`, `/misuse`, `/page`, `/policy`, `/reload`, `/tickets`, `/top` and
/// `/trace` as JSON.
pub(super) fn socket(source: AnySource) -> Router {
    let router = Router::new();
    #[cfg(debug_assertions)]
    let router = router.merge(super::acts::route());
    router
        .route("/status", get(async |Shared(source): Shared<AnySource>| Json(source.status())))
        .route("/stats", get(async |Shared(source): Shared<AnySource>| Json(source.snapshot())))
        .route("/xdp", get(async |Shared(source): Shared<AnySource>| Json(source.xdp())).delete(leave_xdp))
        .merge(acme::route())
        .merge(bans::route())
        .merge(cache::route())
        .merge(config::route())
        .merge(drain::route())
        .merge(explain::route())
        .merge(log::route())
        .merge(misuse::route())
        .merge(page::address_route())
        .merge(policy::route())
        .merge(switch::route())
        .merge(tickets::route())
        .merge(top::route())
        .merge(trace::route())
        .merge(upstream::route())
        .fallback(async || {
            not_found(&[
                acme::PATH,
                bans::PATH,
                cache::PATH,
                config::PATH,
                drain::PATH,
                explain::PATH,
                log::PATH,
                misuse::PATH,
                page::PATH,
                policy::PATH,
                reload::PATH,
                "/status",
                "/stats",
                switch::BACKEND,
                switch::DOT,
                tickets::PATH,
                top::PATH,
                trace::PATH,
                upstream::PATH,
                upstream::FORGIVE_PATH,
                "/xdp",
            ])
        })
        .layer(middleware::from_fn(in_time))
        // A reload is bounded by its requests to the keeper, each of which has a time limit.
        .merge(reload::route())
        .with_state(source)
}

/// `/metrics`, `/health` and its two halves, and the page.
pub(super) fn http(source: AnySource) -> Router {
    Router::new()
        .merge(page::routes(&source))
        .route("/metrics", get(show_metrics))
        .route("/health", get(show_health))
        .merge(drain::probes())
        .fallback(async || not_found(&[page::PAGE_PATH, "/health", drain::LIVE, drain::READY, "/metrics"]))
        .layer(middleware::from_fn(in_time))
        .with_state(source)
}

async fn leave_xdp(Shared(source): Shared<AnySource>) -> Response {
    Json(source.leave_xdp()).into_response()
}

async fn show_metrics(Shared(source): Shared<AnySource>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let exemplars = source.exemplars();
    match metrics::encode(accept, &source.status(), &source.snapshot(), (source.measured(), &exemplars)) {
        Ok(scrape) => ([(header::CONTENT_TYPE, scrape.content_type)], scrape.body).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics: cannot be written as text");
            (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": "metrics cannot be written as text" })))
                .into_response()
        }
    }
}

/// 200 while a load balancer may send clients here; 503 while it should not: dotd is draining, or XDP or a
/// certificate does not meet the config's requirements.
async fn show_health(Shared(source): Shared<AnySource>) -> Response {
    let Status { state, drain, off, xdp, unusable_certificates, is_strict, .. } = source.status();
    let is_well = state == State::Serving
        && drain.is_none()
        && off.is_none()
        && !(xdp.required && xdp.degraded.is_some())
        && (!is_strict || unusable_certificates.is_empty());
    let code = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = json!({ "state": state });
    if let Some(why) = xdp.degraded {
        body["degraded"] = json!(why);
    }
    if off.is_some() {
        body["off"] = json!(drain::OFF);
    }
    if !unusable_certificates.is_empty() {
        body["certificates"] = json!(certificates::lines(&unusable_certificates));
    }
    if xdp.paths.not_covered > 0 {
        body["paths"] = json!(xdp.paths);
    }
    (code, Json(body)).into_response()
}

fn not_found(paths: &[&str]) -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "error": "no such path", "paths": paths }))).into_response()
}

/// Bounds a request; its answer needs microseconds, so only a stuck client or machine reaches it.
async fn in_time(request: Request, next: Next) -> Result<Response, Infallible> {
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
    Ok(answer.unwrap_or_else(|_| {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "no answer in time" }))).into_response()
    }))
}

/// 5 s: below Prometheus' default scrape timeout of 10 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

//! `/drain` on the control socket, and the probes of load balancers over HTTP: `/health/live`, `/health/ready`.
//!
//! Before: `router` has the request. After: readiness is withdrawn for a while, or restored; a probe has its answer.
//! Never: closes a connection: dotd serves clients that still come.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State as Shared},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Body, Source, State, Status, answer, certificates};

/// The request of `dotd drain` and `dotd undrain`, and the resulting state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Whether load balancers are told to send no new clients.
    pub is_on: bool,
    /// For how long; absent: until `dotd undrain` or a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// dotd is not ready because of an operator's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// How long it lasts; absent: until `dotd undrain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

type AnySource = Arc<dyn Source>;

/// The route on the control socket.
pub(super) fn route() -> Router<AnySource> {
    Router::new().route(PATH, post(set)).layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
}

/// The routes of probes.
pub(super) fn probes() -> Router<AnySource> {
    Router::new().route(LIVE, get(show_live)).route(READY, get(show_ready))
}

pub(super) async fn set(Shared(source): Shared<AnySource>, request: Body<DrainRequest>) -> Response {
    answer(request, |request| source.drain(request))
}

/// 200 as long as this thread answers: a restart would help only if it did not answer.
async fn show_live(Shared(source): Shared<AnySource>) -> Response {
    Json(json!({ "state": source.status().state })).into_response()
}

/// 200 while clients can be served: dotd is not stopping and not drained, a backend is available, and XDP and certificates are
/// in the state that the config requires. Otherwise 503, with the reason.
async fn show_ready(Shared(source): Shared<AnySource>) -> Response {
    let status = source.status();
    let backends: Vec<_> = status
        .backends
        .iter()
        .map(|backend| json!({ "name": backend.name, "state": backend.state, "reason": backend.reason }))
        .collect();
    let unready = unready(&status);
    let body = json!({
        "state": status.state,
        "ready": unready.is_none(),
        "reason": unready,
        "drain": status.drain,
        "backends": backends,
        "certificates": certificates::lines(&status.unusable_certificates),
        "xdp": { "state": status.xdp.state, "degraded": status.xdp.degraded },
    });
    (if unready.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body))
        .into_response()
}

/// The reason why no client should be sent here.
fn unready(status: &Status) -> Option<String> {
    if status.state == State::Draining {
        return Some("dotd is stopping".into());
    }
    if status.drain.is_some() {
        return Some("an operator has drained it; run `dotd undrain` to end that".into());
    }
    if status.off.is_some() {
        return Some(OFF.into());
    }
    if status.xdp.required
        && let Some(degraded) = &status.xdp.degraded
    {
        return Some(format!("xdp.required: {degraded}"));
    }
    if let Some(unusable) = status.unusable_certificates.first().filter(|_| status.is_strict) {
        return Some(format!("tls.strict: {}", unusable.reason));
    }
    let is_down = |state: &str| matches!(state, "down" | "spare" | "downgrade_suspected" | "unresolved");
    let are_down =
        !status.backends.is_empty() && status.backends.iter().all(|backend| is_down(&backend.state));
    are_down.then(|| "every backend is down".into())
}

/// The reason while DNS over TLS is switched off.
pub(super) const OFF: &str = "DNS over TLS is switched off: dotd enable";
/// The path.
pub(super) const PATH: &str = "/drain";
/// The paths of probes.
pub(super) const LIVE: &str = "/health/live";
pub(super) const READY: &str = "/health/ready";
/// Room for a word and a number.
const BODY_OCTETS_MAX: usize = 256;

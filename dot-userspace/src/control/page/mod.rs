//! The page on `control.http`: the state of dotd for a browser, and the actions of an operator there.
//!
//! Before: `router` has a request for the page or its parts. After: the answer is compiled-in HTML, style and script,
//! the state as JSON, or the result of an action.
//! Never: makes a browser ask another host for anything; acts without the token of `run_dir`; answers a request whose
//! host is neither an address nor one of `control.page_hosts`, because another site's name may have led the browser
//! here (DNS rebinding).

mod state;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State as Shared},
    http::{HeaderMap, HeaderName, StatusCode, Uri, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Source, bans, drain, switch};
use crate::config::Page;

/// The rights to read the page and to act from it.
#[derive(Clone, Debug, Default)]
pub struct PageAccess {
    /// `control.page`.
    pub page: Page,
    /// Host names that a request may use, beside addresses and "localhost".
    pub hosts: Vec<String>,
    /// The token. `None`: it could not be written, and no request may act.
    pub token: Option<Arc<str>>,
}

/// The address of the page, for `dotd page`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageAddress {
    /// A URL for a browser on this machine, with the token after `#`.
    pub url: String,
}

type AnySource = Arc<dyn Source>;

/// The routes over HTTP.
pub(super) fn routes(source: &AnySource) -> Router<AnySource> {
    Router::new()
        .route("/", get(async || part("text/html; charset=utf-8", PAGE)))
        .route("/page.css", get(async || part("text/css; charset=utf-8", STYLE)))
        .route("/page.js", get(async || part("text/javascript; charset=utf-8", SCRIPT)))
        .route("/api/state", get(show_state))
        .route("/api/ban", post(bans::ban))
        .route("/api/unban", post(bans::unban))
        .route("/api/drain", post(drain::set))
        .route("/api/dot", post(switch::set_dot))
        .route("/api/backend", post(switch::set_backend))
        .layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(source), guard))
}

/// The route on the control socket.
pub(super) fn address_route() -> Router<AnySource> {
    Router::new().route(PATH, get(show_address))
}

async fn show_address(Shared(source): Shared<AnySource>) -> Response {
    let refused =
        |error: &str| (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": error }))).into_response();
    let PageAccess { page, token, .. } = source.page_access();
    let Some(http) = source.http_address() else {
        return refused("there is no page: control.http is not set");
    };
    let host = match http.ip() {
        host if !host.is_unspecified() => http.to_string(),
        host => format!("{}:{}", if host.is_ipv4() { "127.0.0.1" } else { "[::1]" }, http.port()),
    };
    match (page, token) {
        (Page::Off, _) => refused("there is no page: control.page is \"off\""),
        (_, None) => refused("there is no token: server.run_dir cannot be written"),
        (_, Some(token)) => Json(PageAddress { url: format!("http://{host}/#{token}") }).into_response(),
    }
}

fn part(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn show_state(Shared(source): Shared<AnySource>, headers: HeaderMap) -> Response {
    let can_change = has_token(&source.page_access(), &headers);
    Json(state::state(source.as_ref(), can_change).await).into_response()
}

/// Checks whether a request may pass, and adds the headers that restrict browsers.
async fn guard(Shared(source): Shared<AnySource>, request: Request, next: Next) -> Response {
    let access = source.page_access();
    let refused = |status, error: &str| (status, Json(json!({ "error": error }))).into_response();
    let (headers, path) = (request.headers(), request.uri().path());
    let is_change = request.method() != axum::http::Method::GET;
    let mut response = if access.page == Page::Off {
        refused(StatusCode::NOT_FOUND, "there is no page: control.page is \"off\"")
    } else if !is_our_name(&access, request.uri(), headers) {
        let error = "the request names another host: use the address, or set control.page_hosts";
        refused(StatusCode::MISDIRECTED_REQUEST, error)
    } else if is_change && !is_from_here(&access, headers) {
        refused(StatusCode::FORBIDDEN, "the request comes from another site")
    } else if (is_change || (access.page == Page::Token && path.starts_with("/api/")))
        && !has_token(&access, headers)
    {
        refused(StatusCode::UNAUTHORIZED, "a token is needed: it is in page.token in server.run_dir")
    } else {
        next.run(request).await
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, header::HeaderValue::from_static(value));
    }
    response
}

/// Whether the host of a request is an address, localhost, or a name from the config.
fn is_our_name(access: &PageAccess, uri: &Uri, headers: &HeaderMap) -> bool {
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(authority) = named.or(uri.authority().map(Authority::as_str)) else { return false };
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<std::net::IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || is_of_config(access, &authority)
}

/// Whether this is one of `control.page_hosts`, at any port.
fn is_of_config(access: &PageAccess, authority: &Authority) -> bool {
    access.hosts.iter().any(|name| name.eq_ignore_ascii_case(authority.host()))
}

/// Whether a request came from the page itself and not from another site. Clients that are not browsers send no
/// headers about that, and pass.
fn is_from_here(access: &PageAccess, headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let is_same_site = text(SEC_FETCH_SITE).is_none_or(|site| site == "same-origin");
    let host = text(header::HOST).unwrap_or_default();
    let is_own = |origin: &str| match origin.strip_prefix("https://") {
        // A proxy that does TLS is reached by a name from the config, and may use another host name towards dotd.
        Some(name) => name.parse().is_ok_and(|name| is_of_config(access, &name)),
        None => origin == format!("http://{host}"),
    };
    is_same_site && text(header::ORIGIN).is_none_or(is_own)
}

fn has_token(access: &PageAccess, headers: &HeaderMap) -> bool {
    let said = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let (Some(token), Some(said)) = (&access.token, said) else { return false };
    // Compares in constant time, so that the time does not show how much of a token is right.
    token.len() == said.len() && token.bytes().zip(said).fold(0, |sum, (one, other)| sum | (one ^ other)) == 0
}

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Headers of every answer. They forbid browsers to load, run or embed content of other sites, and to report to them.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The path on the control socket.
pub(super) const PATH: &str = "/page";
/// The path over HTTP.
pub(super) const PAGE_PATH: &str = "/";
/// An address, a number and a reason.
const BODY_OCTETS_MAX: usize = 2048;

#[cfg(test)]
mod tests;

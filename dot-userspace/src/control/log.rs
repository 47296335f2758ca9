//! `/log` on the control socket: the level of the log, and whether it has a line for each connection, until a reload.
//!
//! Before: `router` has the request. After: the [`Source`] writes these lines.
//! Never: takes a body beyond [`BODY_OCTETS_MAX`].

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, State as Shared},
    response::Response,
    routing::post,
};
use serde::{Deserialize, Serialize};

use super::{Body, Source, answer};
use crate::config::LogLevel;

/// The request of `dotd log`, and the resulting state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogRequest {
    /// The least severe level that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    /// Whether there is a line for each connection that ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<bool>,
}

type AnySource = Arc<dyn Source>;

/// The route.
pub(super) fn route() -> Router<AnySource> {
    Router::new().route(PATH, post(set)).layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
}

async fn set(Shared(source): Shared<AnySource>, request: Body<LogRequest>) -> Response {
    answer(request, |request| source.log(request))
}

/// The path.
pub(super) const PATH: &str = "/log";
/// Room for two words.
const BODY_OCTETS_MAX: usize = 256;

//! `/log` on the control socket: the level of the log, until a reload.
//!
//! Before: `router` has the request. After: the [`Source`] writes lines of that level and above.
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

/// What `dotd log level` asks for, and what is so then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogRequest {
    /// The least severe level that is written.
    pub level: LogLevel,
}

type AnySource = Arc<dyn Source>;

/// The route.
pub(super) fn route() -> Router<AnySource> {
    Router::new().route(PATH, post(set)).layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
}

async fn set(Shared(source): Shared<AnySource>, request: Body<LogRequest>) -> Response {
    answer(request, |request| {
        source.log_level(request.level);
        Ok::<_, String>(request)
    })
}

/// Where.
pub(super) const PATH: &str = "/log";
/// One word.
const BODY_OCTETS_MAX: usize = 256;

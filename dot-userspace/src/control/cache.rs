//! `/cache` on the control socket: forget what is kept.
//!
//! Before: `router` has the request. After: the [`Source`] told every worker.
//! Never: takes a body beyond [`BODY_OCTETS_MAX`], or waits until the workers are done.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State as Shared, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::delete,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Source;

/// What `dotd cache flush` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushRequest {
    /// The name whose answers are to go; absent: all.
    pub name: Option<String>,
}

/// What is being done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// As asked for.
    pub name: Option<String>,
    /// Workers that were told.
    pub workers: usize,
}

type AnySource = Arc<dyn Source>;

/// The route.
pub(super) fn route() -> Router<AnySource> {
    Router::new().route(PATH, delete(flush)).layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
}

async fn flush(
    Shared(source): Shared<AnySource>,
    request: Result<Json<FlushRequest>, JsonRejection>,
) -> Response {
    let outcome = match request {
        Ok(Json(request)) => source.flush_cache(&request),
        Err(error) => Err(error.body_text()),
    };
    match outcome {
        Ok(flushed) => Json(flushed).into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": error }))).into_response(),
    }
}

/// Where.
pub(super) const PATH: &str = "/cache";
/// A name with every octet escaped needs half of it.
const BODY_OCTETS_MAX: usize = 2048;

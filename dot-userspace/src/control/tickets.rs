//! `/tickets` on the control socket: the next rotation of session tickets, now.
//!
//! Before: `router` has the request. After: the [`Source`] has new keys on every worker.
//! Never: shows a key, or takes a body beyond [`BODY_OCTETS_MAX`].

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State as Shared, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Source;

/// What `dotd tickets rotate` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// No ticket and no session of before resumes any more.
    #[serde(default)]
    pub end_old: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// As asked for.
    pub end_old: bool,
}

type AnySource = Arc<dyn Source>;

/// The route.
pub(super) fn route() -> Router<AnySource> {
    Router::new().route(PATH, post(rotate)).layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
}

async fn rotate(
    Shared(source): Shared<AnySource>,
    request: Result<Json<RotateRequest>, JsonRejection>,
) -> Response {
    let outcome = match request {
        Ok(Json(request)) => source.rotate_tickets(request),
        Err(error) => Err(error.body_text()),
    };
    match outcome {
        Ok(rotated) => Json(rotated).into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": error }))).into_response(),
    }
}

/// Where.
pub(super) const PATH: &str = "/tickets";
/// One flag.
const BODY_OCTETS_MAX: usize = 256;

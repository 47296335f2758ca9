//! `/tickets` on the control socket: begins the next rotation of session tickets now.
//!
//! Before: `router` has the request. After: the [`Source`] has new keys on every worker.
//! Never: shows a key, or takes a body beyond [`BODY_OCTETS_MAX`].

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, State as Shared},
    response::Response,
    routing::post,
};
use serde::{Deserialize, Serialize};

use super::{Body, Source, answer};

/// What `dotd tickets rotate` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// No earlier ticket or session can be resumed any more.
    #[serde(default)]
    pub end_old: bool,
}

/// The result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// The request.
    pub end_old: bool,
}

type AnySource = Arc<dyn Source>;

/// The route.
pub(super) fn route() -> Router<AnySource> {
    Router::new().route(PATH, post(rotate)).layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
}

async fn rotate(Shared(source): Shared<AnySource>, request: Body<RotateRequest>) -> Response {
    answer(request, |request| source.rotate_tickets(request))
}

/// The path.
pub(super) const PATH: &str = "/tickets";
/// Room for one flag.
const BODY_OCTETS_MAX: usize = 256;

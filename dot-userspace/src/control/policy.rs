//! `/policy` on the control socket: the policy zones, the rule that decides about a name, and a check for newer
//! versions.
//!
//! Before: `router` has the request. After: the [`Source`] has read the zones that workers use.
//! Never: changes a zone, asks a backend, or waits for a primary server.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State as Shared},
    response::Response,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use super::{Body, PolicyStatus, Source, answer};
use crate::policy::Question;

/// The request of `dotd policy refresh`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    /// The zone; absent: every zone that is transferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// The answer to a refresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshed {
    /// The zones whose primary servers are asked now.
    pub zones: Vec<String>,
}

type AnySource = Arc<dyn Source>;

/// `GET`: the zones. `POST`: a question.
pub(super) fn route() -> Router<AnySource> {
    let router = Router::new().route(PATH, get(list).post(explain)).route(REFRESH_PATH, post(refresh));
    router.layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
}

async fn refresh(Shared(source): Shared<AnySource>, request: Body<RefreshRequest>) -> Response {
    answer(request, |request| source.refresh_policy(&request))
}

async fn list(Shared(source): Shared<AnySource>) -> Json<Vec<PolicyStatus>> {
    Json(source.status().policy)
}

async fn explain(Shared(source): Shared<AnySource>, question: Body<Question>) -> Response {
    answer(question, |question| source.explain_policy(&question))
}

/// The path.
pub(super) const PATH: &str = "/policy";
/// The path of a refresh.
const REFRESH_PATH: &str = "/policy/refresh";
/// Room for a name with every octet escaped, and some names and addresses of an answer.
const BODY_OCTETS_MAX: usize = 8192;

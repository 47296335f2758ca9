//! `/policy` on the control socket: the policy zones, and the rule that decides about a name.
//!
//! Before: `router` has the request. After: the [`Source`] has looked at the zones that workers use.
//! Never: changes a zone, or asks a backend.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State as Shared},
    response::Response,
    routing::get,
};

use super::{Body, PolicyStatus, Source, answer};
use crate::policy::Question;

type AnySource = Arc<dyn Source>;

/// `GET`: the zones. `POST`: a question.
pub(super) fn route() -> Router<AnySource> {
    Router::new().route(PATH, get(list).post(explain)).layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
}

async fn list(Shared(source): Shared<AnySource>) -> Json<Vec<PolicyStatus>> {
    Json(source.status().policy)
}

async fn explain(Shared(source): Shared<AnySource>, question: Body<Question>) -> Response {
    answer(question, |question| source.explain_policy(&question))
}

/// The path.
pub(super) const PATH: &str = "/policy";
/// Room for a name with every octet escaped, and some names and addresses of an answer.
const BODY_OCTETS_MAX: usize = 8192;

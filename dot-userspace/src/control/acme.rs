//! `/acme` on the control socket: what the ACME process has reached, and the request for a certificate now.
//!
//! Before: `router` has the request. After: the state in the folder of the ACME process; or the keeper has told it.
//! Never: waits for an authority.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State as Shared,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde_json::json;

use super::Source;
use crate::acme::Standing;

type AnySource = Arc<dyn Source>;

/// `GET`: the state, `null` if `[acme]` is off. `POST`: a certificate now; the state before.
pub(super) fn route() -> Router<AnySource> {
    Router::new().route(PATH, get(show).post(renew))
}

async fn show(Shared(source): Shared<AnySource>) -> Json<Option<Standing>> {
    Json(source.acme())
}

async fn renew(Shared(source): Shared<AnySource>) -> Response {
    match source.renew_acme() {
        Ok(before) => Json(before).into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": error }))).into_response(),
    }
}

/// The path.
pub(super) const PATH: &str = "/acme";

//! `/acts`: makes the engine try forbidden acts. In debug builds, for tests.
//!
//! Before: a test asks. After: the kernel's answer to each act, or the engine has ended.
//! Never: is compiled into a release.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State as Shared},
    http::StatusCode,
    routing::{get, post},
};

use super::Source;
use crate::confine::acts;

/// `POST /stick`: makes the first worker hang.
async fn stick(Shared(source): Shared<Arc<dyn Source>>) -> StatusCode {
    source.stick();
    StatusCode::OK
}

/// `GET /acts` tries every act that is refused; `POST /acts/NAME` tries one that ends the process; `POST /open` tries a path.
pub(super) fn route() -> Router<Arc<dyn Source>> {
    let refused = get(async || Json(acts::try_all()));
    let deadly = post(async |Path(name): Path<String>| match acts::try_deadly(&name) {
        true => StatusCode::OK,
        false => StatusCode::NOT_FOUND,
    });
    let opened = post(async |Json(path): Json<String>| Json(acts::try_open(&path)));
    Router::new()
        .route("/open", opened)
        .route("/stick", post(stick))
        .route("/acts", refused)
        .route("/acts/{name}", deadly)
}

//! `/reload` on the control socket: read config and certificates again, and say how that went.
//!
//! Before: `router` has the request. After: the control thread has reloaded, or the old config stays and the answer says
//! why. Never: answers before it is done.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{ConnectInfo, State as Shared},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;

use super::{Source, serve::Whole};

/// What is in effect now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Keys that have changed in the file and wait for a restart.
    pub waiting: Vec<String>,
}

/// How a reload went, once it is over: the reason, where the old config stays.
pub type Outcome = oneshot::Receiver<Result<Reloaded, String>>;

type AnySource = Arc<dyn Source>;

/// The route.
pub(super) fn route() -> Router<AnySource> {
    Router::new().route(PATH, post(reload))
}

async fn reload(
    asking: Option<Extension<ConnectInfo<Whole>>>,
    Shared(source): Shared<AnySource>,
) -> Response {
    // It reads files and attaches to interfaces, on this thread: a request that has arrived is not late because of that.
    if let Some(Extension(ConnectInfo(whole))) = asking {
        whole.note();
    }
    let outcome = match source.reload() {
        Ok(outcome) => outcome.await.unwrap_or_else(|_| Err("dotd is stopping".to_owned())),
        Err(reason) => Err(reason),
    };
    match outcome {
        Ok(reloaded) => Json(reloaded).into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": error }))).into_response(),
    }
}

/// Where.
pub(super) const PATH: &str = "/reload";

//! `/reload` on the control socket: reads config and certificates again, and reports the outcome.
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

use super::{Source, UnusableCertificate, whole::Whole};

/// The result of a reload that took effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Keys that have changed in the file and wait for a restart.
    pub waiting: Vec<String>,
    /// Certificates whose files cannot be used, or that are not valid now; all else is in effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unusable_certificates: Vec<UnusableCertificate>,
}

/// The outcome of a reload, once it is over: an error is the reason why the old config stays.
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
    // A reload reads files and attaches to interfaces on this thread. A request that has arrived does not become late
    // because of that.
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

/// The path.
pub(super) const PATH: &str = "/reload";

//! `/bans` on the control socket: list, make, lift.
//!
//! Before: `router` has the request. After: the [`Source`] did it, and the answer says how the ban stands.
//! Never: takes a body beyond [`BODY_OCTETS_MAX`]; decides whether a ban is lawful (`xdp` does).

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State as Shared, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Source;
use crate::xdp::{BanRow, XdpError};

/// What `dotd ban add` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanRequest {
    /// An address, or a prefix that limits count by.
    pub client: String,
    /// For how long; absent: `xdp.limit.ban_seconds`, or a minute where that is 0.
    pub seconds: Option<u64>,
    /// Why, for whoever lists bans later.
    pub reason: String,
}

/// What `dotd ban del` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnbanRequest {
    /// As in [`BanRequest::client`].
    pub client: String,
}

type AnySource = Arc<dyn Source>;
type Body<T> = Result<Json<T>, JsonRejection>;

/// The route.
pub(super) fn route() -> Router<AnySource> {
    let bans = get(async |Shared(source): Shared<AnySource>| Json(source.bans())).post(ban).delete(unban);
    Router::new().route(PATH, bans).layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
}

async fn ban(Shared(source): Shared<AnySource>, request: Body<BanRequest>) -> Response {
    done(request, |request| source.ban(&request))
}

async fn unban(Shared(source): Shared<AnySource>, request: Body<UnbanRequest>) -> Response {
    done(request, |request| source.unban(&request))
}

fn done<T>(request: Body<T>, act: impl FnOnce(T) -> Result<BanRow, XdpError>) -> Response {
    let outcome = match request {
        Ok(Json(request)) => act(request).map_err(|error| error.to_string()),
        Err(error) => Err(error.body_text()),
    };
    match outcome {
        Ok(row) => Json(row).into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": error }))).into_response(),
    }
}

/// Where.
pub(super) const PATH: &str = "/bans";
/// An address, a number and a reason need a quarter of it.
const BODY_OCTETS_MAX: usize = 2048;

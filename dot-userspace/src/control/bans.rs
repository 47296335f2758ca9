//! `/bans` on the control socket: list, make, lift.
//!
//! Before: `router` has the request. After: the [`Source`] did it, and the answer says how the ban stands.
//! Never: takes a body beyond [`BODY_OCTETS_MAX`]; decides whether a ban is lawful (`xdp` does).

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State as Shared},
    response::Response,
    routing::get,
};
use serde::{Deserialize, Serialize};

use super::{Body, Source, answer};

/// What `dotd ban add` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanRequest {
    /// An address, or a prefix that limits count by.
    pub client: String,
    /// Its length; absent: `xdp.limit.ban_seconds`, or a minute if that is 0.
    pub seconds: Option<u64>,
    /// The reason, for the list of bans.
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

/// The route.
pub(super) fn route() -> Router<AnySource> {
    let bans = get(async |Shared(source): Shared<AnySource>| Json(source.bans())).post(ban).delete(unban);
    Router::new().route(PATH, bans).layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
}

async fn ban(Shared(source): Shared<AnySource>, request: Body<BanRequest>) -> Response {
    answer(request, |request| source.ban(&request))
}

async fn unban(Shared(source): Shared<AnySource>, request: Body<UnbanRequest>) -> Response {
    answer(request, |request| source.unban(&request))
}

/// The path.
pub(super) const PATH: &str = "/bans";
/// An address, a number and a reason need a quarter of it.
const BODY_OCTETS_MAX: usize = 2048;

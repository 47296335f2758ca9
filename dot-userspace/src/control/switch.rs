//! `/dot` and `/backend` on the control socket: what an operator can switch while dotd runs.
//!
//! Before: `router` has the request. After: the [`Source`] has switched DNS over TLS, or a backend.
//! Never: takes a body beyond [`BODY_OCTETS_MAX`].

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, State as Shared},
    response::Response,
    routing::post,
};
use serde::{Deserialize, Serialize};

use super::{Body, Source, answer};

/// What `dotd enable` and `dotd disable` request, and the resulting state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchRequest {
    /// Whether DNS over TLS is served.
    pub is_on: bool,
    /// Whether it stays off after a restart.
    #[serde(default)]
    pub persists: bool,
}

/// The state of DNS over TLS while it is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffStatus {
    /// Whether it stays off after a restart.
    pub persists: bool,
}

/// What `dotd backend` requests, and the resulting state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendRequest {
    /// Its name in `dotd status`.
    pub name: String,
    /// The change.
    pub switch: BackendSwitch,
}

/// A change to one backend that holds until dotd is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendSwitch {
    /// It gets new queries only while no other backend is usable.
    Drain,
    /// It is used as the config says.
    Enable,
    /// It is used with this weight.
    Weight(u16),
}

type AnySource = Arc<dyn Source>;

/// The routes of both switches.
pub(super) fn route() -> Router<AnySource> {
    let router = Router::new().route(DOT, post(set_dot)).route(BACKEND, post(set_backend));
    router.layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
}

pub(super) async fn set_dot(Shared(source): Shared<AnySource>, request: Body<SwitchRequest>) -> Response {
    answer(request, |request| source.switch(request))
}

pub(super) async fn set_backend(
    Shared(source): Shared<AnySource>,
    request: Body<BackendRequest>,
) -> Response {
    answer(request, |request| source.switch_backend(request))
}

/// The paths of the routes.
pub(super) const DOT: &str = "/dot";
pub(super) const BACKEND: &str = "/backend";
/// Enough for a name and the change.
const BODY_OCTETS_MAX: usize = 1024;

//! `/dot` and `/backend` on the control socket: what an operator switches while dotd runs.
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

/// What `dotd enable` and `dotd disable` ask for, and what is so then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchRequest {
    /// Whether DNS over TLS is served.
    pub is_on: bool,
    /// It stays off over a restart.
    #[serde(default)]
    pub persists: bool,
}

/// That DNS over TLS is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffStatus {
    /// Also after a restart.
    pub persists: bool,
}

/// What `dotd backend` asks for, and what is so then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendRequest {
    /// Its name in `dotd status`.
    pub name: String,
    /// What becomes of it.
    pub switch: BackendSwitch,
}

/// What becomes of a backend until a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendSwitch {
    /// It gets no new query while another backend can be asked.
    Drain,
    /// It is asked as the config says.
    Enable,
    /// It is asked with this weight.
    Weight(u16),
}

type AnySource = Arc<dyn Source>;

/// The routes.
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

/// Where.
pub(super) const DOT: &str = "/dot";
pub(super) const BACKEND: &str = "/backend";
/// A name and two words.
const BODY_OCTETS_MAX: usize = 1024;

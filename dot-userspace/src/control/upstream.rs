//! `/upstream` on the control socket: the history of TLS with each backend, and an operator's request to end a
//! suspicion.
//!
//! Before: `router` has the request. After: the [`Source`] has returned the history, or has ended a suspicion.
//! Never: takes a body beyond [`BODY_OCTETS_MAX`].

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State as Shared},
    response::Response,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use super::{Body, Source, answer};
use crate::backend::Remembered;

/// The history of TLS with one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsRow {
    /// Its name in the config; its address if it has no name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// The name that its certificate must have; empty: none is required.
    #[serde(default)]
    pub server_name: String,
    /// Whether the served config contains it.
    pub is_configured: bool,
    /// Whether queries may go to it in clear now.
    pub is_in_clear: bool,
    /// The history; times are in seconds since 1970.
    #[serde(flatten)]
    pub remembered: Remembered,
    /// How often a downgrade was suspected since dotd started.
    #[serde(default)]
    pub suspicions: u64,
    /// How often its key changed since dotd started.
    #[serde(default)]
    pub pin_changes: u64,
}

/// The request of `dotd upstream forgive`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgiveRequest {
    /// A backend's name, or its address.
    pub name: String,
}

type AnySource = Arc<dyn Source>;

/// The routes.
pub(super) fn route() -> Router<AnySource> {
    let rows = get(async |Shared(source): Shared<AnySource>| Json(source.upstreams()));
    Router::new()
        .route(PATH, rows)
        .route(FORGIVE_PATH, post(forgive))
        .layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
}

async fn forgive(Shared(source): Shared<AnySource>, request: Body<ForgiveRequest>) -> Response {
    answer(request, |request| source.forgive(&request))
}

/// The path.
pub(super) const PATH: &str = "/upstream";
pub(super) const FORGIVE_PATH: &str = "/upstream/forgive";
/// Room for a name.
const BODY_OCTETS_MAX: usize = 1024;

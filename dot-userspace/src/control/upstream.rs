//! `/upstream` on the control socket: what is remembered of TLS with each backend, and an operator's word that ends a
//! suspicion.
//!
//! Before: `router` has the request. After: the [`Source`] says what it remembers, or has forgiven a backend.
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

/// TLS with one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsRow {
    /// What the config calls it; its address where it has no name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// The name that its certificate must have; empty: none.
    #[serde(default)]
    pub server_name: String,
    /// Whether the config that is served has it.
    pub is_configured: bool,
    /// Queries may go to it in clear now.
    pub is_in_clear: bool,
    /// What is remembered; times in seconds since 1970.
    #[serde(flatten)]
    pub remembered: Remembered,
    /// How often a downgrade was suspected since the start.
    #[serde(default)]
    pub suspicions: u64,
    /// How often its key changed since the start.
    #[serde(default)]
    pub pin_changes: u64,
}

/// What `dotd upstream forgive` asks for.
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

/// Where.
pub(super) const PATH: &str = "/upstream";
pub(super) const FORGIVE_PATH: &str = "/upstream/forgive";
/// A name.
const BODY_OCTETS_MAX: usize = 1024;

//! `/config` on the control socket: the config that runs, and the text that it was read from.
//!
//! Before: `router` has the request. After: `dotd config` shows it, or compares it with a file.
//! Never: holds a secret: the config names files, and none of their content.

use std::sync::Arc;

use axum::{Json, Router, extract::State as Shared, routing::get};
use serde::{Deserialize, Serialize};

use super::Source;
use crate::config::Config;

/// What runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file that it was read from; absent: every default holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Its text at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Every key as it is in effect: keys that wait for a restart have the value from before.
    pub config: Config,
}

/// The route.
pub(super) fn route() -> Router<Arc<dyn Source>> {
    Router::new().route(PATH, get(async |Shared(source): Shared<Arc<dyn Source>>| Json(source.config())))
}

/// Where.
pub(super) const PATH: &str = "/config";

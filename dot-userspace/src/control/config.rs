//! `/config` on the control socket: the config in effect, and the text that dotd read it from.
//!
//! Before: `router` has the request. After: `dotd config` shows it, or compares it with a file.
//! Never: holds a secret: the config has the paths of files, not their content.

use std::sync::Arc;

use axum::{Json, Router, extract::State as Shared, routing::get};
use serde::{Deserialize, Serialize};

use super::Source;
use crate::config::Config;

/// The config in effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file that dotd read it from; absent: there is no file, and every key has its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The text of the file when dotd read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Every key with the value in effect: keys that need a restart have the previous value.
    pub config: Config,
}

/// The route of the config.
pub(super) fn route() -> Router<Arc<dyn Source>> {
    Router::new().route(PATH, get(async |Shared(source): Shared<Arc<dyn Source>>| Json(source.config())))
}

/// The path of the route.
pub(super) const PATH: &str = "/config";

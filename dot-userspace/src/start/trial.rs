//! The backends as a start would have them, for a trial without one.
//!
//! Before: `dotd check --connect` has a sound config. After: each backend with its transport and what secures it.
//! Never: opens a connection, or binds the embedded backend: that one is always there.

use super::{dialer, plan};
use crate::{backend::BackendConfig, config::Config};

/// Each backend with an address, in the order of the config.
///
/// # Errors
/// One line: what of which backend cannot be had.
pub fn backends(config: &Config) -> anyhow::Result<Vec<BackendConfig>> {
    Ok(plan::backends(config, None, dialer::all(config)?, &[]))
}

//! The backends as a start would have them, for a trial without one.
//!
//! Before: `dotd check --connect` has a sound config. After: each backend with its transport and what secures it.
//! Never: opens a connection, or binds the embedded backend: that one is always there.

use super::{dialer, plan, tls_history::TlsHistory};
use crate::{backend::BackendConfig, config::Config};

/// Each backend with an address, in the order of the config.
///
/// # Errors
/// One line: what of which backend cannot be had.
pub fn backends(config: &Config) -> anyhow::Result<Vec<BackendConfig>> {
    let history = TlsHistory::default();
    let mut backends = plan::backends(config, None, dialer::all(config, &history)?, &[]);
    // What stands in for a backend in clear is tried by nobody: its failure is no fault of the config.
    backends.retain(|backend| backend.stands_in.is_none());
    Ok(backends)
}

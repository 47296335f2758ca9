//! The backends as a start would make them, for a trial without a start.
//!
//! Before: `dotd check --connect` has a valid config. After: each backend with its transport and its TLS.
//! Never: opens a connection, or binds the embedded backend, which always exists.

use super::{dialer, plan, tls_history::TlsHistory};
use crate::{backend::BackendConfig, config::Config};

/// Each backend with an address, in the order of the config.
///
/// # Errors
/// One line: which file or key of which backend cannot be used.
pub fn backends(config: &Config) -> anyhow::Result<Vec<BackendConfig>> {
    let history = TlsHistory::default();
    let mut backends = plan::backends(config, None, dialer::all(config, &history)?, &[]);
    // A replacement of a backend in clear is not tried: its failure is no mistake of the config.
    backends.retain(|backend| backend.stands_in.is_none());
    Ok(backends)
}

//! The backends as a start would make them, for a trial without a start.
//!
//! Before: `dotd check --connect` has a valid config. After: each backend with its transport and its TLS.
//! Never: opens a connection, or binds the embedded backend, which always exists.

use std::collections::BTreeMap;

use super::{designated, dialer, names, plan, tls_history::TlsHistory};
use crate::{backend::BackendConfig, config::Config};

/// The config with an address in the place of each name of a backend, and TLS servers in the place of those in clear that designate
/// them; why a name has no address, and why a designated server is not used, by the name of the backend.
///
/// # Errors
/// There is no runtime.
pub fn resolved(config: &Config) -> std::io::Result<(Config, BTreeMap<String, String>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let (config, mut lacking) = names::look_once(config).await;
        let (config, unused) = designated::look_once(&config).await;
        lacking.extend(unused);
        (config, lacking)
    }))
}

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

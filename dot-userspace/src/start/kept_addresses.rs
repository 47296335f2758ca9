//! The last addresses of backends' names, for the next engine.
//!
//! Before: a look at a name has found other addresses. After: the next engine begins with them, after a crash, an upgrade or a restart, and
//! asks backends even where no resolver answers at that moment.
//! Never: survives a stop, after which an address may belong to another server.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use super::kept;

/// Addresses, by the name that has them.
pub(super) type Addresses = BTreeMap<String, Vec<IpAddr>>;

/// Its name in `server.run_dir`.
const FILE_NAME: &str = "backend-addresses";
/// 64 names of 255 octets with 8 addresses of 39 octets each need less than half of it.
const FILE_OCTETS_MAX: u64 = 1 << 17;

/// Those that the engine before has found. Empty if there are none, or they cannot be read: then a line says why.
pub(super) fn read(run_dir: &Path) -> Addresses {
    kept::read(run_dir, FILE_NAME, FILE_OCTETS_MAX)
        .unwrap_or_else(|error| {
            let folder = run_dir.display();
            tracing::warn!("{folder}/{FILE_NAME}: the last addresses of backends are not read: {error}");
            None
        })
        .unwrap_or_default()
}

/// Keeps them for the next engine.
pub(super) fn save(run_dir: &Path, addresses: &Addresses) {
    if let Err(error) = kept::save(run_dir, FILE_NAME, addresses) {
        let folder = run_dir.display();
        tracing::warn!(
            "{folder}/{FILE_NAME}: the addresses of backends are not kept for the next engine: {error}"
        );
    }
}

/// At a start that follows a stop.
pub(super) fn forget(run_dir: &Path) {
    kept::forget(run_dir, FILE_NAME);
}

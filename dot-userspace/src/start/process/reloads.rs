//! What a reload changes of what the control socket says.
//!
//! Before: `control_loop` or `asked` has given the workers something new, or could not. After: status and metrics show it.
//! Never: looks at a file.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{
    super::{plan, tenants},
    Process, lock,
};
use crate::{backend::BackendConfig, config::Config, tls::certificate::Loaded};

impl Process {
    /// A reload took effect. It counts as failed if certificates cannot be used.
    pub(in crate::start) fn reloaded(&self, config: &Config, backends: &[BackendConfig], loaded: Loaded) {
        lock(&self.backends).reload(config, backends);
        let is_whole = loaded.faults.is_empty();
        self.certify(loaded);
        self.ban_seconds.store(config.xdp.limit.ban_seconds, Relaxed);
        self.cache_entries.store(config.dns.cache_entries, Relaxed);
        *lock(&self.access) = plan::access_in_words(config);
        *lock(&self.config) = Arc::new(config.clone());
        self.events.log_connections(config.log.connections);
        let reloads = if is_whole { &self.reloads_ok } else { &self.reloads_failed };
        reloads.fetch_add(1, Relaxed);
    }

    /// The groups of clients, when they are served.
    pub(in crate::start) fn tenants_by(&self, running: tenants::Running) {
        *lock(&self.tenants) = running;
    }

    /// Backends have changed without a reload.
    pub(in crate::start) fn has_other_backends(&self, config: &Config, backends: &[BackendConfig]) {
        lock(&self.backends).reload(config, backends);
        *lock(&self.config) = Arc::new(config.clone());
    }

    /// A reload failed and changed nothing.
    pub(in crate::start) fn reload_failed(&self) {
        self.reloads_failed.fetch_add(1, Relaxed);
    }
}

//! The backends that workers ask: by the config, with addresses in the place of names, and TLS servers in the place of backends in
//! clear that designate them.
//!
//! Before: a start, a reload, another address of a name, or a TLS server that was verified. After: workers, checks, status and the
//! memories of TLS have the same backends.
//! Never: replaces backends by some that cannot be had: the old ones stay, and a line says why.

use std::net::SocketAddr;

use tokio::task::JoinSet;

use super::{
    dialer, in_a_line, plan,
    process::{Process, Running},
    sought::News,
};
use crate::{
    backend::{BackendConfig, health},
    config::{self, BackendAddress},
    worker::Command,
};

/// Asks each backend whether it is there, until this is dropped.
pub(super) fn check_all(backends: &[BackendConfig]) -> JoinSet<()> {
    backends.iter().cloned().map(health::watch).collect()
}

/// Where the embedded backend of this process answers.
pub(super) fn embedded_address(running: &Running) -> Option<SocketAddr> {
    let is_embedded = |backend: &&config::Backend| backend.address == BackendAddress::Embedded;
    match running.config.backend.iter().find(is_embedded).map(config::Backend::called) {
        Some(name) => running.backends.iter().find(|backend| *backend.name == *name),
        None => running.backends.first(),
    }
    .map(|backend| backend.address)
}

/// A look is over; if it found something else, the workers get it.
pub(super) fn hear(process: &Process, running: &mut Running, news: News) {
    if running.sought.take(news) {
        settle(process, running);
    }
}

/// Gives the workers other backends if the config can be served in another way.
pub(super) fn settle(process: &Process, running: &mut Running) {
    let config = running.sought.served(process.history());
    if config == running.config {
        return;
    }
    let secured = match dialer::all(&config, process.history()) {
        Ok(secured) => secured,
        Err(error) => {
            return tracing::error!("backends keep their old addresses: {}", in_a_line(&error));
        }
    };
    let embedded = plan::needs_embedded(&config).then(|| embedded_address(running)).flatten();
    running.backends = plan::backends(&config, embedded, secured, &running.backends);
    process.weigh(&config, &mut running.backends);
    running.config = config;
    running.checks = check_all(&running.backends);
    let (workers, backends) = (running.workers.len(), running.backends.len());
    running.admission.reload(plan::caps(&running.config.session, running.descriptors, workers, backends));
    // Before a worker may ask whether cleartext is permitted.
    process.history().serve(&running.config);
    for worker in &running.workers {
        worker.tell(Command::Backends(running.backends.clone()));
    }
    process.has_other_backends(&running.config, &running.backends);
}

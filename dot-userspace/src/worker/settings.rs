//! The settings of a worker, and what of it stays valid when they change.
//!
//! Before: `start` read the config. After: the worker serves by it until a reload.
//! Never: applies a setting.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::tenants;
use crate::{
    backend::BackendConfig,
    cache::Keeping,
    config::{ClientAddress, ClientSubnet, Discovery, Misuse, Policy},
    events::TapSink,
    policy::{Access, Notified, Screen},
    proxy::Trusted,
    session::Limits,
    tls::Serving,
};

/// The settings of a worker; a reload replaces them.
#[derive(Clone)]
pub struct Settings {
    /// Certificates and versions.
    pub serving: Serving,
    /// Deadlines and caps.
    pub limits: Limits,
    /// The deadline of a handshake.
    pub handshake_timeout: Duration,
    /// Load balancers that may send PROXY v2 headers.
    pub proxy_protocol_from: Trusted,
    /// How much of a client's address log lines may show.
    pub client_address: ClientAddress,
    /// The backends.
    pub backends: Vec<BackendConfig>,
    /// The policy that chooses among them.
    pub policy: Policy,
    /// Most second tries of late queries, as a percentage of queries.
    pub hedge_percent: u8,
    /// How much they learn of a client's subnet.
    pub client_subnet: ClientSubnet,
    /// Limits of each worker's cache.
    pub keeping: Keeping,
    /// The access lists. `None`: every client may ask.
    pub access: Option<Arc<Access>>,
    /// Policy zones, which change answers. `None`: there are none.
    pub screen: Option<Arc<Screen>>,
    /// The limits by which queries count as misuse.
    pub misuse: Misuse,
    /// Groups of clients with backends, a cache and a rate of their own.
    pub tenancy: tenants::Plan,
    /// Zones whose primary servers send NOTIFY; `None`: there is no such zone.
    pub notified: Option<Arc<Notified>>,
    /// Discovery: whether dotd describes itself, under which name, and where it listens for TLS.
    pub discovery: (Discovery, Vec<SocketAddr>),
    /// The sink for message copies. `None`: messages are not copied.
    pub tap: Option<TapSink>,
}

/// The arguments of `Backends::start`.
pub(super) fn of_backends(settings: &Settings) -> (&[BackendConfig], Policy, u8, ClientSubnet) {
    (&settings.backends, settings.policy, settings.hedge_percent, settings.client_subnet)
}

/// Whether backends stay the same except for limits: their connections and the knowledge about them stay valid.
pub(super) fn are_backends_same(old: &Settings, new: &Settings) -> bool {
    let rest =
        |settings: &Settings| (settings.backends.len(), settings.hedge_percent, settings.client_subnet);
    let mut pairs = old.backends.iter().zip(&new.backends);
    rest(old) == rest(new) && pairs.all(|(old, new)| old.is_same_but_for_limits(new))
}

/// Whether single backends may be replaced while the others go on: what they share stays the same.
pub(super) fn may_replace(old: &Settings, new: &Settings) -> bool {
    (old.hedge_percent, old.client_subnet) == (new.hedge_percent, new.client_subnet)
}

/// Whether cached answers stay valid: each backend that may have given one is still configured, and learns as much of
/// clients.
pub(super) fn are_answers_same(old: &Settings, new: &Settings) -> bool {
    let rest = |settings: &Settings| (settings.client_subnet, settings.keeping);
    rest(old) == rest(new) && says_the_same(&old.backends, &new.backends)
}

/// Whether each of the old backends is still there.
pub(super) fn says_the_same(old: &[BackendConfig], new: &[BackendConfig]) -> bool {
    old.iter().all(|one| new.iter().any(|other| one.says_the_same(other)))
}

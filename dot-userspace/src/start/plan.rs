//! Derives each module's settings from the config. Pure.
//!
//! Before: a checked config. After: `worker` and `session` have their parts of it.
//! Never: passes the whole config to a module.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use dot_common::rate::Rate;

use super::{kernel_lists, tenants};
use crate::{
    backend::{BackendConfig, Tls, health::HealthState},
    cache::Keeping,
    config::{self, BackendAddress, ClientSubnet, Config, Denied, Session, Transport, Workers, limit},
    control::BackendStatus,
    dns::{Allowed, Bounds},
    events::tap::TapSink,
    policy::{Access, Notified, Screen},
    proxy::Trusted,
    session::{EVICTED_LINGERING_MAX, Limits, OwedLimits, QueryRate},
    tls::Serving,
    worker::{Admission, Caps, Settings},
};

/// Open files for listeners, maps, logs and the control socket.
const DESCRIPTORS_OF_OUR_OWN: u64 = 128;
/// Open files towards one backend from one worker: its ports in use and retired, and queries over TCP.
const DESCRIPTORS_PER_BACKEND: u64 = 16 + 256;

/// Name, address and transport of the zone inside dotd.
const EMBEDDED: &str = "embedded";

/// The state of a backend whose name has no address yet.
pub(super) const UNRESOLVED: &str = "unresolved";

/// Whether any query may go to the zone inside dotd: no backend is configured, or the config names it.
pub(super) fn needs_embedded(config: &Config) -> bool {
    config.backend.is_empty()
        || config.backend.iter().any(|backend| backend.address == BackendAddress::Embedded)
}

/// The backends for workers; `embedded` is the address of the embedded one, `tls` verifies each. The health and the
/// counts of a backend among the `known` ones are kept.
pub(super) fn backends(
    config: &Config,
    embedded: Option<SocketAddr>,
    tls: Vec<Option<Tls>>,
    known: &[BackendConfig],
) -> Vec<BackendConfig> {
    let plain = |name: String, address, timeout, weight| BackendConfig {
        weight,
        health_interval: config.balance.health_interval,
        ..BackendConfig::over_udp(name, address, timeout)
    };
    let configured = config.backend.iter().zip(tls).filter_map(|(backend, tls)| {
        let address = match backend.address {
            BackendAddress::Socket(address) => Some(address),
            BackendAddress::Embedded => embedded,
            BackendAddress::Named(_) => None,
        };
        Some(BackendConfig {
            transport: backend.transport,
            pads: tls.is_some() && config.dns.padding,
            tls,
            proxy_v2: backend.proxy_v2,
            outstanding_max: usize::from(backend.outstanding_max),
            ..plain(backend.called(), address?, backend.timeout, backend.weight)
        })
    });
    let mut backends: Vec<_> = configured.collect();
    // After all others, as in `backend_statuses`.
    let in_clear = config.backend.iter().filter_map(|backend| {
        let name = backend.called();
        let secured = backends.iter().find(|one| *one.name == *name)?;
        Some(BackendConfig {
            proxy_v2: backend.proxy_v2,
            outstanding_max: secured.outstanding_max,
            stands_in: Some(secured.tls.as_ref()?.memory.clone()),
            ..plain(name + config::Backend::IN_CLEAR, backend.in_clear()?, backend.timeout, backend.weight)
        })
    });
    let in_clear: Vec<_> = in_clear.collect();
    backends.extend(in_clear);
    if let (true, Some(address)) = (backends.is_empty(), embedded) {
        let (timeout, weight) = (limit::BACKEND_TIMEOUT.default, limit::BACKEND_WEIGHT.default);
        backends.push(plain(EMBEDDED.to_owned(), address, timeout, weight));
    }
    for backend in &mut backends {
        let is_same = |one: &&BackendConfig| {
            (one.address, one.transport, &one.tls, &one.stands_in)
                == (backend.address, backend.transport, &backend.tls, &backend.stands_in)
        };
        if let Some(same) = known.iter().find(is_same) {
            backend.health = same.health.clone();
            backend.lines = same.lines.clone();
        }
    }
    backends
}

/// The backends for an operator, by the names of [`backends`]; none has been checked yet. One without an address is there
/// too.
pub(super) fn backend_statuses(config: &Config) -> Vec<BackendStatus> {
    let status = |name: String, address: String, transport: &str| BackendStatus {
        name,
        address,
        transport: transport.to_owned(),
        state: HealthState::Unchecked.label().to_owned(),
        reason: None,
        is_drained: false,
        weight: None,
        answered_percent: None,
        servfail_percent: None,
        unmatched: None,
        tls: None,
    };
    if config.backend.is_empty() {
        return vec![status(EMBEDDED.into(), EMBEDDED.into(), EMBEDDED)];
    }
    let statuses = config.backend.iter().map(|backend| match &backend.address {
        BackendAddress::Named(host) => BackendStatus {
            state: UNRESOLVED.to_owned(),
            ..status(backend.called(), host.to_string(), backend.transport.label())
        },
        BackendAddress::Embedded => status(backend.called(), EMBEDDED.into(), EMBEDDED),
        BackendAddress::Socket(address) => {
            status(backend.called(), address.to_string(), backend.transport.label())
        }
    });
    let in_clear = config.backend.iter().filter_map(|backend| {
        let address = backend.in_clear()?.to_string();
        Some(status(backend.called() + config::Backend::IN_CLEAR, address, Transport::Udp.label()))
    });
    statuses.chain(in_clear).collect()
}

/// The workers' part of policy zones.
pub(super) struct Policies {
    /// The zones that change answers.
    pub screen: Option<Arc<Screen>>,
    /// Zones about which a NOTIFY may come.
    pub notified: Option<Arc<Notified>>,
    /// Groups of clients.
    pub tenants: tenants::Running,
}

impl Policies {
    /// The same with these tenants.
    pub(super) fn with(self, tenants: tenants::Running) -> Self {
        Self { tenants, ..self }
    }
}

/// The settings of every worker.
pub(super) fn settings(
    config: &Config,
    serving: Serving,
    backends: Vec<BackendConfig>,
    policies: &Policies,
    tap: Option<TapSink>,
) -> Settings {
    let (tenancy, backends) = policies.tenants.plan(backends);
    Settings {
        serving,
        limits: Limits {
            message_timeout: config.session.message_timeout,
            write_timeout: config.session.write_timeout,
            idle_timeout: config.session.idle_timeout,
            duration_max: config.session.duration_max,
            queries_max: config.session.queries_max,
            in_flight_max: usize::from(config.session.in_flight_max),
            query_rate: QueryRate {
                rate: Rate::new(config.session.queries_per_second, config.session.queries_burst),
                over: config.session.queries_over,
            },
            prefix_bits: (config.xdp.limit.prefix_v4, config.xdp.limit.prefix_v6),
            padding: config.dns.padding,
            keepalive: config.dns.keepalive,
            allowed: Allowed {
                transfers: config.dns.transfers,
                notify: config.dns.notify,
                update: config.dns.update,
                takes_notify: policies.notified.is_some(),
                strips_subnet: config.dns.client_subnet == ClientSubnet::Strip,
            },
            owed: owed_limits(&config.session),
        },
        handshake_timeout: config.session.handshake_timeout,
        proxy_protocol_from: Trusted::new(config.listen.proxy_protocol_from.as_slice().into()),
        client_address: config.log.client_address,
        backends,
        policy: config.balance.policy,
        hedge_percent: config.balance.hedge_percent,
        client_subnet: config.dns.client_subnet,
        keeping: keeping(&config.dns, policies.tenants.caches()),
        access: Access::new(&config.access, &config.xdp.deny).map(Arc::new),
        screen: policies.screen.clone(),
        misuse: config.misuse.clone(),
        tenancy,
        notified: policies.notified.clone(),
        discovery: (config.discovery.clone(), config.listen.dot.clone()),
        tap,
    }
}

/// The kernel half's part of the config, with all clients that it can deny.
pub(super) fn xdp(config: &Config, do53: &[SocketAddr]) -> config::Xdp {
    config::Xdp { deny: kernel_lists::denied(config), ..config.xdp.beside(do53) }
}

/// The clients that may ask, in a line. `None`: every client.
pub(super) fn access_in_words(config: &Config) -> Option<String> {
    let access = &config.access;
    let lists = || access.listener.iter();
    let count = |count: usize, one: &str, many: &str| {
        (count > 0).then(|| format!("{count} {}", if count == 1 { one } else { many }))
    };
    let sum = |own: usize, more: usize| own + more;
    let allowed = sum(access.allow.len(), lists().map(|list| list.allow.len()).sum());
    let denied = sum(access.deny.len() + config.xdp.deny.len(), lists().map(|list| list.deny.len()).sum());
    let servers = sum(access.server_names.len(), lists().map(|list| list.server_names.len()).sum());
    let clients = sum(access.client_names.len(), lists().map(|list| list.client_names.len()).sum());
    let parts = [
        count(allowed, "prefix allowed", "prefixes allowed"),
        count(denied, "prefix denied", "prefixes denied"),
        count(servers, "server name", "server names"),
        count(clients, "client name", "client names"),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    let others = if access.denied == Denied::Close { "others are closed" } else { "others are refused" };
    (!parts.is_empty()).then(|| format!("{}; {others}", parts.join(", ")))
}

/// The limits of each of a worker's caches: the configured number of entries is divided between them.
fn keeping(dns: &config::Dns, caches: u32) -> Keeping {
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    let bounds = Bounds {
        least: seconds(dns.cache_ttl_min),
        most: seconds(dns.cache_ttl_max),
        negative_most: seconds(dns.cache_negative_ttl_max),
    };
    Keeping {
        entries: dns.cache_entries.div_ceil(caches.max(1)),
        bounds,
        stale_seconds: seconds(dns.cache_stale),
    }
}

/// Limits of octets that wait for clients.
fn owed_limits(session: &Session) -> OwedLimits {
    let octets = |octets: u32| usize::try_from(octets).unwrap_or(usize::MAX);
    OwedLimits {
        session: octets(session.owed_octets_max),
        client: octets(session.owed_octets_per_prefix_max),
        worker: octets(session.owed_octets_per_worker_max),
    }
}

/// How many workers there are on so many CPUs.
pub(super) fn workers(asked: Workers, cpus: usize) -> usize {
    match asked {
        Workers::Auto => cpus.max(1),
        Workers::Count(count) => usize::from(count),
    }
}

/// The caps on connections, with no connection counted yet.
pub(super) fn admission(
    config: &Config,
    descriptors: u64,
    workers: usize,
    backends: usize,
) -> Arc<Admission> {
    let prefix_bits = (config.xdp.limit.prefix_v4, config.xdp.limit.prefix_v6);
    let listeners = config.listen.dot.len() + config.listen.do53.len();
    Arc::new(Admission::new(caps(&config.session, descriptors, workers, backends), prefix_bits, listeners))
}

/// The caps on connections.
pub(super) fn caps(session: &Session, descriptors: u64, workers: usize, backends: usize) -> Caps {
    Caps {
        total: connections_max(session, descriptors, workers, backends),
        per_prefix: session.connections_per_prefix_max,
        per_listener: session.connections_per_listener_max,
        handshakes_per_second: session.handshakes_per_second,
    }
}

/// The cap on connections that the open files of this process permit; logs a line if that is lower (C-26).
fn connections_max(session: &Session, descriptors: u64, workers: usize, backends: usize) -> u32 {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let of_backends = count(workers * backends).saturating_mul(DESCRIPTORS_PER_BACKEND);
    let of_evicted = count(workers * EVICTED_LINGERING_MAX);
    let reserved = of_backends.saturating_add(of_evicted).saturating_add(DESCRIPTORS_OF_OUR_OWN);
    // If the limit is tiny, half of it is still for clients.
    let allowed = descriptors.saturating_sub(reserved.min(descriptors / 2));
    let allowed = u32::try_from(allowed).unwrap_or(u32::MAX);
    if allowed < session.connections_max {
        tracing::info!(
            connections_max = allowed,
            configured = session.connections_max,
            open_files = descriptors,
            "fewer connections than configured: raise the limit on open files (LimitNOFILE)"
        );
    }
    allowed.min(session.connections_max)
}

//! The config in the words of the kernel half.
//!
//! Before: a config that was found right. After: XDP judges by it, from the next packet on.
//! Holds: the translation, and the one place that writes SETTINGS. Never: decides anything.

use aya::maps::{Array, MapData};
use dot_common::{
    rate::Rate,
    settings::{DOT_PORTS_MAX, Gate, Over, Ports, SCHEMA, Settings},
};

use super::{ListenerGroup, XdpError, error::innermost, list::versions};
use crate::config::{self, LimitMode};

/// Lengths of client prefixes: those of the start, because the engine's caps count by the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefixes {
    v4: u8,
    v6: u8,
}

impl Prefixes {
    pub(super) fn of(config: &config::Xdp) -> Self {
        Self { v4: config.limit.prefix_v4, v6: config.limit.prefix_v6 }
    }
}

/// Writes all of it. A packet that is judged meanwhile may be judged by parts of the old and of the new.
pub(super) fn write(
    map: &mut Array<MapData, Settings>,
    config: &config::Xdp,
    ports: Ports,
    prefixes: Prefixes,
) -> Result<(), XdpError> {
    let limit = &config.limit;
    let settings = Settings {
        schema: SCHEMA,
        ports,
        cleartext_on_dot: gate(config.cleartext_853),
        tls_on_do53: gate(config.tls_53),
        udp_on_dot: gate(config.udp_853),
        deny: versions(&config.deny),
        allow: versions(&config.allow),
        syn_over: over(config::Over::Drop, limit.mode),
        do53_query_over: over(limit.udp53_over, limit.mode),
        prefix_v4: prefixes.v4,
        prefix_v6: prefixes.v6,
        reserved: 0,
        syn: Rate::new(limit.syn_per_second, limit.syn_burst),
        do53_query: Rate::new(limit.udp53_per_second, limit.udp53_burst),
    };
    map.set(0, settings, 0).map_err(|error| XdpError::Settings { reason: innermost(&error) })
}

/// Ports of the listeners; the cleartext port is 53, whoever listens there.
pub(super) fn ports(groups: &[ListenerGroup<'_>]) -> Result<Ports, XdpError> {
    let mut wanted: Vec<u16> = groups.iter().map(|group| group.address.port()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mut ports = Ports { do53: 53, ..Ports::default() };
    if wanted.len() > DOT_PORTS_MAX {
        return Err(XdpError::TooManyPorts { found: wanted.len() });
    }
    for (slot, port) in ports.dot.iter_mut().zip(wanted) {
        *slot = port;
    }
    Ok(ports)
}

fn gate(gate: config::Gate) -> u8 {
    let gate = match gate {
        config::Gate::Drop => Gate::Drop,
        config::Gate::Reset => Gate::Reset,
        config::Gate::Count => Gate::Count,
        config::Gate::Pass => Gate::Pass,
    };
    gate as u8
}

fn over(over: config::Over, mode: LimitMode) -> u8 {
    let over = match (mode, over) {
        (LimitMode::Count, _) | (_, config::Over::Count) => Over::Count,
        (LimitMode::Enforce, config::Over::Drop) => Over::Drop,
        (LimitMode::Enforce, config::Over::Truncate) => Over::Truncate,
    };
    over as u8
}

//! Translates the config for the kernel half.
//!
//! Before: a valid config. After: XDP judges by it, from the next packet on.
//! Holds: the translation, and the one place that writes SETTINGS. Never: decides anything.

use std::net::IpAddr;

use aya::{
    Ebpf,
    maps::{Array, MapData},
};
use dot_common::{
    maps::SETTINGS,
    network::Network,
    prefix::ClientPrefix,
    rate::Rate,
    settings::{DOT_PORTS_MAX, Gate, Over, Ports, SCHEMA, Settings},
};

use super::{
    ListenerGroup, XdpError,
    attach::{refused, take},
    cookies,
    error::innermost,
    list::versions,
};
use crate::config::{self, LimitMode, SynOver};

/// Lengths of client prefixes: those from the start, because the engine's caps use the same ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefixes {
    v4: u8,
    v6: u8,
    wide_v4: u8,
    wide_v6: u8,
}

impl Prefixes {
    pub(super) fn of(config: &config::Xdp) -> Self {
        let limit = &config.limit;
        Self { v4: limit.prefix_v4, v6: limit.prefix_v6, wide_v4: limit.wide_v4, wide_v6: limit.wide_v6 }
    }

    /// The three levels of an address: host, client prefix, wider prefix.
    pub(super) fn levels(self, address: IpAddr) -> Levels {
        let host = Network::of_host(address);
        let client = host.widened(self.v4, self.v6);
        Levels { host, client, wide: client.widened(self.wide_v4, self.wide_v6) }
    }

    /// The client prefix of an address.
    pub(super) fn of_client(self, address: IpAddr) -> ClientPrefix {
        ClientPrefix::of(address, self.v4, self.v6)
    }

    /// Whether bans and budgets use networks of this length.
    pub(super) fn has(self, network: Network) -> bool {
        self.levels(network.address()).distinct().any(|level| level == network)
    }
}

/// The networks around an address that have limits of their own; some of them may be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Levels {
    pub(super) host: Network,
    pub(super) client: Network,
    pub(super) wide: Network,
}

impl Levels {
    /// Each network once, the longest first.
    pub(super) fn distinct(self) -> impl Iterator<Item = Network> {
        let Self { host, client, wide } = self;
        [Some(host), (client != host).then_some(client), (wide != client).then_some(wide)]
            .into_iter()
            .flatten()
    }
}

/// The map, and the value last written into it.
pub(super) struct Written {
    map: Array<MapData, Settings>,
    current: Settings,
    syn_over: SynOver,
}

impl Written {
    /// Takes the map out of the object. All zero: no packet is for dotd yet.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, XdpError> {
        let map = Array::try_from(take(object, SETTINGS)?).map_err(|error| refused(SETTINGS, &error))?;
        Ok(Self { map, current: Settings::default(), syn_over: SynOver::Drop })
    }

    /// Writes the settings from the config. A packet in the meantime may be judged by parts of the old and of the new
    /// settings.
    pub(super) fn apply(&mut self, config: &config::Xdp, prefixes: Prefixes) -> Result<(), XdpError> {
        let Settings { bans, spent, spent_wide, local, traced, dot_is_off, .. } = self.current;
        self.syn_over = config.limit.syn_over;
        let (has_cookies, takes_cookies) = self.cookies();
        let rest =
            Settings { bans, spent, spent_wide, local, traced, dot_is_off, ..settings(config, prefixes) };
        self.write(Settings { has_cookies, takes_cookies, ..rest })
    }

    /// Checks whether the stack still makes cookies; writes nothing if nothing changed.
    pub(super) fn look_for_cookies(&mut self) -> Result<(), XdpError> {
        let (has_cookies, takes_cookies) = self.cookies();
        if (has_cookies, takes_cookies) == (self.current.has_cookies, self.current.takes_cookies) {
            return Ok(());
        }
        self.write(Settings { has_cookies, takes_cookies, ..self.current })
    }

    /// The treatment of a SYN above its client's rate, and the reason if it differs from the config.
    pub(super) fn syn_over(&self) -> (&'static str, Option<&'static str>) {
        match (self.syn_over, self.current.has_cookies) {
            (SynOver::Drop, _) => ("drop", None),
            (SynOver::Cookie, 0) => ("drop", Some(cookies::NOT_MADE)),
            (SynOver::Cookie, _) => ("cookie", None),
        }
    }

    /// Whether the stack makes cookies for SYNs above a rate, and whether it makes and takes any.
    fn cookies(&self) -> (u8, u8) {
        let are_made = cookies::are_made();
        (u8::from(are_made && self.syn_over == SynOver::Cookie), u8::from(are_made))
    }

    /// A client's rate of new connections.
    pub(super) fn syn(&self) -> Rate {
        self.current.syn
    }

    /// A client's rate of datagrams to port 53.
    pub(super) fn do53_query(&self) -> Rate {
        self.current.do53_query
    }

    /// Sets the IP versions whose local addresses are all known, and invalidates what CPUs remember of destinations.
    pub(super) fn set_local(&mut self, local: u8) -> Result<(), XdpError> {
        self.write(Settings { local, ..self.current })
    }

    /// Sets whether DNS over TLS is switched off; writes nothing if nothing changed.
    pub(super) fn set_dot_off(&mut self, is_off: bool) -> Result<(), XdpError> {
        let dot_is_off = u8::from(is_off);
        if dot_is_off == self.current.dot_is_off {
            return Ok(());
        }
        self.write(Settings { dot_is_off, ..self.current })
    }

    /// Whether the kernel half looks for clients that an operator traces.
    pub(super) fn set_traced(&mut self, is_traced: bool) -> Result<(), XdpError> {
        self.write(Settings { traced: u8::from(is_traced), ..self.current })
    }

    /// Sets the IP versions with bans, with spent budgets and with spent budgets of wider prefixes, and invalidates what
    /// CPUs remember of clients if necessary; writes nothing if nothing changed.
    pub(super) fn set_clients(
        &mut self,
        bans: u8,
        (spent, spent_wide): (u8, u8),
        has_changed: bool,
    ) -> Result<(), XdpError> {
        let settings = Settings { bans, spent, spent_wide, ..self.current };
        if settings == self.current && !has_changed {
            return Ok(());
        }
        self.write(settings)
    }

    /// The generation is written last: this invalidates what packets in the meantime cached by parts of the old
    /// settings.
    fn write(&mut self, settings: Settings) -> Result<(), XdpError> {
        let before = self.current.generation;
        for generation in [before, before.checked_add(1).unwrap_or(1)] {
            let settings = Settings { generation, ..settings };
            let written = self.map.set(0, settings, 0);
            written.map_err(|error| XdpError::Settings { reason: innermost(&error) })?;
            self.current = settings;
        }
        Ok(())
    }
}

/// The settings from the config, without the state of clients.
fn settings(config: &config::Xdp, prefixes: Prefixes) -> Settings {
    let limit = &config.limit;
    let is_limited = config.port_53 == config::Port53::On;
    Settings {
        schema: SCHEMA,
        cleartext_on_dot: gate(config.cleartext_853),
        tls_on_do53: gate(config.tls_53),
        udp_on_dot: gate(config.udp_853),
        deny: versions(&config.deny),
        allow: versions(&config.allow),
        bans: 0,
        spent: 0,
        over: over(config::Over::Drop, limit.mode),
        do53_query_over: over(limit.udp53_over, limit.mode),
        prefix_v4: prefixes.v4,
        prefix_v6: prefixes.v6,
        do53_is_limited: u8::from(is_limited),
        local: 0,
        has_cookies: 0,
        wide_v4: prefixes.wide_v4.min(prefixes.v4),
        wide_v6: prefixes.wide_v6.min(prefixes.v6),
        spent_wide: 0,
        traced: 0,
        dot_is_off: 0,
        takes_cookies: 0,
        generation: 0,
        own_interface: LOOPBACK,
        syn: Rate::new(limit.syn_per_second, limit.syn_burst),
        do53_query: Rate::new(limit.udp53_per_second, limit.udp53_burst),
    }
}

/// The number of lo in every network namespace (LOOPBACK_IFINDEX): packets that this machine sends to itself come in
/// only there.
const LOOPBACK: u32 = 1;

/// Ports of the listeners, and 53: the settings decide whether packets to it are judged.
pub(super) fn ports(groups: &[ListenerGroup<'_>]) -> Result<Ports, XdpError> {
    ports_of(groups.iter().map(|group| group.address.port()).collect())
}

/// The same for the ports themselves.
pub(super) fn ports_of(mut wanted: Vec<u16>) -> Result<Ports, XdpError> {
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

//! Costs and offences of clients, as the workers report them: decides which clients' next SYNs are refused, and which
//! clients are banned.
//!
//! Before: a worker's batch of charges. After: XDP refuses the connections of a host, client prefix or wider prefix whose
//! budget is spent, until it has some again; `bans` gets clients with repeated offences.
//! Holds: the map SPENT, which nothing else writes; budgets and strikes at each level, which the kernel does not see.
//! Never: writes for a client within its budgets: the usual client costs no system call.

use std::{collections::BTreeMap, time::Duration};

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
};
use dot_common::{
    ban::Cause,
    charge::{Charge, UNITS_PER_HANDSHAKE},
    maps::{SPENT, SPENT_MAX},
    network::Network,
    proof::Trust,
    rate::Rate,
    spent::Spent,
};

use super::{
    XdpError,
    attach::{refused, take},
    bans::now_ns,
    budget::Budgets,
    deadlines::Deadlines,
    entries,
    error::innermost,
    proofs::Proofs,
    report::CostCounts,
    settings::Levels,
    shared_budget::{ALL_TIMES, SharedBudgets},
};
use crate::config::XdpLimit;

/// Burst of the budget, in seconds of the rate: enough for a carrier's NAT address whose clients all come back after a
/// restart.
const BURST_SECONDS: u32 = 10;

/// Offences that a client may commit: one a second, with a burst of sixty. A whole office of broken clients stays
/// below; a client that sends garbage as fast as it can exceeds it within a second.
const STRIKES: (u32, u32) = (1, 60);

/// Handshake budgets and strikes.
pub(super) struct Costs {
    map: HashMap<MapData, Network, Spent>,
    /// The entries of the map, by the later of their two ends.
    spent: Deadlines,
    /// Those of them that are wider prefixes.
    spent_wide: Deadlines,
    hosts: Budgets,
    clients: SharedBudgets,
    wide_costs: SharedBudgets,
    wide_connections: SharedBudgets,
    strikes: Budgets,
    strikes_of_clients: Budgets,
    proofs: Proofs,
    ban_length: Duration,
    spent_total: u64,
}

/// A ban that a client has earned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offence {
    /// The host, or its client prefix.
    pub(super) network: Network,
    pub(super) length: Duration,
    pub(super) cause: Cause,
}

impl Costs {
    /// Takes the map out of the object, and the limits from the config.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, XdpError> {
        let map = HashMap::try_from(take(object, SPENT)?).map_err(|error| refused(SPENT, &error))?;
        let (per_second, burst) = STRIKES;
        let strikes = |times| Budgets::new(Rate::new(per_second * times, burst * times + 1), SPENT_MAX);
        Ok(Self {
            map,
            spent: Deadlines::new(SPENT_MAX),
            spent_wide: Deadlines::new(SPENT_MAX),
            hosts: Budgets::new(Rate::default(), SPENT_MAX),
            clients: SharedBudgets::new(SPENT_MAX),
            wide_costs: SharedBudgets::new(SPENT_MAX),
            wide_connections: SharedBudgets::new(SPENT_MAX),
            strikes: strikes(1),
            strikes_of_clients: strikes(ALL_TIMES),
            proofs: Proofs::take(object)?,
            ban_length: Duration::ZERO,
            spent_total: 0,
        })
    }

    /// Sets limits. A budget that is off refuses no client any more; existing bans stay.
    pub(super) fn apply(&mut self, limit: &XdpLimit) {
        let units = limit.handshake_cost_per_second.saturating_mul(UNITS_PER_HANDSHAKE);
        let wide_units = limit.wide_cost_per_second.saturating_mul(UNITS_PER_HANDSHAKE);
        let burst = |per_second: u32| per_second.saturating_mul(BURST_SECONDS);
        self.hosts.set_rate(Rate::new(units, burst(units)));
        self.clients.set_rate(units, burst(units));
        self.wide_costs.set_rate(wide_units, burst(wide_units));
        let connections = limit.wide_connections_per_second;
        self.wide_connections.set_rate(connections, burst(connections));
        self.proofs.apply(limit);
        self.ban_length = Duration::from_secs(limit.ban_seconds.into());
        // A wider prefix has two budgets: the one that is still on refuses it again at its next charge.
        let (is_off, is_wide_off) = (units == 0, wide_units == 0 || connections == 0);
        for (network, _) in self.spent.iter().collect::<Vec<_>>() {
            let is_wide = self.spent_wide.end_of(network).is_some();
            if is_wide && is_wide_off || !is_wide && is_off {
                self.erase(network);
            }
        }
    }

    /// Charges a host, and the networks around it. `Some`: a ban that it has earned.
    pub(super) fn charge(&mut self, levels: Levels, charge: &Charge) -> Option<Offence> {
        let now_ns = now_ns();
        let Levels { host, client, wide } = levels;
        let units = charge.units.into();
        self.proofs.prove(levels, charge, now_ns);
        if let Some(until_ns) = self.hosts.charge(host, units, now_ns) {
            self.refuse(host, Spent { until_ns, all_until_ns: until_ns });
        }
        if client != host {
            let spent = self.clients.charge(client, units, now_ns);
            self.refuse(client, spent);
        }
        if wide != client {
            for spent in [
                self.wide_costs.charge(wide, units, now_ns),
                self.wide_connections.charge(wide, charge.connections.into(), now_ns),
            ] {
                self.refuse(wide, spent);
                self.note_wide(wide);
            }
        }
        if self.ban_length.is_zero() {
            return None;
        }
        let strikes = charge.strikes.iter().map(|count| u64::from(*count)).sum();
        let of_host = self.strikes.charge(host, strikes, now_ns).map(|_| host);
        let of_client = match client == host {
            true => None,
            false => self.strikes_of_clients.charge(client, strikes, now_ns).map(|_| client),
        };
        // A prefix whose hosts take turns is banned whole.
        let network = of_client.or(of_host)?;
        self.strikes.forgive(host);
        self.strikes_of_clients.forgive(network);
        Some(Offence { network, length: self.ban_length, cause: charge.worst()? })
    }

    /// Removes expired entries.
    pub(super) fn sweep(&mut self) {
        let now_ns = now_ns();
        while let Some(network) = self.spent.over(now_ns) {
            self.erase(network);
        }
        for budgets in [&mut self.hosts, &mut self.strikes, &mut self.strikes_of_clients] {
            budgets.sweep(now_ns);
        }
        for budgets in [&mut self.clients, &mut self.wide_costs, &mut self.wide_connections] {
            budgets.sweep(now_ns);
        }
        self.proofs.sweep(now_ns);
    }

    /// IP versions with networks that are refused, and with wider prefixes among them.
    pub(super) fn versions(&self) -> (u8, u8) {
        (self.spent.versions(), self.spent_wide.versions())
    }

    /// The percentage that is left of a client's budget: its own, or what its prefix shares, whichever is less.
    pub(super) fn left_percent(&self, Levels { host, client, .. }: Levels, now_ns: u64) -> Option<u64> {
        let own = self.hosts.left_percent(host, now_ns)?;
        let shared = if client == host { None } else { self.clients.left_percent(client, now_ns) };
        Some(shared.map_or(own, |shared| shared.min(own)))
    }

    /// Until when new connections of a network are refused.
    pub(super) fn spent_until(&self, network: Network) -> Option<u64> {
        self.spent.end_of(network)
    }

    /// How far a host is trusted, and until when.
    pub(super) fn proof_of(&self, host: Network, now_ns: u64) -> Option<(Trust, u64)> {
        self.proofs.of(host, now_ns)
    }

    /// The number of clients that are refused now, and so far.
    pub(super) fn counts(&self) -> CostCounts {
        CostCounts { spent: self.spent.len(), spent_total: self.spent_total }
    }

    fn refuse(&mut self, network: Network, spent: Spent) {
        if spent == Spent::default() {
            return;
        }
        if let Some(nearest) = self.spent.in_the_way_of(network) {
            self.erase(nearest);
        }
        // Another budget of the network may be spent for longer.
        let before = self.map.get(&network, 0).unwrap_or_default();
        let spent = Spent {
            until_ns: spent.until_ns.max(before.until_ns),
            all_until_ns: spent.all_until_ns.max(before.all_until_ns),
        };
        match entries::insert(|| self.map.insert(network, spent, 0)) {
            Ok(()) => {
                self.spent_total += u64::from(self.spent.end_of(network).is_none());
                self.spent.insert(network, spent.until_ns.max(spent.all_until_ns));
            }
            Err(error) => tracing::error!("a spent handshake budget is not enforced: {}", innermost(&error)),
        }
    }

    /// A wider prefix was charged: the kernel half must look for it while it is refused.
    fn note_wide(&mut self, wide: Network) {
        if let Some(end_ns) = self.spent.end_of(wide) {
            self.spent_wide.insert(wide, end_ns);
        }
    }

    fn erase(&mut self, network: Network) {
        match self.map.remove(&network) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => tracing::error!("a spent budget stays in the map: {}", innermost(&error)),
        }
        self.spent.remove(network);
        self.spent_wide.remove(network);
    }
}

/// The workers' reports about hosts in one turn.
pub type Charges = BTreeMap<Network, Charge>;

//! Costs and offences of clients, as the workers report them: decides which clients' next SYNs are refused, and which
//! clients are banned.
//!
//! Before: a worker's batch of charges. After: XDP refuses the connections of a client whose budget is spent, until it
//! has some again; `bans` gets clients with repeated offences.
//! Holds: the map SPENT, which nothing else writes; budgets and strikes of each client, which the kernel does not see.
//! Never: writes for a client within its budget, so that the usual client costs no system call.

use std::{collections::BTreeMap, time::Duration};

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
};
use dot_common::{
    ban::Cause,
    charge::{Charge, UNITS_PER_HANDSHAKE},
    maps::{SPENT, SPENT_MAX},
    prefix::ClientPrefix,
    proof::Trust,
    rate::Rate,
};

use super::{
    XdpError,
    attach::{refused, take},
    bans::now_ns,
    budget::Budgets,
    deadlines::Deadlines,
    error::innermost,
    proofs::Proofs,
    report::CostCounts,
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
    map: HashMap<MapData, u64, u64>,
    spent: Deadlines,
    budgets: Budgets,
    strikes: Budgets,
    proofs: Proofs,
    ban_length: Duration,
    spent_total: u64,
}

impl Costs {
    /// Takes the map out of the object, and the limits from the config.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, XdpError> {
        let map = HashMap::try_from(take(object, SPENT)?).map_err(|error| refused(SPENT, &error))?;
        Ok(Self {
            map,
            spent: Deadlines::new(SPENT_MAX),
            budgets: Budgets::new(Rate::default(), SPENT_MAX),
            strikes: Budgets::new(Rate::new(STRIKES.0, STRIKES.1 + 1), SPENT_MAX),
            proofs: Proofs::take(object)?,
            ban_length: Duration::ZERO,
            spent_total: 0,
        })
    }

    /// Sets limits. Without a budget no further client is refused; existing bans stay.
    pub(super) fn apply(&mut self, limit: &XdpLimit) {
        let units = limit.handshake_cost_per_second.saturating_mul(UNITS_PER_HANDSHAKE);
        self.budgets.set_rate(Rate::new(units, units.saturating_mul(BURST_SECONDS)));
        self.proofs.apply(limit);
        self.ban_length = Duration::from_secs(limit.ban_seconds.into());
        if units == 0 {
            for (client, _) in self.spent.iter().collect::<Vec<_>>() {
                self.erase(client);
            }
        }
    }

    /// Charges a client. `Some`: the cause for which it must be banned.
    pub(super) fn charge(&mut self, client: ClientPrefix, charge: &Charge) -> Option<(Duration, Cause)> {
        let now_ns = now_ns();
        self.proofs.prove(client, charge, now_ns);
        if let Some(until_ns) = self.budgets.charge(client, charge.units.into(), now_ns) {
            self.refuse(client, until_ns);
        }
        if self.ban_length.is_zero() {
            return None;
        }
        let strikes = charge.strikes.iter().map(|count| u64::from(*count)).sum();
        self.strikes.charge(client, strikes, now_ns)?;
        self.strikes.forgive(client);
        Some((self.ban_length, charge.worst()?))
    }

    /// Removes expired entries.
    pub(super) fn sweep(&mut self) {
        let now_ns = now_ns();
        while let Some(client) = self.spent.over(now_ns) {
            self.erase(client);
        }
        self.budgets.sweep(now_ns);
        self.strikes.sweep(now_ns);
        self.proofs.sweep(now_ns);
    }

    /// IP versions with clients that are refused.
    pub(super) fn versions(&self) -> u8 {
        self.spent.versions()
    }

    /// The percentage of a client's budget that is left, and the time until which the budget is spent.
    pub(super) fn of(&self, client: ClientPrefix, now_ns: u64) -> (Option<u64>, Option<u64>) {
        (self.budgets.left_percent(client, now_ns), self.spent.end_of(client))
    }

    /// The proof of a client, and the time until which it is valid.
    pub(super) fn proof_of(&self, client: ClientPrefix, now_ns: u64) -> Option<(Trust, u64)> {
        self.proofs.of(client, now_ns)
    }

    /// The number of clients that are refused now, and so far.
    pub(super) fn counts(&self) -> CostCounts {
        CostCounts { spent: self.spent.len(), spent_total: self.spent_total }
    }

    fn refuse(&mut self, client: ClientPrefix, until_ns: u64) {
        if let Some(nearest) = self.spent.in_the_way_of(client) {
            self.erase(nearest);
        }
        match self.map.insert(client.key(), until_ns, 0) {
            Ok(()) => {
                self.spent_total += u64::from(self.spent.end_of(client).is_none());
                self.spent.insert(client, until_ns);
            }
            Err(error) => tracing::error!("a spent handshake budget is not enforced: {}", innermost(&error)),
        }
    }

    fn erase(&mut self, client: ClientPrefix) {
        match self.map.remove(&client.key()) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => tracing::error!("a spent budget stays in the map: {}", innermost(&error)),
        }
        self.spent.remove(client);
    }
}

/// The workers' reports about their clients in one turn.
pub type Charges = BTreeMap<ClientPrefix, Charge>;

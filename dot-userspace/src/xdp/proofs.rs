//! Clients that complete connections: SYNs that others send in their name do not harm them.
//!
//! Before: the workers' charges say which clients completed connections and handshakes. After: if SYNs in a client's
//! name exceed its rate, which any sender could cause, XDP lets them pass, unless the client itself completed more
//! connections than its rate allows.
//! A client is a host (an IPv4 address, 64 bits of an IPv6 address): its proof is its own, whatever others of its prefix do.
//! Holds: the map PROVEN, which nothing else writes, and a budget of connections for each host and each client prefix at
//! the rate of its SYNs.
//! Never: trusts a packet; writes for a client whose proof is fresh: the usual client costs one write in minutes.

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
};
use dot_common::{
    charge::Charge,
    maps::{PROVEN, PROVEN_MAX},
    network::Network,
    proof::{Proof, Trust},
    rate::Rate,
};

use super::{
    XdpError,
    attach::{refused, take},
    budget::Budgets,
    deadlines::Deadlines,
    error::innermost,
    settings::Levels,
};
use crate::config::XdpLimit;

/// The time for which a proof is valid: ten minutes, in which a stub resolver comes back, and an address seldom changes
/// its owner.
const PROOF_NS: u64 = 600_000_000_000;

/// Proofs, and the connections of clients since.
pub(super) struct Proofs {
    map: HashMap<MapData, Network, Proof>,
    /// Of both kinds of proof.
    ends: Deadlines,
    connections: Budgets,
    is_wanted: bool,
}

impl Proofs {
    /// Takes the map out of the object. No proofs are kept before [`Proofs::apply`].
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, XdpError> {
        let map = HashMap::try_from(take(object, PROVEN)?).map_err(|error| refused(PROVEN, &error))?;
        let connections = Budgets::new(Rate::default(), PROVEN_MAX);
        Ok(Self { map, ends: Deadlines::new(PROVEN_MAX), connections, is_wanted: false })
    }

    /// Sets the limits: without any of SYNs or of what networks share, no proof is needed.
    pub(super) fn apply(&mut self, limit: &XdpLimit) {
        let rate = Rate::new(limit.syn_per_second, limit.syn_burst);
        self.connections.set_rate(rate);
        let shared =
            [limit.handshake_cost_per_second, limit.wide_connections_per_second, limit.wide_cost_per_second];
        self.is_wanted = rate.is_limit() || shared.iter().any(|per_second| *per_second != 0);
    }

    /// A host finished connections and handshakes. While it exceeds its rate by connections it has no proof, and its SYNs
    /// over the rate are refused; while its client prefix does, so are those of the prefix's hosts without a proof.
    pub(super) fn prove(&mut self, Levels { host, client, .. }: Levels, charge: &Charge, now_ns: u64) {
        if !self.is_wanted {
            return;
        }
        let connections = charge.connections.into();
        if client != host
            && let Some(until_ns) = self.connections.charge(client, connections, now_ns)
        {
            self.write(client, Proof::excessive(until_ns), until_ns);
        }
        if let Some(until_ns) = self.connections.charge(host, connections, now_ns) {
            return self.write(host, Proof::excessive(until_ns), until_ns);
        }
        let is_fresh = self.ends.end_of(host).is_some_and(|end_ns| end_ns > now_ns + PROOF_NS / 2);
        if charge.handshakes > 0 && !is_fresh {
            self.write(host, Proof::proven(now_ns + PROOF_NS), now_ns + PROOF_NS);
        }
    }

    fn write(&mut self, client: Network, proof: Proof, end_ns: u64) {
        if let Some(nearest) = self.ends.in_the_way_of(client) {
            self.erase(nearest);
        }
        match self.map.insert(client, proof, 0) {
            Ok(()) => self.ends.insert(client, end_ns),
            Err(error) => tracing::error!("a client's proof is not noted: {}", innermost(&error)),
        }
    }

    /// How far a client is trusted, and until when.
    pub(super) fn of(&self, client: Network, now_ns: u64) -> Option<(Trust, u64)> {
        let end_ns = self.ends.end_of(client)?;
        self.map.get(&client, 0).ok().map(|proof| (proof.trust(now_ns), end_ns))
    }

    /// Removes expired proofs.
    pub(super) fn sweep(&mut self, now_ns: u64) {
        while let Some(client) = self.ends.over(now_ns) {
            self.erase(client);
        }
        self.connections.sweep(now_ns);
    }

    fn erase(&mut self, client: Network) {
        if self.ends.end_of(client).is_none() {
            return;
        }
        match self.map.remove(&client) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => tracing::error!("a proof stays in the map: {}", innermost(&error)),
        }
        self.ends.remove(client);
    }
}

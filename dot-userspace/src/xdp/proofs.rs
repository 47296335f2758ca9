//! Clients that complete connections: SYNs that others send in their name do not harm them.
//!
//! Before: the workers' charges say which clients completed connections and handshakes. After: if SYNs in a client's
//! name exceed its rate, which anybody could cause, XDP lets them pass, unless the client itself completed more
//! connections than its rate allows.
//! Holds: the map PROVEN, which nothing else writes, and a budget of connections for each client at the rate of its
//! SYNs.
//! Never: trusts a packet; writes for a client whose proof is recent, so that the usual client costs one write in
//! minutes.

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
};
use dot_common::{
    charge::Charge,
    maps::{PROVEN, PROVEN_MAX},
    prefix::ClientPrefix,
    proof::{Proof, Trust},
    rate::Rate,
};

use super::{
    XdpError,
    attach::{refused, take},
    budget::Budgets,
    deadlines::Deadlines,
    error::innermost,
};
use crate::config::XdpLimit;

/// The time for which a proof is valid: ten minutes, in which a stub resolver comes back, and an address seldom changes
/// its owner.
const PROOF_NS: u64 = 600_000_000_000;

/// Proofs, and the connections of clients since.
pub(super) struct Proofs {
    map: HashMap<MapData, u64, Proof>,
    /// The ends of both kinds of proof.
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

    /// Sets the limit of SYNs: without one no proof is needed.
    pub(super) fn apply(&mut self, limit: &XdpLimit) {
        let rate = Rate::new(limit.syn_per_second, limit.syn_burst);
        self.connections.set_rate(rate);
        self.is_wanted = rate.is_limit();
    }

    /// Notes that a client completed connections and handshakes. While its connections exceed its rate it has no proof,
    /// and its SYNs above the rate are refused.
    pub(super) fn prove(&mut self, client: ClientPrefix, charge: &Charge, now_ns: u64) {
        if !self.is_wanted {
            return;
        }
        if let Some(until_ns) = self.connections.charge(client, charge.connections.into(), now_ns) {
            return self.write(client, Proof::excessive(until_ns), until_ns);
        }
        let is_fresh = self.ends.end_of(client).is_some_and(|end_ns| end_ns > now_ns + PROOF_NS / 2);
        if charge.handshakes > 0 && !is_fresh {
            self.write(client, Proof::proven(now_ns + PROOF_NS), now_ns + PROOF_NS);
        }
    }

    fn write(&mut self, client: ClientPrefix, proof: Proof, end_ns: u64) {
        if let Some(nearest) = self.ends.in_the_way_of(client) {
            self.erase(nearest);
        }
        match self.map.insert(client.key(), proof, 0) {
            Ok(()) => self.ends.insert(client, end_ns),
            Err(error) => tracing::error!("a client's proof is not noted: {}", innermost(&error)),
        }
    }

    /// The proof of a client, and the time until which it is valid.
    pub(super) fn of(&self, client: ClientPrefix, now_ns: u64) -> Option<(Trust, u64)> {
        let end_ns = self.ends.end_of(client)?;
        self.map.get(&client.key(), 0).ok().map(|proof| (proof.trust(now_ns), end_ns))
    }

    /// Removes expired proofs.
    pub(super) fn sweep(&mut self, now_ns: u64) {
        while let Some(client) = self.ends.over(now_ns) {
            self.erase(client);
        }
        self.connections.sweep(now_ns);
    }

    fn erase(&mut self, client: ClientPrefix) {
        if self.ends.end_of(client).is_none() {
            return;
        }
        match self.map.remove(&client.key()) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => tracing::error!("a proof stays in the map: {}", innermost(&error)),
        }
        self.ends.remove(client);
    }
}

//! Which clients have proved their address, so that SYN in their name that others send cost them nothing.
//!
//! Before: the workers' charges say who finished handshakes. After: XDP lets a proven client's SYN pass where SYN in its name
//! are over its rate, for those may be anybody's; what the client itself may do is counted here, by handshakes.
//! Holds: the map PROVEN as its one writer, and a budget of handshakes for each client at the rate of its SYN.
//! Never: takes a packet's word; writes for a client whose proof is fresh: the usual one costs a write in minutes.

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
};
use dot_common::{
    maps::{PROVEN, PROVEN_MAX},
    prefix::ClientPrefix,
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

/// How long a proof is good for: ten minutes, in which a stub resolver comes back, and an address seldom changes hands.
const PROOF_NS: u64 = 600_000_000_000;

/// Proofs, and what clients did since.
pub(super) struct Proofs {
    map: HashMap<MapData, u64, u64>,
    ends: Deadlines,
    handshakes: Budgets,
    is_wanted: bool,
}

impl Proofs {
    /// Takes the map out of the object. Nothing is wanted before [`Proofs::apply`].
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, XdpError> {
        let map = HashMap::try_from(take(object, PROVEN)?).map_err(|error| refused(PROVEN, &error))?;
        let handshakes = Budgets::new(Rate::default(), PROVEN_MAX);
        Ok(Self { map, ends: Deadlines::new(PROVEN_MAX), handshakes, is_wanted: false })
    }

    /// Takes the limit of SYN over: without one nobody needs a proof.
    pub(super) fn apply(&mut self, limit: &XdpLimit) {
        let rate = Rate::new(limit.syn_per_second, limit.syn_burst);
        self.handshakes.set_rate(rate);
        self.is_wanted = rate.is_limit();
    }

    /// A client finished so many handshakes. Over its rate it has no proof, and its SYN count as anybody's.
    pub(super) fn prove(&mut self, client: ClientPrefix, handshakes: u32, now_ns: u64) {
        if !self.is_wanted || handshakes == 0 {
            return;
        }
        if self.handshakes.charge(client, handshakes.into(), now_ns).is_some() {
            return self.erase(client);
        }
        let end_ns = now_ns + PROOF_NS;
        if self.ends.end_of(client).is_some_and(|end| end > now_ns + PROOF_NS / 2) {
            return;
        }
        if let Some(nearest) = self.ends.in_the_way_of(client) {
            self.erase(nearest);
        }
        match self.map.insert(client.key(), end_ns, 0) {
            Ok(()) => self.ends.insert(client, end_ns),
            Err(error) => tracing::error!("a client's proof is not noted: {}", innermost(&error)),
        }
    }

    /// Forgets what is over.
    pub(super) fn sweep(&mut self, now_ns: u64) {
        while let Some(client) = self.ends.over(now_ns) {
            self.erase(client);
        }
        self.handshakes.sweep(now_ns);
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

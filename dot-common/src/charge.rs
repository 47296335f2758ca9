//! The costs and offences of a client, added up until the owner of budgets collects them.
//!
//! Before: a worker saw a handshake or a session end. After: the owner of budgets and bans judges the sum.
//! Holds: the weights. Never: decides which sum is too much.

use crate::ban::Cause;

/// Units of a full handshake; a resumed one costs one unit, a fifth.
pub const UNITS_PER_HANDSHAKE: u32 = 5;

/// Units of a failed handshake: it kept the engine busy and served no query.
const UNITS_PER_FAILURE: u32 = 3 * UNITS_PER_HANDSHAKE;

/// Units of a connection that ends before its first octet: it cost only an accept.
const UNITS_PER_PROBE: u32 = 1;

/// How many causes there are.
const CAUSES: usize = Cause::ALL.len();

/// Charges of one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// Cost of its handshakes.
    pub units: u32,
    /// Handshakes that were completed.
    pub handshakes: u32,
    /// TCP connections that the client completed, whatever happened on them.
    pub connections: u32,
    /// Its offences, by [`Cause`].
    pub strikes: [u32; CAUSES],
}

impl Charge {
    /// A handshake that was completed.
    #[must_use]
    pub const fn handshake(is_resumed: bool) -> Self {
        let units = if is_resumed { 1 } else { UNITS_PER_HANDSHAKE };
        Self { units, handshakes: 1, connections: 1, strikes: [0; CAUSES] }
    }

    /// A connection without an octet: a load balancer's check.
    #[must_use]
    pub const fn probe() -> Self {
        Self { units: UNITS_PER_PROBE, handshakes: 0, connections: 1, strikes: [0; CAUSES] }
    }

    /// A connection that was closed at once, because a cap has no place for it.
    #[must_use]
    pub const fn refusal() -> Self {
        Self { units: 0, handshakes: 0, connections: 1, strikes: [0; CAUSES] }
    }

    /// A handshake that failed, whichever side caused it.
    #[must_use]
    pub const fn failure() -> Self {
        Self { units: UNITS_PER_FAILURE, handshakes: 0, connections: 1, strikes: [0; CAUSES] }
    }

    /// The same, with `strikes` for an offence.
    #[must_use]
    pub fn with(mut self, cause: Cause, strikes: u32) -> Self {
        if let Some(count) = self.strikes.get_mut(cause as usize) {
            *count = count.saturating_add(strikes);
        }
        self
    }

    /// Adds the charges of `other`.
    pub fn add(&mut self, other: &Self) {
        self.units = self.units.saturating_add(other.units);
        self.handshakes = self.handshakes.saturating_add(other.handshakes);
        self.connections = self.connections.saturating_add(other.connections);
        for (count, more) in self.strikes.iter_mut().zip(other.strikes) {
            *count = count.saturating_add(more);
        }
    }

    /// The most frequent offence, if there is one.
    #[must_use]
    pub fn worst(&self) -> Option<Cause> {
        let most = Cause::ALL.iter().zip(self.strikes).max_by_key(|(_, count)| *count)?;
        (most.1 > 0).then_some(*most.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the weights are those that the config documents: full 1, resumed and probe 0.2, failed 3; sums and the
    /// most frequent offence are right.
    #[test]
    fn charges_add_up() {
        assert_eq!(Charge::handshake(false).units, 5 * Charge::handshake(true).units);
        assert_eq!(Charge::failure().units, 3 * Charge::handshake(false).units);
        assert!(Charge::probe().units < Charge::handshake(false).units);
        let mut sum = Charge::failure().with(Cause::Garbage, 1);
        assert_eq!(sum.worst(), Some(Cause::Garbage));
        sum.add(&Charge::default().with(Cause::SlowReads, 5));
        assert_eq!((sum.units, sum.worst()), (15, Some(Cause::SlowReads)));
        assert_eq!(Charge::handshake(false).worst(), None);
        assert_eq!((sum.connections, Charge::refusal().connections, Charge::refusal().units), (1, 1, 0));
        let (units, handshakes, connections) = (u32::MAX, u32::MAX, u32::MAX);
        sum.add(&Charge { units, handshakes, connections, strikes: [u32::MAX; CAUSES] });
        assert_eq!((sum.units, sum.connections), (u32::MAX, u32::MAX));
    }
}

//! The budget of a network that several hosts share.
//!
//! Before: `costs` knows what a host of the network used. After: the times until which the network's budget is spent: for
//! hosts without a proof of their address, and for all.
//! Holds: two budgets: hosts with a proof go on when the first is spent, so that a neighbour does not lock them out; the
//! second bounds what all of them use together. A pure function of its calls.
//! Never: reads a clock.

use dot_common::{network::Network, rate::Rate, spent::Spent};

use super::budget::Budgets;

/// The second budget as a multiple of the first. An attacker with many addresses can collect a proof for each; 4 leaves an
/// innocent host in its network three times what the network is meant to use, and is still a bound.
pub(super) const ALL_TIMES: u32 = 4;

/// The use of both budgets by all networks of one level.
#[derive(Debug)]
pub(super) struct SharedBudgets {
    newcomers: Budgets,
    all: Budgets,
}

impl SharedBudgets {
    /// Without a limit; for each of up to `networks_max` networks.
    pub(super) fn new(networks_max: u32) -> Self {
        let none = || Budgets::new(Rate::default(), networks_max);
        Self { newcomers: none(), all: none() }
    }

    /// Sets another rate; debts stay. 0 per second: no limit.
    pub(super) fn set_rate(&mut self, per_second: u32, burst: u32) {
        let times = |number: u32| number.saturating_mul(ALL_TIMES);
        self.newcomers.set_rate(Rate::new(per_second, burst));
        self.all.set_rate(Rate::new(times(per_second), times(burst)));
    }

    /// Charges a network.
    pub(super) fn charge(&mut self, network: Network, units: u64, now_ns: u64) -> Spent {
        let until = |budgets: &mut Budgets| budgets.charge(network, units, now_ns).unwrap_or_default();
        Spent { until_ns: until(&mut self.newcomers), all_until_ns: until(&mut self.all) }
    }

    /// Percentage of a network's first budget that is left. `None`: there is no budget.
    pub(super) fn left_percent(&self, network: Network, now_ns: u64) -> Option<u64> {
        self.newcomers.left_percent(network, now_ns)
    }

    /// Forgets networks whose budget is full.
    pub(super) fn sweep(&mut self, now_ns: u64) {
        self.newcomers.sweep(now_ns);
        self.all.sweep(now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: hosts without a proof are refused first, all of them at a multiple of that; without a rate no host is refused.
    ///
    #[test]
    fn a_proof_helps_up_to_a_multiple() {
        let network = Network::of("192.0.2.7".parse().unwrap(), 24, 48);
        let (mut budgets, now) = (SharedBudgets::new(10), 1_000_000_000);
        assert_eq!(budgets.charge(network, 1000, now), Spent::default(), "no limit yet");
        budgets.set_rate(10, 100);
        let spent = (0..40).map(|_| budgets.charge(network, 10, now)).collect::<Vec<_>>();
        let refused = |of: fn(&Spent) -> u64| spent.iter().filter(|spent| of(spent) > now).count();
        assert_eq!((refused(|spent| spent.until_ns), refused(|spent| spent.all_until_ns)), (31, 1));
        assert_eq!(budgets.left_percent(network, now), Some(0));
        budgets.sweep(now + 600_000_000_000);
        assert_eq!(budgets.charge(network, 10, now + 600_000_000_000), Spent::default());
    }
}

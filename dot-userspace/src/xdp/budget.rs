//! What each client has used of a budget: the generic cell rate algorithm with weights, over a bounded table.
//!
//! Before: the engine reports a client's costs or offences. After: the time at which the client has budget again.
//! Holds: one number for each client with a debt. A pure function of its calls.
//! Never: reads a clock; keeps a client without a debt.

use dot_common::{network::Network, rate::Rate};

use super::deadlines::Deadlines;

/// Longest debt of a client: costs from before it was refused must not exclude it for hours.
const DEBT_NS_MAX: u64 = 600_000_000_000;

/// The use of one budget by all clients.
#[derive(Debug)]
pub(super) struct Budgets {
    rate: Rate,
    /// The time at which each client's budget is full again.
    whole: Deadlines,
}

impl Budgets {
    /// A budget for each of up to `clients_max` clients; beyond that the client with the smallest debt is forgotten.
    pub(super) fn new(rate: Rate, clients_max: u32) -> Self {
        Self { rate, whole: Deadlines::new(clients_max) }
    }

    /// Changes the rate; debts stay.
    pub(super) fn set_rate(&mut self, rate: Rate) {
        self.rate = rate;
    }

    /// Charges a client. `Some`: its budget is spent until then.
    pub(super) fn charge(&mut self, client: Network, units: u64, now_ns: u64) -> Option<u64> {
        if !self.rate.is_limit() || units == 0 {
            return None;
        }
        let Rate { period_ns, tolerance_ns } = self.rate;
        let before = self.whole.end_of(client).unwrap_or_default().max(now_ns);
        let most = now_ns.saturating_add(tolerance_ns).saturating_add(DEBT_NS_MAX);
        let after = before.saturating_add(units.saturating_mul(period_ns)).min(most);
        if let Some(least) = self.whole.in_the_way_of(client) {
            self.whole.remove(least);
        }
        self.whole.insert(client, after);
        (after - now_ns > tolerance_ns).then(|| after - tolerance_ns)
    }

    /// Percentage of a client's budget that is left. `None`: there is no budget.
    pub(super) fn left_percent(&self, client: Network, now_ns: u64) -> Option<u64> {
        let used_ns = self.whole.end_of(client).unwrap_or_default().saturating_sub(now_ns);
        let left_ns = self.rate.tolerance_ns.saturating_sub(used_ns);
        (left_ns * 100).checked_div(self.rate.tolerance_ns)
    }

    /// Forgets a client's debt.
    pub(super) fn forgive(&mut self, client: Network) {
        self.whole.remove(client);
    }

    /// Forgets clients whose budget is full.
    pub(super) fn sweep(&mut self, now_ns: u64) {
        while let Some(client) = self.whole.over(now_ns) {
            self.whole.remove(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn client(number: u32) -> Network {
        Network::of(std::net::Ipv4Addr::from_bits(number).into(), 32, 64)
    }

    /// Goal: a burst is available at once, then the rate; a client beyond it gets the time until which it is refused,
    /// and has its whole budget again after a rest.
    #[test]
    fn budgets_are_spent_and_come_back() {
        // Ten units a second, fifty at once.
        let mut budgets = Budgets::new(Rate::new(10, 51), 10);
        let now = SECOND_NS;
        assert_eq!(budgets.charge(client(1), 50, now), None);
        assert_eq!(budgets.charge(client(1), 5, now), Some(now + SECOND_NS / 2));
        assert_eq!(budgets.charge(client(2), 1, now), None, "others have a budget of their own");
        assert_eq!(budgets.charge(client(1), 1, now + SECOND_NS), None);
        budgets.sweep(now + 60 * SECOND_NS);
        assert_eq!(budgets.charge(client(1), 50, now + 60 * SECOND_NS), None);
        assert!(budgets.charge(client(1), u64::MAX, now) <= Some(now + DEBT_NS_MAX));
        budgets.forgive(client(1));
        assert_eq!(budgets.charge(client(1), 50, now), None);
        budgets.set_rate(Rate::default());
        assert_eq!(budgets.charge(client(1), 5000, now), None, "no rate is no limit");
    }

    /// Goal: the table is bounded, and the clients with the largest debts stay. Method: two places for three clients.
    #[test]
    fn who_owes_least_is_forgotten() {
        let mut budgets = Budgets::new(Rate::new(10, 51), 2);
        for (number, units) in [(1, 50), (2, 10), (3, 30)] {
            assert_eq!(budgets.charge(client(number), units, 1), None);
        }
        assert!(budgets.charge(client(1), 1, 1).is_some(), "who owed most was kept");
        assert_eq!(budgets.charge(client(2), 50, 1), None, "who owed least began anew");
    }
}

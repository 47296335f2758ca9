//! The kernel half's state for one client: its ban, its budget, its rates.
//!
//! Before: an operator names a client. After: the state of the maps at this moment, for people and programs.
//! Holds: nothing. Never: changes a map; reading a rate does not spend any of it.

use std::net::IpAddr;

use dot_common::{
    ban::Cause,
    prefix::ClientPrefix,
    proof::Trust,
    rate::{self, Class, Rate, STALE_NS},
};
use serde::{Deserialize, Serialize};

use super::{Loaded, Xdp, bans::now_ns, kernel::Kernel, report::BanRow, settings::Levels};

/// What the kernel half knows of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientReport {
    /// The ban that counts: an operator's, else that of the longest prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ban: Option<BanRow>,
    /// Percentage of its handshake budget that is left; absent without such a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_percent: Option<u64>,
    /// The time for which its new connections are refused, because that budget is spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_spent_seconds: Option<u64>,
    /// The wider prefix that it belongs to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub wide: String,
    /// The time for which new connections from that prefix are refused, because it has spent a budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wide_spent_seconds: Option<u64>,
    /// The time for which its proof of address is valid: it has completed handshakes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_seconds: Option<u64>,
    /// The time for which its SYNs above the rate are refused, because it completed more connections than its rate
    /// allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excessive_seconds: Option<u64>,
    /// Its rates, and what they allow now.
    pub rates: Vec<RateState>,
}

/// A client's use of a rate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateState {
    /// The counted kind of packet.
    pub what: String,
    /// The config key of the rate.
    pub key: String,
    /// The number that it may send now.
    pub left: u64,
    /// The number that it may send after a rest.
    pub burst: u64,
}

impl RateState {
    /// The state of a client that is `ahead` of its schedule. `None`: there is no limit.
    #[must_use]
    pub fn of(what: &str, key: &str, rate: Rate, ahead_ns: u64) -> Option<Self> {
        let units = |time_ns: u64| time_ns.checked_div(rate.period_ns).map(|units| units.saturating_add(1));
        let burst = units(rate.tolerance_ns)?;
        let left = rate.tolerance_ns.checked_sub(ahead_ns).and_then(units).unwrap_or_default();
        Some(Self { what: what.to_owned(), key: key.to_owned(), left, burst })
    }
}

impl Xdp {
    /// The kernel half's state for a client. `None`: it is not loaded.
    #[must_use]
    pub fn client(&self, client: IpAddr) -> Option<ClientReport> {
        let Loaded { kernel, .. } = self.kernel.as_ref()?;
        Some(kernel.client(self.prefixes.of_client(client), self.prefixes.levels(client)))
    }
}

impl Kernel {
    fn client(&self, prefix: ClientPrefix, levels: Levels) -> ClientReport {
        let now_ns = now_ns();
        let seconds = |end_ns: u64| end_ns.checked_sub(now_ns).map(|left| left.div_ceil(1_000_000_000));
        let spent = |network| self.costs.spent_until(network).and_then(seconds);
        let proof = self.costs.proof_of(levels.host, now_ns);
        let until =
            |wanted| proof.filter(|(trust, _)| *trust == wanted).and_then(|(_, end_ns)| seconds(end_ns));
        let state = |(class, what, key, rate): (Class, &str, &str, Rate)| {
            let scheduled_ns = self.rates.get(&rate::key(class, prefix), 0).ok()?;
            let ahead_ns = scheduled_ns.saturating_sub(now_ns);
            // The value comes from another rate, before a reload: the client starts with an empty schedule.
            let is_foreign =
                ahead_ns > rate.tolerance_ns.saturating_add(rate.period_ns).saturating_add(STALE_NS);
            RateState::of(what, key, rate, if is_foreign { 0 } else { ahead_ns })
        };
        ClientReport {
            ban: levels
                .distinct()
                .filter_map(|network| self.bans.of(network))
                .min_by_key(|ban| ban.cause != Cause::Operator.name()),
            budget_percent: self.costs.left_percent(levels, now_ns),
            budget_spent_seconds: spent(levels.host).max(spent(levels.client)),
            wide: levels.wide.to_string(),
            wide_spent_seconds: if levels.wide == levels.client { None } else { spent(levels.wide) },
            proven_seconds: until(Trust::Proven),
            excessive_seconds: until(Trust::Excessive),
            rates: self.rate_rows().into_iter().filter_map(state).collect(),
        }
    }

    /// Every rate: its class, what it counts, its config key, and its value.
    pub(super) fn rate_rows(&self) -> [(Class, &'static str, &'static str, Rate); 3] {
        let (syn, syn_key) = (self.settings.syn(), "xdp.limit.syn_per_second");
        let (query, query_key) = (self.settings.do53_query(), "xdp.limit.udp53_per_second");
        [
            (Class::DotSyn, "new connections", syn_key, syn),
            (Class::Do53Syn, "new connections to port 53", syn_key, syn),
            (Class::Do53Query, "datagrams to port 53", query_key, query),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the reported number is the number that the rate would admit now. Method: a burst of five, times on and off
    /// schedule; no rate. Covers: C-520
    #[test]
    fn what_is_left_is_what_would_be_admitted() {
        let rate = Rate::new(10, 5);
        let left = |ahead_ns| RateState::of("x", "y", rate, ahead_ns).unwrap();
        assert_eq!((left(0).left, left(0).burst), (5, 5));
        let mut scheduled = 0;
        for expected in (0..5).rev() {
            scheduled = rate.admit(scheduled, 1_000).unwrap();
            assert_eq!(left(scheduled - 1_000).left, expected, "{scheduled}");
        }
        assert_eq!(rate.admit(scheduled, 1_000), None);
        assert_eq!(RateState::of("x", "y", Rate::default(), 7), None);
    }
}

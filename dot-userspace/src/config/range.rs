//! Every number and duration against its [`Limit`].
//!
//! Before: types are checked. After: `config::consistency` compares values. Holds: which key has which limit.
//! Never: contains a limit (`config::limit` does).

use std::time::Duration;

use super::{Config, Limit, Mistake, Workers, limit, source::Source};

/// The keys with a range, one a line. The check and the page docs/ranges.md are made from these lines. `or 0`: zero means
/// "off".
macro_rules! keys {
    ($($first:ident $(. $more:ident)*: $limit:ident $(or $zero:literal)?;)+) => {
        fn keys(check: &mut Check<'_, '_>, config: &Config) {
            $(
                let value = config.$first$(.$more)*;
                if true $(&& value != $zero)? {
                    check.within(concat!(stringify!($first) $(, ".", stringify!($more))*), value, &limit::$limit);
                }
            )+
        }

        /// The table of the page.
        #[cfg(test)]
        pub(super) fn rows() -> Vec<Row> {
            vec![
                Row::of("server.workers", "WORKERS", &limit::WORKERS, false),
                Row::of("backend.timeout", "BACKEND_TIMEOUT", &limit::BACKEND_TIMEOUT, false),
                Row::of("backend.weight", "BACKEND_WEIGHT", &limit::BACKEND_WEIGHT, false),
                $(Row::of(
                    concat!(stringify!($first) $(, ".", stringify!($more))*),
                    stringify!($limit),
                    &limit::$limit,
                    false $(|| $zero == 0)?,
                ),)+
            ]
        }
    };
}

keys! {
    tls.ticket_rotation: TICKET_ROTATION;
    session.handshake_timeout: HANDSHAKE_TIMEOUT;
    session.message_timeout: MESSAGE_TIMEOUT;
    session.write_timeout: WRITE_TIMEOUT;
    session.idle_timeout: IDLE_TIMEOUT;
    session.duration_max: DURATION_MAX;
    session.queries_max: QUERIES_MAX;
    session.in_flight_max: IN_FLIGHT_MAX;
    session.owed_octets_max: OWED_OCTETS_MAX;
    session.owed_octets_per_prefix_max: OWED_OCTETS_PER_PREFIX_MAX;
    session.owed_octets_per_worker_max: OWED_OCTETS_PER_WORKER_MAX;
    session.connections_max: CONNECTIONS_MAX;
    session.connections_per_prefix_max: CONNECTIONS_PER_PREFIX_MAX;
    session.queries_per_second: QUERIES_PER_SECOND or 0;
    session.queries_burst: QUERIES_BURST;
    session.connections_per_listener_max: CONNECTIONS_PER_LISTENER_MAX or 0;
    session.handshakes_per_second: HANDSHAKES_PER_SECOND or 0;
    balance.health_interval: HEALTH_INTERVAL;
    balance.downgrade_window: DOWNGRADE_WINDOW;
    balance.hedge_percent: HEDGE_PERCENT or 0;
    dns.cache_entries: CACHE_ENTRIES or 0;
    dns.cache_ttl_min: CACHE_TTL_MIN;
    dns.cache_ttl_max: CACHE_TTL_MAX;
    dns.cache_negative_ttl_max: CACHE_NEGATIVE_TTL_MAX;
    dns.cache_stale: CACHE_STALE;
    dnstap.sample: DNSTAP_SAMPLE;
    misuse.window: MISUSE_WINDOW;
    misuse.hold: MISUSE_HOLD;
    misuse.delayed_per_second: MISUSE_DELAYED_PER_SECOND;
    misuse.random_names_min: MISUSE_RANDOM_NAMES_MIN;
    misuse.random_names_missing_percent: MISUSE_MISSING_PERCENT;
    misuse.random_names_budget: MISUSE_RANDOM_NAMES_BUDGET;
    misuse.tunnel_name_octets: MISUSE_TUNNEL_NAME_OCTETS;
    misuse.tunnel_answer_octets: MISUSE_TUNNEL_ANSWER_OCTETS;
    misuse.failures_min: MISUSE_FAILURES_MIN;
    misuse.failures_percent: MISUSE_FAILURES_PERCENT;
    misuse.queries_max: MISUSE_QUERIES_MAX;
    misuse.answer_octets_max: MISUSE_ANSWER_OCTETS_MAX;
    otlp.sample: OTLP_SAMPLE;
    xdp.limit.prefix_v4: PREFIX_V4;
    xdp.limit.prefix_v6: PREFIX_V6;
    xdp.limit.wide_v4: WIDE_V4;
    xdp.limit.wide_v6: WIDE_V6;
    xdp.limit.wide_connections_per_second: WIDE_CONNECTIONS_PER_SECOND or 0;
    xdp.limit.wide_cost_per_second: WIDE_COST_PER_SECOND or 0;
    xdp.limit.syn_per_second: SYN_PER_SECOND or 0;
    xdp.limit.syn_burst: SYN_BURST;
    xdp.limit.udp53_per_second: UDP53_PER_SECOND or 0;
    xdp.limit.udp53_burst: UDP53_BURST;
    xdp.limit.handshake_cost_per_second: HANDSHAKE_COST_PER_SECOND or 0;
    xdp.limit.syn_flood_rate: SYN_FLOOD_RATE;
    xdp.limit.ban_seconds: BAN_SECONDS or 0;
}

/// Notes every value outside its range.
pub(super) fn check(config: &Config, source: &Source<'_>, mistakes: &mut Vec<Mistake>) {
    let mut check = Check { source, mistakes };
    if let Workers::Count(count) = config.server.workers {
        check.within("server.workers", count, &limit::WORKERS);
    }
    for (index, backend) in config.backend.iter().enumerate() {
        check.within(&format!("backend.{index}.timeout"), backend.timeout, &limit::BACKEND_TIMEOUT);
        check.within(&format!("backend.{index}.weight"), backend.weight, &limit::BACKEND_WEIGHT);
    }
    for (index, tenant) in config.tenant.iter().enumerate() {
        let at = |key: &str| format!("tenant.{index}.{key}");
        let rate = tenant.queries_per_second;
        if rate != 0 {
            check.within(&at("queries_per_second"), rate, &limit::QUERIES_PER_SECOND);
        }
        check.within(&at("queries_burst"), tenant.queries_burst, &limit::QUERIES_BURST);
    }
    keys(&mut check, config);
}

struct Check<'a, 't> {
    source: &'a Source<'t>,
    mistakes: &'a mut Vec<Mistake>,
}

impl Check<'_, '_> {
    fn within<T: Quantity>(&mut self, path: &str, value: T, limit: &Limit<T>) {
        let message = if value < limit.min {
            format!("{} is less than {}, the smallest permitted", value.show(), limit.min.show())
        } else if value > limit.max {
            format!("{} is more than {}, the largest permitted", value.show(), limit.max.show())
        } else {
            return;
        };
        self.mistakes.push(self.source.at(path, &message));
    }
}

/// A line of docs/ranges.md.
#[cfg(test)]
pub(super) struct Row {
    /// The key.
    pub(super) key: &'static str,
    /// The constant in `limit.rs`, whose comment gives the reason.
    pub(super) constant: &'static str,
    /// Default, smallest, largest.
    pub(super) values: [String; 3],
    /// Zero means "off".
    pub(super) has_zero: bool,
}

#[cfg(test)]
impl Row {
    fn of<T: Quantity>(key: &'static str, constant: &'static str, limit: &Limit<T>, has_zero: bool) -> Self {
        let values = [limit.default, limit.min, limit.max].map(Quantity::show);
        Self { key, constant, values, has_zero }
    }
}

/// A value with an order that operators can read.
trait Quantity: Copy + PartialOrd {
    fn show(self) -> String;
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl Quantity for $number {
            fn show(self) -> String {
                self.to_string()
            }
        })*
    };
}
numbers!(u8, u16, u32, u64);

impl Quantity for Duration {
    fn show(self) -> String {
        humantime::format_duration(self).to_string()
    }
}

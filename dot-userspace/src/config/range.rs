//! Every number and duration against its [`Limit`].
//!
//! Before: types are checked. After: `config::consistency` compares values. Never: contains a limit (`config::limit`
//! does).

use std::time::Duration;

use super::{Config, Limit, Mistake, Workers, limit, source::Source};

/// Notes every value outside its range.
pub(super) fn check(config: &Config, source: &Source<'_>, mistakes: &mut Vec<Mistake>) {
    let mut check = Check { source, mistakes };
    if let Workers::Count(count) = config.server.workers {
        check.within("server.workers", count, &limit::WORKERS);
    }
    check.within("tls.ticket_rotation", config.tls.ticket_rotation, &limit::TICKET_ROTATION);
    let session = &config.session;
    check.within("session.handshake_timeout", session.handshake_timeout, &limit::HANDSHAKE_TIMEOUT);
    check.within("session.message_timeout", session.message_timeout, &limit::MESSAGE_TIMEOUT);
    check.within("session.write_timeout", session.write_timeout, &limit::WRITE_TIMEOUT);
    check.within("session.idle_timeout", session.idle_timeout, &limit::IDLE_TIMEOUT);
    check.within("session.duration_max", session.duration_max, &limit::DURATION_MAX);
    check.within("session.queries_max", session.queries_max, &limit::QUERIES_MAX);
    check.within("session.in_flight_max", session.in_flight_max, &limit::IN_FLIGHT_MAX);
    check.within("session.owed_octets_max", session.owed_octets_max, &limit::OWED_OCTETS_MAX);
    let (per_prefix, per_worker) = (session.owed_octets_per_prefix_max, session.owed_octets_per_worker_max);
    check.within("session.owed_octets_per_prefix_max", per_prefix, &limit::OWED_OCTETS_PER_PREFIX_MAX);
    check.within("session.owed_octets_per_worker_max", per_worker, &limit::OWED_OCTETS_PER_WORKER_MAX);
    check.within("session.connections_max", session.connections_max, &limit::CONNECTIONS_MAX);
    let per_prefix = session.connections_per_prefix_max;
    check.within("session.connections_per_prefix_max", per_prefix, &limit::CONNECTIONS_PER_PREFIX_MAX);
    let per_second = session.queries_per_second;
    check.zero_or_within("session.queries_per_second", per_second, &limit::QUERIES_PER_SECOND);
    check.within("session.queries_burst", session.queries_burst, &limit::QUERIES_BURST);
    let per_listener = session.connections_per_listener_max;
    check.zero_or_within(
        "session.connections_per_listener_max",
        per_listener,
        &limit::CONNECTIONS_PER_LISTENER_MAX,
    );
    let handshakes = session.handshakes_per_second;
    check.zero_or_within("session.handshakes_per_second", handshakes, &limit::HANDSHAKES_PER_SECOND);
    for (index, backend) in config.backend.iter().enumerate() {
        check.within(&format!("backend.{index}.timeout"), backend.timeout, &limit::BACKEND_TIMEOUT);
        check.within(&format!("backend.{index}.weight"), backend.weight, &limit::BACKEND_WEIGHT);
    }
    check.within("balance.health_interval", config.balance.health_interval, &limit::HEALTH_INTERVAL);
    check.within("balance.downgrade_window", config.balance.downgrade_window, &limit::DOWNGRADE_WINDOW);
    check.zero_or_within("balance.hedge_percent", config.balance.hedge_percent, &limit::HEDGE_PERCENT);
    check.zero_or_within("dns.cache_entries", config.dns.cache_entries, &limit::CACHE_ENTRIES);
    let dns = &config.dns;
    check.within("dns.cache_ttl_min", dns.cache_ttl_min, &limit::CACHE_TTL_MIN);
    check.within("dns.cache_ttl_max", dns.cache_ttl_max, &limit::CACHE_TTL_MAX);
    check.within("dns.cache_negative_ttl_max", dns.cache_negative_ttl_max, &limit::CACHE_NEGATIVE_TTL_MAX);
    check.within("dns.cache_stale", dns.cache_stale, &limit::CACHE_STALE);
    check.within("dnstap.sample", config.dnstap.sample, &limit::DNSTAP_SAMPLE);
    let limits = &config.xdp.limit;
    check.within("xdp.limit.prefix_v4", limits.prefix_v4, &limit::PREFIX_V4);
    check.within("xdp.limit.prefix_v6", limits.prefix_v6, &limit::PREFIX_V6);
    check.within("xdp.limit.wide_v4", limits.wide_v4, &limit::WIDE_V4);
    check.within("xdp.limit.wide_v6", limits.wide_v6, &limit::WIDE_V6);
    let wide = limits.wide_connections_per_second;
    check.zero_or_within("xdp.limit.wide_connections_per_second", wide, &limit::WIDE_CONNECTIONS_PER_SECOND);
    let wide = limits.wide_cost_per_second;
    check.zero_or_within("xdp.limit.wide_cost_per_second", wide, &limit::WIDE_COST_PER_SECOND);
    check.zero_or_within("xdp.limit.syn_per_second", limits.syn_per_second, &limit::SYN_PER_SECOND);
    check.within("xdp.limit.syn_burst", limits.syn_burst, &limit::SYN_BURST);
    check.zero_or_within("xdp.limit.udp53_per_second", limits.udp53_per_second, &limit::UDP53_PER_SECOND);
    check.within("xdp.limit.udp53_burst", limits.udp53_burst, &limit::UDP53_BURST);
    let cost = limits.handshake_cost_per_second;
    check.zero_or_within("xdp.limit.handshake_cost_per_second", cost, &limit::HANDSHAKE_COST_PER_SECOND);
    check.within("xdp.limit.syn_flood_rate", limits.syn_flood_rate, &limit::SYN_FLOOD_RATE);
    check.zero_or_within("xdp.limit.ban_seconds", limits.ban_seconds, &limit::BAN_SECONDS);
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

    /// Checks values whose zero means "off".
    fn zero_or_within<T: Quantity + Default>(&mut self, path: &str, value: T, limit: &Limit<T>) {
        if value != T::default() {
            self.within(path, value, limit);
        }
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

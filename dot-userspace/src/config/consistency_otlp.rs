//! `[otlp]`: a collector that cannot be reached, or that would get spans in clear without permission; keys without effect.
//!
//! Before: types fit. After: `start::otlp` can export by it. Never: connects to the collector.

use super::{Config, Mistake, limit, source::Source};

/// Notes what is wrong with `[otlp]`.
pub(super) fn check(config: &Config, source: &Source<'_>, mistakes: &mut Vec<Mistake>) {
    let mut note = |key: &str, message: &str| mistakes.push(source.at(key, message));
    let otlp = &config.otlp;
    let Some(endpoint) = &otlp.endpoint else {
        if !otlp.clients.is_empty() {
            note("otlp.clients", "names clients, and there is no endpoint; name one");
        }
        if otlp.exemplars {
            note("otlp.exemplars", "needs an endpoint, because exemplars name traces");
        }
        return;
    };
    let (address, host) = (endpoint.address, endpoint.address.ip().to_canonical());
    if address.port() == 0 || host.is_unspecified() || host.is_multicast() {
        note("otlp.endpoint", &format!("{address} is no collector's address; name its host and port"));
    } else if !host.is_loopback() && !otlp.allow_cleartext {
        note("otlp.endpoint", &format!("{address} would get spans in clear; needs allow_cleartext = true"));
    }
    if otlp.clients.is_empty() {
        note(
            "otlp.endpoint",
            "gets nothing, because otlp.clients is empty; name prefixes, such as \"192.0.2.0/24\"",
        );
    }
    if otlp.clients.len() > limit::OTLP_CLIENTS_MAX {
        note("otlp.clients", &format!("has more than {} prefixes", limit::OTLP_CLIENTS_MAX));
    }
    let option = otlp.traceparent_option;
    if option != 0 && !limit::OTLP_OPTIONS.contains(&option) {
        let (first, last) = (limit::OTLP_OPTIONS.start(), limit::OTLP_OPTIONS.end());
        note(
            "otlp.traceparent_option",
            &format!("{option} is not from {first} to {last}, the codes for local use"),
        );
    }
}

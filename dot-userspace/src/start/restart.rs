//! The keys that a reload cannot change: they are reported by name, and kept as they are in effect. Pure.
//!
//! Before: a config that was read again. After: a line for each key that needs a restart; the next reload
//! compares with the config in effect, and reports it again.
//! Never: reports a key that is in effect as waiting, or a waiting one as in effect.

use crate::config::{Config, Control, Listen, Log, Tls, Xdp, XdpLimit};

/// Keys that take effect when dotd is restarted and differ from those in effect.
#[must_use]
pub fn needed_for(runs: &Config, new: &Config) -> Vec<&'static str> {
    let rotation = keeps_own_keys(&runs.tls, &new.tls) && runs.tls.ticket_rotation != new.tls.ticket_rotation;
    let changed = [
        ("server.workers", runs.server.workers != new.server.workers),
        ("server.user", runs.server.user != new.server.user),
        ("server.state_dir", runs.server.state_dir != new.server.state_dir),
        ("server.run_dir", runs.server.run_dir != new.server.run_dir),
        ("listen.dot", runs.listen.dot != new.listen.dot),
        ("listen.do53", runs.listen.do53 != new.listen.do53),
        ("listen.fast_open", runs.listen.fast_open != new.listen.fast_open),
        ("tls.ticket_rotation", rotation),
        ("acme.http_listen", runs.acme.listens() != new.acme.listens()),
        ("control.http", runs.control.http != new.control.http),
        ("log.format", runs.log.format != new.log.format),
        ("xdp.mode", runs.xdp.mode != new.xdp.mode),
        ("xdp.required", runs.xdp.required != new.xdp.required),
        ("xdp.interfaces", runs.xdp.interfaces != new.xdp.interfaces),
        ("xdp.steering", runs.xdp.steering != new.xdp.steering),
        ("xdp.syn_cookies", runs.xdp.syn_cookies != new.xdp.syn_cookies),
        ("xdp.limit.syn_flood_rate", runs.xdp.limit.syn_flood_rate != new.xdp.limit.syn_flood_rate),
        ("xdp.limit.prefix_v4", runs.xdp.limit.prefix_v4 != new.xdp.limit.prefix_v4),
        ("xdp.limit.prefix_v6", runs.xdp.limit.prefix_v6 != new.xdp.limit.prefix_v6),
        ("xdp.limit.wide_v4", runs.xdp.limit.wide_v4 != new.xdp.limit.wide_v4),
        ("xdp.limit.wide_v6", runs.xdp.limit.wide_v6 != new.xdp.limit.wide_v6),
    ];
    changed.into_iter().filter(|(_, has_changed)| *has_changed).map(|(key, _)| key).collect()
}

/// The new config with the keys that keep their old values.
pub(super) fn as_it_runs(runs: &Config, new: Config) -> Config {
    let runs = runs.clone();
    let limit = XdpLimit {
        prefix_v4: runs.xdp.limit.prefix_v4,
        prefix_v6: runs.xdp.limit.prefix_v6,
        wide_v4: runs.xdp.limit.wide_v4,
        wide_v6: runs.xdp.limit.wide_v6,
        syn_flood_rate: runs.xdp.limit.syn_flood_rate,
        ..new.xdp.limit
    };
    let xdp = Xdp {
        mode: runs.xdp.mode,
        required: runs.xdp.required,
        interfaces: runs.xdp.interfaces,
        steering: runs.xdp.steering,
        syn_cookies: runs.xdp.syn_cookies,
        limit,
        ..new.xdp
    };
    let rotation = if keeps_own_keys(&runs.tls, &new.tls) { &runs.tls } else { &new.tls }.ticket_rotation;
    let acme = if runs.acme.listens() == new.acme.listens() { new.acme } else { runs.acme };
    let by_acme = acme.entry(&runs.server.state_dir);
    Config {
        server: runs.server,
        listen: Listen { proxy_protocol_from: new.listen.proxy_protocol_from, ..runs.listen },
        tls: Tls { ticket_rotation: rotation, by_acme, ..new.tls },
        acme,
        control: Control { http: runs.control.http, ..new.control },
        log: Log { format: runs.log.format, ..new.log },
        xdp,
        ..new
    }
}

/// Whether the ticket keys belong to this process only before and after: then they are kept, because clients could
/// not resume otherwise.
pub(super) fn keeps_own_keys(runs: &Tls, new: &Tls) -> bool {
    [runs, new].into_iter().all(|tls| tls.ticket_secret.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{ClientAddress, LogFormat, LogLevel, Steering, SynCookies, Workers, XdpMode};

    /// A change of a config.
    type Change = fn(&mut Config);

    const ADDRESS: &str = "192.0.2.1:1853";

    /// Every key that a reload cannot change.
    const WAITING: [(&str, Change); 21] = [
        ("server.workers", |config| config.server.workers = Workers::Count(3)),
        ("server.user", |config| config.server.user = "another".into()),
        ("server.state_dir", |config| config.server.state_dir = "/another".into()),
        ("server.run_dir", |config| config.server.run_dir = "/another".into()),
        ("listen.dot", |config| config.listen.dot = vec![ADDRESS.parse().unwrap()]),
        ("listen.do53", |config| config.listen.do53 = vec![ADDRESS.parse().unwrap()]),
        ("listen.fast_open", |config| config.listen.fast_open = true),
        ("tls.ticket_rotation", |config| config.tls.ticket_rotation = Duration::from_secs(60)),
        ("acme.http_listen", |config| config.acme.directory = "letsencrypt".into()),
        ("control.http", |config| config.control.http = Some(ADDRESS.parse().unwrap())),
        ("log.format", |config| config.log.format = LogFormat::Json),
        ("xdp.mode", |config| config.xdp.mode = XdpMode::Generic),
        ("xdp.required", |config| config.xdp.required = true),
        ("xdp.interfaces", |config| config.xdp.interfaces = vec!["eth0".into()]),
        ("xdp.steering", |config| config.xdp.steering = Steering::Off),
        ("xdp.syn_cookies", |config| config.xdp.syn_cookies = SynCookies::Always),
        ("xdp.limit.syn_flood_rate", |config| config.xdp.limit.syn_flood_rate = 3),
        ("xdp.limit.prefix_v4", |config| config.xdp.limit.prefix_v4 = 24),
        ("xdp.limit.prefix_v6", |config| config.xdp.limit.prefix_v6 = 48),
        ("xdp.limit.wide_v4", |config| config.xdp.limit.wide_v4 = 16),
        ("xdp.limit.wide_v6", |config| config.xdp.limit.wide_v6 = 40),
    ];

    /// Goal: a key that needs a restart is reported at each reload, and its old value stays in effect; several
    /// keys are each reported. Method: every such key by itself, two reloads of the same file; then all of them.
    #[test]
    fn what_waits_for_a_restart_is_said_each_time() {
        let runs = Config::default();
        let mut all = runs.clone();
        for (key, change) in WAITING {
            let mut new = runs.clone();
            change(&mut new);
            change(&mut all);
            assert_eq!(needed_for(&runs, &new), [key]);
            let still = as_it_runs(&runs, new.clone());
            assert_eq!(still, runs, "{key}");
            assert_eq!(needed_for(&still, &new), [key]);
        }
        assert_eq!(needed_for(&runs, &all), WAITING.map(|(key, _)| key));
    }

    /// Goal: a key that a reload changes is not reported as waiting, and its new value is kept. Method: keys of each
    /// part that has any; ticket keys that start again, with another rotation, because a shared secret is added or
    /// removed.
    #[test]
    fn what_is_in_effect_is_not_said_to_wait() {
        let changes: [Change; 12] = [
            |config| config.listen.proxy_protocol_from = vec!["192.0.2.0/24".parse().unwrap()],
            |config| config.tls.client_ca = "/ca.pem".into(),
            |config| config.session.in_flight_max = 3,
            |config| config.dns.cache_entries = 3,
            |config| config.log.client_address = ClientAddress::Full,
            |config| config.log.level = LogLevel::Trace,
            |config| config.log.connections = true,
            |config| config.control.page = crate::config::Page::Open,
            |config| config.dnstap.unix = "/run/tap.sock".into(),
            |config| config.otlp.names = true,
            |config| config.xdp.limit.syn_burst = 3,
            |config| {
                config.tls.ticket_secret = "/secret".into();
                config.tls.ticket_rotation = Duration::from_secs(60);
            },
        ];
        for change in changes {
            let (plain, mut changed) = (Config::default(), Config::default());
            change(&mut changed);
            for (runs, new) in [(&plain, &changed), (&changed, &plain)] {
                assert_eq!(needed_for(runs, new), [""; 0]);
                assert_eq!(as_it_runs(runs, new.clone()), *new);
            }
        }
    }
}

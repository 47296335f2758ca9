//! The config key behind each limit, so that an operator knows how to change a refusal.
//!
//! Before: a counter of the engine, or a reason of the kernel half. After: the key that would change it.
//! Never: names a key that the config does not have: a test compares this with docs/config.md.

use dot_common::verdict::Reason;

use crate::ledger::Counter;

/// The key behind a refusal or an end of a session; `None`: no key changes it.
#[must_use]
pub fn key_of(counter: Counter) -> Option<&'static str> {
    Some(match counter {
        Counter::RefusedTotal | Counter::EndEvicted => "session.connections_max",
        Counter::RefusedPrefix => "session.connections_per_prefix_max",
        Counter::RefusedListener => "session.connections_per_listener_max",
        Counter::RefusedRate => "session.handshakes_per_second",
        Counter::AccessDenied => "access.deny",
        Counter::RefusedAccess | Counter::AccessNotAllowed => "access.allow",
        Counter::AccessServerName => "access.server_names",
        Counter::AccessClientName => "access.client_names",
        Counter::HandshakeTimeout => "session.handshake_timeout",
        Counter::HandshakeVersion => "tls.min_version",
        Counter::HandshakeNoCommon => "tls.require_ems",
        Counter::HandshakeClientCertificate => "tls.client_ca",
        Counter::HandshakeAlert => "tls.certificates",
        Counter::HandshakeProxyHeader | Counter::DroppedProxyHeader => "listen.proxy_protocol_from",
        Counter::EndIdle => "session.idle_timeout",
        Counter::EndDuration => "session.duration_max",
        Counter::EndQueries => "session.queries_max",
        Counter::EndMessageTimeout => "session.message_timeout",
        Counter::EndSlowReader => "session.write_timeout",
        Counter::EndOwed => "session.owed_octets_per_worker_max",
        Counter::NotKept => "session.owed_octets_max",
        Counter::QueriesRefused | Counter::QueriesOverRate => "session.queries_per_second",
        Counter::TenantOverRate => "tenant.queries_per_second",
        Counter::TenantNotAllowed => "tenant.allow",
        Counter::MisuseRandomNames => "misuse.random_names",
        Counter::MisuseTunnel => "misuse.tunnel",
        Counter::MisuseFailures => "misuse.failures",
        Counter::MisuseQueries => "misuse.queries",
        Counter::MisuseAnswerOctets => "misuse.answer_octets",
        Counter::QueriesOverShare => "backend.outstanding_max",
        _ => return None,
    })
}

/// The key behind a packet that the kernel half dropped, would have dropped or answered, by the name of the reason.
#[must_use]
pub fn key_of_packets(reason: &str) -> Option<&'static str> {
    let reason = Reason::ALL.iter().find(|known| known.name() == reason)?;
    Some(match reason {
        Reason::CleartextOnDot => "xdp.cleartext_853",
        Reason::TlsOnDo53 | Reason::Ungated => "xdp.tls_53",
        Reason::UdpOnDot => "xdp.udp_853",
        Reason::Denied => "xdp.deny",
        Reason::Allowed => "xdp.allow",
        Reason::DotSynRate | Reason::Do53SynRate | Reason::Proven => "xdp.limit.syn_per_second",
        Reason::Do53QueryRate => "xdp.limit.udp53_per_second",
        Reason::HandshakeCost => "xdp.limit.handshake_cost_per_second",
        Reason::WideCost => "xdp.limit.wide_cost_per_second",
        Reason::SynCookie => "xdp.syn_cookies",
        Reason::Pressure => "session.connections_max",
        Reason::Banned => "xdp.limit.ban_seconds",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use dot_common::verdict::Action;

    use super::*;

    /// Goal: an operator who is told a key finds it in the config, and each refusal that a limit makes names one. Method: every
    /// counter and every reason; the key's last part begins a line in its section of docs/config.md. Each reason that can also
    /// only be counted comes from a setting. Covers: A-490
    #[test]
    fn every_key_is_in_the_config() {
        let page = include_str!("../../../docs/config.md");
        let of_engine = Counter::ALL.iter().filter_map(|counter| key_of(*counter));
        let of_packets = Reason::ALL.iter().filter_map(|reason| key_of_packets(reason.name()));
        for key in of_engine.chain(of_packets) {
            let (section, name) = key.rsplit_once('.').expect(key);
            let head = if matches!(section, "backend" | "tenant") {
                format!("[[{section}]]")
            } else {
                format!("[{section}]")
            };
            let rest = page.split_once(&format!("\n{head}")).expect(key).1;
            let lines =
                rest.lines().skip(1).take_while(|line| !line.starts_with('[') && !line.starts_with("```"));
            assert!(lines.into_iter().any(|line| line.starts_with(&format!("{name} = "))), "{key}");
        }
        let gates = Reason::ALL.iter().filter(|reason| reason.actions().contains(&Action::WouldDrop));
        for reason in gates {
            assert!(key_of_packets(reason.name()).is_some(), "{reason:?} has no key: see key_of_packets");
        }
        let caps = Counter::ALL.iter().filter(|counter| counter.label().starts_with("refused_"));
        assert_eq!(caps.filter(|counter| key_of(**counter).is_none()).count(), 0);
    }
}

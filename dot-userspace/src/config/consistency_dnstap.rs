//! `[dnstap]`: readers that nobody can reach, or that would get messages in clear without being asked for.
//!
//! Before: types and ranges fit. After: `start::tap` can write by it. Never: asks whether the reader is there.

use super::{Config, Mistake, limit, source::Source};

/// Notes what is wrong with `[dnstap]`.
pub(super) fn check(config: &Config, source: &Source<'_>, mistakes: &mut Vec<Mistake>) {
    let mut note = |key: &str, message: &str| mistakes.push(source.at(key, message));
    let dnstap = &config.dnstap;
    let octets = dnstap.unix.as_os_str().len();
    if octets > limit::SOCKET_PATH_OCTETS_MAX {
        let max = limit::SOCKET_PATH_OCTETS_MAX;
        note("dnstap.unix", &format!("too long for a socket's path; at most {max} octets"));
    }
    if let Some(tcp) = dnstap.tcp {
        if octets > 0 {
            note("dnstap.tcp", "there is `unix` too; one reader gets messages, so remove one of both");
        }
        let host = tcp.ip().to_canonical();
        if tcp.port() == 0 || host.is_unspecified() || host.is_multicast() {
            note("dnstap.tcp", &format!("{tcp} is no reader's address; name its host and port"));
        } else if !host.is_loopback() && !dnstap.allow_cleartext {
            let message = format!("{tcp} would get queries in clear; needs allow_cleartext = true");
            note("dnstap.tcp", &message);
        }
    }
    if dnstap.messages.is_empty() {
        note("dnstap.messages", "is empty; write [\"client\", \"backend\"] or one of both");
    }
    if dnstap.identity.len() > limit::DNSTAP_IDENTITY_OCTETS_MAX {
        let max = limit::DNSTAP_IDENTITY_OCTETS_MAX;
        note("dnstap.identity", &format!("is longer than {max} octets"));
    }
}

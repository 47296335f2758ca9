//! Checks `[dnstap]`: readers that cannot be reached, or that would get messages in clear without permission.
//!
//! Before: types and ranges are checked. After: `start::tap` can use it. Never: checks whether the reader runs.

use super::{Config, Mistake, limit, source::Source};

/// Notes every mistake in `[dnstap]`.
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
            note("dnstap.tcp", "`unix` is set too, and only one reader gets messages; remove one of them");
        }
        let host = tcp.ip().to_canonical();
        if tcp.port() == 0 || host.is_unspecified() || host.is_multicast() {
            note("dnstap.tcp", &format!("{tcp} is not the address of a reader; write its host and port"));
        } else if !host.is_loopback() && !dnstap.allow_cleartext {
            let message =
                format!("{tcp} would get queries in clear; set allow_cleartext = true to permit that");
            note("dnstap.tcp", &message);
        }
    }
    if dnstap.messages.is_empty() {
        note("dnstap.messages", "is empty; write [\"client\", \"backend\"] or one of them");
    }
    if dnstap.identity.len() > limit::DNSTAP_IDENTITY_OCTETS_MAX {
        let max = limit::DNSTAP_IDENTITY_OCTETS_MAX;
        note("dnstap.identity", &format!("is longer than {max} octets"));
    }
}

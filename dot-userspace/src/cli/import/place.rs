//! Addresses, ports and times as stunnel, HAProxy and nginx write them.
//!
//! Before: one word of a config. After: an address for `dotd.toml`, or `None`. Never: asks a name server.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

/// Ports of DNS and of DNS over TLS, whose names /etc/services knows.
pub(super) const DNS: u16 = 53;
pub(super) const DOT: u16 = 853;

/// An address to listen on: `853`, `:853`, `*:853`, `:::853`, `[::]:853`, `192.0.2.1:853`, and HAProxy's `ipv4@:853` and `ipv6@:853`.
/// Without a host it is `any`.
pub(super) fn listen(word: &str, any: IpAddr) -> Option<SocketAddr> {
    let (any, word) = match word.split_once('@') {
        Some(("ipv4", word)) => (any, word),
        Some(("ipv6", word)) if any.is_loopback() => (Ipv6Addr::LOCALHOST.into(), word),
        Some(("ipv6", word)) => (Ipv6Addr::UNSPECIFIED.into(), word),
        Some(_) => return None,
        None => (any, word),
    };
    let (host, port) = split(word);
    let port = port_number(port)?;
    let ip = match host {
        "" | "*" => any,
        "::" | "[::]" => Ipv6Addr::UNSPECIFIED.into(),
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.trim_matches(['[', ']']).parse().ok()?,
    };
    Some(SocketAddr::new(ip, port))
}

/// The address of a server; without a host it is on this machine.
pub(super) fn server(word: &str) -> Option<SocketAddr> {
    listen(word, Ipv4Addr::LOCALHOST.into())
}

/// Host and port, divided at the last colon outside brackets.
fn split(word: &str) -> (&str, &str) {
    let divided = word.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    divided.unwrap_or(("", word))
}

fn port_number(word: &str) -> Option<u16> {
    match word {
        "domain" => Some(DNS),
        "domain-s" => Some(DOT),
        number => number.parse().ok().filter(|port| *port != 0),
    }
}

/// A time: a number of `unit`s, or one with its own unit (`ms`, `s`, `m`, `h`, `d`).
pub(super) fn time(word: &str, unit: Duration) -> Option<Duration> {
    let digits = word.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u32 = digits.parse().ok()?;
    let unit = match &word[digits.len()..] {
        "" => unit,
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        "d" => Duration::from_secs(86_400),
        _ => return None,
    };
    unit.checked_mul(number)
}

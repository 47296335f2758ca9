//! Checks backends whose keys contradict each other, or would send queries to a network without the operator's
//! permission.
//!
//! Before: types and ranges are checked. After: each backend can be asked, over TLS, or in clear if the file permits
//! that.
//! Never: asks the system; checks whether a backend answers.
//!
//! Source: RFC 8310 §5 (profiles), RFC 8932 §5.1.1.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use super::{Backend, BackendAddress, Config, OnTlsFailure, Profile, Transport, check::Check, limit};

/// Notes every mistake in the backends.
pub(super) fn check(check: &mut Check<'_, '_>, config: &Config) {
    for (index, backend) in config.backend.iter().enumerate() {
        self::backend(check, config, index, backend);
        fallback(check, index, backend);
        in_clear(check, config, index, backend);
    }
    once(check, config);
    bootstrap(check, config);
}

fn bootstrap(check: &mut Check<'_, '_>, config: &Config) {
    let servers = &config.balance.bootstrap;
    if servers.len() > limit::BOOTSTRAP_MAX {
        let (count, max) = (servers.len(), limit::BOOTSTRAP_MAX);
        check.note("balance.bootstrap", format!("{count} resolvers are more than {max}, the most permitted"));
    }
    for (index, address) in servers.iter().enumerate() {
        let host = address.ip().to_canonical();
        let path = format!("balance.bootstrap.{index}");
        if address.port() == 0 || host.is_unspecified() || is_multicast(host) {
            check.note(&path, format!("{address} is no resolver's address; use \"192.0.2.53:53\""));
        } else if config.listen.do53.iter().any(|at| is_reached_at(*at, *address)) {
            check.note(
                &path,
                format!("{address} is dotd itself, which asks this backend; name another resolver"),
            );
        }
    }
}

fn backend(check: &mut Check<'_, '_>, config: &Config, index: usize, backend: &Backend) {
    let at = |key: &str| format!("backend.{index}.{key}");
    let is_tls = backend.transport == Transport::Tls;
    match &backend.address {
        BackendAddress::Embedded if backend.transport != Transport::Udp => {
            check.note(&at("transport"), "the embedded backend has no transport; remove it");
        }
        BackendAddress::Embedded if backend.proxy_v2 => {
            check.note(&at("proxy_v2"), "the embedded backend reads no PROXY header; remove it");
        }
        BackendAddress::Embedded => {}
        BackendAddress::Named(_) => {
            if config.balance.bootstrap.is_empty() {
                check.note(&at("address"), "is a name: name resolvers that know it in balance.bootstrap");
            }
            if !is_tls && !backend.allow_cleartext {
                let message = "its addresses may lie beyond this machine, and queries would leave it in cleartext; set allow_cleartext = true if that network is yours";
                check.note(&at("address"), message);
            }
        }
        BackendAddress::Socket(address) => self::address(check, index, backend, *address),
    }
    let is_strict = backend.profile == Profile::Strict;
    let mut identity = backend.identity();
    let is_plain =
        matches!(backend.address, BackendAddress::Socket(_)) && backend.transport == Transport::Udp;
    if backend.discover && !is_plain {
        check.note(&at("discover"), "is for a backend with an address and transport = \"udp\"; remove it");
    }
    if backend.discover && is_plain {
        // Its authorities are those of the server that it designates.
        identity.ca = Path::new("");
    }
    if is_tls && !is_strict {
        for key in identity.keys().filter(|key| *key != "server_name") {
            check.note(
                &at(key),
                "is not checked for an opportunistic backend; remove it, or set profile = \"strict\"",
            );
        }
    }
    identity.check(check, &format!("backend.{index}"), (is_tls, is_strict), "backend");
}

fn address(check: &mut Check<'_, '_>, index: usize, backend: &Backend, address: SocketAddr) {
    let path = format!("backend.{index}.address");
    if address.port() == 0 {
        check.note(&path, format!("{address}: port 0 cannot be used; use 53"));
    }
    let host = address.ip().to_canonical();
    if host.is_unspecified() || is_multicast(host) {
        check.note(&path, format!("{address} is not the address of a host; use \"127.0.0.1:53\""));
    } else if !host.is_loopback() && !backend.allow_cleartext && backend.transport != Transport::Tls {
        let message = format!(
            "queries to {address} would leave this machine in cleartext; set allow_cleartext = true if that network is yours"
        );
        check.note(&path, message);
    }
}

fn once(check: &mut Check<'_, '_>, config: &Config) {
    let mut seen = Vec::new();
    for (index, backend) in config.backend.iter().enumerate() {
        let path = format!("backend.{index}.address");
        if seen.contains(&backend.address) {
            check.note(&path, "is listed twice; remove one, or raise the other's `weight`");
        }
        seen.push(backend.address.clone());
        if let BackendAddress::Socket(address) = backend.address
            && is_dotd(config, address)
        {
            check.note(&path, format!("{address} is dotd itself; name the DNS server behind it"));
        }
    }
}

/// Cleartext needs the operator's permission, and is never permitted for a strict backend (RFC 8310 §5).
fn fallback(check: &mut Check<'_, '_>, index: usize, backend: &Backend) {
    let at = |key: &str| format!("backend.{index}.{key}");
    let is_tls = backend.transport == Transport::Tls;
    if !is_tls && backend.profile == Profile::Opportunistic {
        check.note(&at("profile"), "is used with transport = \"tls\" only; remove it");
    }
    if backend.on_tls_failure != OnTlsFailure::Cleartext {
        if backend.cleartext_address.is_some() {
            check.note(
                &at("cleartext_address"),
                "is used with on_tls_failure = \"cleartext\" only; remove it",
            );
        }
        return;
    }
    if !is_tls {
        check.note(&at("on_tls_failure"), "\"cleartext\" is for transport = \"tls\"; remove it");
    } else if backend.profile == Profile::Strict {
        check.note(
            &at("on_tls_failure"),
            "a strict backend is never asked in clear (RFC 8310 §5); set \"next\" or \"refuse\", or profile = \"opportunistic\"",
        );
    } else if !backend.allow_cleartext {
        check.note(&at("on_tls_failure"), "\"cleartext\" needs allow_cleartext = true for this backend");
    }
    if let Some(address) = backend.cleartext_address {
        let host = address.ip().to_canonical();
        if address.port() == 0 || host.is_unspecified() || is_multicast(host) {
            check.note(
                &at("cleartext_address"),
                format!("{address} is not the address of a server; use \"192.0.2.1:53\""),
            );
        }
    }
}

/// Cleartext must not be sent to dotd itself, or to a server that is asked over TLS.
fn in_clear(check: &mut Check<'_, '_>, config: &Config, index: usize, backend: &Backend) {
    let Some(address) = backend.in_clear() else { return };
    let key = if backend.cleartext_address.is_some() { "cleartext_address" } else { "on_tls_failure" };
    let path = format!("backend.{index}.{key}");
    let is_over_tls = |other: &Backend| {
        other.transport == Transport::Tls && other.address == BackendAddress::Socket(address)
    };
    if is_dotd(config, address) {
        let message = format!(
            "in clear, {address} is dotd itself; set `cleartext_address` to the DNS server behind it"
        );
        check.note(&path, message);
    } else if config.backend.iter().any(is_over_tls) {
        let message =
            format!("{address} is a backend over TLS; set `cleartext_address` to the server's port in clear");
        check.note(&path, message);
    }
}

/// Why a backend whose address a resolver gave is not asked, by the same rules as one that the file names.
#[must_use]
pub fn why_not_asked(config: &Config, backend: &Backend) -> Option<&'static str> {
    let BackendAddress::Socket(address) = backend.address else { return None };
    let host = address.ip().to_canonical();
    let is_over_tls = |in_clear: SocketAddr| {
        let is_there = |other: &Backend| {
            other.transport == Transport::Tls && other.address == BackendAddress::Socket(in_clear)
        };
        config.backend.iter().any(is_there)
    };
    if host.is_unspecified() || is_multicast(host) {
        Some("it is no host's address")
    } else if is_dotd(config, address) {
        Some("it is dotd itself")
    } else if backend.in_clear().is_some_and(|in_clear| is_dotd(config, in_clear)) {
        Some("in clear, it is dotd itself")
    } else if backend.in_clear().is_some_and(is_over_tls) {
        Some("in clear, it is a backend over TLS")
    } else {
        None
    }
}

/// Whether one of dotd's own listeners receives what is sent to `address`.
fn is_dotd(config: &Config, address: SocketAddr) -> bool {
    config.listen.dot.iter().chain(&config.listen.do53).any(|at| is_reached_at(*at, address))
}

/// Whether `listener` receives what is sent to `address`, as far as that is certain: a wildcard listens on every
/// loopback address.
fn is_reached_at(listener: SocketAddr, address: SocketAddr) -> bool {
    let (own, host) = (listener.ip(), address.ip());
    let is_within = own.is_unspecified() && host.is_loopback() && own.is_ipv4() == host.is_ipv4();
    listener.port() == address.port() && (own == host || is_within)
}

pub(super) fn is_multicast(host: IpAddr) -> bool {
    host.is_multicast() || host == IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
}

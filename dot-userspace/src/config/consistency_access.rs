//! Checks `[access]` against the rest of the config: lists that contradict each other, and lists that could have no
//! effect.
//!
//! Before: types and ranges are checked. After: every list of `[access]` has an effect.
//! Never: asks the system.

use std::{collections::HashSet, net::SocketAddr};

use ipnet::IpNet;

use super::{Config, check::Check};

/// Notes every mistake in `[access]`.
pub(super) fn check(check: &mut Check<'_, '_>, config: &Config) {
    let access = &config.access;
    lists(check, "access", &access.allow, &access.deny);
    names(check, "access", &access.server_names, &access.client_names);
    client_names(check, config, "access", &access.client_names);
    let has_names = !access.server_names.is_empty() || !access.client_names.is_empty();
    if has_names && !config.listen.do53.is_empty() {
        let key = if access.server_names.is_empty() { "client_names" } else { "server_names" };
        let message = "clients of listen.do53 present no names, so none of them could ask; move this to an \
                       [[access.listener]] of an address of listen.dot";
        check.note(&format!("access.{key}"), message);
    }
    let mut seen = HashSet::new();
    for (index, own) in access.listener.iter().enumerate() {
        let path = format!("access.listener.{index}");
        lists(check, &path, &own.allow, &own.deny);
        names(check, &path, &own.server_names, &own.client_names);
        client_names(check, config, &path, &own.client_names);
        let address = own.address;
        let has = |listeners: &[SocketAddr]| listeners.contains(&address);
        if !has(&config.listen.dot) && !has(&config.listen.do53) {
            check.note(
                &format!("{path}.address"),
                format!("{address} is not an address of [listen]; copy one from there"),
            );
        } else if !seen.insert(address) {
            check.note(&format!("{path}.address"), format!("{address} is listed twice; put both in one"));
        }
        let is_clear = has(&config.listen.do53);
        for (key, names) in [("server_names", &own.server_names), ("client_names", &own.client_names)] {
            if is_clear && !names.is_empty() {
                check.note(
                    &format!("{path}.{key}"),
                    format!("clients of {address} do not use TLS and present no names; remove it"),
                );
            }
        }
    }
}

fn lists(check: &mut Check<'_, '_>, path: &str, allow: &[IpNet], deny: &[IpNet]) {
    check.prefixes(&format!("{path}.allow"), allow);
    check.prefixes(&format!("{path}.deny"), deny);
    check.allowed_and_denied(&format!("{path}.allow"), allow, deny);
}

pub(super) fn names(check: &mut Check<'_, '_>, path: &str, server_names: &[String], client_names: &[String]) {
    for (key, names) in [("server_names", server_names), ("client_names", client_names)] {
        for (index, name) in names.iter().enumerate() {
            let plain = name.strip_prefix("*.").unwrap_or(name);
            if plain.is_empty() || plain.ends_with('.') || plain.contains(['*', ' ']) {
                let message = format!(
                    "\"{name}\" is not a name that a client can present; write one such as \"dns.example\" or \"*.dns.example\""
                );
                check.note(&format!("{path}.{key}.{index}"), message);
            }
        }
    }
}

pub(super) fn client_names(check: &mut Check<'_, '_>, config: &Config, path: &str, client_names: &[String]) {
    if !client_names.is_empty() && config.tls.client_ca.as_os_str().is_empty() {
        check.note(
            &format!("{path}.client_names"),
            "clients present certificates only if tls.client_ca is set; set that key",
        );
    }
}

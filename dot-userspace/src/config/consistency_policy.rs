//! Checks `[policy]`: zones whose names are not domain names or are used twice, and actions with an invalid target.
//!
//! Before: types and ranges are checked. After: `policy` can read each zone.
//! Never: reads a zone.

use std::collections::HashSet;

use super::{
    Config, PolicyAction, PolicyFormat, PolicyPrimary, PolicyZone, TransferTransport, check::Check,
    consistency_backend::is_multicast, limit,
};

/// Notes every mistake in `[policy]`.
pub(super) fn check(check: &mut Check<'_, '_>, config: &Config) {
    let zones = &config.policy.zone;
    if zones.len() > limit::POLICY_ZONES_MAX {
        let message =
            format!("{} zones are more than {}, the most permitted", zones.len(), limit::POLICY_ZONES_MAX);
        check.note("policy.zone", message);
    }
    let mut seen = HashSet::new();
    for (index, zone) in zones.iter().enumerate() {
        let at = |key: &str| format!("policy.zone.{index}.{key}");
        if !is_domain_name(&zone.name) {
            let message = format!(
                "\"{}\" is not a domain name; write one such as \"rpz.example\"",
                zone.name.escape_debug()
            );
            check.note(&at("name"), message);
        } else if !seen.insert(zone.name.trim_end_matches('.').to_ascii_lowercase()) {
            check.note(&at("name"), format!("\"{}\" is another zone's name; choose one for each", zone.name));
        }
        source(check, index, zone);
        if let PolicyAction::Cname(target) = &zone.action
            && !is_domain_name(target.strip_prefix("*.").unwrap_or(target))
        {
            check.note(&at("action"), format!("\"{}\" is not a domain name", target.escape_debug()));
        }
    }
}

/// Checks the source of the rules: a file, or primary servers.
fn source(check: &mut Check<'_, '_>, index: usize, zone: &PolicyZone) {
    let at = |key: &str| format!("policy.zone.{index}.{key}");
    match (zone.file.as_os_str().is_empty(), zone.is_transferred()) {
        (true, false) => {
            check.note(
                &at("file"),
                "is empty; name the file that holds the zone, or a `primary` to transfer it from",
            );
        }
        (false, true) => check.note(&at("file"), "is not used with `primary`; remove one of them"),
        _ => {}
    }
    if !zone.is_transferred() {
        return;
    }
    if zone.format != PolicyFormat::Rpz {
        check.note(&at("format"), "a zone that is transferred has format \"rpz\"; remove it");
    }
    if zone.primary.len() > limit::POLICY_PRIMARIES_MAX {
        let message = format!(
            "{} servers are more than {}, the most permitted",
            zone.primary.len(),
            limit::POLICY_PRIMARIES_MAX
        );
        check.note(&at("primary"), message);
    }
    for (number, primary) in zone.primary.iter().enumerate() {
        self::primary(check, &at(&format!("primary.{number}")), primary);
    }
}

fn primary(check: &mut Check<'_, '_>, path: &str, primary: &PolicyPrimary) {
    let at = |key: &str| format!("{path}.{key}");
    let (address, host) = (primary.address, primary.address.ip().to_canonical());
    let is_tls = primary.transport == TransferTransport::Tls;
    if address.port() == 0 || host.is_unspecified() || is_multicast(host) {
        let port = if is_tls { 853 } else { 53 };
        let message = format!("{address} is not the address of a server; use \"192.0.2.53:{port}\"");
        check.note(&at("address"), message);
    } else if !is_tls && primary.tsig.as_os_str().is_empty() && !host.is_loopback() && !primary.allow_unsigned
    {
        let message = "an attacker on the path to it could change the rules; set `tsig`, transport = \"tls\", or \
                           allow_unsigned = true if that network is yours";
        check.note(&at("address"), message);
    }
    primary.identity().check(check, path, (is_tls, true), "server");
}

/// Letters, digits, hyphens and underscores in labels of 1 to 63 octets: a metric's label and a log line can contain
/// these.
pub(super) fn is_domain_name(name: &str) -> bool {
    let is_sign = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_sign);
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= limit::POLICY_NAME_OCTETS_MAX && name.split('.').all(is_label)
}

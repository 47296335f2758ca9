//! `[policy]`: zones whose names are no domain names or are given twice, and actions that lead nowhere.
//!
//! Before: types and ranges fit. After: each zone can be read by `policy`.
//! Never: reads a zone.

use std::collections::HashSet;

use super::{Config, PolicyAction, consistency::Check, limit};

/// Notes what is wrong with `[policy]`.
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
                "\"{}\" is no domain name; write one such as \"rpz.example\"",
                zone.name.escape_debug()
            );
            check.note(&at("name"), message);
        } else if !seen.insert(zone.name.trim_end_matches('.').to_ascii_lowercase()) {
            check.note(&at("name"), format!("\"{}\" is another zone's name; choose one for each", zone.name));
        }
        if zone.file.as_os_str().is_empty() {
            check.note(&at("file"), "is empty; name the file that holds the zone");
        }
        if let PolicyAction::Cname(target) = &zone.action
            && !is_domain_name(target.strip_prefix("*.").unwrap_or(target))
        {
            check.note(&at("action"), format!("\"{}\" is no domain name", target.escape_debug()));
        }
    }
}

/// Letters, digits, hyphens and underscores in labels of 1 to 63 octets: what a metric's label and a log line can hold.
fn is_domain_name(name: &str) -> bool {
    let is_sign = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_sign);
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= limit::POLICY_NAME_OCTETS_MAX && name.split('.').all(is_label)
}

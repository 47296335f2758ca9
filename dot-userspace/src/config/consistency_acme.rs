//! Checks `[acme]`: an authority that is none, names that no certificate can have, and proofs that cannot succeed.
//!
//! Before: types and ranges are checked. After: `keeper` can run the ACME client.
//! Never: asks the authority.
//!
//! Source: RFC 8555 §7.1.3 and §8, RFC 8738 §4 (addresses are not proved by `dns-01`).

use std::{collections::HashSet, net::IpAddr};

use super::{
    Acme, AcmeChallenge, Config, check::Check, consistency_backend::is_multicast,
    consistency_policy::is_domain_name, limit, reachable,
};

/// Notes every mistake in `[acme]`.
pub(super) fn check(check: &mut Check<'_, '_>, config: &Config) {
    let acme = &config.acme;
    if !acme.is_on() {
        if !acme.names.is_empty() {
            check.note("acme.directory", "is empty, and acme.names has names; write \"letsencrypt\", or the https URL of another authority's directory");
        }
        return;
    }
    let url = acme.directory_url();
    let host = url.strip_prefix("https://").and_then(|rest| rest.split('/').next());
    if host.is_none_or(str::is_empty) || !url.bytes().all(|octet| octet.is_ascii_graphic()) {
        let message = format!(
            "\"{}\" is no authority; write \"letsencrypt\", \"letsencrypt-staging\", or a URL that begins with https://",
            acme.directory.escape_debug()
        );
        check.note("acme.directory", message);
    }
    if !acme.accept_terms {
        check.note("acme.accept_terms", "is false, and the authority issues to nobody who has not accepted its terms; read them, and set true");
    }
    names(check, acme);
    contacts(check, acme);
    external(check, acme);
    if acme.profile.len() > limit::ACME_PROFILE_OCTETS_MAX
        || !acme.profile.bytes().all(|octet| octet.is_ascii_graphic())
    {
        check.note("acme.profile", "is no name of a profile; the authority's documentation lists them");
    }
    listeners(check, config);
    proof(check, config);
}

fn names(check: &mut Check<'_, '_>, acme: &Acme) {
    if acme.names.is_empty() {
        check.note("acme.names", "is empty; name the host that clients ask for, such as \"dot.example.net\"");
    }
    if acme.names.len() > limit::ACME_NAMES_MAX {
        let (count, max) = (acme.names.len(), limit::ACME_NAMES_MAX);
        return check
            .note("acme.names", format!("{count} names are more than {max}, the most of one certificate"));
    }
    let mut seen = HashSet::new();
    for (index, name) in acme.names.iter().enumerate() {
        let path = format!("acme.names.{index}");
        let is_dns = acme.challenge == AcmeChallenge::Dns;
        match name.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() || is_multicast(address) => {
                check.note(&path, format!("{address} is not the address of a server"));
            }
            Ok(_) if is_dns => check.note(
                &path,
                "an address cannot be proved by dns-01 (RFC 8738 §4); set challenge = \"http-01\"",
            ),
            Ok(_) => {}
            Err(_) if name.starts_with("*.") && !is_dns => {
                check.note(&path, "a wildcard is proved by dns-01 alone; set challenge = \"dns-01\"");
            }
            Err(_) if !is_host(name) => {
                let message = format!("\"{}\" is neither a host's name nor an address", name.escape_debug());
                check.note(&path, message);
            }
            Err(_) => {}
        }
        if !seen.insert(name.to_ascii_lowercase()) {
            check.note(&path, format!("\"{name}\" is listed twice; remove one"));
        }
    }
}

/// Whether a certificate can have the name: without the dot of the root and without underscores.
fn is_host(name: &str) -> bool {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    is_domain_name(rest) && !rest.ends_with('.') && !rest.contains('_')
}

fn contacts(check: &mut Check<'_, '_>, acme: &Acme) {
    if acme.contact.len() > limit::ACME_CONTACTS_MAX {
        let max = limit::ACME_CONTACTS_MAX;
        check.note("acme.contact", format!("has more than {max} addresses"));
    }
    for (index, contact) in acme.contact.iter().enumerate() {
        let address = contact.strip_prefix("mailto:").unwrap_or(contact);
        let is_clean = contact.bytes().all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'?' | b','));
        if !is_clean || address.split_once('@').is_none_or(|(user, host)| user.is_empty() || host.is_empty())
        {
            let message = format!("\"{}\" is no mail address", contact.escape_debug());
            check.note(&format!("acme.contact.{index}"), message);
        }
    }
}

/// The account at the authority's site: its key identifier and the file of its key belong together.
fn external(check: &mut Check<'_, '_>, acme: &Acme) {
    let (kid, has_key) = (acme.eab_kid.as_str(), !acme.eab_key.as_os_str().is_empty());
    if kid.is_empty() && has_key {
        let message = "is empty, and acme.eab_key is set; the authority gives a key identifier with each key, write it here";
        check.note("acme.eab_kid", message);
    } else if !kid.is_empty() && !has_key {
        let message =
            "is empty, and acme.eab_kid is set; name a file with the key that the authority gave with it";
        check.note("acme.eab_key", message);
    } else if kid.len() > limit::ACME_KID_OCTETS_MAX || !kid.bytes().all(|octet| octet.is_ascii_graphic()) {
        let max = limit::ACME_KID_OCTETS_MAX;
        let message = format!("is no key identifier: it must have 1 to {max} visible characters of ASCII");
        check.note("acme.eab_kid", message);
    }
}

fn listeners(check: &mut Check<'_, '_>, config: &Config) {
    let acme = &config.acme;
    if acme.challenge != AcmeChallenge::Http {
        return;
    }
    if acme.http_listen.is_empty() || acme.http_listen.len() > limit::ACME_LISTENERS_MAX {
        let max = limit::ACME_LISTENERS_MAX;
        return check
            .note("acme.http_listen", format!("must have 1 to {max} addresses, such as \"[::]:80\""));
    }
    let others: Vec<_> =
        config.listen.dot.iter().chain(&config.listen.do53).chain(&config.control.http).copied().collect();
    let mut seen: Vec<std::net::SocketAddr> = Vec::new();
    for (index, address) in acme.http_listen.iter().enumerate() {
        let path = format!("acme.http_listen.{index}");
        if let Some(message) = reachable::fault(*address) {
            check.note(&path, message);
        } else if address.port() == 0 {
            check.note(&path, format!("{address}: port 0 cannot be used; use 80"));
        } else if others.iter().any(|other| reachable::overlap(*other, *address)) {
            check.note(&path, format!("{address} is another listener's address; use another port"));
        } else if seen.iter().any(|other| reachable::overlap(*other, *address)) {
            check.note(&path, format!("{address} is listed twice; remove one"));
        }
        seen.push(*address);
    }
}

/// Whether `_acme-challenge` of a name is in the zone.
fn is_in(name: &str, zone: &str) -> bool {
    let (name, zone) = (name.to_ascii_lowercase(), zone.trim_end_matches('.').to_ascii_lowercase());
    let name = name.strip_prefix("*.").unwrap_or(&name);
    name.strip_suffix(zone.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Where the record of `dns-01` comes from.
fn proof(check: &mut Check<'_, '_>, config: &Config) {
    let acme = &config.acme;
    let has_keys = !acme.update_zone.is_empty() || !acme.update_tsig.as_os_str().is_empty();
    let Some(server) = acme.update_server else {
        if has_keys {
            check.note(
                "acme.update_server",
                "is empty, and other keys of an update are set; name the server, or remove them",
            );
        } else if acme.challenge == AcmeChallenge::Dns && config.listen.do53.is_empty() {
            let message = "\"dns-01\" needs listen.do53, where dotd answers for the record, or acme.update_server, which takes it";
            check.note("acme.challenge", message);
        }
        return;
    };
    if acme.challenge != AcmeChallenge::Dns {
        check.note("acme.update_server", "is for challenge = \"dns-01\" alone; set that, or remove this key");
    }
    let host = server.ip().to_canonical();
    if server.port() == 0 || host.is_unspecified() || is_multicast(host) {
        check.note(
            "acme.update_server",
            format!("{server} is not the address of a server; use \"192.0.2.53:53\""),
        );
    }
    if !is_domain_name(&acme.update_zone) {
        check.note(
            "acme.update_zone",
            "names no zone; write the one that has the record, such as \"example.net\"",
        );
    } else if let Some(name) = acme.names.iter().find(|name| !is_in(name, &acme.update_zone)) {
        let message = format!(
            "\"{}\" is not in the zone {}; name the zone that has all of acme.names",
            name.escape_debug(),
            acme.update_zone
        );
        check.note("acme.update_zone", message);
    }
    if acme.update_tsig.as_os_str().is_empty() && !host.is_loopback() {
        check.note("acme.update_tsig", "is empty; name the file with the TSIG key that the server asks for");
    }
}

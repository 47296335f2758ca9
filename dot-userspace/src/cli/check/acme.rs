//! What `check` says of `[acme]`: where the certificate comes from, how its names are proved, and whether its files can be used.
//!
//! Before: a config without mistakes. After: a line, and a mistake for each file. Never: asks the authority.

use crate::{
    acme::secret,
    config::{Acme, AcmeChallenge, Config},
    policy,
    tls::WebTls,
};

/// The line. `None`: `[acme]` is off.
pub(super) fn line(config: &Config) -> Option<String> {
    let acme = &config.acme;
    let proof = match (acme.challenge, acme.update_server) {
        (AcmeChallenge::Http, _) => format!("http-01 at {}", joined(acme.listens())),
        (AcmeChallenge::Dns, None) => format!("dns-01, answered at {}", joined(&config.listen.do53)),
        (AcmeChallenge::Dns, Some(server)) => format!("dns-01, by updates to {server}"),
    };
    let bound = if acme.eab_kid.is_empty() {
        String::new()
    } else {
        format!(", a new account is bound to {}", acme.eab_kid)
    };
    acme.is_on()
        .then(|| format!("acme: {} from {}, {proof}{bound}", acme.names.join(", "), acme.directory_url()))
}

fn joined(addresses: &[std::net::SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Keys whose files cannot be used, and why.
pub(super) fn unusable(acme: &Acme) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if acme.is_on() && !acme.ca.as_os_str().is_empty() {
        let read = std::fs::read_to_string(&acme.ca)
            .map_err(|error| format!("acme.ca: {}: {error}", acme.ca.display()));
        found.extend(read.and_then(|text| WebTls::by(Some(&text))).err().map(|error| ("acme.ca", error)));
    }
    if acme.is_on() && !acme.update_tsig.as_os_str().is_empty() {
        found.extend(
            policy::key_of(&acme.update_tsig)
                .err()
                .map(|error| ("acme.update_tsig", format!("acme.update_tsig: {error}"))),
        );
    }
    if acme.is_on() && !acme.eab_key.as_os_str().is_empty() {
        let read = secret::read(&acme.eab_key).and_then(|(text, _)| secret::mac_key(&acme.eab_key, &text));
        found.extend(read.err().map(|error| ("acme.eab_key", format!("acme.eab_key: {error}"))));
    }
    found
}

/// Secrets that every user of the machine may read.
pub(super) fn warnings(acme: &Acme) -> Vec<String> {
    let secrets = [&acme.update_tsig, &acme.eab_key];
    let named = secrets.into_iter().filter(|path| acme.is_on() && !path.as_os_str().is_empty());
    named.filter_map(|path| secret::read(path).ok().and_then(|(_, warning)| warning)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    /// Goal: `check` says how the certificate will come, and which files cannot be used. Method: each kind of proof; files that are absent.
    #[test]
    fn the_way_of_the_certificate_is_said() {
        let on = "[acme]\ndirectory = \"letsencrypt\"\naccept_terms = true\nnames = [\"a.example\"]\n";
        let of = |text: &str| line(&parse(&format!("{on}{text}"), "/etc/dotd/dotd.toml").unwrap()).unwrap();
        assert!(of("").ends_with("directory, http-01 at 0.0.0.0:80, [::]:80"), "{}", of(""));
        let here = of("challenge = \"dns-01\"\n[listen]\ndo53 = [\"192.0.2.1:53\"]");
        assert!(here.ends_with("dns-01, answered at 192.0.2.1:53"), "{here}");
        let keys = "challenge = \"dns-01\"\nupdate_server = \"192.0.2.1:53\"\nupdate_zone = \"example\"\nupdate_tsig = \"/absent/k\"\nca = \"/absent/ca\"";
        assert!(of(keys).ends_with("by updates to 192.0.2.1:53"));
        let config = parse(&format!("{on}{keys}"), "/etc/dotd/dotd.toml").unwrap();
        assert_eq!(
            unusable(&config.acme).iter().map(|(key, _)| *key).collect::<Vec<_>>(),
            ["acme.ca", "acme.update_tsig"]
        );
        assert_eq!(line(&Config::default()), None);
    }

    /// Goal: `check` looks at the key of an external account: a file that is absent, one that is no key, one that every user may read.
    /// Method: each of them. Covers: C-810
    #[test]
    fn the_key_of_an_external_account_is_looked_at() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("eab.key");
        let on = "[acme]\ndirectory = \"https://ca.example/dir\"\naccept_terms = true\nnames = [\"a.example\"]\neab_kid = \"kid-1\"\n";
        let config = parse(&format!("{on}eab_key = \"{}\"", path.display()), "/etc/dotd/dotd.toml").unwrap();
        assert!(line(&config).unwrap().ends_with(", a new account is bound to kid-1"));
        let said = |config: &Config| unusable(&config.acme).first().map(|(key, why)| format!("{key} {why}"));
        let absent = said(&config).unwrap();
        assert!(absent.starts_with("acme.eab_key acme.eab_key: ") && absent.contains("eab.key"), "{absent}");
        for text in ["", "not a key!", "c2hvcnQ"] {
            std::fs::write(&path, text).unwrap();
            let wrong = said(&config).unwrap();
            assert!(wrong.contains("eab.key"), "{text}: {wrong}");
            assert!(text.is_empty() || !wrong.contains(text), "an error shows no secret: {wrong}");
        }
        std::fs::write(&path, "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n").unwrap();
        assert_eq!(said(&config), None);
        for (mode, count) in [(0o600, 0), (0o640, 0), (0o644, 1)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let said = warnings(&config.acme);
            assert_eq!(said.len(), count, "{mode:o}: {said:?}");
            assert!(said.iter().all(|line| line.contains("every user of this machine may read the key")));
        }
    }
}

//! What `check` says of `[acme]`: where the certificate comes from, how its names are proved, and whether its files can be used.
//!
//! Before: a config without mistakes. After: a line, and a mistake for each file. Never: asks the authority.

use crate::{
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
    acme.is_on().then(|| format!("acme: {} from {}, {proof}", acme.names.join(", "), acme.directory_url()))
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
    found
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
}

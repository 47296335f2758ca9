//! Mistakes in `[acme]`, each with its line.

use crate::config::parse;

const ON: &str = "[acme]\ndirectory = \"letsencrypt\"\naccept_terms = true\n";

/// Goal: each mistake in `[acme]` has one line with its remedy, and a good section has none. Method: a table. Covers: C-758
#[test]
fn each_mistake_in_acme_has_its_line() {
    let table = [
        (
            "names = [\"a.example\"]\nhttp_listen = []",
            "5:15: acme.http_listen: must have 1 to 16 addresses, such as \"[::]:80\"",
        ),
        (
            "names = []",
            "4:9: acme.names: is empty; name the host that clients ask for, such as \"dot.example.net\"",
        ),
        ("names = [\"a..b\"]", "4:10: acme.names: \"a..b\" is neither a host's name nor an address"),
        (
            "names = [\"A.example\", \"a.example\"]",
            "4:23: acme.names: \"a.example\" is listed twice; remove one",
        ),
        (
            "names = [\"*.a.example\"]",
            "4:10: acme.names: a wildcard is proved by dns-01 alone; set challenge = \"dns-01\"",
        ),
        (
            "names = [\"192.0.2.1\"]\nchallenge = \"dns-01\"\n[listen]\ndo53 = [\"127.0.0.1:53\"]",
            "4:10: acme.names: an address cannot be proved by dns-01 (RFC 8738 §4); set challenge = \"http-01\"",
        ),
        (
            "names = [\"a.example\"]\nchallenge = \"dns-01\"",
            "5:13: acme.challenge: \"dns-01\" needs listen.do53, where dotd answers for the record, or acme.update_server, which takes it",
        ),
        (
            "names = [\"a.example\"]\nchallenge = \"dns-01\"\nupdate_server = \"192.0.2.1:53\"\nupdate_zone = \"b.example\"\nupdate_tsig = \"k\"",
            "7:15: acme.update_zone: \"a.example\" is not in the zone b.example; name the zone that has all of acme.names",
        ),
        (
            "names = [\"a.example\"]\nupdate_zone = \"example\"",
            "2:1: acme.update_server: is empty, and other keys of an update are set; name the server, or remove them",
        ),
        (
            "names = [\"a.example\"]\ncontact = [\"nobody\"]",
            "5:12: acme.contact: \"nobody\" is no mail address",
        ),
        (
            "names = [\"a.example\"]\nhttp_listen = [\"0.0.0.0:853\"]",
            "5:16: acme.http_listen: 0.0.0.0:853 is another listener's address; use another port",
        ),
    ];
    table.into_iter().for_each(is_said);
    for (text, part) in [
        ("[acme]\nnames = [\"a.example\"]", "acme.directory: is empty"),
        ("[acme]\ndirectory = \"http://a\"\naccept_terms = true\nnames = [\"a.example\"]", "is no authority"),
        ("[acme]\ndirectory = \"letsencrypt\"\nnames = [\"a.example\"]", "acme.accept_terms: is false"),
    ] {
        let errors = parse(text, "f").expect_err(text).to_string();
        assert!(errors.lines().count() == 1 && errors.contains(part), "{errors}");
    }
    let good = "names = [\"a.example\", \"2001:db8::1\"]\ncontact = [\"mailto:a@b.example\", \"c@d.example\"]\nprofile = \"shortlived\"";
    let config = parse(&format!("{ON}{good}"), "/etc/dotd/dotd.toml").unwrap();
    assert_eq!(config.tls.entries().count(), 1);
    assert_eq!(config.tls.by_acme.unwrap().cert.to_str(), Some("/var/lib/dotd/acme/certificate.pem"));
}

/// The text of a section has one mistake, with this line.
fn is_said((text, line): (&str, &str)) {
    let errors = parse(&format!("{ON}{text}"), "f").expect_err(text).to_string();
    let lines: Vec<_> = errors.lines().collect();
    let is_placed = lines.len() == 1
        && lines[0]
            .split_once(": acme.")
            .zip(line.split_once(": acme."))
            .is_some_and(|(is, should)| is.1 == should.1);
    assert!(is_placed, "{text}: {lines:?}, expected {line}");
}

/// Goal: the key identifier of an external account and the file of its key belong together. Method: one without the other, and an
/// identifier with a blank. Covers: C-810
#[test]
fn an_identifier_and_its_key_belong_together() {
    let table = [
        (
            "names = [\"a.example\"]\neab_kid = \"k\"",
            "2:1: acme.eab_key: is empty, and acme.eab_kid is set; name a file with the key that the authority gave with it",
        ),
        (
            "names = [\"a.example\"]\neab_key = \"/k\"",
            "2:1: acme.eab_kid: is empty, and acme.eab_key is set; the authority gives a key identifier with each key, write it here",
        ),
        (
            "names = [\"a.example\"]\neab_key = \"/k\"\neab_kid = \"a b\"",
            "6:11: acme.eab_kid: is no key identifier: it must have 1 to 256 visible characters of ASCII",
        ),
    ];
    table.into_iter().for_each(is_said);
}

//! `dotd query` beside the clients that people use for diagnosis: the same answers.
//!
//! Before: NSD with a signed zone of many types, and dotd in front of it. After: each client asked dotd fifty questions
//! over TLS.

use std::collections::BTreeSet;

use dot_tests::{
    harness::{
        backends::Backend,
        clients::{Said, getdns, kdig, tool},
        config::Config,
        netns::{Network, SERVER_V4},
        server::{Server, binary},
    },
    require,
};
use serde_json::Value;

/// One record of each type whose text form could be wrong.
const ZONE: &str = r#"
srv SRV 1 2 853 ns
ptr PTR www
alias CNAME www
caa CAA 0 issue "ca.example; account=1"
tlsa TLSA 3 1 1 0D6FCE3F3B01C2E9FB61A7C0A9DDA32B0F3C3A4A0B7B5D5F0E1D2C3B4A596877
sshfp SSHFP 4 2 0D6FCE3F3B01C2E9FB61A7C0A9DDA32B0F3C3A4A0B7B5D5F0E1D2C3B4A596877
naptr NAPTR 10 20 "u" "E2U+sip" "!^.*$!sip:a@b!" .
https HTTPS 1 . alpn="h2,h3" port=8443 ipv4hint=192.0.2.80
_dns.svcb SVCB 1 ns.dotd.test. mandatory=alpn alpn="dot" port=853 ipv6hint=2001:db8::53 key65333="x"
hinfo HINFO "PC 5" "Linux"
dname DNAME www.dotd.test.
odd TYPE65280 \# 3 0102FF
text TXT "a \"quoted\" \\ back" "second" "\027\255"
xn--bcher-kva A 192.0.2.99
mxx MX 10 xn--bcher-kva
*.wild A 192.0.2.98
dot\.ted A 192.0.2.97
child NS ns.child
ns.child A 192.0.2.96
child DS 1 13 2 0D6FCE3F3B01C2E9FB61A7C0A9DDA32B0F3C3A4A0B7B5D5F0E1D2C3B4A596877
"#;

/// The fifty questions, with and without DNSSEC, also for names that do not exist.
fn questions() -> Vec<String> {
    let mut all: Vec<String> = [
        "dotd.test SOA",
        "dotd.test NS",
        "dotd.test MX",
        "dotd.test A",
        "dotd.test AAAA",
        "dotd.test DNSKEY",
        "dotd.test NSEC",
        "dotd.test RRSIG",
        "www.dotd.test A",
        "www.dotd.test AAAA",
        "www.dotd.test RRSIG",
        "txt.dotd.test TXT",
        "big.dotd.test TXT",
        "srv.dotd.test SRV",
        "ptr.dotd.test PTR",
        "alias.dotd.test A",
        "alias.dotd.test CNAME",
        "caa.dotd.test CAA",
        "tlsa.dotd.test TLSA",
        "sshfp.dotd.test SSHFP",
        "naptr.dotd.test NAPTR",
        "https.dotd.test HTTPS",
        "_dns.svcb.dotd.test SVCB",
        "hinfo.dotd.test HINFO",
        "dname.dotd.test DNAME",
        "x.dname.dotd.test A",
        "odd.dotd.test TYPE65280",
        "text.dotd.test TXT",
        "xn--bcher-kva.dotd.test A",
        "mxx.dotd.test MX",
        "any.wild.dotd.test A",
        "dot\\.ted.dotd.test A",
        "child.dotd.test DS",
        "absent.dotd.test A",
        "www.dotd.test MX",
        "host-1.dotd.test ANY",
        "other.example A",
    ]
    .map(str::to_owned)
    .into();
    all.extend(
        (0..50 - all.len())
            .map(|host| format!("host-{host}.dotd.test {}", if host % 2 == 0 { "A" } else { "AAAA" })),
    );
    all
}

/// The lines of an answer, sorted and without TTLs, because order and TTLs come from the server.
fn lines(said: &Said) -> BTreeSet<String> {
    said.text.lines().filter(|line| !line.is_empty() && !line.starts_with(';')).map(str::to_owned).collect()
}

/// Goal: `dotd query` gives the answers that dig, kdig and getdns give. Method: fifty questions of 23 types, answered
/// by NSD behind dotd, asked of dotd over TLS by each; text of dig and kdig with `+short`, addresses and counts of getdns.
/// Covers: C-472
#[test]
fn fifty_questions_have_the_same_answers() {
    require!(
        Root,
        Command("nsd"),
        Command("dnssec-signzone"),
        Command("dig"),
        Command("kdig"),
        Command("getdns_query")
    );
    let network = Network::new();
    let (backend, _key) = Backend::nsd_signed_with(&network, 5300, ZONE);
    let _dotd = Server::start(&network, &Config::new().backend(backend.address));
    let (client, dotd) = (&network.client, binary().display().to_string());
    let at = format!("@{SERVER_V4}");
    let questions = questions();
    assert_eq!(questions.len(), 50);
    let mut others = Vec::new();
    for question in &questions {
        let words: Vec<&str> = question.split(' ').collect();
        let (name, kind) = (words[0], words[1]);
        let ours = tool(client, &dotd, &["query", &at, name, kind, "+short"]);
        let dig =
            tool(client, "dig", &[&at, "-p", "853", "+tls", "+noidnout", "+nosplit", "+short", name, kind]);
        let kdig = kdig(client, SERVER_V4, &format!("+tls +noidn +short {name} {kind}"));
        for (client, theirs) in [("dig", &dig), ("kdig", &kdig)] {
            // kdig writes ALPN without quotes, and a blank behind some texts.
            let bare = |said: &Said| {
                let bare = |line: &String| line.replace('"', "").trim_end().to_owned();
                lines(said).iter().map(bare).collect::<BTreeSet<String>>()
            };
            let (ours, theirs) = match client {
                "dig" => (lines(&ours), lines(theirs)),
                _ => (bare(&ours), bare(theirs)),
            };
            if ours != theirs {
                others.push(format!("{question}: dotd {ours:?}, {client} {theirs:?}"));
            }
        }
        let full = tool(client, &dotd, &["query", &at, name, kind, "--json"]);
        let full: Value =
            serde_json::from_str(&full.text).unwrap_or_else(|error| panic!("{error}: {full:?}"));
        let message = &full["rounds"][0]["replies"][0]["messages"][0];
        // getdns needs the number of a type that it does not know, and prints octets; it prints addresses as addresses.
        let number = match kind {
            "SVCB" => "TYPE64",
            "HTTPS" => "TYPE65",
            known => known,
        };
        let getdns = getdns(client, SERVER_V4, &[name, number]);
        let count = message["answer"].as_array().expect("a section").len() as u64;
        if getdns.number_after("\"ancount\":") != count {
            let theirs = getdns.number_after("\"ancount\":");
            others.push(format!("{question}: dotd {count} records, getdns {theirs}"));
        }
        for record in message["answer"].as_array().expect("a section") {
            let data = record["data"].as_str().expect("text");
            let is_address = matches!(record["type"].as_str(), Some("A" | "AAAA"));
            if is_address && !getdns.has(&format!("<bindata for {data}>")) {
                others.push(format!("{question}: dotd {data}, getdns {}", getdns.text));
            }
        }
    }
    assert!(others.is_empty(), "{} differ:\n{}", others.len(), others.join("\n"));
}

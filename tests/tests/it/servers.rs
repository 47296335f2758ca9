//! Four servers of other projects behind dotd: their answers pass unchanged.
//!
//! Before: `harness::servers`. After: kdig prints the same over TLS as at the server, except for the options of this
//! hop.

use dot_tests::{
    harness::{
        clients::{Said, kdig, tool},
        config::Config,
        netns::{Network, SERVER_V4},
        server::Server,
        servers::Kind,
    },
    require,
};

/// The questions, as kdig's arguments: types, sizes, absent names, DNSSEC, every EDNS option that kdig can send.
const QUESTIONS: &[&str] = &[
    "www.dotd.test A",
    "wWw.DotD.tEst AAAA",
    "big.dotd.test TXT",
    "absent.dotd.test A",
    "txt.dotd.test A",
    "dotd.test MX",
    "dotd.test NS",
    "dotd.test SOA",
    "dotd.test ANY",
    "www.dotd.test TYPE65280",
    "elsewhere.example A",
    "version.bind CH TXT",
    "+dnssec www.dotd.test A",
    "+dnssec absent.dotd.test A",
    "+dnssec dotd.test DNSKEY",
    "+dnssec +cdflag +adflag host-7.dotd.test AAAA",
    "+norec host-8.dotd.test A",
    "+nsid www.dotd.test A",
    "+subnet=192.0.2.0/24 www.dotd.test A",
    "+subnet=0.0.0.0/0 www.dotd.test A",
    "+ednsopt=65001:c0ffee www.dotd.test A",
    "+cookie=0102030405060708 www.dotd.test A",
    "+edns=1 www.dotd.test A",
    "+bufsize=512 big.dotd.test TXT",
];

/// kdig's output without the parts that differ between connections: ID, times, addresses, the cookie's value.
fn lasting(said: &Said) -> Vec<String> {
    const PASSING: [&str; 5] = [";; Received", ";; Time", ";; From", ";; TLS session", ";; PADDING"];
    let lines = said.text.lines().filter(|line| PASSING.iter().all(|start| !line.starts_with(start)));
    let mut lines: Vec<String> = lines
        .map(|line| match (line.split_once("; id: "), line.split_once(";; COOKIE: ")) {
            (Some((before, _)), _) => before.to_owned(),
            (_, Some((_, value))) => format!(";; COOKIE of {}", value.trim().len()),
            _ => line.trim_end().to_owned(),
        })
        .collect();
    lines.sort();
    lines
}

/// Asks everything through dotd and at the server.
fn assert_same(kind: Kind, transport: &str) {
    let network = Network::new();
    let backend = kind.start(&network, 5300);
    let keys = format!("transport = \"{transport}\"");
    let dotd = Server::start(&network, &Config::new().xdp("off").backend_with(backend.address, &keys));
    for question in QUESTIONS {
        let through = kdig(&network.client, SERVER_V4, &format!("+tls +nopadding +edns {question}"));
        let mut words =
            vec!["@127.0.0.1", "-p", "5300", "+tcp", "+timeout=5", "+retry=0", "+nopadding", "+edns"];
        words.extend(question.split_whitespace());
        let direct = tool(&network.server, "kdig", &words);
        assert!(direct.is_success && through.has("TLS session"), "{kind:?} {question}: {}", through.text);
        // For unknown versions of EDNS dotd answers itself.
        if question.starts_with("+edns=1") {
            assert!(through.has("BADVERS"), "{kind:?}: {}", through.text);
            continue;
        }
        assert_eq!(lasting(&through), lasting(&direct), "{kind:?} over {transport}: {question}");
    }
    let stats = dotd.counts("all was answered", |stats| stats.difference() == [0; 3]);
    assert_eq!(stats.counter("backend", "unmatched"), 0, "every answer was known for what it is");
    let has_cookies = matches!(kind, Kind::Nsd | Kind::Bind);
    let said = kdig(&network.client, SERVER_V4, "+tls +cookie=0102030405060708 www.dotd.test A");
    assert_eq!(said.has(";; COOKIE: 0102030405060708"), has_cookies, "{kind:?}: {}", said.text);
}

/// Goal: NSD behind dotd answers like NSD. Method: kdig over TLS against kdig at the server, sorted line by line, for
/// every question; UDP and TCP towards the server. Covers: C-19, C-44, C-46, C-51, C-53, C-58
#[test]
fn nsd_is_itself() {
    require!(Root, Command("kdig"), Command("nsd"), Command("dnssec-signzone"));
    assert_same(Kind::Nsd, "udp");
    assert_same(Kind::Nsd, "tcp");
}

/// Goal and method as above, for Unbound. Covers: C-19, C-44, C-46, C-51, C-53, C-58
#[test]
fn unbound_is_itself() {
    require!(Root, Command("kdig"), Command("unbound"), Command("dnssec-signzone"));
    assert_same(Kind::Unbound, "udp");
    assert_same(Kind::Unbound, "tcp");
}

/// Goal and method as above, for BIND. Covers: C-19, C-44, C-46, C-51, C-53, C-58
#[test]
fn bind_is_itself() {
    require!(Root, Command("kdig"), Command("named"), Command("dnssec-signzone"));
    assert_same(Kind::Bind, "udp");
    assert_same(Kind::Bind, "tcp");
}

/// Goal and method as above, for Knot. Covers: C-19, C-44, C-46, C-51, C-53, C-58
#[test]
fn knot_is_itself() {
    require!(Root, Command("kdig"), Command("knotd"), Command("dnssec-signzone"));
    assert_same(Kind::Knot, "udp");
    assert_same(Kind::Knot, "tcp");
}

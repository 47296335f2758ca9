//! The whole path, end to end: clients of other projects, XDP on a real interface, backends of other projects.
//!
//! Before: nothing runs. After: NOERROR over TLS in every combination that the README promises.

use std::{fs, net::IpAddr};

use dot_tests::{
    harness::{
        backends::{BIG_OCTETS, Backend},
        clients::{getdns, is_answered_over_tls, kdig, s_client, tool},
        config::Config,
        dot::Dot,
        message::{A, Query, TXT, framed},
        netns::{Network, SERVER_V4, SERVER_V6},
        response::Message,
        s_client::s_client_sending,
        scene::embedded,
        server::Server,
    },
    require,
};

const FAMILIES: [IpAddr; 2] = [SERVER_V4, SERVER_V6];

/// The answers that every client must get from every backend through dotd, over both families.
fn assert_zone_is_served(network: &Network, dotd: &Server, what: &str) {
    for address in FAMILIES {
        let answered = kdig(&network.client, address, "+tls www.dotd.test A");
        assert!(is_answered_over_tls(&answered) && answered.has("192.0.2.80"), "{what}: {}", answered.text);
        let pinned = kdig(&network.client, address, &format!("+tls +tls-pin={} dotd.test AAAA", dotd.pin()));
        assert!(is_answered_over_tls(&pinned) && pinned.has("2001:db8::53"), "{what}: {}", pinned.text);
        let absent = kdig(&network.client, address, "+tls absent.dotd.test A");
        assert!(absent.is_success && absent.has("NXDOMAIN"), "{what}: {}", absent.text);
        let stub = getdns(&network.client, address, &["dotd.test", "A"]);
        assert!(stub.is_success && stub.has("GETDNS_RESPSTATUS_GOOD"), "{what}: {}", stub.text);
        let mut session = Dot::connect(&network.client, address);
        let big = session.exchange(&Query::new(1, "big.dotd.test", TXT).octets());
        let octets: usize = big.rdata(TXT).iter().map(|rdata| rdata.len()).sum();
        assert!(octets > 4096 && !big.is_truncated(), "{what}: {octets} octets of TXT");
    }
}

/// Runs dotd in one XDP mode in front of NSD, Unbound and its own zone.
fn assert_all_backends_in(mode: &str, shown: &str) {
    let network = Network::new();
    let (nsd, unbound) = (Backend::nsd(&network, 5300), Backend::unbound(&network, 5301));
    let config = || Config::new().xdp(mode).set("xdp", "required", "true");
    let backends = [("nsd", Some(&nsd)), ("unbound", Some(&unbound)), ("embedded", None)];
    for (name, backend) in backends {
        let config = backend.map_or_else(config, |backend| config().backend(backend.address));
        let dotd = Server::start(&network, &config);
        assert_eq!(dotd.xdp(), format!("{mode} on server"));
        let link = network.server.ip("-d link show server");
        assert!(link.contains(shown), "{mode}: {link}");
        assert_zone_is_served(&network, &dotd, &format!("{name}, {mode}"));
        let stats = dotd.stats();
        assert!(stats.packets("pass", "") > 0, "{stats:?}");
        assert_eq!(stats.packets("drop", ""), 0, "{stats:?}");
        if backend.is_some() {
            assert!(stats.counter("backend", "truncated") >= 2, "big.dotd.test came through TC=1");
        }
        dotd.stop();
    }
}

/// Goal: XDP in the driver passes the packets of every client to every backend, and drops none of them. Method: kdig,
/// kdig with the printed pin, getdns and the tests' own client, v4 and v6; NSD, Unbound, embedded. Covers: C-1, C-51,
/// C-67
#[test]
fn native_xdp_serves_every_client_from_every_backend() {
    require!(Root, Bpf, Command("kdig"), Command("getdns_query"), Command("nsd"), Command("unbound"));
    assert_all_backends_in("native", "mtu 1500 xdp ");
}

/// Goal and method: as above, with XDP in the network stack. Covers: C-1, C-51, C-67
#[test]
fn generic_xdp_serves_every_client_from_every_backend() {
    require!(Root, Bpf, Command("kdig"), Command("getdns_query"), Command("nsd"), Command("unbound"));
    assert_all_backends_in("generic", "mtu 1500 xdpgeneric ");
}

/// Goal: dotd serves the same with XDP off. Method: the embedded zone alone; no program may be on the interface.
/// Covers: C-1
#[test]
fn without_xdp_the_same_is_served() {
    require!(Root, Command("kdig"), Command("getdns_query"));
    let (network, dotd) = embedded(&Config::new().xdp("off"));
    assert!(dotd.xdp().starts_with("off"), "{}", dotd.xdp());
    assert!(!network.server.ip("-d link show server").contains("xdp"));
    assert_zone_is_served(&network, &dotd, "embedded, off");
}

/// Goal: auto mode takes tc ingress at a veth that is the machine's only interface, as in a container, and at loopback, where
/// generic XDP would copy each packet to and from a backend; and reports that. Method: no interface named; the line, `ip link`, and
/// a query over each.
#[test]
fn auto_mode_takes_what_each_interface_can() {
    require!(Root, Bpf, Command("kdig"));
    let (network, dotd) = embedded(&Config::new().set("xdp", "interfaces", "[]"));
    let line = dotd.xdp();
    assert!(line.contains("tc on server") && line.contains("tc on lo"), "{line}");
    assert!(!network.server.ip("link show lo").contains("xdp"));
    assert!(is_answered_over_tls(&kdig(&network.client, SERVER_V4, "+tls dotd.test A")));
    assert!(is_answered_over_tls(&kdig(
        &network.server,
        "::1".parse().expect("loopback"),
        "+tls dotd.test A"
    )));
}

/// Goal: strict clients accept the printed pin, and no other one. Method: kdig and getdns with the right pin, and with
/// one of zeros. Covers: C-67
#[test]
fn the_printed_pin_is_the_only_one() {
    require!(Root, Command("kdig"), Command("getdns_query"));
    let (network, dotd) = embedded(&Config::new());
    let wrong = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let said = kdig(&network.client, SERVER_V4, &format!("+tls +tls-pin={wrong} dotd.test A"));
    assert!(!said.has("status: NOERROR"), "{}", said.text);
    for (pin, is_right) in [(dotd.pin(), true), (wrong.to_owned(), false)] {
        let pin = format!("pin-sha256=\"{pin}\"");
        let said = getdns(&network.client, SERVER_V4, &["-m", "-K", &pin, "dotd.test", "A"]);
        assert_eq!(said.has("GETDNS_RESPSTATUS_GOOD"), is_right, "{}", said.text);
    }
}

/// Goal: the commands that dotd prints after `try:` and `see:` work. Method: run them in the server's namespace; the first one names
/// 127.0.0.1. Covers: C-741
#[test]
fn the_printed_lines_work() {
    require!(Root, Command("kdig"));
    let (network, dotd) = embedded(&Config::new());
    let stdout = dotd.stdout();
    let line = stdout.lines().find_map(|line| line.strip_prefix("try: ")).expect("a line to try");
    let words: Vec<&str> = line.split_whitespace().collect();
    let said = tool(&network.server, words[0], &words[1..]);
    assert!(is_answered_over_tls(&said), "{line}: {}", said.text);
    let line = stdout.lines().find_map(|line| line.strip_prefix("see: ")).expect("a line to look");
    let words: Vec<&str> = line.split_whitespace().collect();
    let said = tool(&network.server, words[0], &words[1..]);
    assert!(said.has("serving") && said.has(&dotd.pin()), "{line}: {}", said.text);
}

/// Goal: OpenSSL speaks TLS 1.3 and 1.2 with dotd, negotiates ALPN `dot`, and the extended master secret in TLS 1.2.
/// Method: what s_client prints; ALPN h2 alone is refused by alert. Covers: C-60, C-61, C-65
#[test]
fn openssl_speaks_both_versions() {
    require!(Root, Command("openssl"));
    let (network, _dotd) = embedded(&Config::new());
    for address in FAMILIES {
        let new = s_client(&network.client, address, &["-tls1_3", "-alpn", "dot"]);
        assert!(new.has("New, TLSv1.3") && new.has("ALPN protocol: dot"), "{}", new.text);
        let old = s_client(&network.client, address, &["-tls1_2", "-alpn", "dot"]);
        assert!(old.has("New, TLSv1.2") && old.has("ALPN protocol: dot"), "{}", old.text);
        assert!(old.has("Extended master secret: yes") && old.has("Compression: NONE"), "{}", old.text);
        let none = s_client(&network.client, address, &[]);
        assert!(none.has("New, TLSv1.3") && none.has("No ALPN negotiated"), "{}", none.text);
        let h2 = s_client(&network.client, address, &["-alpn", "h2"]);
        assert!(h2.has("alert no application protocol"), "{}", h2.text);
    }
    for group in ["X25519", "P-256"] {
        let said = s_client(&network.client, SERVER_V4, &["-groups", group]);
        assert!(said.has("New, TLSv1.3"), "{group}: {}", said.text);
    }
    for version in ["-tls1", "-tls1_1"] {
        let said = s_client(&network.client, SERVER_V4, &[version, "-cipher", "ALL:@SECLEVEL=0"]);
        let is_refused = said.has("alert protocol version");
        assert!(is_refused && !said.has("New, TLSv1"), "{}", said.text);
    }
}

/// Goal: a query in records that OpenSSL made is answered, without a client in Rust. Method: one framed query on
/// s_client's stdin, the framed response on its stdout. Covers: C-12
#[test]
fn openssl_carries_a_query() {
    require!(Root, Command("openssl"));
    let (network, _dotd) = embedded(&Config::new());
    let query = framed(&Query::new(77, "dotd.test", A).octets());
    let octets = s_client_sending(&network.client, SERVER_V4, &["-alpn", "dot"], &query);
    let answer = Message::parse(octets.get(2..).unwrap_or_default()).expect("one response and nothing else");
    assert_eq!((answer.id, answer.rdata(A)), (77, vec![&[192, 0, 2, 53][..]]));
}

/// Goal: tickets resume a session on whichever worker takes the connection (RFC 5077, RFC 8446 §2.2), and early
/// data is refused (RFC 9210 §4.4).
/// Method: a session saved from CPU 0, resumed six times from CPUs 0 and 1, in both versions; `-early_data`.
/// Covers: C-64 (tickets), C-70 (workers)
#[test]
fn tickets_resume_across_workers() {
    require!(Root, Command("openssl"), Command("taskset"));
    let (network, dotd) = embedded(&Config::new());
    let query = framed(&Query::new(78, "dotd.test", A).octets());
    let saved = dotd.folder().join("session.pem").display().to_string();
    for (version, counter) in [("-tls1_3", "resumed_tls13"), ("-tls1_2", "resumed_tls12")] {
        let _ = fs::remove_file(&saved);
        let octets = s_client_sending(&network.client, SERVER_V4, &[version, "-sess_out", &saved], &query);
        assert!(octets.len() > 14 && fs::exists(&saved).is_ok_and(|found| found), "{version}: no ticket");
        for turn in 0..6 {
            let at = format!("{SERVER_V4}:853");
            let cpu = (turn % 2 % std::thread::available_parallelism().map_or(1, usize::from)).to_string();
            let words = ["-c", &cpu, "openssl", "s_client", "-connect", &at, version, "-sess_in", &saved];
            let said = tool(&network.client, "taskset", &words);
            assert!(said.has("Reused, TLSv1."), "{version}, turn {turn}: {}", said.text);
        }
        dotd.counts("resumptions are counted", |stats| stats.counter("handshakes", counter) == 6);
    }
    let _ = fs::remove_file(&saved);
    let _ = s_client_sending(&network.client, SERVER_V4, &["-tls1_3", "-sess_out", &saved], &query);
    let early = dotd.write("early", &query).display().to_string();
    let said = s_client(&network.client, SERVER_V4, &["-sess_in", &saved, "-early_data", &early]);
    assert!(said.has("Early data was not sent") || said.has("Early data was rejected"), "{}", said.text);
    let ticket = tool(&network.client, "openssl", &["sess_id", "-in", &saved, "-noout", "-text"]);
    assert!(ticket.has("Max Early Data: 0"), "{}", ticket.text);
}

/// Goal: NSD's record beyond 4 KB arrives octet for octet. Method: kdig over TLS through dotd against kdig over TCP at
/// NSD itself. Covers: C-16, C-51
#[test]
fn a_big_answer_is_the_backends_own() {
    require!(Root, Command("kdig"), Command("nsd"));
    let network = Network::new();
    let nsd = Backend::nsd(&network, 5300);
    let _dotd = Server::start(&network, &Config::new().backend(nsd.address));
    let through = kdig(&network.client, SERVER_V4, "+tls +short big.dotd.test TXT");
    let direct = tool(
        &network.server,
        "kdig",
        &["@127.0.0.1", "-p", "5300", "+tcp", "+short", "big.dotd.test", "TXT"],
    );
    assert!(through.text.len() > BIG_OCTETS, "{}", through.text);
    assert_eq!(through.text, direct.text);
}

/// Goal: a first run shows the effect of DO. Method: the embedded zone, asked with and without DO: signatures for an
/// answer, NSEC for a name that is not there. Covers: C-44
#[test]
fn the_embedded_zone_is_signed() {
    require!(Root, Command("kdig"));
    let (network, _dotd) = embedded(&Config::new());
    let signed = kdig(&network.client, SERVER_V4, "+tls +dnssec www.dotd.test A");
    assert!(
        is_answered_over_tls(&signed) && signed.has("RRSIG") && signed.has("192.0.2.80"),
        "{}",
        signed.text
    );
    let key = kdig(&network.client, SERVER_V4, "+tls dotd.test DNSKEY");
    assert!(key.has("257 3 13"), "{}", key.text);
    let absent = kdig(&network.client, SERVER_V4, "+tls +dnssec absent.dotd.test A");
    assert!(absent.has("NXDOMAIN") && absent.has("NSEC"), "{}", absent.text);
    let plain = kdig(&network.client, SERVER_V4, "+tls www.dotd.test A");
    assert!(!plain.has("RRSIG"), "{}", plain.text);
}

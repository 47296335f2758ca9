//! Ten thousand queries, none lost, every one counted.
//!
//! Before: dnsperf over TLS, NSD behind. After: clients and dotd have counted the same.

use dot_tests::{
    harness::{
        backends::{Backend, dnsperf_queries},
        clients::dnsperf,
        config::Config,
        netns::{Network, SERVER_V4, SERVER_V6},
        server::Server,
    },
    require,
};

const QUERIES: u64 = 10_000;

/// Runs the load in one XDP mode and compares the counts.
fn assert_none_lost_in(mode: &str, has_nsd: bool) {
    let network = Network::new();
    let nsd = has_nsd.then(|| Backend::nsd(&network, 5300));
    let config = Config::new().xdp(mode);
    let config = nsd.iter().fold(config, |config, nsd| config.backend(nsd.address));
    let dotd = Server::start(&network, &config);
    let lines = dnsperf_queries(usize::try_from(QUERIES / 2).expect("fits"));
    let absent = 2 * lines.lines().filter(|line| line.starts_with("absent")).count() as u64;
    let queries = dotd.write("queries", lines);
    for address in [SERVER_V4, SERVER_V6] {
        let said = dnsperf(&network.client, address, &queries, "-c 5 -q 200 -t 10");
        assert_eq!(said.number_after("Queries completed:"), QUERIES / 2, "{}", said.text);
        assert_eq!(said.number_after("Queries lost:"), 0, "{}", said.text);
    }
    let stats =
        dotd.counts("all sessions have ended", |stats| stats.counter("connections_open", "open") == 0);
    let [received, forwarded, responded] =
        ["received", "forwarded", "responded"].map(|label| stats.counter("queries", label));
    assert_eq!(received, QUERIES, "{stats:?}");
    assert_eq!(received, forwarded + responded + stats.sum("queries", "dropped_"), "{stats:?}");
    assert_eq!(stats.sum("responses", ""), QUERIES, "{stats:?}");
    assert_eq!(stats.sum("queries", "dropped_"), 0, "{stats:?}");
    assert_eq!(stats.difference(), [0; 3], "{stats:?}");
    let accepted = stats.counter("connections", "accepted");
    assert!(accepted >= 10, "{stats:?}");
    if has_nsd {
        assert_eq!(stats.counter("responses", "NXDOMAIN"), absent, "{stats:?}");
        assert_eq!(stats.counter("backend", "timeout"), 0, "{stats:?}");
    }
    if mode != "off" {
        assert!(stats.packets("pass", "") >= accepted * 3, "each connection is packets: {stats:?}");
        assert_eq!(stats.packets("drop", ""), 0, "{stats:?}");
    }
}

/// Goal: 10,000 queries through native XDP to NSD, none lost, and counters that add up.
/// Method: dnsperf over TLS on ten connections, v4 then v6. Covers: C-29
#[test]
fn native_xdp_loses_none_of_10000() {
    require!(Root, Bpf, Command("dnsperf"), Command("nsd"));
    assert_none_lost_in("native", true);
}

/// Goal and method: as above, with XDP in the network stack. Covers: C-29
#[test]
fn generic_xdp_loses_none_of_10000() {
    require!(Root, Bpf, Command("dnsperf"), Command("nsd"));
    assert_none_lost_in("generic", true);
}

/// Goal and method: as above, without XDP, from the embedded zone. Covers: C-29
#[test]
fn the_embedded_zone_loses_none_of_10000() {
    require!(Root, Command("dnsperf"));
    assert_none_lost_in("off", false);
}

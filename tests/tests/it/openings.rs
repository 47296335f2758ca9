//! From packets to connections: what became of the SYNs that the kernel half saw.
//!
//! Before: clients that finish their TCP handshake, and one that does not. After: the counts of both halves add up.
//! Never: asserts a number that a SYN that is sent again would change, but as a lower bound.

use std::net::Ipv4Addr;

use dot_tests::{
    frames::{Build, SYN},
    harness::{
        clients::http, config::Config, dot::Dot, eventually, flood::Wire, netns::SERVER_V4, scene::embedded,
    },
    require,
};

/// Goal: SYNs are accepted, waiting, dropped by listeners, or unfinished; the counts are in `dotd stats` and in a scrape; without
/// XDP there is no rest. Method: three sessions, and a SYN in the name of a client that does not exist. Covers: C-702
#[test]
fn syns_become_connections() {
    require!(Root, Bpf);
    let config = Config::new().set("control", "http", "\"127.0.0.1:8853\"");
    let (network, dotd) = embedded(&config);
    let _sessions: Vec<_> = (0..3).map(|_| Dot::connect(&network.client, SERVER_V4)).collect();
    let number = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")).map(str::to_owned));
        line.and_then(|value| value.trim().parse::<i64>().ok())
    };
    let before = dotd.stats();
    assert_eq!((before.counter("queues", "waiting"), before.counter("queues", "dropped")), (0, 0));
    let scrape = http(&network.server, "/metrics");
    let [syns, unfinished] =
        ["dotd_xdp_syns_total", "dotd_xdp_syns_unfinished"].map(|name| number(&scrape, name).expect(name));
    assert!(syns >= 3 && syns - unfinished == 3, "{syns} SYNs, {unfinished} unfinished");
    let nobody = Build::tcp(853, SYN, 7, &[]).client(Ipv4Addr::new(203, 0, 113, 9).into());
    assert!(Wire::open(&network).send(nobody.server(SERVER_V4).frame()));
    // The stack drops it where it knows no way back to that client.
    eventually("the SYN that nobody goes on with is unfinished or dropped", || {
        let scrape = http(&network.server, "/metrics");
        let rest =
            number(&scrape, "dotd_xdp_syns_unfinished")? + number(&scrape, "dotd_listener_drops_total")?;
        (rest > unfinished).then_some(())
    });
    let said = dotd.operate(&["stats"]);
    assert!(said.has("tcp handshakes\n") && said.has("  unfinished "), "{}", said.text);
    drop(dotd);

    let (network, _dotd) = embedded(&config.xdp("off"));
    let _session = Dot::connect(&network.client, SERVER_V4);
    let scrape = http(&network.server, "/metrics");
    assert_eq!(number(&scrape, "dotd_connections_waiting"), Some(0));
    assert_eq!(number(&scrape, "dotd_xdp_syns_unfinished"), None);
}

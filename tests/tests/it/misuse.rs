//! `[misuse]`: floods of random names, tunnels, and clients that fail or ask too much, by real tools, beside clients that do nothing
//! of that.
//!
//! Before: a config with an action for each misuse. After: the action met these clients alone, and operators see which ones.

use std::{
    net::{IpAddr, SocketAddr},
    process::Stdio,
    thread,
};

use dot_tests::{
    harness::{
        backends::Backend,
        clients::{dnsperf, tool, udp},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, OPTION_EDE, Opt, Query, REFUSED},
        netns::{CLIENT_V4, Network, SERVER_V4, SERVER_V6},
        process::{Process, bound_to_namespace},
        response::Message,
        scratch::Scratch,
        server::Server,
        uninterrupted,
    },
    require,
};
use nix::sys::signal::Signal;

const NXDOMAIN: u16 = 3;
const BACKEND: [u8; 4] = [127, 0, 0, 1];

/// One worker, a window that no test outlasts, NSD behind, and these keys of `[misuse]`.
fn config(keys: &[(&'static str, &str)]) -> Config {
    let config = Config::new()
        .xdp("off")
        .set("server", "workers", "1")
        .set("listen", "do53", "[\"0.0.0.0:53\"]")
        .set("misuse", "window", "\"10m\"")
        .backend(SocketAddr::from((BACKEND, 5300)));
    keys.iter().fold(config, |config, (key, value)| config.set("misuse", key, value))
}

fn query(id: u16, name: &str) -> Vec<u8> {
    Query::new(id, name, A).opt(Opt::default()).octets()
}

fn over_udp(network: &Network, server: IpAddr, message: &[u8]) -> Message {
    let socket = udp(&network.client, SocketAddr::new(server, 53));
    socket.send(message).expect("sent");
    let mut octets = [0; 4096];
    let length = uninterrupted(|| socket.recv(&mut octets)).expect("an answer");
    Message::parse(&octets[..length]).expect("whole")
}

/// Goal: a flood of random names below one domain reaches the backend up to its budget, the rest is REFUSED with EDE 18; clients
/// that ask for names of the same domain that are there lose nothing; operators see the domain, and the log does not. Method: dnsperf
/// with 5,000 names over TLS, beside a session that asks for hosts. Covers: A-720, C-720, C-721
#[test]
fn a_flood_of_random_names_spares_others() {
    require!(Root, Command("nsd"), Command("dnsperf"));
    let network = Network::new();
    let _backend = Backend::nsd(&network, 5300);
    let dotd = Server::start(&network, &config(&[("random_names", "\"refuse\"")]));
    let flood: String = (0..5000_u32)
        .map(|number| format!("x{:08x}.dotd.test A\n", number.wrapping_mul(0x9e37_79b9)))
        .collect();
    let flood = dotd.write("flood", flood);
    let mut innocent = Dot::connect(&network.client, SERVER_V6);
    let mut ask =
        |number: u16| innocent.exchange(&query(number, &format!("host-{}.dotd.test", number % 20))).rcode();
    (0..20).for_each(|number| assert_eq!(ask(number), 0));
    let (asked, lost) = thread::scope(|scope| {
        let flood = scope.spawn(|| dnsperf(&network.client, SERVER_V4, &flood, "-c 4 -q 50 -n 1"));
        let (mut asked, mut lost) = (0_u32, 0);
        while !flood.is_finished() || asked < 500 {
            lost += u32::from(ask(u16::try_from(asked % 1000).expect("small")) != 0);
            asked += 1;
        }
        let said = flood.join().expect("dnsperf runs");
        assert_eq!(said.number_after("Queries completed:"), 5000, "{}", said.text);
        (asked, lost)
    });
    assert!(lost * 1000 <= asked, "{lost} of {asked} lost");
    let stats = dotd.counts("every end is in the books", |stats| stats.difference() == [0; 3]);
    let of = |label| stats.counter("misuse", label);
    assert!(of("refused") >= 4000, "{} of 5000", of("refused"));
    assert_eq!((of("random_names"), of("found")), (of("refused") + of("only_counted"), 1));
    let shown = dotd.operate(&["misuse"]);
    assert!(shown.has("random_names") && shown.has("below dotd.test: refuse"), "{}", shown.text);
    assert!(
        dotd.stderr().contains("misuse is found") && !dotd.stderr().contains("dotd.test"),
        "{}",
        dotd.stderr()
    );
    let refused = over_udp(&network, SERVER_V4, &query(7, "never-asked-before.dotd.test"));
    assert_eq!(refused.rcode(), REFUSED);
    assert!(refused.option(OPTION_EDE).is_some_and(|ede| ede.starts_with(&[0, 18])));
}

/// iodine and its server, in their namespaces, with a tunnel through dotd to `t.tunnel.test`.
struct Tunnel {
    _server: Process,
    _client: Process,
    scratch: Scratch,
}

impl Tunnel {
    /// The other end of the tunnel.
    const FAR_END: &'static str = "10.99.77.1";

    fn dig(network: &Network) -> Self {
        let scratch = Scratch::new();
        let start = |name: &str, namespace, words: &[&str]| {
            let log = std::fs::File::create(scratch.path().join(name)).expect("our own folder");
            let mut command = bound_to_namespace(name);
            command.args(words).stdout(Stdio::null()).stderr(log);
            Process::start(name, namespace, &scratch, command)
        };
        // What is for no tunnel goes on to NSD.
        let listen = [
            "-f",
            "-c",
            "-P",
            "secret",
            "-l",
            "127.0.0.1",
            "-p",
            "5399",
            "-b",
            "5300",
            Self::FAR_END,
            "t.tunnel.test",
        ];
        let server = start("iodined", &network.server, &listen);
        let at = SERVER_V4.to_string();
        let dig = ["-f", "-r", "-P", "secret", "-T", "TXT", "-m", "400", &at, "t.tunnel.test"];
        let client = start("iodine", &network.client, &dig);
        Self { _server: server, _client: client, scratch }
    }

    fn log(&self) -> String {
        ["iodined", "iodine"]
            .map(|name| std::fs::read_to_string(self.scratch.path().join(name)).unwrap_or_default())
            .concat()
    }

    /// Sends packets through it. Returns how many came back.
    fn carries(network: &Network, packets: u64) -> u64 {
        let count = packets.to_string();
        let said = tool(
            &network.client,
            "ping",
            &["-c", &count, "-i", "0.02", "-s", "900", "-W", "2", Self::FAR_END],
        );
        if said.has("received") { said.number_after("transmitted,") } else { 0 }
    }
}

/// Goal: a tunnel of iodine is found by what it carries, and stopped; the names of others are answered. Method: iodine through dotd
/// to its server, first only counted, then refused; a host's name beside it, from the same client. Covers: A-722
#[test]
fn a_tunnel_is_found_and_stopped() {
    require!(Root, Command("iodine"), Command("iodined"), Command("ping"), Command("nsd"));
    let network = Network::new();
    let _backend = Backend::nsd(&network, 5300);
    let with = |action: &str| config(&[("tunnel", action)]).backend_only(SocketAddr::from((BACKEND, 5399)));
    let mut dotd = Server::start(&network, &with("\"count\""));
    let tunnel = Tunnel::dig(&network);
    let tool = || Tunnel::carries(&network, 5) > 0;
    eventually("the tunnel stands", || {
        tool().then_some(()).or_else(|| {
            assert!(!tunnel.log().contains("failed"), "{}", tunnel.log());
            None
        })
    });
    eventually("it is found", || {
        Tunnel::carries(&network, 50);
        (dotd.stats().counter("misuse", "tunnel") > 0).then_some(())
    });
    assert!(Tunnel::carries(&network, 10) > 0, "it is only counted");
    let shown = dotd.operate(&["misuse"]);
    assert!(
        shown.has("tunnel") && shown.has(&format!("{CLIENT_V4}/32 below tunnel.test: count")),
        "{}",
        shown.text
    );
    dotd.rewrite_config(&with("\"refuse\""));
    dotd.signal(Signal::SIGHUP);
    eventually("it is refused", || {
        Tunnel::carries(&network, 50);
        (dotd.stats().counter("misuse", "refused") > 0).then_some(())
    });
    assert_eq!(Tunnel::carries(&network, 5), 0, "it carries nothing any more");
    let answer = over_udp(&network, SERVER_V4, &query(1, "host-7.dotd.test"));
    assert_eq!(answer.rcode(), 0);
    let explained = dotd.operate(&["explain", &CLIENT_V4.to_string()]);
    assert!(explained.has("tunnel.test: refuse") && explained.has("(misuse.tunnel)"), "{}", explained.text);
}

/// Goal: a client whose answers are failures loses its sessions, and its datagrams are told to come over TCP, as their address may be
/// forged; other clients are served, and a reload that does not ask for it ends it. Method: names that are not there, over TLS; then
/// datagrams, a new session, and a session of another client. Covers: A-724, A-725
#[test]
fn sessions_of_a_client_that_fails_are_closed() {
    require!(Root, Command("nsd"));
    let network = Network::new();
    let _backend = Backend::nsd(&network, 5300);
    let keys = [("failures", "\"close\""), ("failures_min", "10")];
    let mut dotd = Server::start(&network, &config(&keys));
    let mut innocent = Dot::connect(&network.client, SERVER_V6);
    for round in 1..=2 {
        let mut session = Dot::connect(&network.client, SERVER_V4);
        for number in 0..10 * u16::from(round == 1) {
            assert_eq!(
                session.exchange(&query(number, &format!("gone-{number}.dotd.test"))).rcode(),
                NXDOMAIN
            );
        }
        session.ask(&query(99, "host-1.dotd.test"));
        assert_eq!(session.receive_octets(), None, "round {round}");
        let stats =
            dotd.counts("the session is closed", |stats| stats.counter("session_ends", "misuse") == round);
        assert_eq!(
            (stats.counter("misuse", "closed"), stats.counter("queries", "dropped_misuse")),
            (round, round)
        );
    }
    assert!(over_udp(&network, SERVER_V4, &query(1, "host-1.dotd.test")).is_truncated());
    assert_eq!(innocent.exchange(&query(2, "host-1.dotd.test")).rcode(), 0);
    let explained = dotd.operate(&["explain", &CLIENT_V4.to_string()]);
    assert!(explained.has("failures") && explained.has("(misuse.failures)"), "{}", explained.text);
    dotd.counts("every end is in the books", |stats| {
        stats.difference() == [0; 3]
            && stats.counter("misuse", "truncated") == 1
            && stats.counter("misuse", "failures") == 3
    });
    dotd.rewrite_config(&config(&[]));
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == 1);
    assert_eq!(Dot::connect(&network.client, SERVER_V4).exchange(&query(3, "host-1.dotd.test")).rcode(), 0);
    assert!(dotd.operate(&["misuse"]).has("nothing is looked for"));
}

/// Goal: a client that asks too much has to wait, over connections, and gets every answer. Method: more messages in one write than
/// a window may have. Covers: A-724
#[test]
fn a_client_that_asks_too_much_waits() {
    require!(Root, Command("nsd"));
    let network = Network::new();
    let _backend = Backend::nsd(&network, 5300);
    let keys = [("queries", "\"delay\""), ("queries_max", "10"), ("delayed_per_second", "5")];
    let dotd = Server::start(&network, &config(&keys));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let messages: Vec<_> = (0..16).map(|number| query(number, &format!("host-{number}.dotd.test"))).collect();
    session.ask_all(&messages);
    let mut heard: Vec<_> = messages.iter().map(|_| session.receive().id).collect();
    heard.sort_unstable();
    assert_eq!(heard, (0..16).collect::<Vec<_>>());
    let stats = dotd.counts("every end is in the books", |stats| stats.difference() == [0; 3]);
    assert_eq!(stats.counter("misuse", "queries"), 6);
    assert!(stats.counter("misuse", "delayed") >= 3, "{}", stats.counter("misuse", "delayed"));
}

/// Goal: a client can be banned for its misuse: XDP refuses what it begins next. Method: messages beyond a window's; the list of bans;
/// a client of the other IP version. Covers: A-725
#[test]
fn a_client_is_banned_for_misuse() {
    require!(Root, Bpf);
    let keys = [("queries", "\"ban\""), ("queries_max", "10")];
    let config = keys.iter().fold(Config::new(), |config, (key, value)| config.set("misuse", key, value));
    let network = Network::new();
    let dotd = Server::start(
        &network,
        &config.set("xdp.limit", "ban_seconds", "3600").set("server", "workers", "1"),
    );
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask_all(&(0..11).map(|number| query(number, "dotd.test")).collect::<Vec<_>>());
    while session.receive_octets().is_some() {}
    eventually("the client is banned", || {
        dotd.operate(&["ban", "list", "--json"]).has("\"misuse\"").then_some(())
    });
    assert_eq!(Dot::connect(&network.client, SERVER_V6).exchange(&query(1, "dotd.test")).rcode(), 0);
}

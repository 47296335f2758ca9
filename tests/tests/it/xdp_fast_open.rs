//! TCP Fast Open beside the cleartext gate: the stream begins in the SYN, and continues where dotd's SYN-ACK says.
//!
//! Before: both machines permit Fast Open, and `listen.fast_open` is set. After: a hello that begins in a SYN is
//! served, however long; cleartext in a SYN reaches no socket. Needs root; prints SKIPPED without. Never: takes a
//! served client as proof that its octets came with the SYN: the kernel's counter shows that.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, SocketAddr, TcpStream},
};

use dot_tests::{
    frames::{ACK, Build, PSH, SYN},
    harness::{
        DEADLINE,
        clients::{DOT_PORT, is_silent},
        config::Config,
        dot::Dot,
        eventually,
        flood::Wire,
        message::{A, Query, framed},
        netns::{CLIENT_INTERFACE, CLIENT_V4, Namespace, Network, SERVER_INTERFACE, SERVER_V4, SERVER_V6},
        offer::Offer,
        server::Server,
    },
    require,
};
use nix::sys::socket::{setsockopt, sockopt::TcpFastOpenConnect};
use socket2::{Domain, Socket, Type};

/// `net.ipv4.tcp_fastopen` of clients and servers, and its bit for servers that need no cookie.
const BOTH: u32 = 3;
const WITHOUT_COOKIE: u32 = 0x200;

/// A counter of TCP's in a namespace.
fn counter(namespace: &Namespace, wanted: &'static str) -> u64 {
    namespace.run(move || {
        let text = fs::read_to_string("/proc/thread-self/net/netstat").expect("Linux has it");
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        pairs.find(|(name, _)| *name == wanted).map_or(0, |(_, value)| value.parse().expect("a number"))
    })
}

fn permit(namespace: &Namespace, bits: u32) {
    let text = bits.to_string();
    namespace.run(move || fs::write("/proc/sys/net/ipv4/tcp_fastopen", text).expect("our own namespace"));
}

/// dotd with the default gate, in namespaces that permit Fast Open.
fn started(mode: &str, bits_of_server: u32) -> (Network, Server) {
    let network = Network::new();
    permit(&network.client, BOTH);
    permit(&network.server, bits_of_server);
    let dotd = Server::start(&network, &Config::new().xdp(mode).set("listen", "fast_open", "true"));
    (network, dotd)
}

/// A connection whose first octets go out with its SYN, once the client has the server's cookie.
fn fast_open(network: &Network, server: IpAddr) -> TcpStream {
    let server = SocketAddr::new(server, DOT_PORT);
    network.client.run(move || {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).expect("a socket");
        setsockopt(&socket, TcpFastOpenConnect, &true).expect("Linux has it");
        socket.connect(&server.into()).expect("nothing is sent yet");
        socket.set_read_timeout(Some(DEADLINE)).expect("not zero");
        socket.into()
    })
}

/// A hello of several segments: unknown ALPN names, and `dot`.
fn long() -> Offer {
    let strange = (0..60).map(|number| format!("{number:0>100}").into_bytes());
    Offer { alpn: strange.chain([b"dot".to_vec()]).collect(), ..Offer::default() }
}

/// Goal: a hello that begins in a SYN is served through the gate, also one whose rest comes in later segments; over
/// both IP versions, natively and generic. Method: a real client, which first gets its cookie; the kernel's counter of
/// SYNs whose octets it accepted, and dotd's. Covers: C-10
#[test]
fn a_hello_that_begins_in_a_syn_passes_the_gate() {
    require!(Root, Bpf);
    let query = Query::new(1, "dotd.test", A).octets();
    for mode in ["native", "generic"] {
        let (network, dotd) = started(mode, BOTH);
        let mut taken = 0;
        for server in [SERVER_V4, SERVER_V6] {
            // The first connection has no cookie yet, and asks for one.
            for (offer, comes_with_syn) in [(Offer::default(), 0), (Offer::default(), 1), (long(), 1)] {
                let mut session = Dot::over(fast_open(&network, server), server, &offer).expect("served");
                assert_eq!(session.exchange(&query).rdata(A), [[192, 0, 2, 53]], "{mode} {server}");
                taken += comes_with_syn;
                let passive = counter(&network.server, "TCPFastOpenPassive");
                assert_eq!(passive, taken, "{mode} {server}: octets in a SYN");
            }
        }
        let stats = dotd.stats();
        assert_eq!(stats.packets("drop", "cleartext_on_dot"), 0, "{mode}: the rest of a hello was dropped");
        assert!(stats.packets("pass", "client_hello") >= 6, "{mode}: each stream began with a hello");
        assert_eq!(stats.packets("pass", "unknown_flow"), 0, "{mode}: the gate knew each connection");
        dotd.stop();
    }
}

/// Goal: cleartext in a SYN is dropped before a socket exists, also when the client sends it again behind an ordinary
/// handshake. Method: a query in clear from a client that has its cookie. Covers: C-10
#[test]
fn cleartext_in_a_syn_is_dropped() {
    require!(Root, Bpf);
    let (network, dotd) = started("native", BOTH);
    let query = Query::new(1, "dotd.test", A).octets();
    drop(Dot::over(fast_open(&network, SERVER_V4), SERVER_V4, &Offer::default()).expect("served"));
    let mut cleartext = fast_open(&network, SERVER_V4);
    cleartext.write_all(&framed(&query)).expect("it goes with the SYN");
    dotd.counts("the SYN is dropped", |stats| stats.packets("drop", "cleartext_on_dot") >= 1);
    assert_eq!(counter(&network.server, "TCPFastOpenPassive"), 0, "a socket exists");
    dotd.counts("the second try is dropped", |stats| stats.packets("drop", "cleartext_on_dot") >= 2);
    assert!(is_silent(&mut cleartext), "cleartext was heard");
    dotd.stop();
}

/// Goal: from a retransmitted SYN-ACK, which the request sends and not the socket that has the octets, the learner
/// records the same beginning. Method: a SYN with half a hello from an address that no machine has; after the kernel
/// has sent its SYN-ACK twice, the other half, which could not begin a stream. Covers: C-10
#[test]
fn a_repeated_syn_ack_does_not_move_the_beginning() {
    require!(Root, Bpf);
    const INITIAL: u32 = 0xffff_fff0;
    let (network, dotd) = started("native", BOTH | WITHOUT_COOKIE);
    let mac = network.client.ip(&format!("-brief link show {CLIENT_INTERFACE}"));
    let mac = mac.split_whitespace().nth(2).expect("an Ethernet address");
    network.server.ip(&format!("neighbour replace {CLIENT_V4} lladdr {mac} dev {SERVER_INTERFACE}"));
    network.server.ip(&format!("route add default via {CLIENT_V4}"));
    let wire = Wire::open(&network);
    let client: IpAddr = "10.128.0.7".parse().expect("an address");
    let from = |build: Build| build.client(client).server(SERVER_V4).frame();
    let half = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 100]].concat();
    assert!(wire.send(from(Build::tcp(DOT_PORT, SYN, INITIAL, &half))));
    dotd.counts("the half hello passes", |stats| stats.packets("pass", "client_hello") == 1);
    eventually("the SYN-ACK is sent again", || (counter(&network.server, "TCPSynRetrans") > 0).then_some(()));
    assert_eq!(counter(&network.server, "TCPFastOpenPassive"), 1, "octets in a SYN");
    let place = INITIAL.wrapping_add(1 + half.len() as u32);
    assert!(wire.send(from(Build::tcp(DOT_PORT, PSH | ACK, place, &[7; 100]))));
    dotd.counts("the other half passes", |stats| stats.packets("pass", "stream") == 1);
    assert_eq!(dotd.stats().packets("drop", "cleartext_on_dot"), 0);
    dotd.stop();
}

//! Nothing but TLS on 853, and no TLS on 53: the gates of the kernel half, and the engine alone.
//!
//! Before: dotd with XDP on a veth, or without. After: cleartext gets nothing, and is counted once.

use std::{
    io::{ErrorKind, Write},
    net::{IpAddr, SocketAddr},
};

use dot_tests::{
    harness::{
        backends::Backend,
        capture::{Capture, holds},
        clients::{DOT_PORT, is_nothing_but_an_alert, is_silent, kdig, read_to_close, tcp, tool, udp},
        config::Config,
        dot::Dot,
        message::{A, Query, framed},
        netns::{Network, SERVER_V4, SERVER_V6},
        scene::{embedded, honest, scripted},
        server::Server,
        stats::Stats,
        uninterrupted,
    },
    require,
};

const FAMILIES: [IpAddr; 2] = [SERVER_V4, SERVER_V6];

/// The start of a TLS ClientHello, as long as a small one.
fn client_hello() -> Vec<u8> {
    let mut hello = vec![0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    hello.resize(205, 0x5a);
    hello
}

/// Goal: cleartext DNS to 853 gets zero octets back, is counted as dropped, and never reaches the engine
/// (RFC 7858 §3.1). Method: raw queries over both families beside an innocent DoT client; XDP native, generic.
/// Covers: C-3, A-43
#[test]
fn cleartext_dns_to_853_is_dropped_in_the_kernel() {
    require!(Root, Bpf);
    for (mode, address) in
        [("native", SERVER_V4), ("native", SERVER_V6), ("generic", SERVER_V4), ("generic", SERVER_V6)]
    {
        let (network, backend, dotd) = scripted(Config::new().xdp(mode), honest);
        let mut raw = tcp(&network.client, SocketAddr::new(address, DOT_PORT));
        raw.write_all(&framed(&Query::new(1, "cleartext.dotd.test", A).octets())).expect("open");
        let is_dropped = |stats: &Stats| stats.packets("drop", "cleartext_on_dot") > 0;
        let stats = dotd.counts("the segment is dropped", is_dropped);
        let mut innocent = Dot::connect(&network.client, address);
        assert_eq!(innocent.exchange(&Query::new(2, "www.dotd.test", A).octets()).rcode(), 0);
        assert!(is_silent(&mut raw), "{mode} {address}: an answer to cleartext");
        assert_eq!(stats.sum("handshakes", "failed_"), 0, "it reached the engine");
        assert!(backend.received().iter().all(|query| !holds(&query.octets, b"cleartext")));
    }
}

/// Goal: the same for a client of another project. Method: kdig +tcp -p 853. Covers: C-3
#[test]
fn kdig_in_cleartext_gets_nothing() {
    require!(Root, Bpf, Command("kdig"));
    let (network, dotd) = embedded(&Config::new());
    let said = kdig(&network.client, SERVER_V4, "+tcp +timeout=1 dotd.test A");
    assert!(!said.is_success && !said.has("status:"), "{}", said.text);
    assert!(dotd.stats().packets("drop", "cleartext_on_dot") > 0);
    assert_eq!(dotd.stats().counter("handshakes", "failed_not_tls"), 0);
}

/// Goal: a client cannot pass the gate one octet at a time: the first octet that cannot be TLS is dropped. Method: 0x16
/// passes, because it may begin a hello; the second octet is DNS. Covers: C-3
#[test]
fn cleartext_in_single_octets_is_dropped() {
    require!(Root, Bpf);
    let (network, dotd) = embedded(&Config::new());
    let mut raw = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
    for octet in [&[0x16_u8][..], &[0x27], &[0x00]] {
        raw.write_all(octet).expect("open");
    }
    dotd.counts("it is dropped", |stats| stats.packets("drop", "cleartext_on_dot") > 0);
    assert!(is_silent(&mut raw));
}

/// Goal: without XDP the engine gives no DNS answer either, and counts the connection (RFC 7858 §3.1). Method: XDP off;
/// a raw query; the engine closes without one octet of DNS: it may send an alert at most. Covers: C-3, A-43
#[test]
fn without_xdp_the_engine_refuses_cleartext() {
    require!(Root);
    let (network, dotd) = embedded(&Config::new().xdp("off"));
    for address in FAMILIES {
        let mut raw = tcp(&network.client, SocketAddr::new(address, DOT_PORT));
        raw.write_all(&framed(&Query::new(1, "dotd.test", A).octets())).expect("open");
        let octets = read_to_close(&mut raw);
        assert!(is_nothing_but_an_alert(&octets), "{octets:02x?}");
    }
    dotd.counts("both are counted", |stats| stats.counter("handshakes", "failed_not_tls") == 2);
}

/// Goal: `cleartext_853 = "count"` lets the segment pass and counts it as one that would have been dropped; "pass" does
/// not count it. Method: the same raw query, which now reaches the engine. Covers: C-3
#[test]
fn the_gate_can_count_only() {
    require!(Root, Bpf);
    for (gate, expected) in [("count", true), ("pass", false)] {
        let (network, dotd) = embedded(&Config::new().set("xdp", "cleartext_853", &format!("\"{gate}\"")));
        let mut raw = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
        raw.write_all(&framed(&Query::new(1, "dotd.test", A).octets())).expect("open");
        assert!(is_nothing_but_an_alert(&read_to_close(&mut raw)));
        let stats =
            dotd.counts("the engine saw it", |stats| stats.counter("handshakes", "failed_not_tls") == 1);
        assert_eq!(stats.packets("would_drop", "cleartext_on_dot") > 0, expected, "{gate}");
        assert_eq!(stats.packets("drop", "cleartext_on_dot"), 0, "{gate}");
    }
}

/// Goal: no qname crosses the wire in clear during a DoT session. Method: an AF_PACKET capture of port 853 at the
/// client; `stage.rs` shows that the capture would see one. Covers: C-3
#[test]
fn the_wire_holds_no_cleartext_name() {
    require!(Root);
    let (network, _backend, _dotd) = scripted(Config::new(), honest);
    let capture = Capture::start(&network.client);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let query = Query::new(1, "verysecretname.dotd.test", A);
    assert_eq!(session.exchange(&query.octets()).qname(), "verysecretname.dotd.test");
    let frames = capture.frames_of(DOT_PORT);
    let payload: usize = frames.iter().map(|frame| frame.payload.len()).sum();
    assert!(payload > 1000, "a handshake and two messages crossed: {payload} octets");
    assert!(frames.iter().all(|frame| !holds(&frame.payload, b"verysecretname")));
}

/// Goal: a ClientHello to TCP/53 gets no ServerHello (RFC 7858 §3.1), while cleartext DNS passes there.
/// Method: NSD on 53; the hello is dropped and counted, kdig +tcp is answered. Covers: C-5
#[test]
fn tls_to_port_53_gets_nothing() {
    require!(Root, Bpf, Command("nsd"), Command("kdig"));
    let network = Network::new();
    let nsd = Backend::nsd_at(&network, SocketAddr::new(SERVER_V4, 53));
    let dotd = Server::start(&network, &Config::new());
    let mut raw = tcp(&network.client, nsd.address);
    raw.write_all(&client_hello()).expect("open");
    dotd.counts("the hello is dropped", |stats| stats.packets("drop", "tls_on_do53") > 0);
    let at = format!("@{SERVER_V4}");
    let said = tool(&network.client, "kdig", &[&at, "+tcp", "+retry=0", "www.dotd.test", "A"]);
    assert!(said.has("192.0.2.80"), "cleartext DNS passes: {}", said.text);
    assert!(is_silent(&mut raw), "an answer to TLS on 53");
}

/// Goal: UDP/853 gets nothing, not even an ICMP error, and is counted (RFC 8094 §3.1).
/// Method: a query by UDP over both families beside a DoT client. Covers: C-6
#[test]
fn udp_853_gets_nothing() {
    require!(Root, Bpf);
    let (network, dotd) = embedded(&Config::new());
    for (count, address) in (1..).zip(FAMILIES) {
        let socket = udp(&network.client, SocketAddr::new(address, DOT_PORT));
        socket.send(&Query::new(1, "dotd.test", A).octets()).expect("the pair is up");
        dotd.counts("the datagram is dropped", |stats| stats.packets("drop", "udp_on_dot") >= count);
        socket.set_nonblocking(true).expect("a plain socket");
        let error = uninterrupted(|| socket.recv(&mut [0; 512])).expect_err("an answer by UDP");
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{address}");
    }
}

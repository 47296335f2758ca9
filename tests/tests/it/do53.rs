//! DNS in clear through the same engine (`listen.do53`), RFC 1035 §4.2, RFC 6891 §6.2, RFC 7766, RFC 9210.
//!
//! Before: `harness::scene` with a listener on port 53. After: what dig and bare sockets see, and what is counted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};

use dot_tests::{
    harness::{
        DEADLINE,
        backends::{Backend, HOSTS, dnsperf_queries},
        clients::{is_nothing_but_an_alert, read_to_close, tcp, tool, udp},
        config::Config,
        dot::Dot,
        eventually,
        message::{
            A, OPTION_EDE, OPTION_KEEPALIVE, OPTION_PADDING, Opt, Query, TXT, append_opt, framed, header,
            reply_to,
        },
        netns::{Network, SERVER_V4, SERVER_V6},
        offer::Offer,
        response::Message,
        scene::{HONEST, honest, scripted, scripted_with},
        scratch::Scratch,
        scripted::{Act, Received},
        server::Server,
        uninterrupted,
    },
    require,
};
use std::io::{Read, Write};

fn in_clear() -> Config {
    Config::new().set("listen", "do53", r#"["0.0.0.0:53", "[::]:53"]"#)
}

fn client(network: &Network, server: IpAddr) -> UdpSocket {
    let socket = udp(&network.client, SocketAddr::new(server, 53));
    socket.set_read_timeout(Some(DEADLINE)).expect("not zero");
    socket
}

fn exchange(socket: &UdpSocket, query: &[u8]) -> Message {
    socket.send(query).expect("a socket of our own");
    let mut octets = [0; 65_535];
    let length = uninterrupted(|| socket.recv(&mut octets)).expect("an answer");
    Message::parse(&octets[..length]).expect("a whole message")
}

/// Reads one framed message.
fn receive(stream: &mut TcpStream) -> Message {
    let mut prefix = [0; 2];
    stream.read_exact(&mut prefix).expect("a prefix");
    let mut message = vec![0; usize::from(u16::from_be_bytes(prefix))];
    stream.read_exact(&mut message).expect("a message");
    Message::parse(&message).expect("a whole message")
}

/// Goal: dig is served over UDP and over TCP, v4 and v6, beside DNS over TLS; TCP needs no try over UDP first, and an
/// answer that is too long for UDP is fetched over TCP. Method: dig with each, NSD behind; TXT of 5000 octets. Covers:
/// C-7, A-39
#[test]
fn dig_is_served_by_udp_and_tcp() {
    require!(Root, Command("nsd"), Command("dig"));
    let network = Network::new();
    let backend = Backend::nsd(&network, 5353);
    let dotd = Server::start(&network, &in_clear().backend(backend.address));
    for server in [SERVER_V4, SERVER_V6].map(|server| format!("@{server}")) {
        for way in ["+notcp", "+tcp"] {
            let said = tool(&network.client, "dig", &[&server, way, "+nocookie", "www.dotd.test", "A"]);
            assert!(said.is_success && said.has("192.0.2.80"), "{way}: {}", said.text);
        }
        let said =
            tool(&network.client, "dig", &[&server, "+ignore", "+bufsize=4096", "big.dotd.test", "TXT"]);
        assert!(said.has("flags: qr aa tc rd") && said.has("ANSWER: 0"), "{}", said.text);
        let said = tool(&network.client, "dig", &[&server, "big.dotd.test", "TXT"]);
        assert!(said.has("Truncated, retrying in TCP mode") && said.has("ANSWER: 1"), "{}", said.text);
    }
    assert_eq!(
        Dot::connect(&network.client, SERVER_V4)
            .exchange(&Query::new(1, "www.dotd.test", A).octets())
            .rcode(),
        0
    );
    let stats = dotd.counts("all is counted", |stats| stats.difference() == [0; 3]);
    assert_eq!((stats.counter("do53", "received_udp"), stats.counter("do53", "received_tcp")), (6, 4));
    assert_eq!((stats.counter("do53", "truncated"), stats.counter("do53", "accepted")), (4, 4));
}

/// Goal: over UDP a client gets no more octets than it states, 512 if it states nothing or less, 1232 at most; a longer
/// answer becomes TC=1 with header, question and OPT. Method: answers of 400 to 2000 octets, each to four clients.
/// Covers: C-46
#[test]
fn a_datagram_is_no_longer_than_its_client_takes() {
    require!(Root);
    let (network, _backend, _dotd) = scripted(in_clear(), |query| {
        let asked = Message::parse(&query.octets).expect("whole");
        let octets: usize = asked.qname()[..4].parse().expect("a number");
        let mut reply = reply_to(&query.octets, TXT, &[]);
        if query.is_tcp || octets <= 1400 {
            reply = reply_to(&query.octets, TXT, &[vec![0; octets]]);
        } else {
            reply[2] |= 0x02;
        }
        if asked.opt_count() > 0 {
            append_opt(&mut reply, &Opt::default());
        }
        vec![Act::Send(reply)]
    });
    let socket = client(&network, SERVER_V4);
    for octets in [400, 700, 1100, 1300, 2000] {
        for (payload, max) in [(None, 512), (Some(100), 512), (Some(1000), 1000), (Some(4096), 1232)] {
            let mut query = Query::new(9, &format!("{octets:04}.dotd.test"), TXT);
            if let Some(payload_octets) = payload {
                query = query.opt(Opt { payload_octets, ..Opt::default() });
            }
            let answer = exchange(&socket, &query.octets());
            let opts = usize::from(payload.is_some());
            let whole = 12 + answer.question.len() + 12 + octets + 11 * opts;
            assert_eq!(answer.is_truncated(), whole > max, "{octets} octets for {payload:?}");
            assert!(answer.octets <= max && answer.opt_count() == opts);
            assert_eq!(answer.counts[1], u16::from(whole <= max));
            assert_eq!((answer.id, answer.rcode()), (9, 0));
        }
    }
}

/// Goal: in clear nothing is padded, and keepalive is ignored by UDP and answered by TCP (RFC 8467, RFC 7828 §3.2);
/// neither reaches the backend; a cookie passes both ways. Method: one query with all three, over UDP and over TCP.
/// Covers: C-30, C-31, C-38
#[test]
fn options_of_a_hop_in_clear() {
    require!(Root);
    let (network, backend, _dotd) = scripted(in_clear(), |query| {
        let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
        append_opt(&mut reply, &Opt::with(10, &[9; 16]));
        vec![Act::Send(reply)]
    });
    let cookie = [1, 2, 3, 4, 5, 6, 7, 8];
    let options = vec![(OPTION_KEEPALIVE, vec![]), (10, cookie.to_vec()), (OPTION_PADDING, vec![0; 30])];
    let query = Query::new(1, "www.dotd.test", A).opt(Opt { options, ..Opt::default() }).octets();
    let by_udp = exchange(&client(&network, SERVER_V4), &query);
    let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, 53));
    stream.write_all(&framed(&query)).expect("open");
    let by_tcp = receive(&mut stream);
    assert_eq!((by_udp.option(OPTION_KEEPALIVE), by_tcp.option(OPTION_KEEPALIVE)), (None, Some(vec![1, 44])));
    for answer in [by_udp, by_tcp] {
        assert_eq!((answer.option(OPTION_PADDING), answer.option(10)), (None, Some(vec![9; 16])));
    }
    for received in backend.received() {
        let asked = Message::parse(&received.octets).expect("whole");
        assert_eq!(asked.options(), [(10, cookie.to_vec())]);
    }
}

/// Goal: on a wildcard socket an answer leaves from the address that was asked. Method: a second address on the server;
/// a connected client would not accept an answer from the first.
#[test]
fn answers_leave_from_the_address_that_was_asked() {
    require!(Root);
    let (network, _backend, _dotd) = scripted(in_clear(), honest);
    network.server.ip("address add 10.53.0.77/24 dev server");
    network.server.ip("address add fd53::77/64 dev server nodad");
    let query = Query::new(1, "www.dotd.test", A).octets();
    for server in ["10.53.0.77", "10.53.0.1", "fd53::77", "fd53::1"] {
        let socket = client(&network, server.parse().expect("an address"));
        assert_eq!(exchange(&socket, &query).rdata(A), [HONEST], "{server}");
    }
}

/// Goal: a datagram that is no query is treated as over TLS, and nothing that could cause a loop or harm others is
/// answered: responses, fragments of messages, port 0, more octets than any query has; the ledger counts each. Method:
/// one of each by UDP, then a good query. Covers: A-15, A-16, A-17, A-18, A-39
#[test]
fn what_is_no_query_by_udp() {
    require!(Root);
    let (network, backend, dotd) = scripted(in_clear(), honest);
    let socket = client(&network, SERVER_V4);
    let response = reply_to(&Query::new(1, "www.dotd.test", A).octets(), A, &[HONEST.to_vec()]);
    for silent in [&response[..], &[0; 11], &[], &[0; 5000]] {
        socket.send(silent).expect("a socket of our own");
    }
    assert_eq!(exchange(&socket, &header(7, 0x0100, [0; 4])).rcode(), 1, "a header alone is FORMERR");
    assert_eq!(exchange(&socket, &Query::new(8, "www.dotd.test", A).flags(2 << 11).octets()).rcode(), 4);
    let transfer = exchange(&socket, &Query::new(9, "dotd.test", 252).opt(Opt::default()).octets());
    assert_eq!((transfer.id, transfer.rcode()), (9, 5));
    assert!(transfer.option(OPTION_EDE).is_some());
    assert_eq!(exchange(&socket, &Query::new(10, "www.dotd.test", A).octets()).rdata(A), [HONEST]);
    assert_eq!(backend.received().len(), 1);
    let stats = dotd.counts("all is counted", |stats| stats.difference() == [0; 3]);
    let dropped = ["dropped_is_response", "dropped_short", "dropped_unanswerable"];
    assert_eq!(dropped.map(|label| stats.counter("queries", label)), [1, 2, 1]);
    assert_eq!(stats.counter("queries", "received"), 8);
}

/// Goal: where transfers are relayed, a query for one over UDP is told to use TCP, because only a stream has room for a
/// zone (RFC 1995 §4, RFC 5936 §4.2). Method: AXFR and IXFR by UDP; TC=1, no records, and the backend gets no query.
#[test]
fn a_transfer_by_udp_is_sent_to_tcp() {
    require!(Root);
    let (network, backend, dotd) = scripted(in_clear().set("dns", "transfers", "true"), honest);
    let socket = client(&network, SERVER_V4);
    for (id, qtype) in [(1, 252), (2, 251)] {
        let answer = exchange(&socket, &Query::new(id, "dotd.test", qtype).octets());
        assert_eq!((answer.id, answer.rcode(), answer.records.len()), (id, 0, 0));
        assert_ne!(answer.flags & 0x0200, 0, "TC");
    }
    assert!(backend.received().is_empty());
    dotd.counts("all is counted", |stats| stats.difference() == [0; 3]);
}

/// Goal: without a backend queries over UDP get SERVFAIL too, never silence. Method: a port where no backend listens.
/// Covers: C-52, C-57
#[test]
fn no_backend_is_servfail() {
    require!(Root);
    let network = Network::new();
    let closed = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let _dotd = Server::start(&network, &in_clear().backend(closed));
    let answer =
        exchange(&client(&network, SERVER_V4), &Query::new(1, "a.test", A).opt(Opt::default()).octets());
    assert_eq!((answer.id, answer.rcode()), (1, 2));
    assert!(answer.option(OPTION_EDE).is_some());
}

/// Goal: a TLS hello on TCP/53 is no DNS: no ServerHello, and the connection ends. Method: a real hello, XDP off so
/// that the engine sees it. Covers: C-5
#[test]
fn tls_on_port_53_is_not_served() {
    require!(Root);
    let config = in_clear().xdp("off").set("session", "message_timeout", "\"300ms\"");
    let (network, _backend, _dotd) = scripted(config, honest);
    let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, 53));
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 506]].concat();
    stream.write_all(&hello).expect("open");
    assert!(is_nothing_but_an_alert(&read_to_close(&mut stream)));
    let stream = tcp(&network.client, SocketAddr::new(SERVER_V4, 53));
    assert!(Dot::over(stream, SERVER_V4, &Offer::default()).is_err());
}

/// Goal: a burst of datagrams is answered whole, in few system calls, also through the cache; no query is lost between
/// the signal to stop and the end. Method: dnsperf by UDP and by TCP, with and without a cache; then 50 queries that
/// are held while dotd is told to stop. Covers: C-7
#[test]
fn dnsperf_loses_nothing() {
    require!(Root, Command("nsd"), Command("dnsperf"));
    let network = Network::new();
    let backend = Backend::nsd(&network, 5353);
    let scratch = Scratch::new();
    let queries = scratch.write("queries", dnsperf_queries(HOSTS)).display().to_string();
    for cache in ["0", "10000"] {
        let dotd =
            Server::start(&network, &in_clear().set("dns", "cache_entries", cache).backend(backend.address));
        for mode in ["udp", "tcp"] {
            let words = ["-m", mode, "-s", "10.53.0.1", "-d", &queries, "-n", "4", "-c", "5", "-q", "100"];
            let said = tool(&network.client, "dnsperf", &words);
            let counts = (said.number_after("Queries lost:"), said.number_after("Queries completed:"));
            assert_eq!(counts, (0, 4 * HOSTS as u64), "{mode}, cache {cache}: {}", said.text);
        }
        dotd.counts("all is counted", |stats| stats.difference() == [0; 3]);
        dotd.stop();
    }
}

/// Goal: queries over UDP that wait for a backend are answered although dotd is told to stop. Method: 50 queries that
/// the backend holds until dotd takes no connection any more.
#[test]
fn a_drain_answers_datagrams_too() {
    require!(Root);
    let hold = |query: &Received| match honest(query).pop() {
        Some(Act::Send(reply)) => vec![Act::Hold(reply)],
        _ => Vec::new(),
    };
    let (network, backend, mut dotd) = scripted_with(in_clear(), "timeout = \"30s\"", hold);
    let socket = client(&network, SERVER_V4);
    for id in 0..50 {
        socket.send(&Query::new(id, &format!("n{id}.dotd.test"), A).octets()).expect("a socket of our own");
    }
    eventually("all are at the backend", || (backend.held() == 50).then_some(()));
    dotd.signal(nix::sys::signal::Signal::SIGTERM);
    let at = SocketAddr::new(SERVER_V4, 53);
    eventually("every worker has closed its doors", || {
        network.client.run(move || TcpStream::connect_timeout(&at, DEADLINE).is_err()).then_some(())
    });
    backend.release();
    let mut octets = [0; 512];
    for _ in 0..50 {
        let length = uninterrupted(|| socket.recv(&mut octets)).expect("an answer");
        assert_eq!(Message::parse(&octets[..length]).expect("whole").rdata(A), [HONEST]);
    }
    let (ended, _scratch) = dotd.wait();
    assert_eq!(ended.code, Some(0));
}

//! PROXY headers of load balancers on datagrams, and their fields beside the addresses (PROXY protocol 2, section 2.2).
//!
//! Before: `listen.do53` and `listen.proxy_protocol_from`. After: backends know the client, and the answer goes to the
//! sender.

use std::net::{SocketAddr, UdpSocket};

use dot_tests::{
    harness::{
        DEADLINE,
        clients::udp,
        config::Config,
        eventually,
        message::{A, Query, framed, www},
        netns::{CLIENT_V4, SERVER_V4},
        process::{Process, bound_to_namespace},
        proxied::{Header, header_v4, raw_header},
        response::Message,
        scene::{HONEST, honest, scripted_with},
        scratch::Scratch,
        scripted::Received,
    },
    require,
};

fn behind_a_load_balancer() -> Config {
    Config::new()
        .set("listen", "do53", r#"["0.0.0.0:53"]"#)
        .set("listen", "proxy_protocol_from", &format!(r#"["{CLIENT_V4}/32", "127.0.0.1/32"]"#))
        .set("xdp", "cleartext_853", "\"count\"")
}

fn at_53() -> SocketAddr {
    SocketAddr::new(SERVER_V4, 53)
}

/// The client of the last query, as a backend is told.
fn told(received: &[Received]) -> Header {
    received.last().and_then(|query| query.proxy.clone()).expect("a header")
}

fn exchange(socket: &UdpSocket, datagram: &[u8]) -> Message {
    socket.send(datagram).expect("a socket of our own");
    let mut octets = [0; 1232];
    let length = socket.recv(&mut octets).expect("an answer");
    Message::parse(&octets[..length]).expect("whole, without a header")
}

/// Goal: a datagram of a load balancer names its client, octet by octet, to the backend, and the answer goes to the
/// load balancer without a header; LOCAL means the load balancer itself; a datagram without a header, with half of one
/// or with version 1 is dropped and counted; a header from an untrusted sender is no query. Method: sockets in both
/// namespaces. Covers: C-243, A-232
#[test]
fn each_datagram_of_a_load_balancer_names_its_client() {
    require!(Root);
    let (network, backend, dotd) = scripted_with(behind_a_load_balancer(), "proxy_v2 = true", honest);
    let socket = udp(&network.client, at_53());
    socket.set_read_timeout(Some(DEADLINE)).expect("not zero");
    let ends =
        [&[203, 0, 113, 9, 198, 51, 100, 53][..], &7777_u16.to_be_bytes(), &53_u16.to_be_bytes()].concat();
    for (id, family) in [(1, 0x12), (2, 0x11)] {
        let answer = exchange(&socket, &[raw_header(0x21, family, &ends), www(id)].concat());
        assert_eq!((answer.id, answer.rdata(A)), (id, vec![&HONEST[..]]));
        let header = told(&backend.received());
        let expected = ("203.0.113.9:7777".parse().expect("one"), "198.51.100.53:53".parse().expect("one"));
        assert_eq!((header.command, header.family, header.addresses), (0x21, family, Some(expected)));
        assert!(header.tlvs.is_empty());
    }
    let answer = exchange(&socket, &[raw_header(0x20, 0, &[]), www(3)].concat());
    assert_eq!(answer.rdata(A), [HONEST]);
    assert_eq!(told(&backend.received()).addresses.expect("both").0, socket.local_addr().expect("bound"));
    let whole = [raw_header(0x21, 0x12, &ends), www(4)].concat();
    for lost in [www(5), whole[..20].to_vec(), b"PROXY UDP4 192.0.2.1 192.0.2.2 1 53\r\n".to_vec()] {
        socket.send(&lost).expect("a socket of our own");
    }
    dotd.counts("they are dropped", |stats| {
        stats.counter("queries", "dropped_proxy_header") == 3 && stats.difference() == [0; 3]
    });
    assert_eq!(exchange(&socket, &whole).id, 4);
    // On another address of this machine no sender is trusted.
    let stranger = network.server.run(|| UdpSocket::bind("127.0.0.2:0").expect("loopback has ports"));
    stranger.connect(("127.0.0.1", 53)).expect("UDP");
    stranger.set_read_timeout(Some(DEADLINE)).expect("not zero");
    let answers = backend.received().len();
    assert_eq!(exchange(&stranger, &www(6)).rdata(A), [HONEST]);
    stranger.send(&whole).expect("a socket of our own");
    let stats = dotd.counts("it is no query", |stats| stats.difference() == [0; 3]);
    assert_eq!(stats.counter("queries", "dropped_proxy_header"), 3);
    assert_eq!(backend.received().len(), answers + 1);
}

/// Goal: a header's fields beside the addresses reach backends, over datagrams and connections, except checksums;
/// fields that are too long are left out, and the client is served. Method: a header with a custom value, a checksum
/// and nothing; then with one of 300 octets. Covers: C-243
#[test]
fn what_a_header_says_is_passed_on() {
    require!(Root);
    let (network, backend, _dotd) = scripted_with(behind_a_load_balancer(), "proxy_v2 = true", honest);
    let custom = [&[0xe0, 0, 6][..], b"tenant"].concat();
    let said = [&custom[..], &[0x03, 0, 4, 1, 2, 3, 4, 0x04, 0, 0]].concat();
    let long = [&[0xe1, 1, 44][..], &[7; 300]].concat();
    let socket = udp(&network.client, at_53());
    socket.set_read_timeout(Some(DEADLINE)).expect("not zero");
    for (tlvs, expected) in [(&said, &custom[..]), (&long, &[])] {
        let header = header_v4(([203, 0, 113, 9], 7777), ([198, 51, 100, 53], 53), tlvs);
        assert_eq!(exchange(&socket, &[&*header, &www(1)].concat()).rdata(A), [HONEST]);
        assert_eq!(told(&backend.received()).tlvs, expected);
        let mut stream = dot_tests::harness::clients::tcp(&network.client, at_53());
        std::io::Write::write_all(&mut stream, &[&*header, &framed(&www(2))].concat())
            .expect("it takes them");
        let mut prefix = [0; 2];
        std::io::Read::read_exact(&mut stream, &mut prefix).expect("an answer");
        assert_eq!(told(&backend.received()).tlvs, expected, "over a connection");
    }
}

/// Goal: behind dnsdist, which sends PROXY headers by UDP, backends know dnsdist's client, and the fields that dnsdist
/// adds. Method: dnsdist on the server's other port, with a value of its own; a client asks it. Covers: C-243
#[test]
fn dnsdist_names_its_clients_by_udp() {
    require!(Root, Command("dnsdist"));
    let (network, backend, _dotd) = scripted_with(behind_a_load_balancer(), "proxy_v2 = true", honest);
    let scratch = Scratch::new();
    let config = scratch.write(
        "dnsdist.conf",
        "setLocal('0.0.0.0:5399')\nsetACL({'0.0.0.0/0'})\nsetSecurityPollSuffix('')\n\
         newServer({address='127.0.0.1:53', useProxyProtocol=true, healthCheckMode='up'})\n\
         getServer(0):setUp()\n\
         addAction(AllRule(), SetProxyProtocolValuesAction({[224]='tenant'}))\n",
    );
    let mut command = bound_to_namespace("dnsdist");
    command.args(["--supervised", "--disable-syslog", "-C"]).arg(config);
    let _dnsdist = Process::start("dnsdist", &network.server, &scratch, command);
    let socket = udp(&network.client, SocketAddr::new(SERVER_V4, 5399));
    socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).expect("not zero");
    let query = Query::new(9, "www.dotd.test", A).octets();
    let answer = eventually("dnsdist is there", || {
        socket.send(&query).ok()?;
        let mut octets = [0; 1232];
        let length = socket.recv(&mut octets).ok()?;
        Message::parse(&octets[..length])
    });
    assert_eq!((answer.id, answer.rdata(A)), (9, vec![&HONEST[..]]));
    let header = told(&backend.received());
    assert_eq!(header.addresses.expect("both").0.ip(), CLIENT_V4);
    assert_eq!((header.family, &header.tlvs[..]), (0x12, &b"\xe0\x00\x06tenant"[..]));
}

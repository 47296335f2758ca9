//! `dotd query`: what its ClientHello says, a certificate of its own, IPv6, and a truncated answer that TCP does not give.
//!
//! Before: a listener that reads one hello, dotd with `tls.client_ca`, a server without TCP. After: what they saw is compared with
//! the words that were typed.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpListener, UdpSocket},
    process::Output,
    thread,
    time::Duration,
};

use dot_tests::{
    harness::{
        config::Config,
        message::{A, reply_to},
        netns::{Namespace, Network, SERVER_V4, SERVER_V6},
        pki::Authority,
        process::bounded,
        scene::embedded,
        scratch::Scratch,
        server::{Server, binary},
        uninterrupted,
    },
    require,
};
use rustls::server::Acceptor;

fn query(namespace: &Namespace, words: &[&str]) -> Output {
    let mut command = bounded(&binary().display().to_string());
    command.arg("query").args(words);
    namespace.output(command)
}

fn text(output: &Output) -> String {
    [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat()
}

/// The server name and the protocols of the first ClientHello that comes.
fn hello(listener: &TcpListener) -> (Option<String>, Vec<String>) {
    let (mut stream, _) = uninterrupted(|| listener.accept()).expect("a client");
    let mut acceptor = Acceptor::default();
    loop {
        let mut octets = [0; 4096];
        let count = stream.read(&mut octets).expect("a hello");
        acceptor.read_tls(&mut &octets[..count]).expect("a slice");
        if let Some(accepted) = acceptor.accept().expect("a hello") {
            let hello = accepted.client_hello();
            let protocols = hello.alpn().into_iter().flatten();
            let protocols = protocols.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
            return (hello.server_name().map(str::to_owned), protocols);
        }
    }
}

/// Goal: the ClientHello says the name and the protocols that were typed, or neither (RFC 6066 §3, RFC 7301, RFC 8310 §8). Method:
/// what a server reads, for each option. Covers: C-596
#[test]
fn a_hello_says_what_was_typed() {
    require!(Root);
    let network = Network::new();
    let listener = network.server.run(|| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let at = format!("@{}", listener.local_addr().expect("bound"));
    let name = "ns.dotd.test";
    for (words, sni, alpn) in [
        (&["--name", name][..], Some(name), &["dot"][..]),
        (&["--name", name, "--sni", "else.dotd.test"], Some("else.dotd.test"), &["dot"]),
        (&["--name", name, "--sni", ""], None, &["dot"]),
        (&[], None, &["dot"]),
        (&["--alpn", "h2,dot"], None, &["h2", "dot"]),
        (&["--alpn", ""], None, &[]),
    ] {
        let asked = thread::scope(|scope| {
            let heard = scope.spawn(|| hello(&listener));
            let output = query(&network.server, &[&[&*at, "www.dotd.test"], words].concat());
            assert_eq!(output.status.code(), Some(6), "{words:?}: {}", text(&output));
            heard.join().expect("a hello")
        });
        let alpn: Vec<_> = alpn.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(asked, (sni.map(str::to_owned), alpn), "{words:?}");
    }
}

/// Goal: a certificate of the client's own opens a server that asks for one, and none does not (RFC 8310 §6.6). Method: dotd with
/// `tls.client_ca`. Covers: C-597
#[test]
fn a_certificate_of_its_own_is_shown() {
    require!(Root);
    let (network, scratch, authority) = (Network::new(), Scratch::new(), Authority::new());
    let ca = scratch.write("ca.pem", authority.pem());
    let own = authority.issue("client.dotd.test");
    let [cert, key] = [("own.crt", own.cert), ("own.key", own.key)]
        .map(|(name, pem)| scratch.write(name, pem).display().to_string());
    let config = Config::new().set("tls", "client_ca", &format!("\"{}\"", ca.display()));
    let _dotd = Server::launch(&network, &config, scratch, &[]);
    let at = format!("@{SERVER_V4}");
    let with = query(
        &network.client,
        &[&at, "www.dotd.test", "+short", "--client-cert", &cert, "--client-key", &key],
    );
    assert_eq!((with.status.code(), &*text(&with)), (Some(0), "192.0.2.80\n"));
    let without = query(&network.client, &[&at, "www.dotd.test", "+short"]);
    assert!(matches!(without.status.code(), Some(5 | 6)), "{}", text(&without));
}

/// Goal: each transport works over IPv6, with the times and Fast Open of the connection. Method: dotd on both. Covers: C-598
#[test]
fn every_transport_works_over_ipv6() {
    require!(Root);
    let config = Config::new().set("listen", "do53", "[\"[::]:53\"]");
    let (network, _dotd) = embedded(&config);
    let at = format!("@{SERVER_V6}");
    for (way, shown) in [("+tls", "TLS"), ("+tcp", "tcp"), ("+udp", "udp"), ("+tfo", "Fast Open")] {
        let output = query(&network.client, &[&at, "www.dotd.test", way]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(0), "{way}: {said}");
        assert!(
            said.contains("192.0.2.80") && said.to_lowercase().contains(&shown.to_lowercase()),
            "{way}: {said}"
        );
        assert!(said.contains(&format!("[{SERVER_V6}]")), "{way}: {said}");
    }
}

/// Goal: a truncated answer that cannot be had over TCP is shown as what it is, with the reason, in each form. Method: a server
/// that truncates every datagram and has no TCP. Covers: C-599
#[test]
fn a_truncated_answer_without_tcp_is_said() {
    require!(Root);
    let network = Network::new();
    let socket = network.server.run(|| UdpSocket::bind("127.0.0.1:0").expect("a free port"));
    let address: SocketAddr = socket.local_addr().expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("not zero");
    let at = format!("@{address}");
    for (form, said) in [
        ("--udp", "TRUNCATED, and not over TCP: not connected: Connection refused"),
        ("--short", "truncated, and not over TCP: not connected: Connection refused"),
        ("--json", "\"kept_truncated\": \"not connected: Connection refused"),
    ] {
        let output = thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = [0; 4096];
                let (octets, from) = uninterrupted(|| socket.recv_from(&mut buffer)).expect("a query");
                let mut reply = reply_to(&buffer[..octets], A, &[]);
                reply[2] |= 2;
                socket.send_to(&reply, from).expect("it is there");
            });
            let words = [&at, "www.dotd.test", "--udp", form];
            query(&network.server, if form == "--udp" { &words[..3] } else { &words })
        });
        assert_eq!(output.status.code(), Some(0), "{form}: {}", text(&output));
        assert!(text(&output).contains(said), "{form}: {}", text(&output));
    }
}

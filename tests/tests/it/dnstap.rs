//! Copies of DNS messages for dnstap readers: what Debian's readers see of them, and what a slow one costs.
//!
//! Before: a dotd with `[dnstap]`, clients over TLS, TCP and UDP, and a scripted backend. After: the reader's file, or its octets,
//! hold what was said.
//! Never: looks into a running process but by what an operator has.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::Stdio,
};

use dot_tests::{
    harness::{
        DEADLINE,
        clients::{DOT_PORT, tcp, tool, udp},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query, framed, reply_to},
        netns::{CLIENT_V4, Network, SERVER_V4},
        process::{Process, bound_to_namespace},
        scene::{HONEST, honest},
        scratch::Scratch,
        scripted::{Act, Received, Scripted},
        server::Server,
    },
    require,
};
use nix::sys::signal::Signal;

/// DoT and DNS in clear, without XDP.
fn everywhere() -> Config {
    Config::new().xdp("off").set("listen", "do53", "[\"0.0.0.0:53\"]")
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// Debian's reader, with where it listens; what it reads is in the file once it has ended.
fn capture(network: &Network, scratch: &Scratch, at: &[&str]) -> (Process, PathBuf) {
    let file = scratch.path().join("captured.tap");
    let mut command = bound_to_namespace("fstrm_capture");
    command.args(["-t", "protobuf:dnstap.Dnstap", "-w"]).arg(&file).args(at);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    (Process::start("fstrm_capture", &network.server, scratch, command), file)
}

/// Has it end, and waits for that.
fn finish(mut capture: Process) {
    capture.signal(Signal::SIGTERM);
    assert!(capture.wait(DEADLINE).is_some(), "fstrm_capture ends");
}

fn written(dotd: &Server, messages: u64) {
    dotd.counts("the reader has them", |stats| stats.counter("control", "dnstap_written") >= messages);
}

/// Asks over TLS, TCP and UDP, once each.
fn ask_each_way(network: &Network) {
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&Query::new(1, "tls.dotd.test", A).octets()).rdata(A), [HONEST]);
    let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, 53));
    stream.write_all(&framed(&Query::new(2, "tcp.dotd.test", A).octets())).expect("open");
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("an answer");
    let socket = udp(&network.client, SocketAddr::new(SERVER_V4, 53));
    socket.send(&Query::new(3, "udp.dotd.test", A).octets()).expect("sent");
    assert!(socket.recv(&mut [0; 512]).expect("an answer") > 12);
}

/// Goal: Debian's readers see each message with its type, protocol, addresses and name: of clients DOT, TCP and UDP as they came, of
/// the backend UDP; over a Unix socket and over TCP; and nothing is lost. Method: fstrm_capture writes a file, dnstap-read and
/// dnstap-ldns show it. Covers: C-580
#[test]
fn readers_see_what_was_said() {
    require!(Root, Command("fstrm_capture"), Command("dnstap-read"), Command("dnstap-ldns"));
    for is_unix in [true, false] {
        let (network, scratch) = (Network::new(), Scratch::new());
        let backend = Scripted::start(&network, honest);
        let socket = scratch.path().join("tap.sock");
        let path = socket.display().to_string();
        let (at, config): (&[&str], _) = match is_unix {
            true => (&["-u", &path], everywhere().set("dnstap", "unix", &quoted(&socket))),
            false => {
                (&["-a", "127.0.0.1", "-p", "6000"], everywhere().set("dnstap", "tcp", "\"127.0.0.1:6000\""))
            }
        };
        let (reader, file) = capture(&network, &scratch, at);
        let config = config.set("dnstap", "identity", "\"resolver-1\"");
        let dotd = Server::start(&network, &config.backend_with(backend.address, ""));
        eventually("the reader is there", || {
            dotd.status()["dnstap"]["is_connected"].as_bool().filter(|is| *is)
        });
        ask_each_way(&network);
        written(&dotd, 12);
        assert_eq!(dotd.stats().counter("control", "dnstap_lost"), 0);
        let said = dotd.operate(&["status"]);
        assert!(said.has("connected, 12 messages written, 0 lost"), "{}", said.text);
        assert!(dotd.stop().stderr.contains("the dnstap reader has every message"));
        finish(reader);
        let octets = std::fs::read(&file).expect("a file");
        let count = |part: &[u8]| octets.windows(part.len()).filter(|window| *window == part).count();
        // Type, family, and protocol 3, DOT: readers of Debian are older than that number.
        assert_eq!([5, 6].map(|kind| count(&[8, kind, 0x10, 1, 0x18, 3])), [1, 1], "of the client over TLS");
        assert_eq!((count(b"resolver-1"), count(&[0x18, 3])), (12, 2));
        let file = file.display().to_string();
        let shown = tool(&network.server, "dnstap-read", &[&file]).text;
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.len(), 12, "{shown}");
        for (name, carrier, port) in [("tls", "", DOT_PORT), ("tcp", "TCP ", 53), ("udp", "UDP ", 53)] {
            for (kind, arrow, other) in [
                ("CQ", "->", format!("{SERVER_V4}:{port} {carrier}")),
                ("CR", "<-", format!("{SERVER_V4}:{port} {carrier}")),
                ("FQ", "->", format!("{} UDP ", backend.address)),
                ("FR", "<-", format!("{} UDP ", backend.address)),
            ] {
                let is_it = |line: &&&str| {
                    line.contains(&format!(" {kind} "))
                        && line.contains(&format!(" {arrow} {other}"))
                        && line.contains(&format!(" {name}.dotd.test/IN/A"))
                };
                let found = lines.iter().filter(is_it).count();
                assert_eq!(found, 1, "{name} {kind} {arrow} {other}: {shown}");
            }
        }
        let of_client = |line: &&&str| line.contains(&format!(" {CLIENT_V4}:"));
        assert_eq!(lines.iter().filter(of_client).count(), 6, "{shown}");
        let brief = tool(&network.server, "dnstap-ldns", &["-q", "-r", &file]).text;
        assert_eq!(brief.lines().count(), 12, "{brief}");
        assert!(brief.contains(&format!(" CQ {CLIENT_V4} TCP 31b \"tcp.dotd.test.\" IN A")), "{brief}");
        assert!(brief.contains(&format!(" CQ {CLIENT_V4} UDP 31b \"udp.dotd.test.\" IN A")), "{brief}");
    }
}

/// A reader of our own at a Unix socket, which reads as it is told to.
fn accept(listener: &UnixListener) -> UnixStream {
    listener.set_nonblocking(true).expect("a socket");
    let (mut stream, _) = eventually("dotd connects", || listener.accept().ok());
    stream.set_nonblocking(false).expect("a socket");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let mut ready = [0; 8 + 34];
    stream.read_exact(&mut ready).expect("READY");
    ready[11] = 1;
    stream.write_all(&ready).expect("ACCEPT");
    stream.read_exact(&mut ready).expect("START");
    assert_eq!(ready[11], 2);
    stream
}

/// Goal: a reader that does not read loses messages, which are counted, and no client waits for it; one that leaves is followed
/// by the next one, and a dotd without a reader serves and stops in time. Method: a reader that reads nothing, more queries than
/// the queue holds messages, each answered; then another reader at the same socket. Answers are long, so that few queries are
/// enough. Covers: A-581
#[test]
fn a_slow_reader_costs_no_query() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let long = |query: &Received| vec![Act::Send(reply_to(&query.octets, A, &vec![HONEST.to_vec(); 1800]))];
    let backend = Scripted::start(&network, long);
    let socket = scratch.path().join("tap.sock");
    let config = everywhere().set("dnstap", "unix", &quoted(&socket));
    let dotd = Server::start(&network, &config.backend_with(backend.address, "transport = \"tcp\""));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let mut ask = |name: &str| {
        assert_eq!(session.exchange(&Query::new(1, name, A).octets()).rdata(A).len(), 1800);
    };
    ask("early.dotd.test");
    let listener = UnixListener::bind(&socket).expect("a path");
    let stuck = accept(&listener);
    eventually("messages are lost", || {
        (0..16).for_each(|_| ask("www.dotd.test"));
        (dotd.stats().counter("control", "dnstap_lost") > 0).then_some(())
    });
    drop(stuck);
    let mut next = accept(&listener);
    ask("later.dotd.test");
    let (mut seen, mut octets) = (Vec::<u8>::new(), vec![0; 64 * 1024]);
    let name = b"\x05later\x04dotd\x04test";
    while !seen.windows(name.len()).any(|part| part == name) {
        let read = next.read(&mut octets).expect("dotd writes");
        assert!(read > 0, "dotd closed");
        // What was seen before, but for the beginning of a name.
        seen.drain(..seen.len().saturating_sub(name.len()));
        seen.extend(&octets[..read]);
    }
    drop(next);
    let said = dotd.stop().stderr;
    assert!(
        said.contains("the dnstap reader cannot be reached") && said.contains("connected to a dnstap reader"),
        "{said}"
    );
}

/// Goal: a reload turns dnstap on, changes whose messages a reader gets and how much of a client, and turns it off. Method: each
/// config in turn, a query under each; the file of a reader that saw all. Covers: A-580
#[test]
fn a_reload_changes_what_a_reader_gets() {
    require!(Root, Command("fstrm_capture"), Command("dnstap-read"));
    let (network, scratch) = (Network::new(), Scratch::new());
    let backend = Scripted::start(&network, honest);
    let socket = scratch.path().join("tap.sock");
    let (reader, file) = capture(&network, &scratch, &["-u", &socket.display().to_string()]);
    let off = everywhere().backend_with(backend.address, "");
    let dotd = Server::start(&network, &off);
    let on = off.clone().set("dnstap", "unix", &quoted(&socket)).set("dnstap", "messages", "[\"client\"]");
    let shortened = on.clone().set("dnstap", "client_address", "\"prefix\"");
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let mut ask = |name: &str| {
        let query = Query::new(1, &format!("{name}.dotd.test"), A).octets();
        assert_eq!(session.exchange(&query).rdata(A), [HONEST]);
    };
    let reload = |config: &Config| {
        dotd.rewrite_config(config);
        assert!(dotd.operate(&["reload"]).is_success);
    };
    // Said when no worker has messages for the old reader any more.
    let until_left = |times: usize| {
        let has_left = || dotd.stderr().matches("the dnstap reader has every message").count() == times;
        eventually("the workers write elsewhere", || has_left().then_some(()));
    };
    ask("n0");
    reload(&on);
    eventually("messages are copied", || {
        ask("n1");
        (dotd.stats().counter("control", "dnstap_written") > 0).then_some(())
    });
    reload(&shortened);
    until_left(1);
    let before = dotd.stats().counter("control", "dnstap_written");
    ask("n2");
    written(&dotd, before + 2);
    reload(&off);
    until_left(2);
    ask("n3");
    assert!(dotd.status()["dnstap"].is_null());
    drop(dotd.stop());
    finish(reader);
    let shown = tool(&network.server, "dnstap-read", &[&file.display().to_string()]).text;
    let network_of = format!(" {}.0:0 ", CLIENT_V4.to_string().rsplit_once('.').expect("IPv4").0);
    let of = |name: &str, client: &str| {
        shown.lines().filter(|line| line.contains(name) && line.contains(client)).count()
    };
    let whole = of(" n1.", &format!(" {CLIENT_V4}:"));
    assert!(whole >= 2 && whole == of(" n1.", ""), "{shown}");
    assert_eq!((of(" n2.", &network_of), shown.lines().count()), (2, whole + 2), "{shown}");
}

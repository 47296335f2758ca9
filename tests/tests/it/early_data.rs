//! A stranger takes a client's first flight or ticket, and sends it again, changes it, or puts a query behind it.
//!
//! Before: a session that OpenSSL saved, changed by hand where no library would. After: only queries that were asked
//! after a complete handshake are answered.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    process::Stdio,
    thread::{self, JoinHandle},
};

use dot_tests::{
    harness::{
        DEADLINE,
        clients::{DOT_PORT, read_to_close, s_client, tcp},
        config::Config,
        dot::Dot,
        message::{framed, www},
        netns::{Namespace, Network, SERVER_V4},
        process::bounded,
        s_client::{s_client_sending, save_session},
        scene::{assert_served, honest, scripted},
        scripted::Scripted,
        server::Server,
        session_file::{tampered, with_early_data},
        shake::records,
        uninterrupted,
    },
    require,
};

/// Content type of application data.
const APPLICATION_DATA: u8 = 23;

fn scene() -> (Network, Scripted, Server) {
    scripted(Config::new().xdp("off").set("session", "handshake_timeout", "\"3s\""), honest)
}

/// An eavesdropper on the path that relays one connection to dotd and keeps what the client sent before the server
/// answered.
struct Tap {
    address: SocketAddr,
    thread: JoinHandle<Vec<u8>>,
}

impl Tap {
    fn start(network: &Network) -> Self {
        let listener = network.client.run(|| TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut server = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
        let thread = thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("the client comes");
            client.set_read_timeout(Some(DEADLINE)).expect("not zero");
            let (mut first, mut chunk) = (Vec::new(), [0; 4096]);
            while !records(&first).iter().any(|(kind, _)| *kind == APPLICATION_DATA) {
                match uninterrupted(|| client.read(&mut chunk)) {
                    Ok(0) | Err(_) => return first,
                    Ok(count) => first.extend(&chunk[..count]),
                }
            }
            server.write_all(&first).expect("open");
            let (mut from, mut to) =
                (client.try_clone().expect("a descriptor"), server.try_clone().expect("a descriptor"));
            let upwards = thread::spawn(move || std::io::copy(&mut from, &mut to).is_ok());
            let _ = std::io::copy(&mut server, &mut client);
            let _ = client.shutdown(std::net::Shutdown::Both);
            let _ = upwards.join();
            first
        });
        Self { address, thread }
    }

    fn first_flight(self) -> Vec<u8> {
        self.thread.join().expect("it ends with its connection")
    }
}

/// Runs OpenSSL through `tap`, with a session and early data.
fn send_early(client: &Namespace, tap: &Tap, session: &str, early: &str) -> String {
    let mut command = bounded("openssl");
    let at = tap.address.to_string();
    command.args(["s_client", "-connect", &at, "-tls1_3", "-sess_in", session, "-early_data", early]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = client.spawn(command).wait_with_output().expect("our own child");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Goal: early data is refused, also where a client claims permission for it, and a first flight that is sent again has
/// no effect: no query in it ever reaches the backend (RFC 8446 §8, RFC 9210 §4.4). Method: OpenSSL's session, changed
/// to permit early data, with a query in it; its octets are kept on the path and sent five more times. Covers: A-50,
/// A-51, C-64
#[test]
fn early_data_is_refused_and_its_replay_is_nothing() {
    require!(Root, Command("openssl"));
    let (network, backend, dotd) = scene();
    let saved = dotd.folder().join("session.pem").display().to_string();
    save_session(&network.client, SERVER_V4, &saved, &framed(&www(1)));
    let changed = with_early_data(&fs::read_to_string(&saved).expect("saved"));
    let changed = dotd.write("changed.pem", changed).display().to_string();
    let early = dotd.write("early", framed(&www(66))).display().to_string();
    let tap = Tap::start(&network);
    let said = send_early(&network.client, &tap, &changed, &early);
    let flight = tap.first_flight();
    assert!(said.contains("Early data was rejected"), "{said}");
    assert!(
        records(&flight).iter().any(|(kind, _)| *kind == APPLICATION_DATA),
        "no early data was sent: {said}"
    );
    for _ in 0..5 {
        let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
        stream.write_all(&flight).expect("open");
        let _ = read_to_close(&mut stream);
        assert_served(&mut Dot::connect(&network.client, SERVER_V4));
    }
    assert_eq!(backend.received().len(), 6, "the saved session's query, and the innocent clients'");
    let stats = dotd.counts("all is over", |stats| stats.difference() == [0; 3]);
    assert_eq!(stats.counter("queries", "received"), 6, "{stats:?}");
    assert_eq!(stats.counter("handshakes", "resumed_tls13"), 1, "the client's own, and no replay: {stats:?}");
}

/// Goal: a changed ticket leads to a full handshake, not an error; a ticket that is used twice resumes each time, with
/// new keys, and the session answers (RFC 8446 §4.2.11). Method: one bit of OpenSSL's ticket, in both versions; then
/// the sound one twice. Covers: A-51, C-71
#[test]
fn a_changed_ticket_is_a_whole_handshake() {
    require!(Root, Command("openssl"));
    let (network, _backend, dotd) = scene();
    for version in ["-tls1_3", "-tls1_2"] {
        let saved = dotd.folder().join(format!("session{version}.pem")).display().to_string();
        let sent =
            s_client_sending(&network.client, SERVER_V4, &[version, "-sess_out", &saved], &framed(&www(1)));
        assert!(sent.len() > 14, "{version}: no answer");
        let changed = tampered(&fs::read_to_string(&saved).expect("saved"));
        let changed = dotd.write("changed.pem", changed).display().to_string();
        let said = s_client(&network.client, SERVER_V4, &[version, "-sess_in", &changed]);
        assert!(said.has("New, TLSv1."), "{version}: {}", said.text);
        for _ in 0..2 {
            let said = s_client(&network.client, SERVER_V4, &[version, "-sess_in", &saved]);
            assert!(said.has("Reused, TLSv1."), "{version}: {}", said.text);
            let words = [version, "-sess_in", &saved];
            let octets = s_client_sending(&network.client, SERVER_V4, &words, &framed(&www(9)));
            assert_eq!(octets.get(2..4), Some(&[0, 9][..]), "{version}: an answer over the resumed session");
        }
        assert_served(&mut Dot::connect(&network.client, SERVER_V4));
    }
    let stats = dotd.stats();
    assert_eq!(
        (stats.counter("handshakes", "resumed_tls13"), stats.counter("handshakes", "resumed_tls12")),
        (4, 4)
    );
}

//! `dotd check --connect`: what it says of backends that answer, and of each kind that does not.
//!
//! Before: scripted backends in the server's namespace, and a config that names them. After: a line and a JSON object for each,
//! the exit status, and no query in clear at a backend that is to be asked over TLS.

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use dot_tests::{
    harness::{
        config::Config,
        message::{NS, reply_to},
        netns::Network,
        pki::Authority,
        process::bounded,
        scene::honest,
        scratch::Scratch,
        scripted::{Mood, Scripted},
        server::binary,
        uninterrupted,
    },
    require,
};
use serde_json::Value;

const NAME: &str = "ns.dotd.test";

/// Runs the verb in the server's namespace.
fn check(network: &Network, scratch: &Scratch, backends: &[(SocketAddr, String)], words: &[&str]) -> Output {
    let config = Config::new().xdp("off").set("xdp", "interfaces", "[]");
    let config = backends.iter().fold(config, |config, (address, keys)| {
        config.backend_with(*address, &format!("timeout = \"5s\"\n{keys}"))
    });
    let file = scratch.write("dotd.toml", config.text(&scratch.folder("state"), &scratch.folder("run")));
    let mut command = bounded(&binary().display().to_string());
    command.arg("check").arg("-c").arg(file).arg("--connect").args(words);
    // No test here depends on the authorities of this machine: there are none.
    command.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", scratch.folder("authorities"));
    network.server.output(command)
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// The objects of the backends, and the exit status.
fn tried(
    network: &Network,
    scratch: &Scratch,
    backends: &[(SocketAddr, String)],
) -> (Vec<Value>, Option<i32>) {
    let output = check(network, scratch, backends, &["--json"]);
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr)));
    (said["backends"].as_array().expect("a list").clone(), output.status.code())
}

fn over_tls(keys: &str) -> String {
    format!("transport = \"tls\"\n{keys}")
}

fn named(name: &str, ca: &Path) -> String {
    over_tls(&format!("server_name = \"{name}\"\nca = \"{}\"", ca.display()))
}

/// A DNS server without TCP.
struct OnlyDatagrams {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl OnlyDatagrams {
    fn start(network: &Network) -> Self {
        let socket = network.server.run(|| UdpSocket::bind("127.0.0.1:0").expect("a free port"));
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("not zero");
        let (address, is_over) = (socket.local_addr().expect("bound"), Arc::new(AtomicBool::new(false)));
        let ends = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !ends.load(Relaxed) {
                if let Ok((octets, from)) = uninterrupted(|| socket.recv_from(&mut buffer)) {
                    let _ = socket.send_to(&reply_to(&buffer[..octets], NS, &[]), from);
                }
            }
        });
        Self { address, is_over, thread: Some(thread) }
    }
}

impl Drop for OnlyDatagrams {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Goal: a backend that answers over the transport that `run` uses is said to, with what it showed over TLS; exit status 0.
/// Method: UDP, TCP, TLS by name, by pin and by both, an error for an answer. Covers: C-590
#[test]
fn backends_that_answer_are_said_to() {
    require!(Root);
    let (network, scratch, authority) = (Network::new(), Scratch::new(), Authority::new());
    let issued = authority.issue(NAME);
    let ca = scratch.write("ca.pem", authority.pem());
    let clear: Vec<_> = (0..3).map(|_| Scripted::start(&network, honest)).collect();
    let secure: Vec<_> =
        (0..3).map(|_| Scripted::start_over_tls(&network, issued.serving(), honest)).collect();
    clear[2].be(Mood::Terse);
    let by_pin = format!("spki_pins = [\"{}\"]", issued.pin);
    let backends = [
        (clear[0].address, "name = \"first\"".to_owned()),
        (clear[1].address, "transport = \"tcp\"".to_owned()),
        (clear[2].address, String::new()),
        (secure[0].address, named(NAME, &ca)),
        (secure[1].address, over_tls(&by_pin)),
        (secure[2].address, format!("{}\n{by_pin}", named(NAME, &ca))),
    ];
    let (said, code) = tried(&network, &scratch, &backends);
    assert_eq!((said.len(), code), (6, Some(0)), "{said:?}");
    let of = |key: &str| said.iter().map(|one| one[key].clone()).collect::<Vec<_>>();
    assert!(of("outcome").iter().all(|outcome| outcome == "answered"), "{said:?}");
    assert_eq!(of("transport"), ["udp", "tcp", "udp", "tls", "tls", "tls"]);
    assert_eq!(of("rcode")[..3], ["NOERROR", "NOERROR", "REFUSED"]);
    assert_eq!(said[0]["name"], "first");
    for one in &said[3..] {
        assert_eq!(one["tls"]["pin_sha256"], issued.pin);
        assert_eq!(one["tls"]["names"][0], NAME);
        assert_eq!(one["tls"]["version"], "TLS 1.3");
    }
    let output = check(&network, &scratch, &backends, &[]);
    let lines = text(&output.stdout);
    assert!(output.status.success() && lines.ends_with("ok\n"), "{lines}{}", text(&output.stderr));
    assert!(
        lines.contains(&format!("connect: first: {} (udp): answers NOERROR", clear[0].address)),
        "{lines}"
    );
    assert!(lines.contains("TLS 1.3, certificate ends in"), "{lines}");
}

/// Goal: of a backend that gives no answer it is said what failed and how to mend it, no other one is missed for it, and the exit
/// status is 1. Method: each kind of failure in one config: no server, silence over UDP and over TLS, another key, an expired
/// certificate, another name, an unknown authority, no TLS, a connection that ends at once; what arrived in clear. Covers: C-591
#[test]
fn each_failure_is_said_with_its_remedy() {
    require!(Root);
    let (network, scratch, authority) = (Network::new(), Scratch::new(), Authority::new());
    let (issued, other) = (authority.issue(NAME), Authority::new().issue(NAME));
    let expired = authority.issue_until(NAME, 2020);
    let ca = scratch.write("ca.pem", authority.pem());
    let closed = SocketAddr::from(([127, 0, 0, 1], 9));
    let secure = |serving| Scripted::start_over_tls(&network, serving, honest);
    let [silent, plain] = [(); 2].map(|()| Scripted::start(&network, honest));
    silent.be(Mood::Deaf);
    let deaf = secure(issued.serving());
    deaf.be(Mood::Deaf);
    let curt = secure(issued.serving());
    curt.be(Mood::Curt);
    let [rekeyed, misnamed] = [(); 2].map(|()| secure(issued.serving()));
    let (old, unknown, well) = (secure(expired.serving()), secure(other.serving()), secure(issued.serving()));
    let by_pin = over_tls(&format!("spki_pins = [\"{}\"]", issued.pin));
    let by_other = over_tls(&format!("spki_pins = [\"{}\"]", other.pin));
    let pin_advice = format!("the pin of its key is {}", issued.pin);
    let cases = [
        (closed, String::new(), None, "refused", "nothing listens on UDP port 9"),
        (silent.address, String::new(), None, "timed out", "the server is silent"),
        (deaf.address, by_pin.clone(), None, "timed out", "the server is silent"),
        (curt.address, by_pin.clone(), Some("closed"), "TLS:", "ends the handshake"),
        (rekeyed.address, by_other, Some("pin"), "none of the configured pins", &*pin_advice),
        (misnamed.address, named("else.dotd.test", &ca), Some("name"), "not valid for name", NAME),
        (
            old.address,
            named(NAME, &ca),
            Some("expired"),
            "expired",
            "renew the server's certificate (EXPIRED",
        ),
        (unknown.address, named(NAME, &ca), Some("authority"), "BadSignature", "PEM file in `ca`"),
        (plain.address, by_pin.clone(), Some("silent"), "timed out", "does not speak TLS"),
        (well.address, by_pin, None, "", ""),
    ];
    let backends: Vec<_> = cases.iter().map(|(address, keys, ..)| (*address, keys.clone())).collect();
    let (said, code) = tried(&network, &scratch, &backends);
    assert_eq!((said.len(), code), (cases.len(), Some(1)), "{said:?}");
    for (one, (.., fault, reason, mend)) in said.iter().zip(&cases) {
        let is_failure = !reason.is_empty();
        assert_eq!(one["outcome"], if is_failure { "failed" } else { "answered" }, "{one}");
        assert_eq!(one["fault"].as_str(), *fault, "{one}");
        assert!(one["reason"].as_str().unwrap_or_default().contains(reason), "{reason}: {one}");
        assert!(one["mend"].as_str().unwrap_or_default().contains(mend), "{mend}: {one}");
    }
    assert!(plain.received().is_empty(), "no question in clear: {:?}", plain.received());
    let output = check(&network, &scratch, &backends, &[]);
    let (lines, complaint) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{lines}{complaint}");
    assert_eq!(complaint, "dotd: 9 of 10 backends gave no answer\n");
    assert_eq!(lines.matches(": FAILED: ").count(), 9, "{lines}");
    assert!(!lines.contains("\nok\n"), "{lines}");
}

/// Goal: a server that answers datagrams alone is called out, because answers that are too long for one are asked for over TCP.
/// Method: a server without TCP. Covers: C-592
#[test]
fn a_server_without_tcp_is_called_out() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let server = OnlyDatagrams::start(&network);
    let (said, code) = tried(&network, &scratch, &[(server.address, String::new())]);
    assert_eq!(code, Some(0), "{said:?}");
    let warning = said[0]["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.starts_with("not over TCP (not connected: Connection refused"), "{said:?}");
}

/// Goal: an opportunistic backend needs no authority, also where its config has a name for SNI. Method: one with a key that
/// no authority vouches for, on a machine without authorities. Covers: C-590
#[test]
fn an_opportunistic_backend_needs_no_authority() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let server = Scripted::start_over_tls(&network, Authority::new().issue("else.test").serving(), honest);
    let keys = over_tls(&format!("profile = \"opportunistic\"\nserver_name = \"{NAME}\""));
    let (said, code) = tried(&network, &scratch, &[(server.address, keys)]);
    assert_eq!((&said[0]["outcome"], code), (&"answered".into(), Some(0)), "{said:?}");
}

/// Goal: a config with a mistake sends no packet, and the embedded zone needs none. Method: both.
#[test]
fn a_mistake_sends_nothing() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let backend = Scripted::start(&network, honest);
    let keys = "transport = \"tls\"".to_owned();
    let output = check(&network, &scratch, &[(backend.address, keys)], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("server_name"), "{}", text(&output.stderr));
    assert_eq!((backend.accepted(), backend.received().len()), (0, 0));
    let (said, code) = tried(&network, &scratch, &[]);
    assert_eq!((said[0]["outcome"].clone(), code), ("embedded".into(), Some(0)));
}

//! `dotd verify`: a capture tells TLS from octets in clear.
//!
//! Before: dotd, or a server that speaks in clear, in a namespace. After: what crosses its wire is counted as what it is.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
};

use dot_tests::{
    harness::{
        clients::{DOT_PORT, is_answered_over_tls, is_nothing_but_an_alert, kdig, read_to_close, tcp},
        config::Config,
        message::{A, Query, framed},
        netns::{Namespace, Network, SERVER_INTERFACE, SERVER_V4, SERVER_V6},
        scene::embedded,
        server::binary,
    },
    require,
};
use nix::{
    sys::signal::{Signal::SIGINT, kill},
    unistd::Pid,
};

/// A running `dotd verify` that looks already.
struct Verify(Child);

impl Verify {
    fn start(at: &Namespace, words: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.arg("verify").args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = at.spawn(command);
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().expect("piped")).read_line(&mut line).expect("text");
        assert!(line.contains("looking"), "{line}");
        Self(child)
    }

    /// Ends it as Ctrl-C does. Returns its exit status and output.
    fn end(mut self) -> (Option<i32>, String) {
        let pid = i32::try_from(self.0.id()).expect("a pid");
        kill(Pid::from_raw(pid), SIGINT).expect("our own child");
        let mut text = String::new();
        self.0.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
        (self.0.wait().expect("our own child").code(), text)
    }
}

/// The octets that a line of the table says.
fn octets(text: &str, what: &str) -> u64 {
    let line = text.lines().find(|line| line.trim_start().starts_with(what));
    let line = line.unwrap_or_else(|| panic!("no {what:?} in {text}"));
    let words: Vec<_> = line.split_whitespace().collect();
    words[words.len() - 2].parse().unwrap_or_else(|_| panic!("no octets in {line}"))
}

/// Goal: an operator sees that clients and dotd speak TLS, by version, and the octets that a client sent in clear. Method:
/// TLS 1.3 over IPv4, TLS 1.2 over IPv6, a query in clear that the kernel half lets through. Covers: C-585
#[test]
fn a_capture_shows_tls_by_version() {
    require!(Root, Bpf, Command("kdig"), Command("openssl"));
    let (network, _dotd) = embedded(&Config::new().set("xdp", "cleartext_853", "\"pass\""));
    let verify = Verify::start(&network.client, &["--for", "60s", "853"]);
    assert!(is_answered_over_tls(&kdig(&network.client, SERVER_V4, "+tls dotd.test A")));
    let at = SocketAddr::new(SERVER_V6, DOT_PORT).to_string();
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &at, "-tls1_2"]).stdin(Stdio::null());
    assert!(network.client.output(openssl).status.success());
    let query = framed(&Query::new(1, "dotd.test", A).octets());
    let mut raw = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
    raw.write_all(&query).expect("open");
    assert!(is_nothing_but_an_alert(&read_to_close(&mut raw)));
    let (status, text) = verify.end();
    assert_eq!(status, Some(0), "{text}");
    assert!(octets(&text, "TLS 1.3") > 1000 && octets(&text, "TLS 1.2") > 500, "{text}");
    assert_eq!(octets(&text, "in clear, from clients"), query.len() as u64, "{text}");
    assert_eq!(octets(&text, "in clear, from the server"), 0, "{text}");
    assert_eq!(octets(&text, "not judged"), 0, "{text}");
    assert!(text.contains("Encrypted: ") && text.contains("3 connections"), "{text}");
}

/// Goal: a server that answers in clear is found out: exit status 1. Method: a listener that writes text, over loopback,
/// where a capture sees each packet twice; then another interface, where nothing is. Covers: C-585
#[test]
fn a_server_that_speaks_in_clear_is_found() {
    require!(Root);
    let network = Network::new();
    let listener = network.server.run(|| TcpListener::bind("127.0.0.1:8853").expect("free"));
    let verify = Verify::start(&network.server, &["--for", "60s", "8853"]);
    let elsewhere =
        Verify::start(&network.server, &["--for", "60s", "--interface", SERVER_INTERFACE, "8853"]);
    let mut client = tcp(&network.server, listener.local_addr().expect("bound"));
    let (mut served, _) = listener.accept().expect("it connected");
    served.write_all(b"in clear").expect("open");
    drop(served);
    assert_eq!(read_to_close(&mut client), b"in clear");
    let (status, text) = verify.end();
    assert_eq!((status, octets(&text, "in clear, from the server")), (Some(1), 8), "{text}");
    assert!(text.contains("NOT ENCRYPTED"), "{text}");
    let (status, text) = elsewhere.end();
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("Nothing of the server could be judged"), "{text}");
}

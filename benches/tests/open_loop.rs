//! `dotload` in the open loop, against the floor's echo.
//!
//! Before: the binaries that cargo built. After: every query that fell due was counted.
//! Never: judges a latency.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use dot_tests::{harness::eventually, require};
use serde_json::Value;

/// An echo that ends with the test.
struct Echo(Child);

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An echo on a port of its own, and the folder of its certificate.
fn echo() -> (Echo, SocketAddr, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["dotd.test".to_owned()]).expect("a certificate");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&cert, made.cert.pem()).expect("our own folder");
    fs::write(&key, made.signing_key.serialize_pem()).expect("our own folder");
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    let address = address.expect("loopback has ports");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_floor"), "echo"]);
    command.arg(format!("--listen={address}")).arg("--cert").arg(&cert).arg("--key").arg(&key);
    let echo = Echo(command.stdin(Stdio::null()).spawn().expect("floor can be started"));
    eventually("the echo listens", || TcpStream::connect(address).ok());
    (echo, address, folder)
}

/// A load with these words; its report.
fn load(address: SocketAddr, words: &[&str]) -> Value {
    let load = Command::new(env!("CARGO_BIN_EXE_dotload"))
        .arg(address.to_string())
        .args(words)
        .arg("--json")
        .output()
        .expect("dotload can be started");
    assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    serde_json::from_slice(&load.stdout).expect("JSON")
}

/// Goal: in the open loop each query falls due once, goes out on one of the connections, and is answered; the
/// report holds what a reader needs to trust it. Method: half a thousand arrivals a second for a second over three
/// connections with room for two queries each, so that some must wait; then the JSON.
#[test]
fn every_query_that_fell_due_is_answered() {
    require!(Command("setpriv"));
    let (_echo, address, _folder) = echo();
    let report = load(address, &["--rate=500", "--seconds=1", "--connections=3", "--depth=2"]);
    let sent = report["sent"].as_u64().expect("a number");
    // 500 arrivals are expected, and a Poisson process strays by 22 from that: ten times so much is a fault.
    assert!((280..=720).contains(&sent), "{report}");
    assert_eq!(report["answered"], sent, "{report}");
    assert_eq!(report["latency_us"]["count"], sent, "{report}");
    assert!(report["lag_us"]["count"].as_u64() >= Some(sent), "{report}");
    assert_eq!(report["handshakes_full"], 3, "{report}");
}

/// Goal: each kind of client behaves as its name says, and everything is counted. Method: two chatty, four idle and two
/// one-shot clients with short pauses, to the end of a number of queries; then counts of queries and handshakes.
#[test]
fn populations_keep_their_habits() {
    require!(Command("setpriv"));
    let (_echo, address, _folder) = echo();
    let words = ["--mix=chatty=2,idle=4,one-shot=2", "--connections=8", "--pause=0.02", "--seconds=2"];
    let report = load(address, &[&words[..], &["--rate=100", "--no-alpn", "--no-sni", "--tls=1.2"]].concat());
    let count = |name: &str| report["latency_us_by_population"][name]["count"].as_u64().expect("a number");
    assert_eq!(report["sent"], report["answered"], "{report}");
    assert_eq!(report["answered"], count("chatty") + count("idle") + count("one-shot"), "{report}");
    // Some 200, 400 and 200 by plan; a busy machine gives the paused ones less.
    assert!(count("chatty") > 100 && count("idle") > 20 && count("one-shot") > 5, "{report}");
    let handshakes = ["handshakes_full", "handshakes_resumed"].map(|name| report[name].as_u64().unwrap_or(0));
    // Six connections stand from the beginning; each one-shot query has its own, and the last may find its time over.
    let made = handshakes.iter().sum::<u64>();
    assert!((6 + count("one-shot")..=8 + count("one-shot")).contains(&made), "{report}");
}

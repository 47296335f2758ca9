//! `dotload` in the open loop, against the floor's echo.
//!
//! Before: the binaries that cargo built. After: every query that fell due is accounted for.
//! Never: judges a latency.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
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

/// Goal: in the open loop each query falls due once, goes out on one of the connections, and is answered; the
/// report holds what a reader needs to trust it. Method: half a thousand arrivals a second for a second over three
/// connections with room for two queries each, so that some must wait; then the JSON.
#[test]
fn every_query_that_fell_due_is_answered() {
    require!(Command("setpriv"));
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
    let _echo = Echo(command.stdin(Stdio::null()).spawn().expect("floor can be started"));
    eventually("the echo listens", || TcpStream::connect(address).ok());
    let load = Command::new(env!("CARGO_BIN_EXE_dotload"))
        .arg(address.to_string())
        .args(["--rate=500", "--seconds=1", "--connections=3", "--depth=2", "--json"])
        .output()
        .expect("dotload can be started");
    assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    let report: Value = serde_json::from_slice(&load.stdout).expect("JSON");
    let sent = report["sent"].as_u64().expect("a number");
    // 500 arrivals are expected, and a Poisson process strays by 22 from that: ten times so much is a fault.
    assert!((280..=720).contains(&sent), "{report}");
    assert_eq!(report["answered"], sent, "{report}");
    assert_eq!(report["latency_us"]["count"], sent, "{report}");
    assert!(report["lag_us"]["count"].as_u64() >= Some(sent), "{report}");
    assert_eq!(report["handshakes_full"], 3, "{report}");
}

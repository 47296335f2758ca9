//! The comparison at its smallest: it must measure, check answers, and leave nothing behind.
//!
//! Before: NSD, and the binaries that cargo built. After: a report was written and every process is gone.
//! Never: judges a figure; a test machine measures nothing.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use dot_tests::{harness::eventually, require};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

/// A comparison of the floor, and of dotd where cargo built it, that writes only into `folder`.
fn comparison(folder: &Path, seconds: &str) -> Command {
    let floor = PathBuf::from(env!("CARGO_BIN_EXE_floor"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_dotbench"));
    command.arg("peers");
    command.args(["--only=dotd,floor", "--rounds=1", "--work=w100x1", "--idle=20", "--seconds", seconds]);
    command.arg("--dotd").arg(floor.with_file_name("dotd")).arg("--floor").arg(&floor);
    command.arg("--responder").arg(env!("CARGO_BIN_EXE_responder"));
    command.arg("--report").arg(folder.join("report"));
    let temporary = folder.join("temporary");
    fs::create_dir(&temporary).expect("our own folder");
    command.env("TMPDIR", temporary).stdin(Stdio::null());
    command
}

/// Asserts that no folder of the comparison's is left, and no process whose command line names it.
fn assert_nothing_left(folder: &Path) {
    let temporary = folder.join("temporary");
    assert_eq!(fs::read_dir(&temporary).expect("our own folder").count(), 0, "a folder is left");
    let name = temporary.display().to_string();
    let lines = fs::read_dir("/proc").expect("/proc").flatten();
    let named = |path: PathBuf| {
        fs::read(path.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&name))
    };
    let left: Vec<PathBuf> = lines.map(|entry| entry.path()).filter(|path| named(path.clone())).collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "a process is left");
}

fn scratch() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Goal: every peer that starts is measured and its answers are checked, a missing one is reported, and everything that
/// was started has ended. Method: the smallest comparison there is, then its JSON and the process table.
#[test]
fn measures_and_leaves_nothing() {
    require!(Command("nsd"), Command("setpriv"));
    let folder = scratch();
    let mut command = comparison(folder.path(), "1");
    command.arg("--only=stunnel").env("PATH", "/usr/bin:/bin");
    let output = command.output().expect("peers can be started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let report = fs::read_to_string(folder.path().join("report/peers.json")).expect(&complaint);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let peers = report["peers"].as_array().expect("a list");
    for name in ["floor-echo", "floor-relay"] {
        let peer = peers.iter().find(|peer| peer["name"] == name).expect(name);
        let work = &peer["work"]["w100x1"];
        assert!(work["answered"]["median"].as_f64() > Some(0.0), "{name}: {work}");
        assert_eq!(work["faults"]["max"], 0.0, "{name}: {work}");
        assert_eq!(peer["idle_connection"]["connections"], 20, "{name}: {peer}");
    }
    let is_told = |name: &str| {
        let left_out = report["left_out"].as_array().expect("a list");
        peers.iter().chain(left_out).any(|peer| peer["name"] == name)
    };
    assert!(is_told("dotd") && is_told("dotd-tcp") && is_told("stunnel"), "{report}");
    assert!(folder.path().join("report/peers.md").is_file());
    assert_nothing_left(folder.path());
}

/// Goal: Ctrl-C leaves neither process nor folder. Method: a comparison of ten minutes is interrupted in the
/// midst of its first load.
#[test]
fn interrupted_leaves_nothing() {
    require!(Command("nsd"), Command("setpriv"));
    let folder = scratch();
    let mut command = comparison(folder.path(), "600");
    command.arg("--only=floor-echo").stderr(Stdio::piped()).stdout(Stdio::null());
    let mut peers: Child = command.spawn().expect("peers can be started");
    let stderr = BufReader::new(peers.stderr.take().expect("piped"));
    let mut lines = stderr.lines().map_while(Result::ok);
    // Idle connections were weighed: loads begin, and last.
    lines.find(|line| line.starts_with("idle    floor-relay")).expect("weighed");
    kill(Pid::from_raw(i32::try_from(peers.id()).expect("a pid")), Signal::SIGINT).expect("it runs");
    let last = lines.last().unwrap_or_default();
    let status = eventually("peers ends", || peers.try_wait().expect("our child"));
    assert_eq!(status.code(), Some(130), "{last}");
    assert_nothing_left(folder.path());
}

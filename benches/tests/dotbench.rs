//! Attack, endurance, scale, policy and the packaged config at their smallest: they must measure and write their reports.
//!
//! Before: NSD, and the binaries that cargo built. After: a report of each. Never: judges a figure.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use dot_tests::require;
use serde_json::Value;

/// Runs a verb with these words; its report.
fn measured(folder: &Path, verb: &str, words: &[&str]) -> Value {
    let floor = PathBuf::from(env!("CARGO_BIN_EXE_floor"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_dotbench"));
    command.arg(verb).args(words).arg("--dotd").arg(floor.with_file_name("dotd")).arg("--floor").arg(&floor);
    command.arg("--responder").arg(env!("CARGO_BIN_EXE_responder")).arg("--report").arg(folder);
    let output = command.stdin(Stdio::null()).output().expect("dotbench can be started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let report = fs::read_to_string(folder.join(format!("{verb}.json"))).expect(&complaint);
    serde_json::from_str(&report).expect("JSON")
}

/// Goal: innocent clients are measured without and during a flood, and the report has the flood. Method: the floor,
/// which refuses no client, behind a veth pair.
#[test]
fn floods_a_front_end() {
    require!(Root, Command("nsd"), Command("setpriv"), Command("ip"));
    let folder = tempfile::tempdir().expect("a folder");
    let words = ["--only=floor-relay", "--seconds=2", "--attackers=4", "--addresses=2", "--rate=50"];
    let dotload = env!("CARGO_BIN_EXE_dotload");
    let report = measured(folder.path(), "attack", &[&words[..], &["--dotload", dotload]].concat());
    let front = &report["fronts"][0];
    assert_eq!(front["name"], "floor-relay", "{report}");
    for side in ["alone", "attacked"] {
        assert!(front[side]["p99_us"].as_f64() > Some(0.0), "{report}");
        assert_eq!(front[side]["failures"], 0, "{report}");
    }
    // At its low priority it may not finish a handshake in time on a busy machine; then it failed, and the report says
    // so.
    let part = |name: &str| front[name].as_f64().expect("a number");
    assert!(part("flood_handshakes_per_second") + part("flood_failures_per_second") > 0.0, "{report}");
    assert!(folder.path().join("attack.svg").is_file() && folder.path().join("attack.md").is_file());
}

/// Goal: the packaged config is loaded with XDP and without, and no query is lost. Method: one short round.
#[test]
fn loads_the_packaged_config() {
    require!(Root, Bpf, Command("nsd"), Command("setpriv"), Command("ip"));
    let folder = tempfile::tempdir().expect("a folder");
    let report = measured(folder.path(), "packaged", &["--rounds=1", "--seconds=1", "--connections=5"]);
    let configs = report["configs"].as_array().expect("a list");
    let names: Vec<&str> = configs.iter().filter_map(|config| config["name"].as_str()).collect();
    assert_eq!(names, ["XDP off", "as shipped"], "{report}");
    for config in configs {
        assert!(config["queries_per_second"][0].as_f64() > Some(0.0), "{report}");
        assert!(config["cpu_us_per_query"][0].as_f64() > Some(0.0), "{report}");
        assert_eq!(config["failures"], 0, "{report}");
    }
    assert!(folder.path().join("packaged.md").is_file());
}

/// Goal: each count is measured by itself and compared with the first. Method: ten and twenty connections, one worker.
#[test]
fn measures_over_counts() {
    require!(Command("nsd"), Command("setpriv"));
    let folder = tempfile::tempdir().expect("a folder");
    let words = ["--only=connections", "--connections-max=20", "--seconds=1"];
    let report = measured(folder.path(), "scale", &words);
    let points = report["points"].as_array().expect("a list");
    let floor: Vec<&Value> = points.iter().filter(|point| point["front"] == "floor-relay").collect();
    let counts: Vec<u64> = floor.iter().filter_map(|point| point["count"].as_u64()).collect();
    assert_eq!(counts, [10, 20], "{report}");
    assert!(
        floor.iter().all(|point| point["cpu_us"].as_f64() > Some(0.0) && point["faults"] == 0),
        "{report}"
    );
    let is_told = |name: &str| points.iter().any(|point| point["front"] == name);
    assert!(
        is_told("dotd") || report["left_out"].as_array().is_some_and(|left| !left.is_empty()),
        "{report}"
    );
    assert!(folder.path().join("scale-connections.svg").is_file());
}

/// Goal: no query is lost while everything changes, and the report has the number of each change. Method: four seconds
/// of it, with a change of each kind; the long run is `cargo xtask bench endurance`.
#[test]
fn loses_nothing_while_everything_changes() {
    require!(Root, Command("nsd"), Command("setpriv"), Command("ip"));
    let folder = tempfile::tempdir().expect("a folder");
    let paces = ["--seconds=4", "--rate=100", "--renew-every=1", "--ban-every=1"];
    let report = measured(folder.path(), "endurance", &paces);
    let is_some = |name: &str| report[name].as_u64() > Some(0);
    for kind in ["sent", "reloads", "restarts", "renewals", "bans", "handshakes_full"] {
        assert!(is_some(kind), "{kind}: {report}");
    }
    assert_eq!(
        (&report["sent"], report["faults"].as_array().map(Vec::len)),
        (&report["answered"], Some(0)),
        "{report}"
    );
    assert!(folder.path().join("endurance.md").is_file());
}

/// Goal: a policy zone is loaded into dotd and into Unbound, and names with a rule and without are answered as they should be. Method: a
/// thousand rules; the figures are there, and no query failed.
#[test]
fn loads_a_policy_zone() {
    require!(Command("nsd"), Command("setpriv"), Command("unbound"));
    let folder = tempfile::tempdir().expect("a folder");
    let report = measured(folder.path(), "policy", &["--rules=1000", "--seconds=1", "--only=dotd,unbound"]);
    assert_eq!(report["programs"].as_array().map(Vec::len), Some(2), "{report}");
    for program in report["programs"].as_array().into_iter().flatten() {
        for zone in ["one_rule", "all_rules"] {
            let of = |figure: &str| program[zone][figure].as_f64();
            assert!(of("pss_kib") > Some(0.0) && of("load_seconds") > Some(0.0), "{report}");
            assert!(of("hit_cpu_us") > Some(0.0) && of("miss_cpu_us") > Some(0.0), "{report}");
            assert_eq!(of("faults"), Some(0.0), "{report}");
        }
    }
}

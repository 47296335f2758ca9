//! The files of `packaging/`, as systemd and dotd itself read them.
//!
//! Before: the units as they are installed. After: systemd finds nothing wrong with them, and what they run, dotd has.

use std::process::Command;

use dot_tests::{
    harness::{scratch::Scratch, server::binary},
    require,
};

const UNITS: [(&str, &str); 2] = [
    ("dotd.service", include_str!("../../../packaging/dotd.service")),
    ("dotd-detach.service", include_str!("../../../packaging/dotd-detach.service")),
];

/// What follows `key=` in a unit, line by line.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// Goal: systemd takes the units without a word. Method: systemd-analyze verify, with this build's program.
#[test]
fn systemd_finds_nothing_wrong() {
    require!(Root, Command("systemd-analyze"));
    let scratch = Scratch::new();
    let program = binary().display().to_string();
    for (name, text) in UNITS {
        scratch.write(name, text.replace("/usr/bin/dotd", &program));
    }
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify").args(UNITS.map(|(name, _)| scratch.path().join(name)));
    let output = verify.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    // systemd before 254 does not know RestartMode=, says so, and needs it not.
    let is_ours = |line: &&str| line.contains("dotd") && !line.contains("'RestartMode'");
    let about_ours: Vec<_> = said.lines().filter(is_ours).collect();
    assert!(output.status.success() && about_ours.is_empty(), "{said}");
}

/// Goal: every command of the units is one that dotd has, with options that it knows. Method: the same words and `--help`.
#[test]
fn dotd_has_what_the_units_run() {
    for (name, text) in UNITS {
        let keys = ["ExecStartPre", "ExecStart", "ExecReload", "ExecStopPost"];
        let commands: Vec<_> = keys.iter().flat_map(|key| values(text, key)).collect();
        assert!(!commands.is_empty(), "{name}");
        for command in commands {
            let words = command.strip_prefix("/usr/bin/dotd ").unwrap_or_else(|| panic!("{name}: {command}"));
            let output = Command::new(binary()).args(words.split(' ')).arg("--help").output().expect("built");
            assert!(output.status.success(), "{command}: {output:?}");
        }
    }
}

/// Goal: the unit leaves the keeper the rights of its duty, and a reload is told to a process that may hear it. Method: the
/// capabilities by name, ExecReload, the folders that systemd must not take back, the calls by which the engine confines itself,
/// and who is signalled at a stop.
#[test]
fn the_unit_leaves_the_keeper_its_rights() {
    let [(_, unit), (_, detach)] = UNITS;
    let bounding = values(unit, "CapabilityBoundingSet").concat();
    let kept = ["NET_ADMIN", "BPF", "PERFMON", "KILL", "DAC_READ_SEARCH", "SETUID", "SETGID", "SETPCAP"];
    for capability in kept {
        assert!(bounding.split(' ').any(|found| found == format!("CAP_{capability}")), "{capability}");
    }
    // systemd 257 takes CAP_SETUID away where User= and SystemCallFilter= are there, also from root.
    assert!(values(unit, "User").is_empty());
    assert_eq!(values(unit, "ExecReload"), ["/usr/bin/dotd reload -c /etc/dotd/dotd.toml"]);
    // With each ExecReload= systemd would give these folders, and dotd's certificate in them, back to root.
    assert!(values(unit, "StateDirectory").is_empty() && values(unit, "RuntimeDirectory").is_empty());
    let calls = values(unit, "SystemCallFilter").concat();
    for call in ["seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"] {
        assert!(
            calls.split(' ').any(|found| found == call),
            "the engine cannot confine itself without {call}"
        );
    }
    assert_eq!(values(unit, "KillMode"), ["mixed"]);
    assert_eq!(values(unit, "OnFailure"), ["dotd-detach.service"]);
    // Without it systemd 254 and later start dotd-detach at each crash, also when they start dotd again.
    assert_eq!(values(unit, "RestartMode"), ["direct"]);
    // With that, `systemctl start` returns once systemd gives up: after some starts, however long each takes to fail.
    assert_eq!(
        (values(unit, "StartLimitIntervalSec"), values(unit, "StartLimitBurst")),
        (vec!["2min"], vec!["6"])
    );
    assert_eq!(values(detach, "ExecStart"), ["/usr/bin/dotd xdp detach"]);
    let guide = include_str!("../../../docs/guide/deploy.md");
    assert!(
        UNITS.iter().all(|(name, _)| guide.contains(&format!("packaging/{name}"))),
        "installed by the guide"
    );
}

/// Goal: the alert rules and the board name series that a scrape has, and each label that they select by. Method: every word that
/// begins with `dotd_` in either file, less the suffix of its type, is a row of docs/metrics.md, which the code is held to; so
/// are the labels of what is summed by. Covers: C-403
#[test]
fn alerts_and_board_name_what_a_scrape_has() {
    let page = include_str!("../../../docs/metrics.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `dotd_")).collect();
    for (file, text, count_min) in [
        ("prometheus-alerts.yml", include_str!("../../../packaging/prometheus-alerts.yml"), 8),
        ("grafana-dotd.json", include_str!("../../../packaging/grafana-dotd.json"), 15),
    ] {
        let words = text.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_');
        let names: Vec<_> = words.filter(|word| word.starts_with("dotd_")).collect();
        assert!(names.len() >= count_min, "{file}: {names:?}");
        for name in names {
            let has = |suffix: &str, kind: &str| {
                name.strip_suffix(suffix).is_some_and(|family| {
                    rows.iter().any(|row| row.starts_with(&format!("| `{family}` | {kind} |")))
                })
            };
            let is_there = has("_total", "counter")
                || has("_bucket", "histogram")
                || has("_info", "info")
                || has("", "gauge");
            assert!(is_there, "{file}: no series {name}");
        }
        for by in text.split("sum by (").skip(1).filter_map(|rest| rest.split(')').next()) {
            for label in by.split(", ").filter(|label| !["instance", "le"].contains(label)) {
                assert!(page.contains(&format!("`{label}`")), "{file}: no label {label}");
            }
        }
    }
    let board: serde_json::Value =
        serde_json::from_str(include_str!("../../../packaging/grafana-dotd.json")).expect("JSON");
    assert!(board["panels"].as_array().is_some_and(|panels| panels.len() >= 10));
}

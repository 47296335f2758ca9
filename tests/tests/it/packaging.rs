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
/// capabilities by name, ExecReload, and who is signalled at a stop.
#[test]
fn the_unit_leaves_the_keeper_its_rights() {
    let [(_, unit), (_, detach)] = UNITS;
    let bounding = values(unit, "CapabilityBoundingSet").concat();
    for capability in ["CAP_NET_ADMIN", "CAP_BPF", "CAP_KILL", "CAP_DAC_READ_SEARCH"] {
        assert!(bounding.split(' ').any(|found| found == capability), "{capability}");
    }
    assert_eq!(values(unit, "ExecReload"), ["/usr/bin/dotd reload -c /etc/dotd/dotd.toml"]);
    assert_eq!(values(unit, "KillMode"), ["mixed"]);
    assert_eq!(values(unit, "OnFailure"), ["dotd-detach.service"]);
    // Without it systemd 254 and later start dotd-detach at each crash, also when they start dotd again.
    assert_eq!(values(unit, "RestartMode"), ["direct"]);
    assert_eq!(values(detach, "ExecStart"), ["/usr/bin/dotd xdp detach"]);
    let guide = include_str!("../../../docs/guide/deploy.md");
    assert!(
        UNITS.iter().all(|(name, _)| guide.contains(&format!("packaging/{name}"))),
        "installed by the guide"
    );
}

//! The files of `packaging/`, as systemd and dotd read them.
//!
//! Before: the units as they are installed. After: systemd finds no fault, and dotd has every command that they run.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use dot_tests::{
    harness::{scratch::Scratch, server::binary},
    require,
};

const UNITS: [(&str, &str); 3] = [
    ("dotd.service", include_str!("../../../packaging/dotd.service")),
    ("dotd-detach.service", include_str!("../../../packaging/dotd-detach.service")),
    ("run-dotd.bpf.mount", include_str!("../../../packaging/run-dotd.bpf.mount")),
];

/// The values of `key=` in a unit, line by line.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// Goal: systemd accepts the units without a warning. Method: systemd-analyze verify, with this build's program.
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
    // systemd before 254 warns about RestartMode=, which it does not know and does not need.
    let is_ours = |line: &&str| line.contains("dotd") && !line.contains("'RestartMode'");
    let about_ours: Vec<_> = said.lines().filter(is_ours).collect();
    assert!(output.status.success() && about_ours.is_empty(), "{said}");
}

/// Goal: dotd has every command of the units, with its options. Method: the same arguments and `--help`.
#[test]
fn dotd_has_what_the_units_run() {
    for (name, text) in UNITS {
        let keys = ["ExecStartPre", "ExecStart", "ExecReload", "ExecStopPost"];
        let commands: Vec<_> = keys.iter().flat_map(|key| values(text, key)).collect();
        assert_eq!(commands.is_empty(), name.ends_with(".mount"), "{name}");
        for command in commands {
            let words = command
                .trim_start_matches('-')
                .strip_prefix("/usr/bin/dotd ")
                .unwrap_or_else(|| panic!("{name}: {command}"));
            let output = Command::new(binary()).args(words.split(' ')).arg("--help").output().expect("built");
            assert!(output.status.success(), "{command}: {output:?}");
        }
    }
}

/// Goal: a package's upgrade does not end a dotd that serves in favour of a build that cannot: systemd restarts it only
/// where the builds are incompatible. Method: the scripts after unpacking, with programs in place of dotd and systemctl
/// that record their arguments, for each exit status of `dotd upgrade`.
#[test]
fn a_package_restarts_only_what_cannot_hand_over() {
    for (said, status, restarts) in [
        ("upgraded: dotd 1 serves, process 2", 0, false),
        ("dotd: this one has form 9; restart dotd instead", 4, true),
        ("dotd: dotd is not running", 3, true),
        ("dotd: /usr/bin/dotd could not serve (exit status: 1): no certificate", 1, false),
    ] {
        for (script, words) in [
            (include_str!("../../../packaging/scripts/deb-postinst.sh"), ["configure", "0.1.0-1"]),
            (include_str!("../../../packaging/scripts/rpm-post.sh"), ["2", ""]),
        ] {
            let scratch = Scratch::new();
            let (root, bin) = (scratch.path().display().to_string(), scratch.folder("usr/bin"));
            for folder in ["etc/dotd/tls", "var/lib/dotd", "run/dotd", "run/systemd/system"] {
                fs::create_dir_all(scratch.path().join(folder)).expect("ours");
            }
            let calls = scratch.path().join("calls");
            let dotd = format!("[ \"$1\" = check ] && exit 0\necho '{said}'\nexit {status}\n");
            // A dotd that does not start again must not leave the package half installed.
            let note =
                format!("echo \"$@\" >>{}\ncase \"$*\" in *try-restart*) exit 1 ;; esac\n", calls.display());
            for (name, text) in [("dotd", dotd), ("systemctl", note), ("systemd-sysusers", String::new())] {
                let program = scratch.write(&format!("usr/bin/{name}"), format!("#!/bin/sh\n{text}"));
                fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
            }
            let script =
                script.replace("@take-over.sh@\n", include_str!("../../../packaging/scripts/take-over.sh"));
            assert!(
                !script.lines().any(|line| line.starts_with('@')),
                "the packages have no other shared part"
            );
            let text = ["/usr/bin/", "/etc/", "/var/", "/run/"]
                .iter()
                .fold(script, |text, path| text.replace(path, &format!("{root}{path}")));
            let mut shell = Command::new("sh");
            shell.arg(scratch.write("script", text)).args(words);
            let path = std::env::var("PATH").unwrap_or_default();
            let output = shell.env("PATH", format!("{}:{path}", bin.display())).output().expect("it starts");
            let calls = fs::read_to_string(calls).expect("systemctl was called");
            assert!(output.status.success(), "{said}: {output:?}");
            assert_eq!(calls.contains("try-restart dotd.service"), restarts, "{said}: {calls}");
            let heard = [output.stdout, output.stderr].concat();
            let heard = String::from_utf8_lossy(&heard);
            assert!(heard.contains(said), "{said}");
            assert_eq!(heard.contains("the new build did not start"), restarts, "{heard}");
        }
    }
}

/// Goal: the unit leaves the keeper the rights that it needs, and sends a reload to a process that can handle it.
/// Method: the capabilities by name, ExecReload, the folders that systemd must not take back, the calls by which the
/// engine confines itself, the folders of pins, and the process that gets the signal at a stop.
#[test]
fn the_unit_leaves_the_keeper_its_rights() {
    let [(_, unit), (_, detach), (own, bpffs)] = UNITS;
    let bounding = values(unit, "CapabilityBoundingSet").concat();
    // With these alone `least_rights::` has it start, reload, hand over and end.
    let needed = "CAP_NET_BIND_SERVICE CAP_BPF CAP_PERFMON CAP_NET_ADMIN CAP_SETUID CAP_SETGID CAP_SETPCAP";
    assert_eq!(bounding, needed);
    // systemd 257 removes CAP_SETUID, also from root, where User= and SystemCallFilter= are set.
    assert!(values(unit, "User").is_empty());
    assert_eq!(values(unit, "ExecReload"), ["/usr/bin/dotd reload -c /etc/dotd/dotd.toml"]);
    // With each ExecReload= systemd gives these folders back to root, which they are of: none of them is server.user's.
    assert_eq!(values(unit, "StateDirectory"), ["dotd-keeper"]);
    assert_eq!(values(unit, "StateDirectoryMode"), ["0700"]);
    assert!(values(unit, "ExecStart").concat().contains("--keeper-dir /var/lib/dotd-keeper"));
    assert_eq!(values(unit, "RuntimeDirectory"), ["dotd-restart"]);
    // What a restart keeps is root's, and a stop removes it.
    assert_eq!(values(unit, "RuntimeDirectoryPreserve"), ["restart"]);
    assert!(values(unit, "ExecStart").concat().contains("--restart-dir /run/dotd-restart"));
    // Pins are not in /sys, which systemd makes read-only for the unit: dotd finds a BPF file system of its own at this place, and
    // uses it if no other user may enter it.
    assert_eq!(values(unit, "ProtectKernelTunables"), ["yes"]);
    assert!(
        ["After", "Wants"].iter().all(|key| values(unit, key).concat().split(' ').any(|found| found == own))
    );
    let place = values(bpffs, "Where").concat();
    assert!(
        place == "/run/dotd.bpf" && values(unit, "ReadWritePaths").concat().contains(&format!("-{place}"))
    );
    assert!(values(bpffs, "Options").concat().contains("mode=0700"));
    assert!(values(detach, "ReadWritePaths").concat().contains(&format!("/sys/fs/bpf -{place}")));
    let calls = values(unit, "SystemCallFilter").join(" ");
    for call in ["seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"] {
        assert!(
            calls.split(' ').any(|found| found == call),
            "the engine cannot confine itself without {call}"
        );
    }
    // Sets of which @system-service has more than dotd needs; systemd applies the lines in their order.
    let filters = values(unit, "SystemCallFilter");
    assert_eq!(filters[1..], ["~@resources @aio @chown @keyring @memlock", "sched_setaffinity prlimit64"]);
    assert_eq!(values(unit, "KillMode"), ["mixed"]);
    assert_eq!(values(unit, "OnFailure"), ["dotd-detach.service"]);
    // Without it systemd 254 and later start dotd-detach at each crash, also when they start dotd again.
    assert_eq!(values(unit, "RestartMode"), ["direct"]);
    // With this setting `systemctl start` returns when systemd gives up, after some starts, however long each takes to
    // fail.
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

/// Goal: the alert rules and the board name series that a scrape has, and labels that these series have. Method: every
/// word that begins with `dotd_` in either file, without the suffix of its type, is a row of docs/metrics.md, which
/// another test compares with the code; so are the labels by which sums are grouped. Covers: C-403
#[test]
fn alerts_and_board_name_what_a_scrape_has() {
    let page = include_str!("../../../docs/metrics.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `dotd_")).collect();
    for (file, text, count_min) in [
        ("prometheus-alerts.yml", include_str!("../../../packaging/prometheus-alerts.yml"), 10),
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

//! The operator's verbs: check, pin, status, stats, xdp show; their exit codes and one-line errors.
//!
//! Before: the real binary. After: exit code 0 means success, 1 a failure with one line, 2 wrong usage.

use std::{path::Path, process::Command};

use dot_common::verdict::{Action, Verdict};
use dot_tests::{
    harness::{
        clients::{Said, is_answered_over_tls, kdig, tool},
        config::Config,
        eventually,
        netns::{Namespace, SERVER_V4},
        process::bounded,
        scene::embedded,
        scratch::Scratch,
        server::{Server, binary},
    },
    require,
};
use dot_userspace::ledger::Counter;
use nix::sys::signal::Signal;

/// Runs `dotd` with these arguments outside of any namespace, and returns its exit code, stdout and stderr.
fn dotd(words: &[&str]) -> (Option<i32>, String, String) {
    let mut command: Command = bounded(&binary().display().to_string());
    let output = command.args(words).output().expect("dotd can be started");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|octets| String::from_utf8_lossy(&octets).into_owned());
    (output.status.code(), stdout, stderr)
}

fn text(config: &Config, scratch: &Scratch) -> String {
    let path = scratch.write("dotd.toml", config.text(&scratch.folder("state"), &scratch.folder("run")));
    path.display().to_string()
}

fn in_namespace(namespace: &Namespace, words: &[&str]) -> Said {
    tool(namespace, &binary().display().to_string(), words)
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}

/// Goal: `check` accepts a good config, and refuses a bad one with a line for each mistake. Method: two mistakes at
/// once; both are named, the exit code is 1.
#[test]
fn check_names_every_mistake() {
    let scratch = Scratch::new();
    let good = Config::new().xdp("off").set("xdp", "interfaces", "[]");
    let good = good.set("listen", "dot", r#"["127.0.0.1:8853"]"#);
    let (code, stdout, stderr) = dotd(&["check", "-c", &text(&good, &scratch)]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let bad = good.set("session", "idle_timout", "\"5s\"").set("xdp", "mode", "\"turbo\"");
    let (code, stdout, stderr) = dotd(&["check", "-c", &text(&bad, &scratch)]);
    let said = stdout + &stderr;
    assert!(code == Some(1) && said.contains("idle_timeout") && said.contains("turbo"), "{code:?} {said}");
    let (code, _, stderr) = dotd(&["check", "-c", "/nonexistent/dotd.toml"]);
    assert!(code == Some(1) && stderr.contains("/nonexistent/dotd.toml"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

/// Goal: `check` finds a certificate and a key that do not belong together. Method: two of each, exchanged.
#[test]
fn check_finds_a_key_of_another_certificate() {
    let scratch = Scratch::new();
    let make = || rcgen::generate_simple_self_signed(["dotd.test".to_owned()]).expect("a certificate");
    let cert = scratch.write("one.crt", make().cert.pem());
    let key = scratch.write("two.key", make().signing_key.serialize_pem());
    let config = Config::new().xdp("off").certificate(&cert, &key);
    let (code, stdout, stderr) = dotd(&["check", "-c", &text(&config, &scratch)]);
    let said = stdout + &stderr;
    assert!(code == Some(1) && said.contains("two.key"), "{code:?} {said}");
}

/// Goal: wrong usage ends with 2 and a hint, help with 0. Method: a verb and a flag that do not exist.
#[test]
fn usage_errors_exit_with_2() {
    for words in [&["serve"][..], &["run", "--fast"], &["pin", "-x"]] {
        let (code, _, stderr) = dotd(words);
        assert!(code == Some(2) && stderr.contains("Usage"), "{words:?}: {stderr}");
    }
    let (code, stdout, _) = dotd(&["--help"]);
    assert!(code == Some(0) && stdout.contains("run") && stdout.contains("check"), "{stdout}");
}

/// Goal: `pin` prints the same pin as `run`, which a client can check, for the self-signed certificate and for a file.
/// Method: the same config for both; the pin of a certificate file by `openssl`'s own computation. Covers: C-67
#[test]
fn pin_is_the_same_everywhere() {
    require!(Root, Command("openssl"), Command("sh"));
    let (network, server) = embedded(&Config::new());
    let config = path_text(&server.folder().join("dotd.toml"));
    let said = in_namespace(&network.server, &["pin", "-c", &config]);
    assert!(said.is_success && said.has(&format!("pin-sha256=\"{}\"", server.pin())), "{}", said.text);
    let made = rcgen::generate_simple_self_signed(["dotd.test".to_owned()]).expect("a certificate");
    let cert = path_text(&server.write("made.crt", made.cert.pem()));
    let script = format!(
        "openssl x509 -in {cert} -pubkey -noout | openssl pkey -pubin -outform der | \
         openssl dgst -sha256 -binary | openssl base64"
    );
    let expected = tool(&network.server, "sh", &["-c", &script]);
    let said = in_namespace(&network.server, &["pin", &cert]);
    assert!(said.is_success && said.has(expected.text.trim()), "{} is not {}", said.text, expected.text);
}

/// Goal: status, stats and xdp show speak to the control socket; without a server they fail in one line. Method: by
/// `--socket` and by `-c`; then with a socket that does not exist.
#[test]
fn control_verbs_speak_to_the_socket() {
    require!(Root, Bpf);
    let (network, server) = embedded(&Config::new());
    let socket = path_text(&server.folder().join("run/control.sock"));
    let config = path_text(&server.folder().join("dotd.toml"));
    for words in [&["status"][..], &["stats"], &["stats", "--json"], &["xdp", "show"]] {
        for place in [["--socket", &socket], ["-c", &config]] {
            let said = in_namespace(&network.server, &[words, &place].concat());
            assert!(said.is_success && !said.text.trim().is_empty(), "{words:?}: {}", said.text);
        }
        let (code, _, stderr) = dotd(&[words, &["--socket", "/nonexistent/control.sock"]].concat());
        assert!(code == Some(1) && stderr.contains("/nonexistent/control.sock"), "{stderr}");
        assert!(stderr.starts_with("dotd: ") && stderr.lines().count() == 1, "{stderr}");
    }
    let said = in_namespace(&network.server, &["xdp", "show", "--socket", &socket]);
    assert!(said.has("native") && said.has("server"), "{}", said.text);
    assert!(
        !said.has("of 0,"),
        "a worker without a connection so far may have connections too: {}",
        said.text
    );
}

/// Goal: `xdp detach` refuses while a dotd runs; with `--force` it takes XDP from that dotd, which goes on serving
/// without it; it removes what a crashed dotd left; the counts stay. Method: the verb in each of these states, `ip
/// link` and bpffs after it.
#[test]
fn xdp_detach_takes_off_what_it_should() {
    require!(Root, Bpf, Command("kdig"));
    let (network, mut server) = embedded(&Config::new().set("server", "user", "\"nobody\""));
    let is_attached = || network.server.ip("link show server").contains("xdp");
    let is_pinned = || network.server.exists("/sys/fs/bpf/dotd");
    let socket = path_text(&server.folder().join("run/control.sock"));
    let detach = |words: &[&str]| in_namespace(&network.server, &[&["xdp", "detach"], words].concat());
    let asks = || is_answered_over_tls(&kdig(&network.client, SERVER_V4, "+tls dotd.test A"));
    assert!(asks());

    let said = detach(&["--socket", &socket]);
    assert!(!said.is_success && said.has("--force") && is_attached(), "{}", said.text);
    let counted = server.stats().packets("pass", "syn");
    assert!(counted > 0);
    let said = detach(&["--force", "--socket", &socket]);
    assert!(said.is_success && said.has("DEGRADED: detached by an operator"), "{}", said.text);
    eventually("it is off", || (!is_attached() && !is_pinned()).then_some(()));
    // Two looks of the watchdog later it still is.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(!is_attached() && asks());
    assert_eq!(server.stats().packets("pass", "syn"), counted);
    server.stop();

    server = Server::start(&network, &Config::new());
    server.signal(Signal::SIGKILL);
    let (_, _scratch) = server.wait();
    assert!(is_attached() && is_pinned(), "a crash leaves them");
    let said = detach(&[]);
    assert!(said.is_success && said.has("removed 2 links"), "{}", said.text);
    eventually("they are gone", || (!is_attached() && !is_pinned()).then_some(()));
    let said = detach(&["--force"]);
    assert!(said.is_success && said.has("nothing was attached"), "{}", said.text);
}

/// Goal: the tables in which operators look up counters have every name: of the verdicts, and of the ends of a query.
/// Method: docs/counters.md is compared with the counters of the program; false lengths share one row.
#[test]
fn the_page_of_counters_names_what_is_counted() {
    let page = include_str!("../../../docs/counters.md");
    let verdicts = dot_common::counters::rows().map(|verdict| {
        let Verdict { action, reason } = verdict;
        let name = if reason.name().starts_with("malformed_") { "malformed_…" } else { reason.name() };
        // One row covers everything that `count` lets pass.
        let action = if action == Action::WouldDrop { Action::Drop } else { action };
        (format!("| {} |", action.name()), format!("`{name}`"))
    });
    for (action, reason) in verdicts {
        let is_there = page.lines().any(|line| line.starts_with(&action) && line.contains(&reason));
        assert!(is_there, "docs/counters.md has no row that begins {action} and names {reason}");
    }
    let fates = Counter::ALL.iter().filter(|counter| counter.family() == "queries");
    for fate in fates.map(|counter| counter.label()).filter(|label| *label != "received") {
        let name = if fate.starts_with("dropped_") { "dropped_…" } else { fate };
        assert!(page.contains(&format!("`{name}`")), "no {name}");
    }
}

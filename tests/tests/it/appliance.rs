//! dotd as a service: its lines in the journal and as JSON, a level that changes, verbs while the config is broken, `check`
//! beside `run`.
//!
//! Before: a dotd that a unit or an operator starts. After: its output is what they need.

use std::path::Path;

use dot_tests::{
    harness::{
        clients::tool,
        config::Config,
        dot::Dot,
        eventually,
        netns::{Network, SERVER_V4},
        scratch::Scratch,
        server::{Server, binary},
    },
    require,
};
use nix::sys::signal::Signal;

/// Starts the command as systemd starts a service whose standard error is the journal.
const IN_JOURNAL: [&str; 4] =
    ["sh", "-c", "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$@\"", "sh"];

fn dotd(network: &Network, words: &[&str]) -> dot_tests::harness::clients::Said {
    tool(&network.server, &binary().display().to_string(), words)
}

/// Goal: `journalctl -p err` shows why a reload or a start failed. Method: standard error as systemd sets it up; a
/// reload and a start, each with an unknown key.
#[test]
fn errors_have_their_priority_in_the_journal() {
    require!(Root);
    let network = Network::new();
    let config = Config::new().xdp("off");
    let mut dotd = Server::launch(&network, &config, Scratch::new(), &IN_JOURNAL);
    dotd.rewrite_config(&config.clone().set("session", "idle_timout", "\"1s\""));
    dotd.signal(Signal::SIGHUP);
    let reason = |line: &str| line.starts_with("<3>ERROR reload failed") && line.contains("idle_timeout");
    eventually("the reason is an error", || dotd.stderr().lines().any(reason).then_some(()));
    assert!(dotd.stderr().contains("<6> INFO ready"), "{}", dotd.stderr());
    dotd.stop();
    let broken = config.set("listen", "dott", "[]");
    let ended = Server::attempt(&network, &broken, Scratch::new(), &IN_JOURNAL).expect_err("refused");
    assert!(ended.stderr.starts_with("<3>dotd: ") && ended.stderr.contains("dott"), "{ended:?}");
}

/// Goal: with `log.format = "json"` every line that dotd writes is JSON, also those about its start. Method: both
/// streams, line by line; the pin on standard output.
#[test]
fn a_log_of_json_holds_json_alone() {
    require!(Root);
    let network = Network::new();
    let config = Config::new().xdp("off").set("log", "format", "\"json\"");
    let dotd = Server::start(&network, &config);
    let pin = dotd.status()["certificates"][0]["spki_pin"].as_str().expect("a pin").to_owned();
    let ended = dotd.stop();
    assert_eq!(ended.stdout, "");
    let lines: Vec<serde_json::Value> =
        ended.stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let says = |part: &str| lines.iter().any(|line| line["message"].as_str().unwrap_or("").contains(part));
    assert!(says(&pin) && says("listening: ") && says("ready"), "{lines:?}");
}

/// Goal: the level of the log changes without a restart: by an operator's command until the next reload, and by the
/// config. Method: sessions under each level; whether each leaves a line.
#[test]
fn the_level_of_the_log_changes_live() {
    require!(Root);
    let network = Network::new();
    let config = Config::new().xdp("off");
    let dotd = Server::start(&network, &config);
    let lines = || dotd.stderr().lines().filter(|line| line.contains("DEBUG")).count();
    let session_leaves_lines = || {
        let before = lines();
        drop(Dot::connect(&network.client, SERVER_V4));
        // The end of that session was counted, and its lines were written before.
        let ends = dotd.stats().counter("connections", "accepted");
        dotd.counts("it ended", |stats| stats.counter("connections", "accepted") >= ends);
        before
    };
    assert_eq!(session_leaves_lines(), 0);
    let said = dotd.operate(&["log", "level", "debug"]);
    assert!(said.is_success && said.has("log.level is debug until the next reload"), "{}", said.text);
    session_leaves_lines();
    eventually("a session leaves a line", || (lines() > 0).then_some(()));
    dotd.rewrite_config(&config.clone().set("log", "level", "\"warn\""));
    let said = dotd.operate(&["reload"]);
    assert!(said.is_success && !said.has("restart"), "{}", said.text);
    dotd.rewrite_config(&config.clone().set("log", "level", "\"debug\""));
    let before = dotd.stderr().matches("INFO reloaded").count();
    assert!(dotd.operate(&["reload"]).is_success);
    let before_debug = lines();
    session_leaves_lines();
    eventually("a session leaves a line", || (lines() > before_debug).then_some(()));
    assert!(before <= 1, "level warn holds it back");
    dotd.stop();
}

/// Goal: verbs reach the running dotd while its config is broken, and say which socket they used. Method: an unknown
/// key, then text that is not TOML; `status` without --socket.
#[test]
fn verbs_work_while_the_config_is_broken() {
    require!(Root);
    let network = Network::new();
    let config = Config::new().xdp("off");
    let dotd = Server::start(&network, &config);
    let file = dotd.folder().join("dotd.toml").display().to_string();
    dotd.rewrite_config(&config.clone().set("session", "idle_timout", "\"1s\""));
    let said = self::dotd(&network, &["status", "-c", &file]);
    assert!(said.is_success && said.has("serving for") && said.has("did you mean"), "{}", said.text);
    assert!(
        said.has(&format!("asking {}", dotd.folder().join("run/control.sock").display())),
        "{}",
        said.text
    );
    dotd.rewrite_config_text("[server\n");
    let said = self::dotd(&network, &["status", "-c", &file]);
    assert!(!said.is_success && said.has("asking /run/dotd/control.sock"), "{}", said.text);
    dotd.stop();
}

/// Goal: the start and `check` report a config file without a key. Method: a file with a comment and a section. Covers:
///
#[test]
fn an_empty_config_is_a_warning() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let file = scratch.write("dotd.toml", "# nothing\n[session]\n").display().to_string();
    let said = dotd(&network, &["check", "-c", &file]);
    assert!(said.is_success && said.has("dotd.toml: sets no key"), "{}", said.text);
    let file = scratch.write("some.toml", "[session]\nidle_timeout = \"7s\"\n").display().to_string();
    let said = dotd(&network, &["check", "-c", &file]);
    assert!(said.is_success && !said.has("sets no key"), "{}", said.text);
}

/// Goal: relative paths in a config start at the folder of the config, wherever dotd is started. Method: state, run and
/// certificate beside the file; the working directory is another.
#[test]
fn relative_paths_are_those_of_the_config() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let made = rcgen::generate_simple_self_signed(["near.dotd.test".to_owned()]).expect("a certificate");
    scratch.write("near.crt", made.cert.pem());
    scratch.write("near.key", made.signing_key.serialize_pem());
    let config = Config::new().xdp("off").certificate(Path::new("near.crt"), Path::new("near.key"));
    let dotd = Server::launch(&network, &config, scratch, &["env", "--chdir=/", "--"]);
    let session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.certificates()[0], made.cert.der().as_ref());
    dotd.rewrite_config_text(&config.text(Path::new("state"), Path::new("run")));
    let said = dotd.operate(&["reload"]);
    assert!(said.is_success && !said.has("restart"), "{}", said.text);
    dotd.stop();
}

/// Goal: `run` starts with every config that `check` accepts, and `check` refuses every config with which `run` cannot
/// start. Method: addresses of each kind: link-local with its interface and without, IPv4 in IPv6 form, a wildcard
/// beside one of its addresses.
#[test]
fn check_and_run_agree() {
    require!(Root);
    let network = Network::new();
    // No socket can listen on an address before the kernel has checked that no other machine has it.
    let local = eventually("the link-local address is its own", || {
        let line = network.server.ip("-6 -o addr show dev server scope link -tentative");
        let address = line.split_whitespace().skip_while(|word| *word != "inet6").nth(1)?;
        address.split('/').next().map(str::to_owned)
    });
    let link = network.server.ip("-o link show server");
    let index = link.split(':').next().expect("a number").trim();
    for (listen, is_fine) in [
        (format!("[\"[{local}%{index}]:853\"]"), true),
        (format!("[\"[{local}]:853\"]"), false),
        ("[\"[::ffff:127.0.0.1]:853\"]".to_owned(), false),
        ("[\"0.0.0.0:853\", \"127.0.0.1:853\"]".to_owned(), false),
        ("[\"[::]:853\", \"[::1]:853\"]".to_owned(), false),
        ("[\"0.0.0.0:853\", \"[::]:853\"]".to_owned(), true),
        ("[\"224.0.0.1:853\"]".to_owned(), false),
        ("[\"192.0.2.254:853\"]".to_owned(), false),
    ] {
        let config = Config::new().xdp("off").set("listen", "dot", &listen);
        let scratch = Scratch::new();
        let text = config.text(&scratch.folder("state"), &scratch.folder("run"));
        let file = scratch.write("dotd.toml", text).display().to_string();
        let said = dotd(&network, &["check", "-c", &file]);
        assert_eq!(said.is_success, is_fine, "check of {listen}: {}", said.text);
        match Server::attempt(&network, &config, scratch, &[]) {
            Ok(server) => {
                assert!(is_fine, "{listen} starts");
                server.stop();
            }
            Err(ended) => assert!(!is_fine, "{listen}: {ended:?}"),
        }
    }
}

/// Goal: in the journal dotd's messages about its start are log lines too, and every line has a priority. Method: both
/// streams are the same pipe, as under systemd; the pin stands among lines that all begin alike.
#[test]
fn the_start_is_told_to_the_journal() {
    require!(Root);
    const BOTH: [&str; 4] =
        ["sh", "-c", "exec 1>&2; JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$@\"", "sh"];
    let network = Network::new();
    let dotd = Server::launch(&network, &Config::new().xdp("off"), Scratch::new(), &BOTH);
    let pin = dotd.status()["certificates"][0]["spki_pin"].as_str().expect("a pin").to_owned();
    let ended = dotd.stop();
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.lines().all(|line| line.starts_with('<')), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("<6> INFO pin-sha256=\"{pin}\"")), "{}", ended.stderr);
}

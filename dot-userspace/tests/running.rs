//! A running `dotd` asked from outside: verbs over the control socket, metrics and health over HTTP, signals.
//!
//! Needs no right: high ports on loopback, folders of its own, XDP off. Each test ends the process it started.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command, Output, Stdio},
    thread,
    time::Duration,
};

use dot_userspace::{control::Status, ledger::Snapshot};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// A running dotd; it ends with this value.
struct Running {
    process: Child,
    output: BufReader<ChildStdout>,
    folder: TempDir,
    http: String,
}

impl Running {
    /// Starts it and waits for `ready`; returns its output before that.
    fn start(folder: TempDir) -> (Self, Vec<String>) {
        let (dot, http) = (free_address(), free_address());
        let root = folder.path().display();
        let text = format!(
            "[server]\nworkers = 1\nstate_dir = \"{root}/state\"\nrun_dir = \"{root}/run\"\n\
             [listen]\ndot = [\"{dot}\"]\n[xdp]\nmode = \"off\"\n[control]\nhttp = \"{http}\"\n"
        );
        fs::write(folder.path().join("dotd.toml"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dotd"));
        command.arg("run").arg("-c").arg(folder.path().join("dotd.toml"));
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut running = Self { process, output, folder, http };
        let mut said = Vec::new();
        loop {
            let mut line = String::new();
            let octets = running.output.read_line(&mut line).unwrap();
            assert_ne!(octets, 0, "dotd ended before it was ready: {}", running.log());
            if line == "ready\n" {
                return (running, said);
            }
            said.push(line);
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// A verb with this dotd's config.
    fn ask(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dotd"));
        command.args(words).arg("-c").arg(self.folder.path().join("dotd.toml")).output().unwrap()
    }

    /// Standard output of a verb that must succeed.
    #[track_caller]
    fn answer(&self, words: &[&str]) -> String {
        let output = self.ask(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn stats(&self) -> Snapshot {
        serde_json::from_str(&self.answer(&["stats", "--json"])).unwrap()
    }

    /// One GET over HTTP: head and body.
    fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    /// By a system call: a machine need not have a program `kill`.
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id().try_into().unwrap());
        kill(pid, signal).unwrap();
    }

    /// Ends it as an operator does; returns the folder for another start.
    fn stop(mut self) -> TempDir {
        self.signal(Signal::SIGTERM);
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
        assert!(!self.folder.path().join("run/control.sock").exists(), "the socket is left behind");
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended after `stop`; after a panic this ends it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address of loopback that was free a moment ago.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Goal: every verb and both HTTP paths answer about the running dotd, and agree with each other. Method: the config's
/// values are returned; the pin is the same from start, `pin` and `status`.
#[test]
fn answers_about_itself() {
    let (dotd, said) = Running::start(tempfile::tempdir().unwrap());
    let pin = dotd.answer(&["pin"]);
    assert!(said.contains(&pin), "{said:?} does not hold {pin}");
    let status: Status = serde_json::from_str(&dotd.answer(&["status", "--json"])).unwrap();
    assert_eq!((status.pid, status.workers), (dotd.process.id(), 1));
    assert_eq!(pin, format!("pin-sha256=\"{}\"\n", status.certificates[0].spki_pin));
    let text = dotd.answer(&["status"]);
    assert!(text.contains("serving for") && text.contains(pin.trim()) && text.contains("embedded"), "{text}");
    assert!(dotd.answer(&["xdp", "show"]).starts_with("xdp          off ("));
    assert!(dotd.stats().difference().is_zero());
    assert!(dotd.answer(&["stats"]).contains("ledger difference\n"));
    let (head, body) = dotd.get("/health");
    assert!(head.starts_with("HTTP/1.1 200 ") && body == "{\"state\":\"serving\"}", "{head}\n{body}");
    let (head, body) = dotd.get("/metrics");
    assert!(head.contains("application/openmetrics-text; version=1.0.0") && body.ends_with("# EOF\n"));
    assert!(body.contains("\ndotd_workers 1\n"));
    dotd.stop();
}

/// Goal: cleartext on the DoT port ends the connection and is counted, and the ledger accounts for it.
/// Method: a DNS query and HTTP in cleartext; the server closes; then the counters.
#[test]
fn accounts_for_what_is_not_tls() {
    let (dotd, _) = Running::start(tempfile::tempdir().unwrap());
    let status: Status = serde_json::from_str(&dotd.answer(&["status", "--json"])).unwrap();
    let query = b"\0\x1d\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04dotd\x04test\0\0\x01\0\x01";
    for octets in [&query[..], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(status.listeners[0].address).unwrap();
        stream.write_all(octets).unwrap();
        // To the end: an alert at most, or a reset because we sent more than was read.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    // The end of a handshake may be counted just after its connection is closed.
    let stats =
        eventually(|| Some(dotd.stats()).filter(|stats| stats.prefix_total("handshakes", "failed_") == 2));
    assert_eq!(stats.family("connections").find(|(label, _)| *label == "accepted"), Some(("accepted", 2)));
    assert_eq!(stats.family_total("queries"), 0);
    assert!(stats.difference().is_zero(), "{stats}");
    dotd.stop();
}

/// Goal: a broken config at HUP changes nothing, is counted and named with its line; a whole one is counted too.
/// Method: break the file, HUP, mend it, HUP; wait for each counter.
#[test]
fn reloads_are_counted() {
    let (dotd, _) = Running::start(tempfile::tempdir().unwrap());
    let file = dotd.folder.path().join("dotd.toml");
    let whole = fs::read_to_string(&file).unwrap();
    let socket = dotd.folder.path().join("run/control.sock");
    let reloads = || {
        let answer = Command::new(env!("CARGO_BIN_EXE_dotd"))
            .args(["stats", "--json", "--socket", socket.to_str().unwrap()])
            .output()
            .unwrap();
        let snapshot: Snapshot = serde_json::from_slice(&answer.stdout).unwrap();
        (snapshot.control.reloads_ok, snapshot.control.reloads_failed)
    };
    for (text, expected) in [(whole.clone() + "[sesion]\n", (0, 1)), (whole, (1, 1))] {
        fs::write(&file, text).unwrap();
        dotd.signal(Signal::SIGHUP);
        eventually(|| Some(()).filter(|()| reloads() == expected));
    }
    let log = dotd.log();
    assert!(log.contains(":11:2: unknown key `sesion`: did you mean `session`?"), "{log}");
    dotd.stop();
}

/// Goal: the self-signed certificate outlives the process: the second start prints the same pin. Covers: C-67.
#[test]
fn pin_outlives_the_process() {
    let (first, said) = Running::start(tempfile::tempdir().unwrap());
    let pin = said.iter().find(|line| line.starts_with("pin-sha256=")).cloned();
    assert!(pin.is_some(), "{said:?}");
    let (second, said) = Running::start(first.stop());
    assert_eq!(said.into_iter().find(|line| line.starts_with("pin-sha256=")), pin);
    second.stop();
}

/// Goal: a second dotd on the same run_dir or port ends with one line and 1, and the first serves on.
#[test]
fn second_dotd_is_refused() {
    let (dotd, _) = Running::start(tempfile::tempdir().unwrap());
    let refused = dotd.ask(&["run"]);
    let line = String::from_utf8(refused.stderr).unwrap();
    let reasons: Vec<_> = line.lines().filter(|line| line.starts_with("dotd: ")).collect();
    assert_eq!((refused.status.code(), reasons.len()), (Some(1), 1), "{line}");
    assert!(reasons[0].contains(" is in use by another server"), "{line}");
    assert!(dotd.answer(&["status"]).contains("serving"));
    dotd.stop();
}

/// Calls `look` until it finds something.
#[track_caller]
fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..ATTEMPTS {
        if let Some(found) = look() {
            return found;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("still not so after {ATTEMPTS} looks");
}

/// With 50 ms between them, ten times what a loaded machine has needed.
const ATTEMPTS: usize = 400;

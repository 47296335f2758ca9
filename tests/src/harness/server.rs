//! The real `dotd`, started in the server's namespace and stopped whatever the test does.
//!
//! Before: a [`Config`]. After: its stdout up to `ready` was read, and clients may connect.
//! Holds: the process, its folders, its output. Never: starts anything but the binary that cargo built.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{
    DEADLINE,
    clients::Said,
    config::Config,
    eventually,
    netns::Network,
    process::{Process, bound_to_namespace, bounded},
    scratch::Scratch,
    stats::Stats,
};

/// A running dotd.
#[derive(Debug)]
pub struct Server {
    process: Process,
    scratch: Scratch,
    written: Written,
}

/// How a dotd ended that was expected to fail, or that was stopped.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Everything on stdout.
    pub stdout: String,
    /// Everything on stderr.
    pub stderr: String,
}

/// The output of the process so far, and the threads that read it.
#[derive(Debug, Default)]
struct Written {
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts dotd and waits for `ready`.
    ///
    /// # Panics
    /// When it ends first, or is not ready in time; the message has its output.
    #[must_use]
    pub fn start(network: &Network, config: &Config) -> Self {
        Self::launch(network, config, Scratch::new(), &[])
    }

    /// The same with files the config names already in `scratch`, and under a wrapper such as `setpriv …`.
    ///
    /// # Panics
    /// As [`Server::start`].
    #[must_use]
    pub fn launch(network: &Network, config: &Config, scratch: Scratch, wrapper: &[&str]) -> Self {
        match Self::attempt(network, config, scratch, wrapper) {
            Ok(server) => server,
            Err(ended) => panic!("dotd is not ready: {ended:?}"),
        }
    }

    /// The same, where the test expects a failure.
    ///
    /// # Errors
    /// How it ended before it was ready.
    ///
    /// # Panics
    /// When it neither ends nor becomes ready in time.
    pub fn attempt(
        network: &Network,
        config: &Config,
        scratch: Scratch,
        wrapper: &[&str],
    ) -> Result<Self, Ended> {
        let text = config.text(&scratch.folder("state"), &scratch.folder("run"));
        let path = scratch.write("dotd.toml", text);
        let mut words: Vec<String> = wrapper.iter().map(|word| (*word).to_owned()).collect();
        words.push(binary_in(&scratch).display().to_string());
        words.extend(["run".to_owned(), "-c".to_owned(), path.display().to_string()]);
        let mut command = bound_to_namespace(&words[0]);
        command.args(&words[1..]).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("RUST_LOG");
        let mut process = Process::start("dotd", &network.server, &scratch, command);
        let written = Written::follow(&mut process);
        let mut server = Self { process, scratch, written };
        let status = eventually("dotd prints `ready` or ends", || {
            let is_ready = server.stdout().lines().any(|line| line == "ready")
                || server.stderr().contains(r#""message":"ready""#)
                || server.stderr().lines().any(|line| line.starts_with("<6> INFO ready"));
            if is_ready { Some(None) } else { server.process.wait(std::time::Duration::ZERO).map(Some) }
        });
        match status {
            None => Ok(server),
            Some(status) => Err(server.ended(status)),
        }
    }

    /// The process that serves, the engine. [`Server::signal`] sends signals to the keeper, as service managers do.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        *self.pids().first().expect("it has a child")
    }

    /// The process that was started, the keeper.
    #[must_use]
    pub fn keeper_pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its memory in KiB, by the name that Linux has for it: `VmRSS`, or `VmHWM` for the maximum so far.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn memory_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux says it");
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number")
    }

    /// The server's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// Writes a new config, for a reload.
    pub fn rewrite_config(&self, config: &Config) {
        self.rewrite_config_text(&config.text(&self.folder().join("state"), &self.folder().join("run")));
    }

    /// Writes any text in place of the config.
    pub fn rewrite_config_text(&self, text: &str) {
        self.scratch.write("dotd.toml", text);
    }

    /// Writes a file into the server's folder.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        self.scratch.write(name, text)
    }

    /// Everything on stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.written.stdout.lock().expect("readers do not panic").clone()
    }

    /// Everything on stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.written.stderr.lock().expect("readers do not panic").clone()
    }

    /// The SPKI pin that it printed, base64.
    ///
    /// # Panics
    /// When it printed none.
    #[must_use]
    pub fn pin(&self) -> String {
        let stdout = self.stdout();
        let found = stdout.lines().find_map(|line| line.strip_prefix("pin-sha256=\"")?.strip_suffix('"'));
        found.unwrap_or_else(|| panic!("no pin in {stdout}")).to_owned()
    }

    /// The text behind `xdp: ` on its line.
    ///
    /// # Panics
    /// When there is no such line.
    #[must_use]
    pub fn xdp(&self) -> String {
        let stdout = self.stdout();
        let found = stdout.lines().find_map(|line| line.strip_prefix("xdp: "));
        found.unwrap_or_else(|| panic!("no xdp line in {stdout}")).to_owned()
    }

    /// Runs `dotd stats` against its control socket, as an operator does.
    /// Counters are read one after another while workers count: in the middle of a session's end, say, its equation does
    /// not hold for a moment. So the verb is run again a few times before a difference counts.
    ///
    /// # Panics
    /// When the command fails or does not print JSON.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats(self.asked("stats"));
        for _ in 0..5 {
            if stats.difference() == [0; 3] {
                break;
            }
            stats = Stats(self.asked("stats"));
        }
        stats
    }

    /// The output of `dotd status`, as JSON.
    ///
    /// # Panics
    /// When the command fails or does not print JSON.
    #[must_use]
    pub fn status(&self) -> Value {
        self.asked("status")
    }

    fn asked(&self, verb: &str) -> Value {
        let mut command = bounded(&binary_in(&self.scratch).display().to_string());
        command
            .args(verb.split(' '))
            .args(["--json", "--socket"])
            .arg(self.folder().join("run/control.sock"));
        let output = command.output().expect("dotd can be started");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "dotd {verb}: {complaint}");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said}"))
    }

    /// Runs a verb of the command line against this server, as an operator does.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn operate(&self, words: &[&str]) -> Said {
        let mut command = bounded(&binary_in(&self.scratch).display().to_string());
        command.args(words).arg("--socket").arg(self.folder().join("run/control.sock"));
        Said::from(&command.output().expect("dotd can be started"))
    }

    /// "up", "down" or "unchecked" of each backend, in the order of the config.
    ///
    /// # Panics
    /// When the command fails or does not print JSON.
    #[must_use]
    pub fn backend_states(&self) -> Vec<String> {
        let status = self.asked("status");
        let backends = status["backends"].as_array().unwrap_or_else(|| panic!("no backends in {status}"));
        backends.iter().map(|backend| backend["state"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The output of `xdp show` about the kernel half.
    ///
    /// # Panics
    /// When the command fails or does not print JSON.
    #[must_use]
    pub fn xdp_report(&self) -> Value {
        self.asked("xdp show")
    }

    /// How many of a hundred queries the backend at this place answers, by `dotd status`.
    #[must_use]
    pub fn answered_percent(&self, backend: usize) -> Option<u64> {
        self.status()["backends"][backend]["answered_percent"].as_u64()
    }

    /// The reason why a backend's last check failed.
    ///
    /// # Panics
    /// When the command fails or does not print JSON.
    #[must_use]
    pub fn backend_reason(&self, index: usize) -> Option<String> {
        self.asked("status")["backends"][index]["reason"].as_str().map(str::to_owned)
    }

    /// Takes snapshots until one satisfies `is_so`.
    ///
    /// # Panics
    /// When none does in time.
    pub fn counts(&self, what: &str, is_so: impl Fn(&Stats) -> bool) -> Stats {
        let mut last = self.stats();
        eventually(what, || {
            if !is_so(&last) {
                last = self.stats();
            }
            is_so(&last).then(|| last.clone())
        })
    }

    /// Sends a signal to the process that was started; STOP and CONT, which a process cannot forward, go to the engine.
    ///
    /// # Panics
    /// When that process has ended.
    pub fn signal(&mut self, signal: Signal) {
        if !matches!(signal, Signal::SIGSTOP | Signal::SIGCONT) {
            return self.process.signal(signal);
        }
        let engine = i32::try_from(self.pid()).expect("a pid fits");
        kill(Pid::from_raw(engine), signal).expect("it runs");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time.
    #[must_use]
    pub fn wait(mut self) -> (Ended, Scratch) {
        let status = self.process.wait(DEADLINE);
        let status = status.unwrap_or_else(|| panic!("dotd does not end; stderr:\n{}", self.stderr()));
        let ended = self.ended(status);
        let scratch = std::mem::take(&mut self.scratch);
        (ended, scratch)
    }

    /// Sends SIGTERM; the process must end with exit code 0.
    ///
    /// # Panics
    /// When it does not.
    pub fn stop(mut self) -> Ended {
        self.signal(Signal::SIGTERM);
        let (ended, _scratch) = self.wait();
        assert_eq!(ended.code, Some(0), "after SIGTERM: {ended:?}");
        ended
    }

    /// The complete output, after the process has ended.
    fn ended(&mut self, status: ExitStatus) -> Ended {
        for reader in self.written.readers.drain(..) {
            let _ = reader.join();
        }
        Ended { code: status.code(), signal: status.signal(), stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- dotd stdout ---\n{}--- dotd stderr ---\n{}---", self.stdout(), self.stderr());
        }
    }
}

impl Written {
    fn follow(process: &mut Process) -> Self {
        let mut written = Self::default();
        let child = process.child();
        if let Some(pipe) = child.stdout.take() {
            written.readers.push(collect(pipe, &written.stdout));
        }
        if let Some(pipe) = child.stderr.take() {
            written.readers.push(collect(pipe, &written.stderr));
        }
        written
    }
}

fn collect(pipe: impl Read + Send + 'static, into: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    thread::spawn(move || {
        let mut lines = BufReader::new(pipe);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            into.lock().expect("nobody panics here").push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

/// The binary that cargo built beside this test.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn binary() -> PathBuf {
    let test = env::current_exe().expect("a running program has a path");
    let path = test.parent().and_then(Path::parent).expect("tests run in target/<profile>/deps").join("dotd");
    assert!(path.is_file(), "{} is missing: run `cargo build -p dot-userspace` first", path.display());
    path
}

/// A copy of the binary that every user may execute: the source tree may lie in a folder that only its owner may enter.
fn binary_in(scratch: &Scratch) -> PathBuf {
    let copy = scratch.path().join("dotd");
    if !copy.exists() && fs::hard_link(binary(), &copy).is_err() {
        fs::copy(binary(), &copy).unwrap_or_else(|error| panic!("{}: {error}", copy.display()));
    }
    copy
}

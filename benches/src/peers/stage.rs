//! What all peers share: one certificate, one zone, two backends, one client; and the start of each.
//!
//! Before: the catalogue. After: peers that have each given a right answer.
//! Holds: the templates' names and values, the folder of everything written.
//! Never: starts a service of the system's; writes outside its folder.

use std::{
    fmt::Write,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;

use super::{
    catalog::{BACKENDS, Backend, Entry, Program},
    idle,
    machine::Cores,
    options::Options,
    process::{Keeper, Process},
    workloads::Work,
};

/// Names in the zone beside its apex: `host-0` and so on.
const HOSTS: u32 = 1000;
/// A program that has not answered by then will not.
const READY: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(50);
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The common ground.
pub(super) struct Stage {
    options: Options,
    cores: Cores,
    keeper: Keeper,
    // Before the folder: ended before that goes.
    backends: Vec<Behind>,
    folder: TempDir,
}

/// A backend that runs.
struct Behind {
    backend: Backend,
    port: u16,
    _process: Process,
}

/// A peer that runs and answers.
pub(super) struct Peer {
    pub(super) entry: &'static Entry,
    /// Who is behind it.
    pub(super) backend: Backend,
    pub(super) version: String,
    pub(super) address: SocketAddr,
    pub(super) process: Process,
}

/// Names of peers that could not be started, and why.
pub(super) type LeftOut = Vec<(&'static str, String)>;

impl Stage {
    /// Makes the certificate and the zone, and starts the backends that this work needs; idle connections are
    /// weighed before NSD.
    ///
    /// # Errors
    /// No folder, no free port, or no NSD.
    pub(super) fn build(options: &Options, works: &[&Work], cores: Cores, keeper: &Keeper) -> Result<Self> {
        raise_file_limit();
        let folder = tempfile::Builder::new().prefix("dotd-peers-").tempdir()?;
        keeper.remove_at_signal(folder.path());
        let made = rcgen::generate_simple_self_signed(["dotd.test".to_owned()])?;
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        fs::write(folder.path().join("cert.pem"), &cert)?;
        fs::write(folder.path().join("key.pem"), &key)?;
        fs::write(folder.path().join("both.pem"), cert + &key)?;
        fs::write(folder.path().join("zone"), zone())?;
        fs::write(folder.path().join("names"), names())?;
        let mut stage =
            Self { options: options.clone(), cores, keeper: keeper.clone(), backends: Vec::new(), folder };
        for (backend, entry) in &BACKENDS {
            if *backend == Backend::Nsd || works.iter().any(|work| work.backend == *backend) {
                stage.start_backend(*backend, entry)?;
            }
        }
        Ok(stage)
    }

    fn start_backend(&mut self, backend: Backend, entry: &Entry) -> Result<()> {
        let port = free_port()?;
        let own = self.folder.path().join(entry.name);
        let process = launch(&self.options, entry, self, &own, [port, port], self.cores.load)?;
        await_backend(port)
            .with_context(|| format!("backend {} does not answer: {}", entry.name, self.last_line(&own)))?;
        self.backends.push(Behind { backend, port, _process: process });
        Ok(())
    }

    pub(super) fn cores(&self) -> Cores {
        self.cores
    }

    /// The file of names to ask for.
    pub(super) fn names(&self) -> PathBuf {
        self.folder.path().join("names")
    }

    /// Starts each before each backend that it is measured before, and asks it; those that fail are left out, with
    /// the reason.
    ///
    /// # Errors
    /// No free port.
    pub(super) fn start_all(&self, entries: &[&'static Entry]) -> Result<(Vec<Peer>, LeftOut)> {
        let (mut peers, mut left_out) = (Vec::new(), LeftOut::new());
        for behind in &self.backends {
            for entry in entries.iter().filter(|entry| entry.has(behind.backend)) {
                let port = free_port()?;
                match self.start(entry, behind, port) {
                    Ok(peer) => peers.push(peer),
                    Err(why) => left_out.push((entry.name, format!("{why:#}"))),
                }
            }
        }
        left_out.dedup();
        Ok((peers, left_out))
    }

    fn start(&self, entry: &'static Entry, behind: &Behind, port: u16) -> Result<Peer> {
        let own = self.folder.path().join(format!("{}-{}", entry.name, behind.port));
        let process = launch(&self.options, entry, self, &own, [port, behind.port], self.cores.front)?;
        let address = SocketAddr::from((LOOPBACK, port));
        let end = Instant::now() + READY;
        loop {
            // Whether it runs is asked first: another's answer on its port would not count.
            let ended = process.ended();
            match idle::ask_once(address, entry.is_answering) {
                Ok(()) if ended.is_none() => break,
                _ if ended.is_some() => bail!("it ended at once: {}", self.last_line(&own)),
                Err(why) if Instant::now() > end => {
                    return Err(why.context(format!("it says: {}", self.last_line(&own))));
                }
                _ => thread::sleep(LOOK),
            }
        }
        let version = version(&program(&self.options, entry)?, entry.version);
        Ok(Peer { entry, backend: behind.backend, version, address, process })
    }

    /// The last that a program said, from its own folder.
    fn last_line(&self, own: &Path) -> String {
        let log = fs::read(own.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        // After a panic Rust adds a note on how to learn more.
        let is_telling = |line: &&str| !line.trim().is_empty() && !line.starts_with("note: ");
        let line = log.lines().rfind(is_telling).unwrap_or("nothing").trim();
        // Names of our folder tell nobody anything.
        line.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

fn await_backend(port: u16) -> Result<()> {
    let socket = UdpSocket::bind((LOOPBACK, 0))?;
    socket.set_read_timeout(Some(LOOK))?;
    socket.connect((LOOPBACK, port))?;
    let end = Instant::now() + READY;
    let mut response = [0; 512];
    while Instant::now() < end {
        // A port that is closed yet refuses the send.
        let _ = socket.send(b"\0\x07\0\0\0\x01\0\0\0\0\0\0\x04dotd\x04test\0\0\x01\0\x01");
        if socket.recv(&mut response).is_ok_and(|octets| octets > 12) {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
    bail!("nothing within {READY:?}")
}

/// Fills the template and starts the program. Ports: its own and the backend's.
fn launch(
    options: &Options,
    entry: &Entry,
    stage: &Stage,
    own: &Path,
    [port, backend_port]: [u16; 2],
    core: usize,
) -> Result<Process> {
    let program = program(options, entry)?;
    let folder = stage.folder.path();
    fs::create_dir_all(own)?;
    let config = own.join("config");
    let path = |path: &Path| path.display().to_string();
    let values = [
        ("PORT", port.to_string()),
        ("SPARE_PORT", free_port()?.to_string()),
        ("BACKEND_PORT", backend_port.to_string()),
        ("CERT", path(&folder.join("cert.pem"))),
        ("KEY", path(&folder.join("key.pem"))),
        ("PEM", path(&folder.join("both.pem"))),
        ("ZONE", path(&folder.join("zone"))),
        ("DIR", path(own)),
        ("CONFIG", path(&config)),
        ("TRANSPORT", entry.transport.to_owned()),
    ];
    fs::write(&config, fill(entry.config, &values))?;
    let arguments: Vec<String> = entry.arguments.iter().map(|argument| fill(argument, &values)).collect();
    Process::start(&stage.keeper, core, &program, &arguments, &own.join("log"))
}

/// Puts values in the place of their names between at signs.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
}

fn program(options: &Options, entry: &Entry) -> Result<PathBuf> {
    let built = |path: &Path, build: &str| {
        path.canonicalize().with_context(|| format!("no {}: build it with `{build}`", path.display()))
    };
    match entry.program {
        Program::Dotd => built(&options.dotd, "cargo xtask build --release"),
        Program::Floor => built(&options.floor, "cargo build --release -p dot-benches --bin floor"),
        Program::Responder => {
            built(&options.responder, "cargo build --release -p dot-benches --bin responder")
        }
        Program::Installed(name) => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let administrators = ["/usr/sbin", "/sbin"].map(PathBuf::from);
            let mut found =
                std::env::split_paths(&path).chain(administrators).map(|folder| folder.join(name));
            found.find(|file| file.is_file()).ok_or_else(|| anyhow!("{name} is not installed"))
        }
    }
}

/// The first line with a number in it that the program prints about itself.
fn version(program: &Path, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else { return String::new() };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    version_line(&text)
}

fn version_line(text: &str) -> String {
    let is_version = |word: &&str| {
        word.contains('.') && word.trim_start_matches(['v', '(']).starts_with(|c: char| c.is_ascii_digit())
    };
    let words = text.lines().flat_map(|line| line.split([' ', '/', ','])).find(is_version);
    words.unwrap_or_default().trim_matches(['(', ')', 'v', ',']).to_owned()
}

/// A port that is free for TCP and UDP now.
fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let tcp = TcpListener::bind((LOOPBACK, 0))?;
        let port = tcp.local_addr()?.port();
        if UdpSocket::bind((LOOPBACK, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of 127.0.0.1 is free")
}

fn zone() -> String {
    let mut zone = "$ORIGIN dotd.test.\n$TTL 3600\n@ SOA ns hostmaster 1 7200 3600 1209600 3600\n@ NS ns\n\
                    @ A 192.0.2.53\nns A 192.0.2.53\n"
        .to_owned();
    for host in 0..HOSTS {
        // Writing to a string cannot fail.
        let _ = writeln!(zone, "host-{host} A 198.51.100.{}", host % 256);
    }
    zone
}

fn names() -> String {
    (0..HOSTS).map(|host| format!("host-{host}.dotd.test A\n")).collect()
}

/// A thousand connections need more files than a shell allows by default; peers inherit the limit.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Refused: a peer that runs out of files says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::catalog::CATALOG;

    /// Goal: no name is left unfilled in any template or argument. Method: fill all of them, look for `@NAME@`.
    #[test]
    fn every_template_is_filled() {
        let values = [
            "PORT",
            "SPARE_PORT",
            "BACKEND_PORT",
            "CERT",
            "KEY",
            "PEM",
            "ZONE",
            "DIR",
            "CONFIG",
            "TRANSPORT",
        ]
        .map(|name| (name, "x".to_owned()));
        for entry in CATALOG.iter().chain(BACKENDS.iter().map(|(_, entry)| entry)) {
            for template in entry.arguments.iter().chain([&entry.config]) {
                let filled = fill(template, &values);
                let left = filled.split('@').skip(1).find(|word| {
                    word.chars().all(|c| c.is_ascii_uppercase() || c == '_') && !word.is_empty()
                });
                assert_eq!(left, None, "{}: {filled}", entry.name);
            }
        }
        assert_eq!(fill("127.0.0.1@@PORT@", &[("PORT", "53".to_owned())]), "127.0.0.1@53");
    }

    /// Goal: each peer's way of telling its version is understood. Method: what they print.
    #[test]
    fn finds_versions() {
        for (text, version) in [
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17\n", "2.6.12-1+deb12u4"),
            ("dnsdist 1.7.3 (Lua 5.1.4 [LuaJIT])\n", "1.7.3"),
            ("Initializing inetd mode configuration\nstunnel 5.68 on x86_64-pc-linux-gnu platform\n", "5.68"),
            ("Knot Resolver, version 5.6.0\n", "5.6.0"),
            ("dotd 0.1.0\n", "0.1.0"),
            ("nothing", ""),
        ] {
            assert_eq!(version_line(text), version);
        }
    }
}

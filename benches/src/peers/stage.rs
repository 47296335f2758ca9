//! The setup that all peers share: one certificate, one zone, two backends, one client; and the start of each.
//!
//! Before: the catalogue. After: running peers, each of which has given a right answer.
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
    process::{Keeper, Process},
};

/// Names in the zone beside its apex: `host-0` and so on.
const HOSTS: u32 = 1000;
/// The time after which a program counts as failed.
const READY: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(50);
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Where our own programs are.
#[derive(Clone, Debug, clap::Args)]
pub struct Programs {
    /// The dotd to measure; the last one counts
    #[arg(long, default_value = "target/release/dotd", overrides_with = "dotd")]
    pub dotd: PathBuf,
    /// The floor to measure
    #[arg(long, default_value = "target/release/floor")]
    pub floor: PathBuf,
    /// The backend that answers many queries in one write
    #[arg(long, default_value = "target/release/responder")]
    pub responder: PathBuf,
}

/// The common ground.
pub(crate) struct Stage {
    programs: Programs,
    /// Front ends listen here.
    address: Ipv4Addr,
    cores: Cores,
    keeper: Keeper,
    /// A program may take so long to answer.
    ready: Duration,
    // Declared before the folder, so that programs end before it is removed.
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
pub(crate) struct Peer {
    pub(crate) entry: &'static Entry,
    /// Its backend.
    pub(crate) backend: Backend,
    pub(crate) version: String,
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
}

/// Names of peers that could not be started, and why.
pub(crate) type LeftOut = Vec<(&'static str, String)>;

impl Stage {
    /// Makes the certificate and the zone, and starts these backends on 127.0.0.1.
    ///
    /// # Errors
    /// No folder, no free port, or no backend.
    pub(crate) fn build(
        programs: &Programs,
        backends: &[Backend],
        address: Ipv4Addr,
        cores: Cores,
        keeper: &Keeper,
    ) -> Result<Self> {
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
        let mut stage = Self {
            programs: programs.clone(),
            address,
            cores,
            keeper: keeper.clone(),
            ready: READY,
            backends: Vec::new(),
            folder,
        };
        for (backend, entry) in BACKENDS.iter().filter(|(backend, _)| backends.contains(backend)) {
            stage.start_backend(*backend, entry, free_port()?)?;
        }
        Ok(stage)
    }

    /// Starts one more backend, at this port of 127.0.0.1.
    ///
    /// # Errors
    /// It does not start, or does not answer.
    pub(crate) fn add_backend(&mut self, backend: Backend, port: u16) -> Result<()> {
        let found = BACKENDS.iter().find(|(one, _)| *one == backend);
        let (_, entry) = found.context("every backend has an entry")?;
        self.start_backend(backend, entry, port)
    }

    fn start_backend(&mut self, backend: Backend, entry: &Entry, port: u16) -> Result<()> {
        let own = self.folder.path().join(entry.name);
        let process = self.launch(entry, &own, [port, port], &[self.cores.load], &[])?;
        await_backend(port)
            .with_context(|| format!("backend {} does not answer: {}", entry.name, self.last_line(&own)))?;
        self.backends.push(Behind { backend, port, _process: process });
        Ok(())
    }

    /// Programs that start from now on may take longer to answer than usual.
    pub(crate) fn wait_up_to(&mut self, ready: Duration) {
        self.ready = ready;
    }

    pub(crate) fn cores(&self) -> Cores {
        self.cores
    }

    /// The folder of all that is written.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file of names to ask for.
    pub(crate) fn names(&self) -> PathBuf {
        self.folder.path().join("names")
    }

    /// Starts each peer with each of its backends, and asks it; those that fail are left out, with the reason.
    pub(crate) fn start_all(&self, entries: &[&'static Entry]) -> (Vec<Peer>, LeftOut) {
        let (mut peers, mut left_out) = (Vec::new(), LeftOut::new());
        for backend in self.backends.iter().map(|behind| behind.backend) {
            for entry in entries.iter().filter(|entry| entry.has(backend)) {
                match self.start(entry, backend, &[self.cores.front], &[]) {
                    Ok(peer) => peers.push(peer),
                    Err(why) => left_out.push((entry.name, format!("{why:#}"))),
                }
            }
        }
        left_out.dedup();
        (peers, left_out)
    }

    /// Starts one on these cores, with more values for its template, and asks it.
    ///
    /// # Errors
    /// It does not start, or gives no right answer.
    pub(crate) fn start(
        &self,
        entry: &'static Entry,
        backend: Backend,
        cores: &[usize],
        more: &[(&str, String)],
    ) -> Result<Peer> {
        let behind = self.backends.iter().find(|behind| behind.backend == backend);
        let backend_port = behind.map(|behind| behind.port).context("its backend was not started")?;
        let port = free_port()?;
        let own = self.folder.path().join(format!("{}-{port}", entry.name));
        let process = self.launch(entry, &own, [port, backend_port], cores, more)?;
        let address = SocketAddr::from((self.address, port));
        let end = Instant::now() + self.ready;
        loop {
            // First checks that it runs: an answer of another program on its port must not count.
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
        let version = version(&program(&self.programs, entry)?, entry.version);
        Ok(Peer { entry, backend, version, address, process })
    }

    /// Fills the template and starts the program. Ports: its own and the backend's.
    fn launch(
        &self,
        entry: &Entry,
        own: &Path,
        [port, backend_port]: [u16; 2],
        cores: &[usize],
        more: &[(&str, String)],
    ) -> Result<Process> {
        let program = program(&self.programs, entry)?;
        let folder = self.folder.path();
        fs::create_dir_all(own)?;
        let config = own.join("config");
        let path = |path: &Path| path.display().to_string();
        let values = [
            ("ADDRESS", self.address.to_string()),
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
        let fill = |template: &str| fill(&fill(template, &values), more);
        fs::write(&config, fill(entry.config))?;
        let arguments: Vec<String> = entry.arguments.iter().map(|argument| fill(argument)).collect();
        Process::start(&self.keeper, cores, &program, &arguments, &own.join("log"))
    }

    /// The last output of a program, from its own folder.
    fn last_line(&self, own: &Path) -> String {
        let log = fs::read(own.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        // After a panic Rust adds a note on how to learn more.
        let is_telling = |line: &&str| !line.trim().is_empty() && !line.starts_with("note: ");
        let line = log.lines().rfind(is_telling).unwrap_or("nothing").trim();
        // Names of our own folder would say nothing to a reader of the report.
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

/// Puts values in the place of their names between at signs.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
}

fn program(programs: &Programs, entry: &Entry) -> Result<PathBuf> {
    let built = |path: &Path, build: &str| {
        path.canonicalize().with_context(|| format!("no {}: build it with `{build}`", path.display()))
    };
    match entry.program {
        Program::Dotd => built(&programs.dotd, "cargo xtask build --release"),
        Program::Floor => built(&programs.floor, "cargo build --release -p dot-benches --bin floor"),
        Program::Responder => {
            built(&programs.responder, "cargo build --release -p dot-benches --bin responder")
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
            "ADDRESS",
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

//! Two network namespaces joined by a veth pair, each owned by a thread of the test.
//!
//! Before: `require!` found root. After: servers start in one, clients in the other.
//! Holds: namespaces without a name. The kernel removes them, with the veth pair, the bpffs and every pin in it, as
//! soon as their thread and the processes started in it are gone, also when the test is killed.
//! Never: changes the namespaces of a thread that it did not start; needs any clean-up.
//!
//! `ip netns` would give names that outlive a killed test, and one bpffs for all tests at once.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
};

use nix::{
    mount::{MsFlags, mount},
    sched::CloneFlags,
    unistd::gettid,
};

use super::mounts::{self, NOTHING};

/// The server's end of the veth pair, in the server's namespace.
pub const SERVER_INTERFACE: &str = "server";
/// The client's end, in the client's namespace.
pub const CLIENT_INTERFACE: &str = "client";
/// The server's IPv4 address.
pub const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 53, 0, 1));
/// The client's IPv4 address.
pub const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 53, 0, 2));
/// The server's IPv6 address.
pub const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd53, 0, 0, 0, 0, 0, 0, 1));
/// The client's IPv6 address.
pub const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd53, 0, 0, 0, 0, 0, 0, 2));

/// Parses an address.
///
/// # Panics
/// When the text is no address.
#[must_use]
pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

type Job = Box<dyn FnOnce() + Send>;

/// One network and mount namespace, and the thread that runs in it.
#[derive(Debug)]
pub struct Namespace {
    path: String,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// A new network namespace with lo up, and a /sys that shows it; with bpffs at /sys/fs/bpf if `bpffs` is set.
    ///
    /// # Panics
    /// Without the right to do so; `require!(root)` first.
    #[must_use]
    pub fn new(has_bpffs: bool) -> Self {
        let (jobs, work) = channel::<Job>();
        let (tell, told) = channel();
        let thread = thread::spawn(move || {
            let entered = enter(has_bpffs);
            let is_ready = entered.is_ok();
            tell.send(entered).expect("the namespace's maker waits");
            while is_ready && let Ok(job) = work.recv() {
                job();
            }
        });
        let path = told.recv().expect("the thread says how it went").expect("a namespace of our own");
        let namespace = Self { path, jobs: Some(jobs), thread: Some(thread) };
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs a closure in the namespace, one at a time. A socket that is made there stays in the namespace.
    ///
    /// # Panics
    /// With the closure's panic.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        let job: Job = Box::new(move || {
            let _ = tell.send(catch_unwind(AssertUnwindSafe(work)));
        });
        self.jobs.as_ref().expect("taken only by drop").send(job).expect("the thread lives as long as we");
        told.recv().expect("the thread answers").unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Starts a program in the namespace.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(&self, mut command: Command) -> Child {
        self.run(move || command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Runs a program in the namespace to its end, and returns its output.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn output(&self, mut command: Command) -> Output {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.spawn(command).wait_with_output().expect("our own child")
    }

    /// Runs `ip` with these arguments.
    ///
    /// # Panics
    /// When `ip` fails; the message has its output.
    pub fn ip(&self, words: &str) -> String {
        let mut command = Command::new("ip");
        command.args(words.split_whitespace()).stdin(Stdio::null());
        let output = self.output(command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "ip {words}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Makes a veth pair from here to another namespace, both ends up, with an address at each end ("" for none).
    ///
    /// # Panics
    /// When one of the ends exists.
    pub fn join(&self, other: &Self, [here, there]: [&str; 2], addresses: [&str; 2]) {
        self.ip(&format!("link add {here} type veth peer name {there} netns {}", other.path));
        for (namespace, name, address) in [(self, here, addresses[0]), (other, there, addresses[1])] {
            if !address.is_empty() {
                namespace.ip(&format!("address add {address} dev {name}"));
            }
            namespace.ip(&format!("link set {name} up"));
        }
    }

    /// Makes the kernel buffer almost nothing of what programs in the namespace send by TCP, so that a test sees octet
    /// by octet what their peers accept, whatever the host's limits are.
    ///
    /// # Panics
    /// Without the right to do so.
    pub fn hold_little(&self) {
        self.run(|| fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 4096 4096")).expect("root may");
    }

    /// Reads a file as the namespace sees it.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        let path = path.to_owned();
        self.run(move || fs::exists(path).unwrap_or(false))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The two namespaces of a test.
#[derive(Debug)]
pub struct Network {
    /// Where dotd and its backends run.
    pub server: Namespace,
    /// Where clients run.
    pub client: Namespace,
}

impl Network {
    /// Makes both namespaces and the pair, up and with addresses, and a bpffs for the server.
    #[must_use]
    pub fn new() -> Self {
        Self::build(true)
    }

    /// The same on a machine that has no bpffs mounted.
    #[must_use]
    pub fn without_bpffs() -> Self {
        Self::build(false)
    }

    fn build(has_bpffs: bool) -> Self {
        let server = Namespace::new(has_bpffs);
        let client = Namespace::new(false);
        let network = Self { server, client };
        network.make_pair();
        network
    }

    /// Makes the pair with its addresses, also again after a test has deleted it.
    ///
    /// # Panics
    /// When the pair exists.
    pub fn make_pair(&self) {
        let Self { server, client } = self;
        let pair = format!(
            "link add {SERVER_INTERFACE} type veth peer name {CLIENT_INTERFACE} netns {}",
            client.path
        );
        server.ip(&pair);
        let ends = [
            (server, SERVER_INTERFACE, SERVER_V4, SERVER_V6),
            (client, CLIENT_INTERFACE, CLIENT_V4, CLIENT_V6),
        ];
        for (namespace, interface, v4, v6) in ends {
            namespace.ip(&format!("address add {v4}/24 dev {interface}"));
            namespace.ip(&format!("address add {v6}/64 dev {interface} nodad"));
            namespace.ip(&format!("link set {interface} up"));
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

/// Moves the calling thread into namespaces of its own, and returns the path of its network namespace.
fn enter(has_bpffs: bool) -> nix::Result<String> {
    mounts::separate(CloneFlags::CLONE_NEWNET)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), NOTHING)?;
    if has_bpffs {
        mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), NOTHING)?;
    }
    Ok(format!("/proc/{}/task/{}/ns/net", std::process::id(), gettid()))
}

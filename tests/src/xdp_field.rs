//! Interfaces to attach to, in network and mount namespaces that belong to one thread and end with it.
//!
//! Before: a test needs real interfaces. After: `lo`, and a veth pair `here` and `there`; [`beside`] puts the other end
//! into a namespace of its own.
//! Never: touches an interface, mount or pin of the machine; leaves anything, also after a panic.

use std::{
    fs::{self, File, OpenOptions},
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd as _},
    path::PathBuf,
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{Xdp as XdpProgram, xdp::XdpMode},
};
use dot_common::maps::PROGRAM_XDP;
use dot_userspace::{
    config::Xdp as Config,
    xdp::{ListenerGroup, Xdp, XdpError, object::OBJECT, start},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::gettid,
};
use socket2::{Domain, Socket, Type};

use crate::harness::mounts;

/// Attaches a program that passes everything, natively, to an interface of this thread's namespace: a veth loses what
/// XDP sends unless its other end has a program. The program is detached when the returned value is dropped.
///
/// # Panics
/// Without the right to attach it.
#[must_use]
pub fn pass_everything(interface: &str) -> Ebpf {
    // Without settings no packet is for dotd.
    let mut object = EbpfLoader::new().load(OBJECT).expect("the object loads");
    let program: &mut XdpProgram = object.program_mut(PROGRAM_XDP).expect("ours").try_into().expect("XDP");
    program.load().expect("it passes the verifier");
    program.attach(interface, XdpMode::Driver).expect("a veth has a native mode");
    object
}

/// Runs `body` in new namespaces, with loopback up and a pair of veth interfaces `here` and `there`.
pub fn isolated(test: &str, body: fn()) {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED {test}: network namespaces need root");
        return;
    }
    // aya asks the kernel once for each process what it supports. That must happen before any thread gives up its
    // rights.
    let _ = aya::features();
    let run = move || {
        mounts::separate(CloneFlags::CLONE_NEWNET).expect("own namespaces");
        // A new BPF file system hides the machine's, if there is one.
        mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), mounts::NOTHING).expect("bpffs");
        ip("link set lo up");
        ip("link add here type veth peer name there");
        ip("address add 192.0.2.1/24 dev here");
        ip("link set here up");
        ip("link set there up");
        body();
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// The user of [`become_nobody`].
pub const NOBODY: u32 = 65_534;

/// Gives up every right of this thread alone: glibc's calls would change all threads.
///
/// # Panics
/// When the kernel refuses.
pub fn become_nobody() {
    // SAFETY: the system call takes three numbers and changes this thread alone.
    let changed = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
    assert_eq!(changed, 0, "setresuid");
}

/// Runs iproute2 in this thread's namespace.
///
/// # Panics
/// When it fails.
pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}

/// The end of a tun device at which packets are written; the device ends with this file. `None`: this kernel has no tun
/// devices.
///
/// # Panics
/// Without the right to make it.
#[must_use]
pub fn tun(name: &str) -> Option<File> {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const WITHOUT_ETHERNET: u16 = 0x0001 | 0x1000;
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").ok()?;
    // struct ifreq: sixteen octets of name, then the flags; the rest is for other requests.
    let mut request = [0u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&WITHOUT_ETHERNET.to_ne_bytes());
    // SAFETY: the request is as long as the kernel reads and writes, and outlives the call.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    assert_eq!(made, 0, "TUNSETIFF");
    Some(file)
}

/// Whether iproute2 succeeded in this thread's namespace: not every kernel has every kind of interface.
#[must_use]
pub fn try_ip(arguments: &str) -> bool {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    output.status.success()
}

/// The output of iproute2 in this thread's namespace.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn ip_says(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// That many listeners of one address, as workers have them.
#[must_use]
pub fn listeners(address: &str, workers: usize) -> Vec<TcpListener> {
    let address: SocketAddr = address.parse().unwrap();
    (0..workers)
        .map(|_| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(1024).unwrap();
            socket.into()
        })
        .collect()
}

/// Runs `body` in another network namespace, into which interface `name` is moved with these addresses; then the
/// interface is moved back. After a panic it ends with its namespace.
pub fn beside<T: Send>(name: &str, addresses: &[&str], body: impl FnOnce() -> T + Send) -> T {
    let (tell, hear) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let home = gettid();
    thread::scope(|scope| {
        let other = scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("own namespace");
            tell.send(gettid()).expect("the test waits");
            wait.recv().expect("the interface comes");
            ip("link set lo up");
            for address in addresses {
                ip(&format!(
                    "address add {address} dev {name}{}",
                    if address.contains(':') { " nodad" } else { "" }
                ));
            }
            ip(&format!("link set {name} up"));
            let outcome = body();
            ip(&format!("link set {name} netns {home}"));
            outcome
        });
        ip(&format!("link set {name} netns {}", hear.recv().expect("the thread starts")));
        go.send(()).expect("the thread waits");
        match other.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Starts the kernel half for these listeners of one address.
///
/// # Panics
/// When the config requires something that is not available.
#[must_use]
pub fn begin(config: &Config, listeners: &[TcpListener]) -> Xdp {
    try_begin(config, listeners).expect("XDP starts, or says in its report why not")
}

/// The same, where it may fail.
///
/// # Errors
/// The config requires something that is not available.
///
/// # Panics
/// Without listeners.
pub fn try_begin(config: &Config, listeners: &[TcpListener]) -> Result<Xdp, XdpError> {
    let address = listeners[0].local_addr().unwrap();
    let group = ListenerGroup { address, sockets: listeners.iter().map(AsFd::as_fd).collect() };
    start(config, &[group])
}

/// How often this verdict was counted.
///
/// # Panics
/// When there is no such verdict.
#[must_use]
pub fn count(xdp: &Xdp, verdict: &str, reason: &str) -> u64 {
    let rows = xdp.packets();
    rows.iter().find(|row| row.verdict == verdict && row.reason == reason).expect("a lawful verdict").count
}

/// All files and folders of dotd in the BPF file system, sorted.
///
/// # Panics
/// When they cannot be listed.
#[must_use]
pub fn pins() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/bpf")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    // The file system has two files of its own.
    found.retain(|path| path.starts_with("/sys/fs/bpf/dotd"));
    found.sort();
    found
}

/// Waits until an interface has no XDP program: the kernel removes an unpinned link a little later.
///
/// # Panics
/// When it keeps one.
pub fn until_free(name: &str) {
    for _ in 0..500 {
        if !programs_on(name).contains("xdp") {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{name} still has XDP: {}", programs_on(name));
}

/// The output of iproute2 about an interface.
///
/// # Panics
/// Without iproute2.
#[must_use]
pub fn programs_on(name: &str) -> String {
    ip_says(&format!("-details link show {name}"))
}

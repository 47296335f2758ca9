//! What this machine has; only reads, never changes anything.
//!
//! Before: nothing. After: `plan::decide` has all facts that it needs.
//! Holds: the test tools and the packages they come in.
//! Never: uses the network or a package manager: the check takes milliseconds.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use super::plan::LINKER_LLVMS;
use crate::bpf_object::{self, Missing, Toolchain};

/// A program that tests or the linter call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tool {
    /// Its name on PATH.
    pub(crate) command: &'static str,
    /// The packages that contain it; the first one that apt knows is used: Debian's name, then Ubuntu's where it
    /// differs.
    pub(crate) packages: &'static [&'static str],
    /// The reason why it is needed.
    pub(crate) purpose: &'static str,
}

/// What `--tests` adds.
pub(crate) const TOOLS: &[Tool] = &[
    Tool { command: "kdig", packages: &["knot-dnsutils"], purpose: "DoT client with pin checks" },
    Tool { command: "dig", packages: &["bind9-dnsutils", "dnsutils"], purpose: "cleartext and DoT client" },
    Tool { command: "delv", packages: &["bind9-dnsutils", "dnsutils"], purpose: "validating client" },
    Tool {
        command: "dnssec-signzone",
        packages: &["bind9-utils", "bind9utils"],
        purpose: "signs the zone of a test",
    },
    Tool {
        command: "dnssec-keygen",
        packages: &["bind9-utils", "bind9utils"],
        purpose: "makes the keys of a signed zone",
    },
    Tool {
        command: "named-checkconf",
        packages: &["bind9-utils", "bind9utils"],
        purpose: "says whether this BIND reads PROXY headers",
    },
    Tool { command: "getdns_query", packages: &["getdns-utils"], purpose: "DoT client, strict profile" },
    Tool { command: "dnsperf", packages: &["dnsperf"], purpose: "DoT under load" },
    Tool { command: "iodine", packages: &["iodine"], purpose: "a tunnel through DNS" },
    Tool { command: "iodined", packages: &["iodine"], purpose: "the other end of a tunnel through DNS" },
    Tool { command: "ping", packages: &["iputils-ping"], purpose: "traffic for a tunnel" },
    Tool { command: "openssl", packages: &["openssl"], purpose: "TLS client, certificates" },
    Tool { command: "nsd", packages: &["nsd"], purpose: "backend: authoritative server" },
    Tool { command: "unbound", packages: &["unbound"], purpose: "backend: resolver" },
    Tool { command: "named", packages: &["bind9"], purpose: "backend: BIND" },
    Tool { command: "dnsmasq", packages: &["dnsmasq-base"], purpose: "backend that answers in order" },
    Tool { command: "knotd", packages: &["knot"], purpose: "backend: Knot DNS" },
    Tool { command: "kresd", packages: &["knot-resolver"], purpose: "backend that reads PROXY headers" },
    Tool { command: "prometheus", packages: &["prometheus"], purpose: "scrapes dotd" },
    Tool { command: "promtool", packages: &["prometheus"], purpose: "reads the alert rules" },
    Tool { command: "chromium", packages: &["chromium", "chromium-browser"], purpose: "shows the page" },
    Tool { command: "fstrm_capture", packages: &["fstrm-bin"], purpose: "reads dnstap from a socket" },
    Tool { command: "dnstap-read", packages: &["bind9-dnsutils", "dnsutils"], purpose: "shows dnstap" },
    Tool { command: "dnstap-ldns", packages: &["dnstap-ldns"], purpose: "shows dnstap, by other code" },
    Tool { command: "dnsdist", packages: &["dnsdist"], purpose: "backend that reads PROXY headers" },
    Tool {
        command: "pdns_recursor",
        packages: &["pdns-recursor"],
        purpose: "backend that reads PROXY headers",
    },
    Tool {
        // This package contains the server, which has no zones without it.
        command: "pdns_server",
        packages: &["pdns-backend-bind"],
        purpose: "backend that reads PROXY headers",
    },
    Tool { command: "haproxy", packages: &["haproxy"], purpose: "load balancer that sends PROXY headers" },
    Tool {
        command: "kea-dhcp4",
        packages: &["kea-dhcp4-server"],
        purpose: "reads a DHCP option of RFC 9463",
    },
    Tool { command: "kea-dhcp6", packages: &["kea-dhcp6-server"], purpose: "the same for IPv6" },
    Tool { command: "radvd", packages: &["radvd"], purpose: "reads a line of `dotd discovery`" },
    Tool { command: "unbound-checkconf", packages: &["unbound"], purpose: "reads a config for Unbound" },
    Tool { command: "stubby", packages: &["stubby"], purpose: "DoT client, by a pin" },
    Tool {
        command: "plistutil",
        packages: &["libplist-utils"],
        purpose: "reads a profile for iOS and macOS",
    },
    Tool { command: "pebble", packages: &["pebble"], purpose: "authority that speaks ACME" },
    Tool { command: "pebble-challtestsrv", packages: &["pebble"], purpose: "names for pebble" },
    Tool { command: "c++", packages: &["g++"], purpose: "fuzzing: libFuzzer is C++" },
    Tool { command: "ethtool", packages: &["ethtool"], purpose: "settings of the test interfaces" },
    Tool { command: "ip", packages: &["iproute2"], purpose: "test networks" },
    Tool { command: "nft", packages: &["nftables"], purpose: "a packet filter beside dotd" },
    Tool { command: "ss", packages: &["iproute2"], purpose: "options of a connection" },
    Tool { command: "tc", packages: &["iproute2"], purpose: "slow test networks" },
    Tool { command: "setpriv", packages: &["util-linux"], purpose: "programs that end with their test" },
    Tool { command: "prlimit", packages: &["util-linux"], purpose: "a process with few descriptors" },
    Tool { command: "taskset", packages: &["util-linux"], purpose: "a client on one CPU" },
    Tool { command: "bash", packages: &["bash"], purpose: "leaves descriptors open to what it starts" },
    Tool { command: "bpftool", packages: &["bpftool", "linux-tools-common"], purpose: "looks at programs" },
    Tool {
        command: "busybox",
        packages: &["busybox-static"],
        purpose: "reads the archives of `test-kernels`",
    },
    Tool { command: "systemctl", packages: &["systemd"], purpose: "says whether the unit restarts" },
    Tool { command: "systemd-analyze", packages: &["systemd"], purpose: "reads the unit as systemd does" },
    Tool { command: "strace", packages: &["strace"], purpose: "counts system calls, has some fail" },
    Tool { command: "certbot", packages: &["certbot"], purpose: "gets certificates by ACME" },
    Tool { command: "faketime", packages: &["faketime"], purpose: "a clock that jumps, for one process" },
];

/// What `--kernels` adds.
const KERNEL_TOOLS: &[Tool] = &[
    Tool { command: "qemu-system-x86_64", packages: &["qemu-system-x86"], purpose: "boots older kernels" },
    Tool { command: "busybox", packages: &["busybox-static"], purpose: "first process of a booted kernel" },
    Tool {
        command: "strip",
        packages: &["binutils"],
        purpose: "makes the programs for a booted kernel small",
    },
    Tool { command: "xz", packages: &["xz-utils"], purpose: "unpacks kernel modules" },
    Tool { command: "ip", packages: &["iproute2"], purpose: "cables between the cards of a booted kernel" },
    Tool { command: "unshare", packages: &["util-linux"], purpose: "the network namespace of these" },
];

/// What `--fresh` adds.
const FRESH_TOOLS: &[Tool] = &[
    Tool {
        command: "debootstrap",
        packages: &["debootstrap"],
        purpose: "makes a fresh Debian (test --fresh)",
    },
    Tool { command: "unshare", packages: &["util-linux"], purpose: "namespaces of the fresh Debian" },
    Tool { command: "git", packages: &["git"], purpose: "clones this repository into it" },
];

/// What `--benches` adds.
const BENCH_TOOLS: &[Tool] =
    &[Tool { command: "valgrind", packages: &["valgrind"], purpose: "counts instructions (bench micro)" }];

/// The tools that are wanted beside those of the build.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wants {
    /// What the tests and the linter use.
    pub(crate) tests: bool,
    /// What `bench micro` uses.
    pub(crate) benches: bool,
    /// What `test-kernels` uses.
    pub(crate) kernels: bool,
    /// What `test --fresh` uses.
    pub(crate) fresh: bool,
}

/// The facts about this machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) is_root: bool,
    pub(crate) has_sudo: bool,
    pub(crate) has_apt: bool,
    pub(crate) has_rustup: bool,
    pub(crate) has_c_compiler: bool,
    pub(crate) has_cxx_compiler: bool,
    /// Development files of these LLVMs are installed.
    pub(crate) llvms: Vec<u32>,
    /// The toolchain for the build, or the missing parts of each way.
    pub(crate) toolchain: Result<Toolchain, Missing>,
    /// LLVM of a rustup nightly, and whether `rust-src` is with it.
    pub(crate) nightly: Option<Nightly>,
    /// `/usr/bin/rustc` of Debian's rustc-web with its sources.
    pub(crate) has_debian_rustc: bool,
    /// The linker in the project's cache folder.
    pub(crate) has_linker: bool,
    /// A clippy for the compiler of way 2; asked for with the test tools only.
    pub(crate) lacks_clippy: bool,
    /// The program that runs instruction counts is not in the project's cache; asked for with the bench tools only.
    pub(crate) lacks_runner: bool,
    /// Empty unless tools were asked for.
    pub(crate) missing_tools: Vec<&'static Tool>,
}

/// A rustup nightly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nightly {
    /// Major version of its LLVM; bitcode is read by a linker of the same or a newer one.
    pub(crate) llvm: u32,
    /// The component `rust-src` is installed.
    pub(crate) has_sources: bool,
}

impl Machine {
    /// Collects the facts.
    pub(crate) fn look(wants: Wants) -> Self {
        let toolchain = bpf_object::find();
        let is_debian = toolchain.as_ref().is_ok_and(|found| found.rustc == Path::new("/usr/bin/rustc"));
        let tools = TOOLS.iter().filter(|_| wants.tests);
        let tools = tools.chain(BENCH_TOOLS.iter().filter(|_| wants.benches));
        let tools = tools.chain(KERNEL_TOOLS.iter().filter(|_| wants.kernels));
        let tools = tools.chain(FRESH_TOOLS.iter().filter(|_| wants.fresh));
        let missing = tools.filter(|tool| !is_command(tool.command)).collect();
        Self {
            is_root: is_root(),
            has_sudo: is_command("sudo"),
            has_apt: is_command("apt-get") && is_command("dpkg"),
            has_rustup: is_command("rustup"),
            has_c_compiler: is_command("cc"),
            has_cxx_compiler: is_command("c++"),
            llvms: LINKER_LLVMS
                .into_iter()
                .filter(|llvm| Path::new(&format!("/usr/lib/llvm-{llvm}/include/llvm-c")).is_dir())
                .collect(),
            // This starts two programs, so it is done only if the answer matters.
            nightly: if toolchain.is_err() { nightly() } else { None },
            has_debian_rustc: has_debian_rustc(),
            has_linker: super::cache_folder()
                .is_some_and(|cache| cache.join(bpf_object::LINKER_FOLDER).join("bpf-linker").is_file()),
            lacks_runner: wants.benches && super::runner::program().is_none_or(|program| !program.is_file()),
            lacks_clippy: wants.tests && is_debian && !Path::new("/usr/bin/cargo-clippy").is_file(),
            missing_tools: missing,
            toolchain,
        }
    }

    /// Whether everything that was asked for is present.
    pub(crate) fn is_complete(&self) -> bool {
        let has_tools = self.missing_tools.is_empty() && !self.lacks_clippy && !self.lacks_runner;
        self.has_c_compiler && self.toolchain.is_ok() && has_tools
    }

    /// The name of the toolchain, for messages.
    pub(crate) fn toolchain_name(&self) -> &str {
        self.toolchain.as_ref().map_or("no toolchain", |toolchain| toolchain.name)
    }

    /// The command with which an ordinary user becomes root here.
    pub(crate) fn root_hint(&self) -> &'static str {
        if self.has_sudo { "" } else { " as root" }
    }

    /// The last message when neither way worked.
    pub(crate) fn way_out(&self) -> &'static str {
        if self.has_rustup {
            "rustup toolchain install nightly --component rust-src, and put a bpf-linker on PATH \
             (https://github.com/aya-rs/bpf-linker)"
        } else {
            "install rustup (https://rustup.rs) or use Debian 12 or newer, and run setup again"
        }
    }
}

/// Whether a program is on PATH, or where Debian keeps those of administrators.
pub(crate) fn is_command(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let administrators = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(administrators).any(|folder| folder.join(name).is_file())
}

/// Effective user 0, from /proc: no C library needed.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    uids.split_whitespace().nth(1) == Some("0")
}

fn has_debian_rustc() -> bool {
    ["/usr/bin/rustc", "/usr/bin/cargo", "/usr/lib/rustlib/src/rust/library/core/Cargo.toml"]
        .iter()
        .all(|file| Path::new(file).is_file())
        && is_package("rustc-web")
}

/// Whether this Debian package is installed.
fn is_package(name: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", name]).output();
    query.is_ok_and(|query| query.stdout == b"installed")
}

fn nightly() -> Option<Nightly> {
    let rustc = |arguments: &[&str]| {
        let run = Command::new("rustup").args(["run", "nightly", "rustc"]).args(arguments).output().ok()?;
        run.status.success().then(|| String::from_utf8_lossy(&run.stdout).into_owned())
    };
    let sysroot = rustc(&["--print", "sysroot"])?;
    let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml");
    Some(Nightly { llvm: llvm_of(&rustc(&["-vV"])?)?, has_sources: sources.is_file() })
}

/// The major version in rustc's "LLVM version: 22.1.8".
pub(super) fn llvm_of(version: &str) -> Option<u32> {
    version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()?.parse().ok()
}

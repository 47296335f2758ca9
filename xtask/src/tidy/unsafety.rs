//! Rule: `unsafe` only in the files of this list, each with its reason; unfinished code nowhere.
//!
//! Before: a file's tokens. After: findings. Holds: the list.
//! Never: replaces `clippy::undocumented_unsafe_blocks`, which asks for the SAFETY comment.

use std::path::Path;

use super::{Finding, source::Source};

/// The files that may use `unsafe` and `libc`, with the reason why there is no safe way.
const FILES: &[(&str, &str)] = &[
    (
        "dot-common/src/pod.rs",
        "promises the loader that map types are plain octets; aya asks for `unsafe impl`",
    ),
    (
        "dot-ebpf/src/subprograms.rs",
        "gives functions the linkage that the verifier asks for (unsafe attributes)",
    ),
    ("dot-ebpf/src/tail_calls.rs", "leaves a value in a map for the program that it jumps to"),
    (
        "dot-ebpf/src/context.rs",
        "the one place that reads and writes frames and sockets, within checked bounds",
    ),
    ("dot-ebpf/src/datagram.rs", "has a kernel helper copy out of a packet"),
    ("dot-ebpf/src/ingress.rs", "reads the number of an interface out of the context"),
    ("dot-ebpf/src/cookie.rs", "asks kernel helpers for a route and a cookie"),
    ("dot-ebpf/src/main.rs", "names the licence's section for the kernel (an unsafe attribute)"),
    ("dot-ebpf/src/lists.rs", "looks values up in maps: a pointer of the kernel's"),
    ("dot-ebpf/src/maps.rs", "looks values up in maps: a pointer of the kernel's"),
    ("dot-ebpf/src/learn.rs", "asks a socket how much it received; reads and writes words of its map"),
    ("dot-ebpf/src/notice.rs", "reads and writes words of its own maps: pointers of the kernel's"),
    (
        "dot-ebpf/src/proxy.rs",
        "calls a function of the kernel and reads words of its own maps, of the context and of a socket",
    ),
    (
        "dot-ebpf/src/syn_ack.rs",
        "has kernel helpers copy out of a packet and put an Ethernet header before it",
    ),
    ("dot-ebpf/src/scratch.rs", "the memory of a packet in a map: a pointer of the kernel's"),
    ("dot-ebpf/src/ports.rs", "names constants for the loader (unsafe attributes)"),
    ("dot-ebpf/src/socket.rs", "asks a kernel helper for a socket, and releases it"),
    ("dot-ebpf/src/spread.rs", "names a constant for the loader (an unsafe attribute)"),
    ("dot-ebpf/src/trace.rs", "reads and writes words of its own maps: pointers of the kernel's"),
    ("dot-ebpf/src/steer.rs", "asks a kernel helper for the CPU and selects a socket"),
    (
        "dot-userspace/src/backend/udp/mmsg.rs",
        "sendmmsg and recvmmsg: no safe crate has both without allocating",
    ),
    ("dot-userspace/src/backend/udp/path_mtu.rs", "names options of IP sockets for nix; no unsafe"),
    ("dot-userspace/src/confine/acts.rs", "calls the kernel as an intruder would; debug builds alone"),
    ("dot-userspace/src/confine/calls.rs", "names system calls and their constants; no unsafe"),
    (
        "dot-userspace/src/confine/process.rs",
        "overwrites the environment and closes what others left open: no safe call may",
    ),
    ("dot-userspace/src/cli/query/fast_open.rs", "names TCP_INFO for nix; no unsafe"),
    (
        "dot-userspace/src/keeper/mod.rs",
        "fork and sigaction: the caller promises that no other thread is lost, and no handler runs",
    ),
    (
        "dot-userspace/src/keeper/inherit.rs",
        "owns descriptors that the program before left in this process: a list has numbers",
    ),
    ("dot-userspace/src/keeper/acme.rs", "blocks a signal between fork and exec: Command knows no mask"),
    ("dot-userspace/src/keeper/upgrade.rs", "owns the descriptor that accept4 made: nix gives a number"),
    (
        "dot-userspace/src/keeper/words.rs",
        "owns descriptors that the kernel received for us: nix gives numbers",
    ),
    ("dot-userspace/src/start/fast_open.rs", "names TCP_FASTOPEN for nix; no unsafe"),
    ("dot-userspace/src/tls/stream.rs", "names MSG_MORE for socket2; no unsafe"),
    (
        "dot-userspace/src/session/do53/batch.rs",
        "recvmmsg and sendmmsg with addresses: no safe crate has both without allocating",
    ),
    ("dot-userspace/src/session/freed.rs", "malloc_trim: no crate has it as a safe call"),
    ("dot-userspace/src/session/outq.rs", "SIOCOUTQ: neither nix nor socket2 has it as a safe call"),
    ("dot-userspace/src/xdp/attach.rs", "names kernel error numbers; no unsafe"),
    ("dot-userspace/src/xdp/folder.rs", "names SO_NETNS_COOKIE for nix; no unsafe"),
    ("dot-userspace/src/xdp/interfaces.rs", "names kernel link types; no unsafe"),
    ("dot-userspace/src/xdp/mapped.rs", "maps a BPF map into our memory: aya does not"),
    ("dot-userspace/src/xdp/worker_status.rs", "promises that its entries are words that any octets may be"),
    ("dot-userspace/src/xdp/pinned.rs", "opens, pins and detaches BPF objects of any kind: aya does not"),
    ("dot-userspace/src/xdp/ring.rs", "promises tokio that the ring keeps its descriptor"),
    ("dot-userspace/src/xdp/steering.rs", "SO_ATTACH_REUSEPORT_CBPF: socket2 and nix do not have it"),
    (
        "dot-userspace/src/worker/passage.rs",
        "owns descriptors that the kernel received for us: nix gives numbers",
    ),
    (
        "dot-userspace/tests/allocations.rs",
        "an allocator that counts: the trait is unsafe, System does the work",
    ),
    (
        "tests/src/xdp_field.rs",
        "setresuid for one thread alone, and TUNSETIFF: glibc and nix do not offer them",
    ),
];

/// Macros that say "not finished" or were left behind by a debugging session.
const UNFINISHED: &[&str] = &["todo", "unimplemented", "dbg"];

/// Checks one file.
pub(super) fn check(source: &Source<'_>) -> Vec<Finding> {
    let is_listed = FILES.iter().any(|(path, _)| *path == source.path);
    let mut findings = Vec::new();
    for (index, token) in source.tokens.iter().enumerate() {
        let next = source.text(Some(index + 1));
        let finding = match token.text.as_str() {
            "unsafe" if !is_listed => Some(
                "unsafe in a file that is not listed for it; find a safe way, or add the file with its reason \
                 to xtask/src/tidy/unsafety.rs"
                    .to_owned(),
            ),
            "libc" if !is_listed && next == ":" && !is_exempt_from_libc(source, token.line) => Some(
                "libc in a file that is not listed for unsafe; use nix, socket2 or rustix through the modules that own them"
                    .to_owned(),
            ),
            word if next == "!" && UNFINISHED.contains(&word) => Some(format!("{word}! is left; finish it")),
            _ => None,
        };
        findings.extend(finding.map(|what| Finding::new(source.path, token.line, what)));
    }
    findings
}

/// Tests may name libc's constants.
fn is_exempt_from_libc(source: &Source<'_>, line: usize) -> bool {
    source.path.starts_with("tests/") || source.path.starts_with("benches/") || source.is_test_line(line)
}

/// Listed files that are gone, or that no longer need to be listed.
pub(super) fn stale_entries(root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, _) in FILES {
        let text = std::fs::read_to_string(root.join(path)).unwrap_or_default();
        let is_needed = text.contains("unsafe") || text.contains("libc::");
        if !is_needed {
            let what = format!("{path} is listed for unsafe and holds none; take it off the list");
            findings.push(Finding::new("xtask/src/tidy/unsafety.rs", 1, what));
        }
    }
    findings
}

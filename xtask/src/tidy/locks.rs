//! Rule: no lock and no atomic read-modify-write on the query path; the files of this list may have some, because no
//! query enters them.
//!
//! Before: a file's tokens. After: findings. Holds: the folders whose code workers run, and the list with its reasons.
//! Never: looks into foreign crates; `dot-userspace/tests/allocations.rs` and the benches show their cost.

use std::path::Path;

use super::{Finding, source::Source};

/// The folders whose code workers run.
const FOLDERS: &[&str] = &[
    "dot-userspace/src/backend/",
    "dot-userspace/src/cache/",
    "dot-userspace/src/dns/",
    "dot-userspace/src/events/",
    "dot-userspace/src/ledger/",
    "dot-userspace/src/policy/",
    "dot-userspace/src/proxy/",
    "dot-userspace/src/session/",
    "dot-userspace/src/tls/",
    "dot-userspace/src/worker/",
];

/// The files that may have one, and when it is taken.
const FILES: &[(&str, &str)] = &[
    (
        "dot-userspace/src/backend/health.rs",
        "why a backend is down, taken by a health check; and a count, once for a message that matches no query",
    ),
    (
        "dot-userspace/src/backend/tls_memory.rs",
        "once for a connection to a backend over TLS, and when an operator or the control thread looks",
    ),
    ("dot-userspace/src/events/refusals.rs", "for events that found no room, at most ten times a second"),
    (
        "dot-userspace/src/events/trace.rs",
        "for an event of a trace that found no room, while an operator traces",
    ),
    (
        "dot-userspace/src/events/tap/sink.rs",
        "for messages that found no room on their way to a dnstap reader, and by the thread that writes to it",
    ),
    (
        "dot-userspace/src/ledger/traffic.rs",
        "when a worker begins with a backend, and when an operator looks",
    ),
    (
        "dot-userspace/src/policy/hits.rs",
        "once for a query or an answer that a rule is about, on cache lines of that worker",
    ),
    (
        "dot-userspace/src/session/rates.rs",
        "once for a message or a handshake, where session.queries_per_second or handshakes_per_second is set",
    ),
    ("dot-userspace/src/tls/sessions.rs", "once for a handshake in TLS 1.2"),
    ("dot-userspace/src/tls/tickets/shared_keys.rs", "once for a handshake"),
    ("dot-userspace/src/tls/tickets/process_keys.rs", "once for a handshake"),
    ("dot-userspace/src/worker/admission.rs", "once when a connection opens and once when it ends"),
    (
        "dot-userspace/src/worker/charges.rs",
        "for a charge that found no room in its channel: a handshake's or an end's",
    ),
];

/// Locks, and operations for which threads would compete for a cache line.
const WORDS: &[&str] = &[
    "Mutex",
    "RwLock",
    "Condvar",
    "fetch_add",
    "fetch_sub",
    "fetch_and",
    "fetch_or",
    "fetch_xor",
    "fetch_max",
    "fetch_min",
    "fetch_update",
    "compare_exchange",
    "compare_exchange_weak",
];

/// Checks one file.
pub(super) fn check(source: &Source<'_>) -> Vec<Finding> {
    let is_free = !FOLDERS.iter().any(|folder| source.path.starts_with(folder))
        || FILES.iter().any(|(path, _)| *path == source.path)
        || source.path.ends_with("tests.rs");
    if is_free {
        return Vec::new();
    }
    let found = source.tokens.iter().filter(|token| WORDS.contains(&token.text.as_str()));
    let found = found.filter(|token| !source.is_test_line(token.line));
    let finding = |word: &str, line| {
        let what = format!(
            "{word} where queries go; workers share nothing: use Cell, RefCell or a channel, or add the file with \
             when it is taken to xtask/src/tidy/locks.rs"
        );
        Finding::new(source.path, line, what)
    };
    found.map(|token| finding(&token.text, token.line)).collect()
}

/// Listed files that are gone, or that need no entry any more.
pub(super) fn stale_entries(root: &Path) -> Vec<Finding> {
    let is_stale = |path: &str| {
        let text = std::fs::read_to_string(root.join(path)).unwrap_or_default();
        !WORDS.iter().any(|word| text.contains(word))
    };
    let stale = FILES.iter().filter(|(path, _)| is_stale(path));
    let finding = |path: &str| {
        let what = format!("{path} is listed for locks and holds none; take it off the list");
        Finding::new("xtask/src/tidy/locks.rs", 1, what)
    };
    stale.map(|(path, _)| finding(path)).collect()
}

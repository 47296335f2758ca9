//! Rule: a foreign crate is named only in the folder that owns it.
//!
//! Before: a file's tokens. After: a finding for each name outside its folder.
//! Holds: the table of owners. tests/, fuzz/, benches/ and `#[cfg(test)]` code use the folders from outside with any
//! tool, and are exempt.
//! Never: reads Cargo.toml; a crate that is not in the table may be used anywhere.

use super::{Finding, source::Source};

/// A foreign crate, by its name in code, and the path prefixes that may name it.
struct Owner {
    name: &'static str,
    folders: &'static [&'static str],
}

const fn owner(name: &'static str, folders: &'static [&'static str]) -> Owner {
    Owner { name, folders }
}

const ACME: &str = "dot-userspace/src/acme";
const CONFIG: &str = "dot-userspace/src/config";
const CONFINE: &str = "dot-userspace/src/confine";
const CONTROL: &str = "dot-userspace/src/control";
const CLI: &str = "dot-userspace/src/cli";
const DIST: &str = "dist/src";
const DNS: &str = "dot-userspace/src/dns";
const EBPF: &str = "dot-ebpf/src";
const EFFECTIVE: &str = "dot-userspace/src/effective.rs";
const EMBEDDED: &str = "dot-userspace/src/backend/embedded";
const KEEPER: &str = "dot-userspace/src/keeper";
const START: &str = "dot-userspace/src/start";
const TIDY: &str = "xtask/src/tidy";
const TLS: &str = "dot-userspace/src/tls";
const XDP: &str = "dot-userspace/src/xdp";
const XTASK: &str = "xtask/src";

/// The owners. A prefix ends a path component, or is the beginning of a file name (`embedded_zone.rs`).
const OWNERS: &[Owner] = &[
    // dot-common implements aya's Pod for its map types (feature `user`).
    owner("aya", &[XDP, "dot-common/src"]),
    owner("aya_obj", &[XDP]),
    owner("aya_log", &[XDP]),
    owner("aya_ebpf", &[EBPF]),
    owner("aya_log_ebpf", &[EBPF]),
    // TSIG needs HMAC.
    owner("aws_lc_rs", &[TLS, "dot-userspace/src/dns/tsig.rs"]),
    owner("der", &[TLS]),
    owner("rcgen", &[TLS]),
    owner("rustls", &[TLS]),
    owner("rustls_native_certs", &[TLS]),
    owner("rustls_pki_types", &[TLS]),
    owner("tokio_rustls", &[TLS]),
    owner("x509_ocsp", &[TLS]),
    owner("x509_parser", &[TLS]),
    owner("zeroize", &[TLS]),
    // hickory-server's types are hickory-proto's: the embedded zone cannot avoid them.
    // `dotd query` prints records.
    owner("hickory_proto", &[DNS, EMBEDDED, "dot-userspace/src/cli/query"]),
    owner("hickory_server", &[EMBEDDED]),
    owner("httpdate", &[ACME]),
    owner("humantime", &[CONFIG, CLI]),
    owner("strsim", &[CONFIG]),
    owner("toml", &[CONFIG, CLI]),
    owner("axum", &[CONTROL]),
    owner("prometheus_client", &[CONTROL]),
    owner("prost", &["dot-userspace/src/events/tap"]),
    owner("psl", &["dot-userspace/src/policy/misuse"]),
    owner("ratatui", &["dot-userspace/src/cli/top"]),
    owner("clap", &[CLI, XTASK, "dist/src/main.rs"]),
    owner("clap_complete", &[CLI]),
    owner("clap_mangen", &[CLI]),
    owner("flate2", &[DIST]),
    owner("rpm", &[DIST]),
    owner("sha2", &[DIST]),
    owner("tar", &[DIST]),
    owner("http_body_util", &[ACME, CLI]),
    owner("hyper", &[ACME, CLI, CONTROL]),
    owner("hyper_util", &[ACME, CLI]),
    owner("instant_acme", &[ACME]),
    owner("caps", &[START, EFFECTIVE]),
    owner("landlock", &[CONFINE]),
    owner("seccompiler", &[CONFINE]),
    owner("notify", &["dot-userspace/src/start/files.rs"]),
    owner("sd_notify", &[KEEPER]),
    owner("netlink_sys", &[XDP]),
    // disk opens by descriptors; the keeper forks, waits and hands descriptors over; xdp asks for the interfaces that carry our addresses (getifaddrs); a worker pins itself to its CPU, and sends descriptors; backend asks a
    // socket for its path's MTU, and `dotd query` for Fast Open.
    owner(
        "nix",
        &[
            START,
            XDP,
            CONFINE,
            "dot-userspace/src/disk.rs",
            "dot-userspace/src/disk/whole.rs",
            KEEPER,
            EFFECTIVE,
            "dot-userspace/src/worker/mod.rs",
            "dot-userspace/src/worker/passage.rs",
            "dot-userspace/src/backend/udp/path_mtu.rs",
            "dot-userspace/src/cli/query/fast_open.rs",
            "dot-userspace/src/cli/verify/mod.rs",
        ],
    ),
    owner("mimalloc", &["dot-userspace/src/main.rs"]),
    owner("proc_macro2", &[TIDY]),
    owner("syn", &[TIDY]),
];

/// Trees that use the folders from outside.
const EXEMPT: &[&str] = &["tests/", "fuzz/", "benches/"];

/// Checks which crates a file names.
pub(super) fn check(source: &Source<'_>) -> Vec<Finding> {
    if EXEMPT.iter().any(|tree| source.path.starts_with(tree)) || is_test_file(source.path) {
        return Vec::new();
    }
    let mut findings: Vec<Finding> = Vec::new();
    for index in 0..source.tokens.len() {
        let Some(owner) = OWNERS.iter().find(|owner| owner.name == source.text(Some(index))) else {
            continue;
        };
        if owner.folders.iter().any(|folder| source.path.starts_with(folder)) || !names_a_crate(source, index)
        {
            continue;
        }
        let line = source.tokens[index].line;
        if !source.is_test_line(line) {
            let what = format!(
                "names crate {}, which belongs to {}; ask that folder for what you need",
                owner.name,
                owner.folders.join(", ")
            );
            findings.push(Finding::new(source.path, line, what));
        }
    }
    findings.dedup();
    findings
}

/// A file that only `#[cfg(test)] mod tests;` brings in.
fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

/// Whether the word at `index` is the root of a path (`aya::…`, `use aya;`), and not a part of another one.
fn names_a_crate(source: &Source<'_>, index: usize) -> bool {
    let before = |count: usize| source.text(index.checked_sub(count));
    let after = |count: usize| source.text(Some(index + count));
    let is_inside_a_path = before(1) == ":" && before(2) == ":" && is_word(before(3));
    let is_a_member = before(1) == ".";
    if is_inside_a_path || is_a_member {
        return false;
    }
    let is_root = after(1) == ":" && after(2) == ":";
    let is_imported_whole =
        matches!(before(1), "use" | "crate") && before(2) != ":" && matches!(after(1), ";" | "as");
    is_root || is_imported_whole
}

/// The end of a path segment: a word, or the `>` of generic arguments.
fn is_word(text: &str) -> bool {
    text == ">" || text.starts_with(|first: char| first.is_alphanumeric() || first == '_')
}

/// Folders of the table without files.
pub(super) fn stale_entries(files: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for owner in OWNERS {
        for folder in owner.folders {
            if !files.iter().any(|file| file.starts_with(folder)) {
                let what =
                    format!("crate {} belongs to {folder}, which is not there; mend the table", owner.name);
                findings.push(Finding::new("xtask/src/tidy/foreign_crates.rs", 1, what));
            }
        }
    }
    findings
}

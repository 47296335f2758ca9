//! docs/ranges.md is made from `limit` and `range`: each key with a range, its default, its limits and the reason for them.

use std::fmt::Write as _;

use crate::config::range;

/// The place of the page.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ranges.md");
const LIMITS: &str = include_str!("../limit.rs");
const DEFAULTS: &str = include_str!("../defaults.rs");

const HEAD: &str = "\
# Ranges

Made from the code (`dot-userspace/src/config/limit.rs`); `UPDATE_PAGES=1 cargo test -p dot-userspace --lib config` writes it
anew. What each key does is in [config.md](config.md). dotd refuses a value outside of its range, at a start and at a reload, and
`dotd check` names it.

| key | default | smallest | largest | what it is, and why so |
|---|---|---|---|---|
";

/// The comment above a constant of `limit.rs`.
fn reason(constant: &str) -> String {
    let start = format!("pub const {constant}: Limit<");
    let lines: Vec<&str> = LIMITS.lines().collect();
    let at = lines.iter().position(|line| line.starts_with(&start)).expect(constant);
    let comment = lines[..at].iter().rev().take_while(|line| line.starts_with("/// "));
    let mut comment: Vec<&str> = comment.map(|line| line.trim_start_matches("/// ")).collect();
    comment.reverse();
    comment.join(" ").replace("[`", "`").replace("`]", "`").replace('|', "\\|")
}

fn page() -> String {
    range::rows().iter().fold(HEAD.to_owned(), |mut page, row| {
        let [default, min, max] = &row.values;
        let zero = if row.has_zero { "0, or " } else { "" };
        let (key, why) = (row.key, reason(row.constant));
        let _ = writeln!(page, "| `{key}` | {default} | {zero}{min} | {max} | {why} |");
        page
    })
}

/// Goal: a limit is one record: its constant, with its reason, gives the default, the check and the page. Method: each
/// constant of `limit.rs` stands in `range.rs` once, its default in `defaults.rs`, and the page is what the code says.
/// Covers: C-740
#[test]
fn a_limit_is_one_record() {
    let rows = range::rows();
    let constants = LIMITS.lines().filter_map(|line| line.strip_prefix("pub const "));
    let constants: Vec<&str> = constants
        .filter(|line| line.contains(": Limit<"))
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(constants.len(), rows.len(), "a limit without a key, or a key without a limit");
    for constant in constants {
        assert!(
            rows.iter().any(|row| row.constant == constant),
            "{constant} is the limit of no key in range.rs"
        );
        let default = format!("limit::{constant}.default");
        assert!(constant == "WORKERS" || DEFAULTS.contains(&default), "no default is {default}");
    }
    let made = page();
    if std::env::var_os("UPDATE_PAGES").is_some() {
        std::fs::write(PAGE, &made).expect("docs can be written");
    }
    let is = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert_eq!(is, made, "docs/ranges.md is of another version: UPDATE_PAGES=1 writes it");
}

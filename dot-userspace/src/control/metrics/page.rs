//! Keeps docs/metrics.md equal to the code: this file makes the page, and a test compares.
//!
//! Before: a scrape with at least one row of each family. After: a table of name, type, labels and help.
//! Never: is part of the program.

use std::{collections::BTreeMap, fmt::Write as _};

/// The place of the page.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");

const HEAD: &str = "\
# Metrics

Made from the code; `UPDATE_PAGES=1 cargo test -p dot-userspace --lib metrics` writes it anew. Every series of `/metrics` at
`control.http`, in the order of a scrape. A counter's name ends in `_total` in queries. Histograms have classic buckets from
15 µs to 8 s, each twice as wide as the one before; Prometheus with `--enable-feature=native-histograms` asks for the binary
form, and gets native ones, whose buckets are 9 % wide. A scrape adds up what the workers hold and stops none of them; it does
not grow with connections. No label ever holds a client's address or a name that was asked for.

| metric | type | labels | what it says |
|---|---|---|---|
";

#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    labels: Vec<String>,
}

/// The page of the metrics in `text`.
pub fn page(text: &str) -> String {
    let (mut order, mut families) = (Vec::new(), BTreeMap::<String, Family>::new());
    for line in text.lines() {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["#", "HELP", name, help @ ..] => {
                order.push((*name).to_owned());
                families.entry((*name).to_owned()).or_default().help = help.join(" ");
            }
            ["#", "TYPE", name, kind] => {
                families.entry((*name).to_owned()).or_default().kind = (*kind).to_owned()
            }
            ["#", ..] => {}
            _ => {
                let name = line.split(['{', ' ']).next().unwrap_or_default();
                let family = families.iter_mut().rev().find(|(family, _)| {
                    name.strip_prefix(family.as_str()).is_some_and(|rest| {
                        ["", "_total", "_info", "_sum", "_count", "_bucket"].contains(&rest)
                    })
                });
                let (_, family) = family.unwrap_or_else(|| panic!("{line} belongs to no family"));
                let inside = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
                for label in inside.map(|(inside, _)| inside).unwrap_or_default().split("\",") {
                    let label = label.split('=').next().unwrap_or_default().to_owned();
                    if !label.is_empty() && label != "le" && !family.labels.contains(&label) {
                        family.labels.push(label);
                    }
                }
            }
        }
    }
    order.iter().fold(HEAD.to_owned(), |mut page, name| {
        let Family { kind, help, labels } = &families[name];
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {} |", help.trim_end_matches('.'));
        page
    })
}

/// Compares the page with the expected one; writes it if `UPDATE_PAGES` is set.
pub fn hold(text: &str) {
    let made = page(text);
    if std::env::var_os("UPDATE_PAGES").is_some() {
        std::fs::write(PAGE, &made).expect("docs can be written");
    }
    let is = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert_eq!(is, made, "docs/metrics.md is of another version: UPDATE_PAGES=1 writes it");
}

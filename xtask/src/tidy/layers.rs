//! Rule: inside dot-userspace a module imports only from modules of lower layers, as ARCHITECTURE.md lists them.
//!
//! Before: a file's tokens. After: a finding for each import of the same layer or a higher one; and one if the page has
//! another order. Holds: the layers. Never: applies to tests, which may import any module.

use std::path::Path;

use super::{Finding, source::Source};

/// Modules, the lowest first. Those of one layer ignore each other.
const LAYERS: &[&[&str]] = &[
    &["moment", "octets", "effective"],
    &["dns", "proxy", "ledger", "config", "supervise", "disk"],
    &["events"],
    &["tls", "backend", "cache", "xdp", "confine", "policy"],
    &["session", "acme"],
    &["worker", "control"],
    &["keeper"],
    &["start"],
    &["cli"],
];

const SOURCES: &str = "dot-userspace/src/";
/// The file above all modules: it declares them, and starts the last.
const TOP: [&str; 2] = ["lib", "main"];

/// Checks the imports of one file.
pub(super) fn check(source: &Source<'_>) -> Vec<Finding> {
    let Some(inside) = source.path.strip_prefix(SOURCES) else { return Vec::new() };
    let is_test = inside.contains("/tests/") || inside.ends_with("/tests.rs");
    let module = inside.split(['/', '.']).next().unwrap_or_default();
    if is_test || TOP.contains(&module) {
        return Vec::new();
    }
    let Some(own) = layer(module) else {
        let what = format!(
            "module {module} is in no layer; add it to xtask/src/tidy/layers.rs and to ARCHITECTURE.md"
        );
        return vec![Finding::new(source.path, 1, what)];
    };
    let mut findings = Vec::new();
    for (name, line) in imports(source) {
        let is_allowed = name == module || layer(&name).is_none_or(|layer| layer < own);
        if !is_allowed && !source.is_test_line(line) {
            let what =
                format!("{module} imports {name}, which is no lower layer (ARCHITECTURE.md, The code)");
            findings.push(Finding::new(source.path, line, what));
        }
    }
    findings.dedup();
    findings
}

/// The page must agree with this table.
pub(super) fn check_page(root: &Path) -> Vec<Finding> {
    const PAGE: &str = "ARCHITECTURE.md";
    let page = std::fs::read_to_string(root.join(PAGE)).unwrap_or_default();
    let begun = page.split_once("imports only from modules to its left:").map(|(_, rest)| rest.trim_start());
    let said = begun.and_then(|rest| rest.split("\n\n").next()).unwrap_or_default();
    let layers: Vec<Vec<&str>> =
        said.split('←').map(|layer| layer.split('`').skip(1).step_by(2).collect()).collect();
    if layers.iter().map(Vec::as_slice).eq(LAYERS.iter().copied()) {
        return Vec::new();
    }
    vec![Finding::new(
        PAGE,
        1,
        format!("says the layers are {layers:?}; xtask/src/tidy/layers.rs has {LAYERS:?}"),
    )]
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The modules behind each `crate::`, also those in braces, with their lines.
fn imports(source: &Source<'_>) -> Vec<(String, usize)> {
    let text = |index: usize| source.text(Some(index));
    let mut found = Vec::new();
    for index in 0..source.tokens.len() {
        if text(index) != "crate" || text(index + 1) != ":" || text(index + 2) != ":" {
            continue;
        }
        if text(index + 3) != "{" {
            found.push((text(index + 3).to_owned(), source.tokens[index].line));
            continue;
        }
        // The first word of each part of the braces.
        let mut depth = 0_usize;
        let mut at = index + 3;
        loop {
            match text(at) {
                "{" => depth += 1,
                "}" => depth -= 1,
                "" => break,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && matches!(text(at), "{" | ",") && text(at + 1) != "}" {
                found.push((text(at + 1).to_owned(), source.tokens[at + 1].line));
            }
            at += 1;
        }
    }
    found
}

//! Rule: the project stands alone. No text names a place on one developer's machine, a path that leads out of the
//! repository, or one that does not exist.
//!
//! Before: a text file. After: findings. Never: follows links to the network.

use std::path::{Component, Path, PathBuf};

use super::Finding;

/// Folders that exist on one person's machine and on no other. Written in pieces, so that this file itself passes.
const PRIVATE_ROOTS: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Use", "rs/"), concat!("/wo", "rk/")];

/// The characters that may precede an absolute path in running text.
const PATH_OPENERS: &[char] = &[' ', '"', '\'', '`', '(', '=', ':', '[', '<', ',', '\t'];

/// Unit tests of X are in X or in X/tests.rs, where Rust finds them by itself.
pub(super) fn check_unit_tests(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if path.ends_with(concat!("_tests", ".rs")) {
        findings.push(Finding::new(path, 1, "unit tests of a file X go to X/tests.rs; move it"));
    }
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("#[path") && line.contains("tests.rs\"") {
            let what = "Rust finds X/tests.rs by itself; take the attribute away, or move the file there";
            findings.push(Finding::new(path, number + 1, what));
        }
    }
    findings
}

/// Checks every line of a text.
pub(super) fn check(root: &Path, path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for private in PRIVATE_ROOTS {
            if holds_absolute(line, private) {
                let what = format!("names {private}, a place on one machine; say it relative to the project");
                findings.push(Finding::new(path, number + 1, what));
            }
        }
        for upward in upward_paths(line) {
            if !leads_to_something(root, path, upward) {
                let what = format!("{upward} leads out of the repository or to nothing; mend the path");
                findings.push(Finding::new(path, number + 1, what));
            }
        }
    }
    findings
}

fn holds_absolute(line: &str, private: &str) -> bool {
    line.match_indices(private)
        .any(|(at, _)| line[..at].chars().next_back().is_none_or(|c| PATH_OPENERS.contains(&c)))
}

/// Words of a line that lead out of their folder.
fn upward_paths(line: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_alphanumeric() || "./_-".contains(c);
    line.split(move |c| !is_part(c))
        .filter(|word| word.starts_with("../") && word.len() > "../".len())
        .map(|word| word.trim_end_matches('.'))
}

/// Whether `upward`, read from the folder of `path`, names something inside the repository.
fn leads_to_something(root: &Path, path: &str, upward: &str) -> bool {
    let mut resolved: PathBuf = Path::new(path).parent().unwrap_or(Path::new("")).to_path_buf();
    for component in Path::new(upward).components() {
        match component {
            Component::ParentDir if !resolved.pop() => return false,
            Component::Normal(name) => resolved.push(name),
            _ => {}
        }
    }
    root.join(resolved).exists()
}

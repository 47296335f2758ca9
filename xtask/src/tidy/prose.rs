//! Rule: files, folders, modules, functions and tests that prose names between backquotes exist.
//!
//! Before: pages, and the headers of Rust files. After: a finding for each name of something that does not exist.
//! Holds: which words count as names in this project: a path into the repository, and `module::name` where there is
//! such a module. Never: judges names of other projects, or of the machine.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;

/// The names in the tree that prose may use.
#[derive(Debug, Default)]
pub(super) struct Names {
    files: BTreeSet<String>,
    folders: BTreeSet<String>,
    /// The words of the files of each module: `framing` has those of each `framing.rs`, `dns` those of `dns/`.
    words: BTreeMap<String, BTreeSet<String>>,
}

/// The beginnings of paths from the top of the repository.
const ENDINGS: [&str; 8] = [".rs", ".md", ".toml", ".sh", ".json", ".conf", ".zone", ".service"];
/// Modules of other crates that have the names of modules here.
const FOREIGN: [&str; 3] = ["rustls", "tokio", "std"];

impl Names {
    /// Takes note of a file of the tree.
    pub(super) fn read(&mut self, path: &str, text: &str) {
        self.files.insert(path.to_owned());
        let parts: Vec<&str> = path.split('/').collect();
        for count in 1..parts.len() {
            self.folders.insert(parts[..count].join("/"));
        }
        let Some(stem) = path.strip_suffix(".rs") else { return };
        let words: BTreeSet<String> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        let modules = stem.split('/').filter(|part| !matches!(*part, "src" | "mod" | "lib" | "main"));
        let names: BTreeSet<String> = modules.map(|part| part.replace('-', "_")).collect();
        for name in names {
            let known = self.words.entry(name).or_default();
            known.extend(words.iter().cloned());
            known.extend(stem.split('/').map(str::to_owned));
        }
    }

    /// Checks the names in a text: in a whole page, or in the header of a Rust file.
    pub(super) fn check(&self, path: &str, text: &str) -> Vec<Finding> {
        let is_page = path.ends_with(".md") && !path.ends_with("CHANGELOG.md");
        let mut findings = Vec::new();
        let mut is_code = false;
        // A span may end on the next line of its paragraph.
        let mut open: Option<String> = None;
        for (number, line) in text.lines().enumerate() {
            let prose = if is_page { Some(line) } else { line.strip_prefix("//!") };
            let Some(prose) = prose.filter(|_| is_page || path.ends_with(".rs")) else { continue };
            let is_fence = prose.trim_start().starts_with("```");
            is_code ^= is_fence;
            if is_fence || is_code || prose.trim().is_empty() {
                open = None;
                continue;
            }
            for target in links(prose).filter(|target| is_page && !self.is_linked(path, target)) {
                let what = format!("the link leads to {target}, which is not there; mend it");
                findings.push(Finding::new(path, number + 1, what));
            }
            for (index, part) in prose.split('`').enumerate() {
                if index > 0 {
                    match open.take() {
                        Some(span) if !self.is_there(path, &span) => {
                            let what = format!("`{span}` is not there; mend the name, or the sentence");
                            findings.push(Finding::new(path, number + 1, what));
                        }
                        Some(_) => {}
                        None => open = Some(String::new()),
                    }
                }
                if let Some(span) = &mut open {
                    span.push_str(part);
                }
            }
            if let Some(span) = &mut open {
                span.push(' ');
            }
        }
        findings
    }

    /// Whether a link of a page leads to a file of the tree, or out of the project.
    fn is_linked(&self, from: &str, target: &str) -> bool {
        let place = target.split('#').next().unwrap_or_default().trim_end_matches('/');
        // What climbs out of its folder is `places`'s; pictures are no text, and no file of ours to the walk.
        let is_other =
            place.rsplit('/').next().is_some_and(|name| name.contains('.') && !super::is_text(name));
        if place.is_empty() || place.contains(':') || place.contains("..") || is_other {
            return true;
        }
        let path =
            from.rsplit_once('/').map_or_else(|| place.to_owned(), |(folder, _)| format!("{folder}/{place}"));
        self.files.contains(&path) || self.folders.contains(&path)
    }

    /// Whether a name exists, or is not a name of this project.
    fn is_there(&self, from: &str, span: &str) -> bool {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:".contains(c);
        let span = span.strip_suffix("()").unwrap_or(span);
        if !span.chars().all(is_plain) || span.starts_with(['/', '.', '-']) || span.starts_with("target/") {
            return true;
        }
        let (place, name) = span.split_once("::").map_or((span, None), |(place, name)| (place, Some(name)));
        let last = name.map(|name| name.rsplit("::").next().unwrap_or(name));
        if ENDINGS.iter().any(|ending| place.ends_with(ending)) {
            // A bare name without a folder may be one of the reader's files: only Rust files certainly belong to the
            // project.
            let is_ours = place.contains('/') || place.ends_with(".rs");
            return !is_ours
                || self.file(from, place).is_some_and(|file| last.is_none_or(|last| self.says(&file, last)));
        }
        if let Some(folder) = place.strip_suffix('/') {
            return self.is_folder(folder);
        }
        match last {
            _ if place.contains('/') => {
                let top = place.split('/').next().unwrap_or_default();
                !self.folders.contains(top) || self.files.contains(place) || self.is_folder(place)
            }
            Some(last) if !FOREIGN.contains(&place) => {
                self.words.get(place).is_none_or(|words| words.contains(last))
            }
            _ => true,
        }
    }

    /// The file with this name: from the top, in the folder of the text, or by its end.
    fn file(&self, from: &str, place: &str) -> Option<String> {
        let beside = from.rsplit_once('/').map(|(folder, _)| format!("{folder}/{place}"));
        let exact =
            [Some(place.to_owned()), beside].into_iter().flatten().find(|path| self.files.contains(path));
        let end = format!("/{place}");
        exact.or_else(|| self.files.iter().find(|file| file.ends_with(&end)).cloned())
    }

    fn is_folder(&self, place: &str) -> bool {
        let end = format!("/{place}");
        self.folders.iter().any(|folder| folder == place || folder.ends_with(&end))
    }

    /// Whether a file has this word.
    fn says(&self, file: &str, word: &str) -> bool {
        let stem = file.strip_suffix(".rs").unwrap_or(file);
        let parts = stem.split('/').rev().find(|part| !matches!(*part, "src" | "mod" | "lib" | "main"));
        parts
            .and_then(|module| self.words.get(&module.replace('-', "_")))
            .is_none_or(|words| words.contains(word))
    }
}

/// The targets of a line's `[text](target)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str, text: &str) -> Vec<String> {
        let mut names = Names::default();
        names.read("dot-userspace/src/dns/framing.rs", "pub fn take() {}\n// no gone here\n");
        names.read("dot-userspace/src/dns/mod.rs", "pub use framing::take;");
        names.read("tests/tests/it/rfc7766.rs", "fn answers() {}");
        names.read("docs/standards.md", "");
        names.check(path, text).iter().map(ToString::to_string).collect()
    }

    /// Goal: a name that does not exist is found, in a page and in a header, also if a span covers two lines. Method:
    /// each form once, beside names that exist and names outside the project.
    #[test]
    fn names_that_lead_nowhere_are_found() {
        let fine = "`dns/framing.rs::take`, `framing::take`, `dns::framing`, `dns/`, `docs/standards.md`, `rfc7766::answers`,\n\
            `tests/tests/it/rfc7766.rs`, `rustls::Gone`, `/etc/dotd/x.toml`, `a b/c.rs`, `dotd.toml`, `cargo\nxtask tidy`\n\n\
            ```\n`gone/gone.rs`\n```\n";
        assert_eq!(said("ARCHITECTURE.md", fine), [""; 0]);
        for gone in [
            "dns/gone.rs",
            "gone.rs",
            "dns/framing.rs::gone",
            "framing::gone",
            "gone/",
            "docs/gone",
            "rfc7766::gone",
        ] {
            for text in [format!("A page says `{gone}`.\n"), format!("`cargo\nrun` and `{gone}`\n")] {
                assert_eq!(said("README.md", &text).len(), 1, "{text}");
                assert_eq!(
                    said("dot-userspace/src/x.rs", &format!("//! {}", text.replace('\n', "\n//! "))).len(),
                    1,
                    "{text}"
                );
            }
            assert_eq!(said("x.rs", &format!("/// `{gone}`\n")), [""; 0], "no header");
        }
    }

    /// Goal: a broken link of a page is found. Method: links from the top and from a folder; to a heading, to the
    /// network, to nothing.
    #[test]
    fn links_that_lead_nowhere_are_found() {
        let fine = "[a](docs/standards.md#framing), [b](https://x.example/y.md), [c](#here), [d](docs/)\n";
        assert_eq!(said("README.md", fine), [""; 0]);
        assert_eq!(said("docs/config.md", "[a](standards.md)\n"), [""; 0]);
        assert_eq!(said("docs/config.md", "[a](docs/standards.md), [b](gone.md)\n").len(), 2);
    }
}

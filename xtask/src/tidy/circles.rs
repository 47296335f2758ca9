//! Rule: inside a folder of dot-userspace, files and subfolders do not import each other in a circle; those that do are listed, with the reason.
//!
//! Before: every file's imports. After: a finding for each circle that is not listed, and for each listed one that is gone.
//! Holds: the list, which may only get shorter. Never: looks at tests, or at what a folder's mod.rs re-exports.

use std::collections::{BTreeMap, BTreeSet};

use syn::{
    UseTree,
    visit::{self, Visit},
};

use super::{Finding, source::Source};

const SOURCES: &str = "dot-userspace/src/";

/// Folder, the files or subfolders of a circle (`*`: and any others), and the reason.
const KNOWN: &[(&str, &[&str], &str)] = &[
    ("cli", &["arguments", "*"], "a verb declares its own words, and the list of verbs names it"),
    (
        "keeper",
        &["duty", "succession", "upgrade"],
        "an upgrade is a part of the duty, and ends in a succession",
    ),
];

/// The imports of all files, by folder.
#[derive(Default)]
pub(super) struct Imports(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Imports {
    /// Reads the imports of one file.
    pub(super) fn read(&mut self, source: &Source<'_>) {
        let Some(path) = source.path.strip_prefix(SOURCES).and_then(|path| path.strip_suffix(".rs")) else {
            return;
        };
        if path.contains("/tests/") || path.ends_with("/tests") {
            return;
        }
        let parts: Vec<&str> = path.split('/').collect();
        let depth = parts.len() - usize::from(path.ends_with("/mod"));
        // The file is in a folder, and that folder may be in another one.
        for count in 1..parts.len() {
            let (folder, module) = (&parts[..count], parts[count]);
            if module == "mod" {
                continue;
            }
            let mut reader = Reader { source, folder, ups: depth - count, found: BTreeSet::new() };
            reader.visit_file(&source.tree);
            reader.found.remove(module);
            let modules = self.0.entry(folder.join("/")).or_default();
            modules.entry(module.to_owned()).or_default().extend(reader.found);
        }
    }

    /// The findings about them.
    pub(super) fn check(&self) -> Vec<Finding> {
        self.check_by(KNOWN)
    }

    fn check_by(&self, known: &[(&str, &[&str], &str)]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut seen = BTreeSet::new();
        for (folder, graph) in &self.0 {
            for circle in circles(graph) {
                let listed =
                    known.iter().position(|(other, names, _)| other == folder && is_meant(names, &circle));
                match listed {
                    Some(index) => drop(seen.insert(index)),
                    None => findings.push(Finding::new(
                        &format!("{SOURCES}{folder}"),
                        1,
                        format!("files import each other in a circle: {circle:?}; move what they share into one that imports none of them"),
                    )),
                }
            }
        }
        for (index, (folder, names, _)) in known.iter().enumerate() {
            if !seen.contains(&index) && self.0.contains_key(*folder) {
                let what = format!(
                    "the circle {names:?} of {folder} is gone or smaller; say so in xtask/src/tidy/circles.rs"
                );
                findings.push(Finding::new(&format!("{SOURCES}{folder}"), 1, what));
            }
        }
        findings
    }
}

/// Whether a listed circle is this one.
fn is_meant(names: &[&str], circle: &[&String]) -> bool {
    match names.split_last() {
        Some((&"*", first)) => first.iter().all(|name| circle.iter().any(|other| other == name)),
        _ => names.iter().copied().eq(circle.iter().map(|name| name.as_str())),
    }
}

/// Collects the files of the folder that a file imports from.
struct Reader<'a> {
    source: &'a Source<'a>,
    folder: &'a [&'a str],
    /// The number of `super` that lead to the folder.
    ups: usize,
    found: BTreeSet<String>,
}

impl Reader<'_> {
    fn walk(&mut self, tree: &UseTree, path: &mut Vec<String>) {
        match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.walk(&part.tree, path);
                path.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|item| self.walk(item, path)),
            UseTree::Name(name) => self.note(path, &name.ident.to_string()),
            UseTree::Rename(name) => self.note(path, &name.ident.to_string()),
            UseTree::Glob(_) => self.note(path, "*"),
        }
    }

    fn note(&mut self, path: &[String], last: &str) {
        let words: Vec<&str> = path.iter().map(String::as_str).chain([last]).collect();
        let ups = words.iter().take_while(|word| **word == "super").count();
        let inside = match words.as_slice() {
            ["crate", rest @ ..] => rest.strip_prefix(self.folder).and_then(|inside| inside.first()).copied(),
            _ if ups == self.ups => words.get(ups).copied(),
            _ => None,
        };
        // A name that begins with a capital is re-exported by the folder.
        let name = inside.filter(|name| name.starts_with(|first: char| first.is_ascii_lowercase()));
        self.found.extend(name.map(str::to_owned));
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let line = item.use_token.span.start().line;
        if !self.source.is_test_line(line) {
            self.walk(&item.tree, &mut Vec::new());
        }
        visit::visit_item_use(self, item);
    }
}

/// The largest sets of files that all import each other, directly or through others; sorted by name.
fn circles(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<&String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        graph.keys().map(|from| (from, reach(graph, from))).collect();
    let mut done = BTreeSet::new();
    let mut circles = Vec::new();
    for from in graph.keys() {
        let back = |to: &&&String| reached.get(**to).is_some_and(|others| others.contains(from));
        let circle: Vec<&String> = reached.get(from).into_iter().flatten().filter(back).copied().collect();
        if circle.len() > 1 && done.insert(circle.first().copied()) {
            circles.push(circle);
        }
    }
    circles
}

fn reach<'a>(graph: &'a BTreeMap<String, BTreeSet<String>>, from: &'a String) -> BTreeSet<&'a String> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        for to in graph.get(at).into_iter().flatten() {
            if let Some((to, _)) = graph.get_key_value(to)
                && found.insert(to)
            {
                open.push(to);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(files: &[(&str, &str)], known: &[(&str, &[&str], &str)]) -> Vec<String> {
        let mut imports = Imports::default();
        for (path, text) in files {
            imports.read(&Source::parse(path, text).ok().unwrap());
        }
        imports.check_by(known).into_iter().map(|finding| finding.what).collect()
    }

    /// Goal: a circle is found in every form of import, also through a subfolder; imports of tests and re-exports of
    /// the folder make no circle; a listed circle is accepted, and one that is gone is a finding. Method: small files.
    #[test]
    fn circles_are_found_or_listed() {
        let a = ("dot-userspace/src/dns/a.rs", "use super::{Query, b::f};\n");
        let b = ("dot-userspace/src/dns/b.rs", "use crate::{config, dns::c};\n");
        let c = ("dot-userspace/src/dns/c/inner.rs", "use super::super::a::g;\n");
        let found = findings(&[a, b, c], &[]);
        assert!(found.len() == 1 && found[0].contains(r#"["a", "b", "c"]"#), "{found:?}");
        let known: &[(&str, &[&str], &str)] = &[("dns", &["a", "b", "c"], "for a test")];
        assert_eq!(findings(&[a, b, c], known), [""; 0]);
        let tested = (
            "dot-userspace/src/dns/c/inner.rs",
            "#[cfg(test)]\nmod tests {\n    use super::super::super::a::g;\n}\n",
        );
        assert_eq!(findings(&[a, b, tested], &[]), [""; 0]);
        let inner = [
            ("dot-userspace/src/dns/c/one.rs", "use super::two::f;\n"),
            ("dot-userspace/src/dns/c/two.rs", "use crate::dns::c::one::g;\n"),
        ];
        let found = findings(&inner, &[]);
        assert!(found.len() == 1 && found[0].contains(r#"["one", "two"]"#), "{found:?}");
        let found = findings(&[a, b, tested], known);
        assert!(found.len() == 1 && found[0].contains("is gone or smaller"), "{found:?}");
    }
}

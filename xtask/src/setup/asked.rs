//! Checks that every program that a test can ask for is in the table of [`super::machine`], so that setup installs it.
//!
//! Before: the sources of all tests. After: a test that would be skipped, or fail, on every fresh machine is found here.
//! Holds: the forms in which the tests name a program. Never: checks whether the program is installed on this machine.

use std::{collections::BTreeMap, path::Path};

use super::machine::TOOLS;

/// The folders of tests and of the code with which they start programs. `benches/src` has its own setup (`bench peers`
/// installs the peers), except for its unit tests.
const FOLDERS: &[&str] =
    &["tests", "benches/tests", "benches/src/load", "dot-userspace", "fuzz", "dot-common"];

/// The text before a program's name.
const FORMS: &[&str] =
    &["Command(\"", "Command::new(\"", "bounded(\"", "bound_to_namespace(\"", "run(&scratch, \""];

/// Packages that every Debian has (`Essential: yes`): bsdutils, coreutils, dash, dpkg, util-linux.
const ESSENTIAL: &[&str] =
    &["dpkg-deb", "env", "printenv", "script", "sh", "sha256sum", "timeout", "unshare"];

/// The programs that a text names, each with its line.
fn programs(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut is_table = false;
    for (index, line) in text.lines().enumerate() {
        let mut note = |rest: &str| {
            let name = rest.split('"').next().unwrap_or_default();
            found.push((name.to_owned(), index + 1));
        };
        for form in FORMS {
            line.match_indices(form).for_each(|(at, _)| note(&line[at + form.len()..]));
        }
        // `tool(&network.client, "taskset", …)`, and the arms of `fn program`.
        let second = line.split_once("tool(").and_then(|(_, rest)| rest.split_once(", "));
        if let Some(rest) = second.and_then(|(_, rest)| rest.strip_prefix('"')) {
            note(rest);
        }
        is_table = (is_table || line.contains("fn program(")) && line.trim() != "}";
        if is_table && let Some((_, rest)) = line.split_once("=> \"") {
            note(rest);
        }
    }
    found
}

/// Every Rust file under a folder.
fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the project").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true if path.file_name().is_some_and(|name| name != "target") => sources(&path, found),
            false if path.extension().is_some_and(|ending| ending == "rs") => found.push(path),
            _ => {}
        }
    }
}

/// Goal: setup and the tests know the same programs. Method: every program in a test's source is in the table, and
/// every program of the table is in a source, except those of the build and of the linter.
#[test]
fn setup_installs_what_tests_ask_for() {
    /// Needed by `cargo xtask fuzz`, and by the test of `xtask/src/kernels/cpio.rs`.
    const OTHERS: [&str; 2] = ["c++", "busybox"];
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
    let mut files = Vec::new();
    FOLDERS.iter().for_each(|folder| sources(&top.join(folder), &mut files));
    let mut asked: BTreeMap<String, String> = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source");
        for (name, line) in programs(&text) {
            asked.entry(name).or_insert_with(|| format!("{}:{line}", file.display()));
        }
    }
    assert!(asked.len() > 20, "{asked:?}");
    for (name, place) in &asked {
        let is_known = TOOLS.iter().any(|tool| tool.command == name) || ESSENTIAL.contains(&name.as_str());
        assert!(is_known, "{place} asks for {name}, which setup does not install: add it to machine.rs");
    }
    for tool in TOOLS {
        let is_asked = asked.contains_key(tool.command) || OTHERS.contains(&tool.command);
        assert!(is_asked, "setup installs {} for the tests, and no test asks for it", tool.command);
    }
}

/// Goal: each form is found. Method: one line of each.
#[test]
fn reads_each_form() {
    let text = "require!(Root, Command(\"a\"), Command(\"b\"));\nlet c = Command::new(\"c\");\nbounded(\"d\")\n\
        let said = tool(&network.client, \"e\", &words);\nfn program(self) -> &'static str {\nmatch self {\n\
        Self::F => \"f\",\n}\n}\nSelf::G => \"g\"\nrun(&scratch, \"h\", words);\n";
    let names: Vec<_> = programs(text).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e", "f", "h"]);
}

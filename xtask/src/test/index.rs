//! Every test of the tree: its source file, and its names for cargo and the test runner.
//!
//! Before: the sources. After: `select` finds the tests for a filter.
//! Holds: the rules by which a file's path gives package, target and module. Never: starts cargo; expands macros.

use std::path::Path;

use anyhow::{Context, Result};

/// Which part of a package a test is built into; in the order in which they are run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Lib,
    Bin(String),
    Test(String),
}

impl Target {
    /// The arguments that select it in a call of cargo.
    pub(super) fn words(&self) -> Vec<String> {
        match self {
            Self::Lib => vec!["--lib".to_owned()],
            Self::Bin(name) => vec!["--bin".to_owned(), name.clone()],
            Self::Test(name) => vec!["--test".to_owned(), name.clone()],
        }
    }
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Test {
    pub(super) package: String,
    pub(super) target: Target,
    /// Its file, relative to the top of the repository.
    pub(super) file: String,
    /// Modules and function, as the test runner prints them.
    pub(super) name: String,
}

impl Test {
    /// The function alone.
    pub(super) fn function(&self) -> &str {
        self.name.rsplit("::").next().unwrap_or(&self.name)
    }
}

/// Reads the tests of these files, which are relative to `root`.
///
/// # Errors
/// A package without a name.
pub(super) fn read(root: &Path, files: &[String]) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        let Some((folder, inside)) = file.split_once('/') else { continue };
        let text = std::fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))?;
        if !text.contains("#[test]") && !text.contains("#[tokio::test") {
            continue;
        }
        let manifest = root.join(folder).join("Cargo.toml");
        let manifest = std::fs::read_to_string(&manifest)
            .with_context(|| format!("cannot read {}", manifest.display()))?;
        let package = names(&manifest).next().with_context(|| format!("{folder}/Cargo.toml has no name"))?;
        let Some((target, module)) = place(&manifest, inside, &|path| root.join(folder).join(path).is_file())
        else {
            continue;
        };
        tests.extend(functions(&text).into_iter().map(|function| Test {
            package: package.to_owned(),
            target: target.clone(),
            file: file.clone(),
            name: module.iter().map(String::as_str).chain([function.as_str()]).collect::<Vec<_>>().join("::"),
        }));
    }
    tests.sort();
    Ok(tests)
}

/// The values of `name = "…"` at the beginning of a line: the package's comes first.
fn names(manifest: &str) -> impl Iterator<Item = &str> {
    manifest.lines().filter_map(|line| line.strip_prefix("name = \"")?.split('"').next())
}

/// The target that a file of a package belongs to, and its module there.
fn place(manifest: &str, inside: &str, is_file: &dyn Fn(&str) -> bool) -> Option<(Target, Vec<String>)> {
    let parts: Vec<&str> = inside.strip_suffix(".rs")?.split('/').collect();
    let module = |parts: &[&str]| {
        let parts = parts.strip_suffix(&["mod"]).unwrap_or(parts);
        parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>()
    };
    match parts.as_slice() {
        ["tests", name] => Some((Target::Test((*name).to_owned()), Vec::new())),
        ["tests", name, "main"] => Some((Target::Test((*name).to_owned()), Vec::new())),
        ["tests", name, rest @ ..] => Some((Target::Test((*name).to_owned()), module(rest))),
        ["src", "bin", name] => Some((Target::Bin((*name).to_owned()), Vec::new())),
        ["src", "lib"] => Some((Target::Lib, Vec::new())),
        ["src", rest @ ..] => {
            let is_program = *rest == ["main"] || !is_file("src/lib.rs");
            let module = if *rest == ["main"] { Vec::new() } else { module(rest) };
            // A binary that is not named after its package has a section of its own.
            let target = if is_program { Target::Bin(binary(manifest)?.to_owned()) } else { Target::Lib };
            Some((target, module))
        }
        _ => None,
    }
}

/// The name of the binary of `src/main.rs`.
fn binary(manifest: &str) -> Option<&str> {
    match manifest.split_once("[[bin]]") {
        Some((_, section)) => names(section).next(),
        None => names(manifest).next(),
    }
}

/// Test functions of a file with the modules that stand in it. The form is rustfmt's, which CI holds: a module ends with
/// a brace below its first letter.
fn functions(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut modules: Vec<(usize, &str)> = Vec::new();
    let mut is_test = false;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let words = line.trim_start().strip_prefix("pub ").unwrap_or_else(|| line.trim_start());
        if let Some(name) = words.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(" {")) {
            modules.push((indent, name));
        } else if line.trim_start() == "}" && modules.last().is_some_and(|(begun, _)| *begun == indent) {
            modules.pop();
        } else if words == "#[test]" || words.starts_with("#[tokio::test") {
            is_test = true;
        } else if is_test && let Some(rest) = words.trim_start_matches("async ").strip_prefix("fn ") {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            is_test = false;
            // `fn $name` is made by a macro, and its names stand where it is called.
            if !name.is_empty() {
                let path = modules.iter().map(|(_, name)| *name).chain([name.as_str()]);
                found.push(path.collect::<Vec<_>>().join("::"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: &str = "[package]\nname = \"dot-x\"\n[[bin]]\nname = \"x\"\n";

    /// Goal: a file's place says what cargo calls it. Method: each kind of place.
    #[test]
    fn places_files() {
        let at = |inside: &str| place(LIBRARY, inside, &|_| true);
        let test = |name: &str| Target::Test(name.to_owned());
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for (inside, target, module) in [
            ("src/lib.rs", Target::Lib, words(&[])),
            ("src/main.rs", Target::Bin("x".to_owned()), words(&[])),
            ("src/dns/mod.rs", Target::Lib, words(&["dns"])),
            ("src/dns/framing.rs", Target::Lib, words(&["dns", "framing"])),
            ("src/bin/floor.rs", Target::Bin("floor".to_owned()), words(&[])),
            ("tests/it/main.rs", test("it"), words(&[])),
            ("tests/it/rfc7766.rs", test("it"), words(&["rfc7766"])),
            ("tests/running.rs", test("running"), words(&[])),
        ] {
            assert_eq!(at(inside), Some((target, module)), "{inside}");
        }
        assert_eq!(at("benches/cases.rs"), None);
        let tool = place("name = \"xtask\"\n", "src/tidy/mod.rs", &|_| false);
        assert_eq!(tool, Some((Target::Bin("xtask".to_owned()), words(&["tidy"]))));
    }

    /// Goal: tests are found with their modules, and nothing else is. Method: one text of each form.
    #[test]
    fn finds_functions() {
        let text = "fn no() {}\n#[test]\nfn one() {\n}\n#[cfg(test)]\nmod tests {\n    mod inner {\n        #[test]\n        \
            #[should_panic]\n        fn two() {}\n    }\n    #[test]\n    fn three() {}\n}\n#[test]\nfn $name() {}\nfn after() {}\n\
            #[tokio::test(start_paused = true)]\nasync fn four() {}\n";
        assert_eq!(functions(text), ["one", "tests::inner::two", "tests::three", "four"]);
    }
}

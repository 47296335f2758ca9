//! What a filter of `cargo xtask test` means: a row, a file, a module, a test, or a part of a name.
//!
//! Before: the words of the command line. After: a set of tests, each known by package, target and name.
//! Holds: the order in which the meanings are tried. Never: takes a filter that selects nothing for a success.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Result, bail};

use super::index::{self, Target, Test};
use crate::tidy;

/// Tests by what they are built into.
pub(super) type Selection = BTreeMap<(String, Target), BTreeSet<String>>;

/// The tests that these filters mean.
///
/// # Errors
/// A filter that selects nothing, named with what it could have been.
pub(super) fn select(root: &Path, filters: &[String]) -> Result<Selection> {
    let files = tidy::files(root)?;
    let tests = index::read(root, &files)?;
    let rows = tidy::covered(root, &files);
    let mut selection = Selection::new();
    for filter in filters {
        for test in meant(filter, &tests, &rows)? {
            let part = (test.package.clone(), test.target.clone());
            selection.entry(part).or_default().insert(test.name.clone());
        }
    }
    Ok(selection)
}

/// The tests that one filter means.
fn meant<'a>(filter: &str, tests: &'a [Test], rows: &tidy::Covered) -> Result<Vec<&'a Test>> {
    let chosen =
        |is_meant: &dyn Fn(&Test) -> bool| tests.iter().filter(|test| is_meant(test)).collect::<Vec<_>>();
    let found = if tidy::is_row(filter) {
        let names: BTreeSet<&str> = rows.of(filter).collect();
        chosen(&|test| names.contains(format!("{}::{}", tidy::short(&test.file), test.function()).as_str()))
    } else if let Some((file, function)) = in_file(filter) {
        let is_file = |test: &Test| test.file == file || test.file.ends_with(&format!("/{file}"));
        chosen(&|test| is_file(test) && (function.is_empty() || test.function() == function))
    } else {
        let inside = format!("{filter}::");
        let exact = chosen(&|test| test.name == filter || test.name.starts_with(&inside));
        if exact.is_empty() { chosen(&|test| test.name.contains(filter)) } else { exact }
    };
    if found.is_empty() {
        bail!(
            "{filter} selects no test. A filter is a row of docs/standards.md or docs/attacks.md (C-17, A-9), a file \
             (dot-userspace/src/dns/framing.rs, rfc7766.rs), a test in a file (FILE::NAME), a module (rfc7766), or a \
             part of a test's name"
        );
    }
    Ok(found)
}

/// `path/file.rs` or `path/file.rs::name`.
fn in_file(filter: &str) -> Option<(&str, &str)> {
    match filter.split_once(".rs::") {
        Some((file, name)) => Some((&filter[..file.len() + ".rs".len()], name)),
        None => filter.ends_with(".rs").then_some((filter, "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(filter: &str) -> Vec<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
        let selection = select(root, &[filter.to_owned()]).unwrap_or_default();
        let lines = selection.into_iter().flat_map(|((package, target), names)| {
            names.into_iter().map(move |name| format!("{package} {} {name}", target.words().join(" ")))
        });
        lines.collect()
    }

    /// Goal: what docs/standards.md and docs/attacks.md name can be run as it stands there. Method: every kind of filter, on
    /// the real tree.
    #[test]
    fn filters_select_what_they_say() {
        const PIPELINED: &str = "dot-tests --test it rfc7766::answers_1000_pipelined_queries";
        assert_eq!(selected("rfc7766::answers_1000_pipelined_queries"), [PIPELINED]);
        assert_eq!(selected("answers_1000_pipelined_queries"), [PIPELINED]);
        let module = selected("rfc7766");
        assert!(
            module.len() > 5 && module.iter().all(|test| test.starts_with("dot-tests --test it rfc7766::"))
        );
        assert_eq!(selected("tests/tests/it/rfc7766.rs"), module);
        assert_eq!(selected("rfc7766.rs"), module);
        let framing = "dot-userspace/src/dns/framing.rs::cuts_what_was_appended";
        assert_eq!(selected(framing), ["dot-userspace --lib dns::framing::tests::cuts_what_was_appended"]);
        let row = selected("C-17");
        assert!(row.contains(&PIPELINED.to_owned()) && row.len() > 1, "{row:?}");
        let row = selected("A-9");
        assert!(row.iter().any(|test| test.starts_with("dot-userspace --lib session::")), "{row:?}");
        assert!(row.iter().any(|test| test.starts_with("dot-tests --test it stalling::")), "{row:?}");
        assert_eq!(selected("pin_outlives"), ["dot-userspace --test running pin_outlives_the_process"]);
        for nothing in ["C-9999", "rfc7766::no_such_test", "no_such_file.rs", "dns/framing.rs::no_such_test"]
        {
            assert_eq!(selected(nothing), [""; 0], "{nothing}");
        }
    }

    /// Goal: each test that a row names can be run by what stands there. Method: all of both pages.
    #[test]
    fn every_name_of_the_pages_selects_one() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
        let files = tidy::files(root).expect("the tree");
        let tests = index::read(root, &files).expect("its tests");
        let rows = tidy::covered(root, &files);
        for page in ["docs/standards.md", "docs/attacks.md"] {
            let text = std::fs::read_to_string(root.join(page)).expect("a page");
            let cells = text.lines().filter(|line| line.starts_with("| C-") || line.starts_with("| A-"));
            for name in cells
                .filter_map(|line| line.rsplit('|').nth(1))
                .flat_map(|tests| tests.split('`').skip(1).step_by(2))
            {
                let found = meant(name, &tests, &rows).unwrap_or_else(|error| panic!("{page}: {error}"));
                assert_eq!(found.len(), 1, "{page}: {name} is {found:?}");
            }
        }
    }
}

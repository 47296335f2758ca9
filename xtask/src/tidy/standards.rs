//! Rule: `docs/standards.md`, `docs/attacks.md` and the tests agree: each row that holds has tests, and each test that
//! covers a row is named there.
//!
//! Before: a document, and every Rust file. After: findings: an id without a row, a row without its test.
//! Holds: the form of a row and of a `Covers:` line. Never: judges whether a test tests what it says.
//!
//! ```text
//! | C-12 | RFC 7766 §8 | requirement | holds | `rfc7858::a_response_is_one_record`, `dot-userspace/src/dns/framing.rs::…` |
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;

/// A document of rows, and how its ids begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    pub path: &'static str,
    prefix: &'static str,
}

/// The pages with the rows.
pub(super) const PAGES: [Page; 2] =
    [Page { path: "docs/standards.md", prefix: "C-" }, Page { path: "docs/attacks.md", prefix: "A-" }];
/// Tests in this folder are named by their file alone.
const TESTS: &str = "tests/tests/it/";
/// The states of a row; the second and third need a reason.
const STATES: [&str; 3] = ["holds", "deviates: ", "open: "];

/// The tests of the tree by the ids that they cover: `file::name`.
#[derive(Debug, Default)]
pub(crate) struct Covered {
    tests: BTreeMap<String, BTreeSet<String>>,
    findings: Vec<Finding>,
}

impl Covered {
    /// Collects the tests of a file.
    pub(super) fn read(&mut self, path: &str, text: &str) {
        let mut documentation = String::new();
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if let Some(words) = line.strip_prefix("///") {
                documentation.push_str(words);
                documentation.push('\n');
            } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| !line.starts_with("//")) {
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                for id in ids(&documentation) {
                    self.tests.entry(id).or_default().insert(format!("{}::{name}", short(path)));
                }
                if points_nowhere(&documentation) {
                    let what = format!(
                        "{name}: `Covers:` names what is no row; name rows (C-12, A-3), or leave it out"
                    );
                    self.findings.push(Finding::new(path, number + 1, what));
                }
                documentation.clear();
            } else if !line.starts_with("#[") {
                documentation.clear();
            }
        }
    }

    /// `Covers:` lines that name no row.
    pub(super) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The tests that cover a row, as `file::name`.
    pub(crate) fn of(&self, id: &str) -> impl Iterator<Item = &str> {
        self.tests.get(id).into_iter().flatten().map(String::as_str)
    }
}

/// Whether the words behind `Covers:` are not ids: the first one is not, or an issue is named.
fn points_nowhere(documentation: &str) -> bool {
    let Some((_, covers)) = documentation.split_once("Covers:") else { return false };
    let first = covers.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').find(|word| !word.is_empty());
    !first.is_some_and(is_id) || covers.split_whitespace().any(|word| word == "issue")
}

/// A test's file as the document names it.
pub(crate) fn short(path: &str) -> &str {
    path.strip_prefix(TESTS).and_then(|name| name.strip_suffix(".rs")).unwrap_or(path)
}

/// The requirements behind `Covers:`.
fn ids(documentation: &str) -> impl Iterator<Item = String> {
    let covers = documentation.split_once("Covers:").map(|(_, rest)| rest).unwrap_or_default();
    let words = covers.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| is_id(word)).map(str::to_owned)
}

/// Whether a word has the form of a row's id.
pub(crate) fn is_id(word: &str) -> bool {
    PAGES.iter().any(|page| page.has(word))
}

impl Page {
    /// Whether an id belongs to one of the page's rows.
    fn has(self, word: &str) -> bool {
        word.strip_prefix(self.prefix)
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()))
    }
}

/// Compares a document with the tests.
pub(super) fn check(page: Page, document: &str, covered: &Covered) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut rows = BTreeSet::new();
    for (number, line) in document.lines().enumerate() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Some(id) = cells.first().filter(|id| page.has(id)) else { continue };
        let mut complain =
            |what: String| findings.push(Finding::new(page.path, number + 1, format!("{id}: {what}")));
        if !rows.insert((*id).to_owned()) {
            complain("stands twice; keep one row".to_owned());
        }
        let [_, _, _, state, tests] = cells.as_slice() else {
            complain("a row has five cells: id, source, requirement, state, tests".to_owned());
            continue;
        };
        if !STATES.iter().any(|known| state.starts_with(known)) {
            complain(format!("\"{state}\" is no state; write `holds`, `deviates: why` or `open: why`"));
        }
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if *state == "holds" && named.is_empty() {
            complain("holds, but names no test; name one that says `Covers:` it".to_owned());
        }
        for test in named {
            if !covered.tests.get(*id).is_some_and(|tests| tests.contains(test)) {
                complain(format!("no test `{test}` says `Covers: {id}`; mend the name, or the test"));
            }
        }
    }
    for (id, tests) in covered.tests.iter().filter(|(id, _)| page.has(id)) {
        if !rows.contains(id) {
            let what =
                format!("{id} has no row, and {} covers it; add one", tests.iter().next().map_or("", |t| t));
            findings.push(Finding::new(page.path, 1, what));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST: &str =
        "/// Goal: it holds.\n/// Method: by looking. Covers: C-1, A-2,\n/// C-3\n#[test]\nfn it_holds() {\n";

    fn covered() -> Covered {
        let mut covered = Covered::default();
        covered.read("tests/tests/it/rfc1.rs", TEST);
        covered
            .read("a/src/b.rs", "    /// Covers: C-3 (half)\n    pub(super) fn half() {}\nfn other() {}\n");
        covered
    }

    fn findings(document: &str) -> Vec<String> {
        check(PAGES[0], document, &covered()).iter().map(ToString::to_string).collect()
    }

    /// Goal: a test that covers something covers a row. Method: an issue's number alone, an issue's number beside a
    /// row, and nothing.
    #[test]
    fn covers_names_rows() {
        let mut covered = covered();
        assert_eq!(covered.findings(), []);
        for words in ["issue 3, item 9", "C-3, issue 3 item 9", ""] {
            covered.read("a.rs", &format!("/// Covers: {words}.\n#[test]\nfn it_does() {{\n"));
        }
        assert_eq!(covered.findings().len(), 3, "{:?}", covered.findings());
    }

    /// Goal: a document that fits has no finding. Method: tests of both kinds of place, a deviation, an open one.
    #[test]
    fn what_fits_is_silent() {
        let document = "# Words\n| id | source | x | state | tests |\n|---|---|---|---|---|\n\
            | C-1 | RFC 1 §1 | one | holds | `rfc1::it_holds` |\n\
            | C-2 | RFC 1 §2 | two | deviates: nobody does | |\n\
            | C-3 | RFC 1 §3 | three | holds | `a/src/b.rs::half`, `rfc1::it_holds` |\n\
            | C-4 | RFC 1 §4 | four | open: not built | |\n";
        assert_eq!(findings(document), [""; 0]);
    }

    /// Goal: each page has rows of its own. Method: the same document, read as the page of attacks.
    #[test]
    fn a_page_has_its_own_rows() {
        let document = "| C-1 | RFC 1 | one | fine | |\n| A-3 | x | y | holds | `rfc1::it_holds` |\n";
        let said: Vec<String> =
            check(PAGES[1], document, &covered()).iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("attacks.md:2: A-3: no test"), "{said:?}");
        assert!(said[1].contains("A-2 has no row"), "{said:?}");
    }

    /// Goal: each mistake is found. Method: one document of mistakes.
    #[test]
    fn mistakes_are_named() {
        let document = "| C-1 | RFC 1 | one | holds | |\n| C-1 | RFC 1 | one | fine | `rfc1::gone` |\n| C-5 | RFC 1 | holds |\n";
        let said = findings(document).join("\n");
        for part in [
            "md:1: C-1: holds, but",
            "md:2: C-1: stands twice",
            "\"fine\" is no state",
            "`rfc1::gone`",
            "md:3: C-5: a row has five",
            "md:1: C-3 has no row",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}

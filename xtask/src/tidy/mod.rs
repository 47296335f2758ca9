//! `cargo xtask tidy`: checks the project's own rules, which rustc and clippy do not know, file by file.
//!
//! Before: the tree on disk. After: `xtask::lint` and CI rely on these rules.
//! Holds: the walk, the order of the checks and the form of a finding; each rule has a file of its own.
//! Never: changes a file.

mod circles;
mod foreign_crates;
mod headers;
mod layers;
mod locks;
mod places;
mod prose;
mod sizes;
mod source;
mod standards;
#[cfg(test)]
mod tests;
mod unsafety;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use source::Source;
pub(crate) use standards::{Covered, is_id as is_row, short};

/// tidy's own tests contain examples of what it looks for.
const STANDARDS_RULE: &str = "xtask/src/tidy/standards.rs";

/// Arguments of `cargo xtask tidy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES:
    cargo xtask tidy                             check the whole tree
    cargo xtask tidy dot-userspace/src/tls       only what lies under a folder

EXIT STATUS:
    0 when nothing was found, 1 when something was, 2 for a mistake in the command line.
    Each finding is one line: path:line: what is wrong; how to mend it.")]
pub(crate) struct Tidy {
    /// Check only what lies under these paths, relative to the top of the repository
    paths: Vec<PathBuf>,
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Checks the tree under `root` and prints every finding.
///
/// # Errors
/// At least one finding, or a file that cannot be read.
pub(crate) fn run(root: &Path, arguments: &Tidy) -> Result<()> {
    let files = files(root)?;
    let mut findings = Vec::new();
    let mut checked = 0;
    let mut names = prose::Names::default();
    for path in &files {
        names.read(path, &std::fs::read_to_string(root.join(path)).unwrap_or_default());
    }
    for path in files.iter().filter(|path| is_wanted(path, &arguments.paths)) {
        let Ok(text) = std::fs::read_to_string(root.join(path)) else { continue };
        checked += 1;
        findings.extend(check(root, path, &text));
        findings.extend(names.check(path, &text));
    }
    if arguments.paths.is_empty() {
        let covered = covered(root, &files);
        findings.extend_from_slice(covered.findings());
        for page in standards::PAGES {
            let document = std::fs::read_to_string(root.join(page.path));
            findings.extend(standards::check(page, &document.unwrap_or_default(), &covered));
        }
        findings.extend(layers::check_page(root));
        findings.extend(imports(root, &files).check());
        findings.extend(unsafety::stale_entries(root));
        findings.extend(locks::stale_entries(root));
        findings.extend(foreign_crates::stale_entries(&files));
    }
    if checked == 0 {
        bail!("no file to check: are the paths relative to {}?", root.display());
    }
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy: {checked} files, nothing found");
            Ok(())
        }
        count => bail!("tidy: {count} findings in {checked} files"),
    }
}

/// The tests of these files by the rows that they cover.
pub(crate) fn covered(root: &Path, files: &[String]) -> Covered {
    let mut covered = Covered::default();
    for path in files.iter().filter(|path| path.ends_with(".rs") && *path != STANDARDS_RULE) {
        if let Ok(text) = std::fs::read_to_string(root.join(path)) {
            covered.read(path, &text);
        }
    }
    covered
}

/// The imports of all files inside their folders.
fn imports(root: &Path, files: &[String]) -> circles::Imports {
    let mut imports = circles::Imports::default();
    for path in files.iter().filter(|path| path.ends_with(".rs")) {
        let text = std::fs::read_to_string(root.join(path)).unwrap_or_default();
        // A file that cannot be parsed is a finding of its own.
        if let Ok(source) = Source::parse(path, &text) {
            imports.read(&source);
        }
    }
    imports
}

/// Every rule on one file; `path` is relative to `root`, with slashes.
fn check(root: &Path, path: &str, text: &str) -> Vec<Finding> {
    let mut findings = places::check(root, path, text);
    if !path.ends_with(".rs") {
        return findings;
    }
    findings.extend(headers::check(path, text));
    findings.extend(places::check_unit_tests(path, text));
    findings.extend(sizes::check_file(path, text));
    match Source::parse(path, text) {
        Ok(source) => {
            findings.extend(sizes::check_functions(&source));
            findings.extend(foreign_crates::check(&source));
            findings.extend(layers::check(&source));
            findings.extend(unsafety::check(&source));
            findings.extend(locks::check(&source));
        }
        Err(error) => findings.push(Finding::new(path, error.line, error.what)),
    }
    findings
}

fn is_wanted(path: &str, wanted: &[PathBuf]) -> bool {
    wanted.is_empty() || wanted.iter().any(|prefix| Path::new(path).starts_with(prefix))
}

/// The project's own text files, relative to `root`, sorted: build output and version control left out.
pub(crate) fn files(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let kind = entry.file_type()?;
            if kind.is_dir() && name != "target" && name != ".git" {
                folders.push(entry.path());
            } else if kind.is_file() && is_text(&name.to_string_lossy()) {
                let path = entry.path();
                let relative = path.strip_prefix(root).context("a walk stays under its root")?;
                found.push(relative.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Text that is written by hand: sources, documents, settings, scripts and units. Lock files are generated.
fn is_text(name: &str) -> bool {
    const ENDINGS: [&str; 12] = [
        ".rs",
        ".md",
        ".toml",
        ".sh",
        ".service",
        ".zone",
        ".conf",
        ".txt",
        ".yml",
        ".json",
        ".py",
        ".gitignore",
    ];
    ENDINGS.iter().any(|ending| name.ends_with(ending)) || !name.contains('.')
}

//! `--only`: which entries of a table take part.
//!
//! Before: names from the command line. After: the entries in the table's order, or the names that there are.
//! Holds: the rule that a name's first part means all of its family (`dnsdist` is `dnsdist` and `dnsdist-cache`). Never: opens anything.

use anyhow::{Result, bail};

/// The entries of `all` that `only` names; all where it is empty.
///
/// # Errors
/// A name that no entry has.
pub(crate) fn choose<T>(
    only: &[String],
    all: impl IntoIterator<Item = T>,
    name_of: impl Fn(&T) -> &'static str,
) -> Result<Vec<T>> {
    let all: Vec<T> = all.into_iter().collect();
    let is_meant = |asked: &str, name: &str| {
        name.strip_prefix(asked).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    for asked in only {
        if !all.iter().any(|entry| is_meant(asked, name_of(entry))) {
            let mut names: Vec<&str> = all.iter().map(&name_of).collect();
            names.dedup();
            bail!("--only {asked}: no entry has this name; they are {}", names.join(", "));
        }
    }
    let is_wanted = |entry: &T| only.is_empty() || only.iter().any(|asked| is_meant(asked, name_of(entry)));
    Ok(all.into_iter().filter(is_wanted).collect())
}

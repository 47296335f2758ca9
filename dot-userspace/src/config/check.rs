//! What the checks of values against each other share: the file's text with its places, and the list of mistakes.
//!
//! Before: `load` has parsed the file. After: `consistency` and its parts have noted every mistake at its place.
//! Never: judges by itself.

use super::{Mistake, source::Source};

/// A check of a whole config.
pub(super) struct Check<'a, 't> {
    pub(super) source: &'a Source<'t>,
    pub(super) mistakes: &'a mut Vec<Mistake>,
}

impl Check<'_, '_> {
    /// Notes a mistake of the key at `path`.
    pub(super) fn note(&mut self, path: &str, message: impl AsRef<str>) {
        self.mistakes.push(self.source.at(path, message.as_ref()));
    }
}

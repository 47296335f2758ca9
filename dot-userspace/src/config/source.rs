//! The text of a config file with its places: TOML becomes a [`Config`], and each key keeps its line and
//! column.
//!
//! Before: `config::load` read the file. After: the checks ask for the place of a key.
//! Holds: the method to find more than one mistake: a value that serde refuses is noted and removed from the tree,
//! and serde runs again.
//! Never: knows the meaning of a key.

use std::ops::Range;

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

use super::{Config, Mistake, messages};

/// A parsed file.
pub(super) struct Source<'a> {
    text: &'a str,
    file: &'a str,
    tree: Spanned<DeTable<'a>>,
}

impl<'a> Source<'a> {
    /// Parses TOML. Every syntax error is a mistake, and then the tree is empty: a part of a tree would cause
    /// mistakes that do not exist.
    pub(super) fn parse(text: &'a str, file: &'a str) -> (Self, Vec<Mistake>) {
        let (tree, errors) = DeTable::parse_recoverable(text);
        let mut source = Self { text, file, tree };
        let mut mistakes: Vec<_> = errors
            .iter()
            .take(MISTAKES_MAX)
            .map(|error| source.mistake(error.span(), messages::grammar(error.message())))
            .collect();
        // Errors that the parser reports for the rest of a line follow from the first one.
        mistakes.dedup_by_key(|mistake| mistake.place.map(|(line, _)| line));
        if !mistakes.is_empty() {
            source.tree = Spanned::new(0..0, DeTable::new());
        }
        (source, mistakes)
    }

    /// Deserializes; afterwards the tree contains exactly the keys of the config.
    pub(super) fn config(mut self, mistakes: &mut Vec<Mistake>) -> (Config, Self) {
        let mut taken = Vec::<Vec<Step>>::new();
        for _ in 0..MISTAKES_MAX {
            let error = match Config::deserialize(Deserializer::from(self.tree.clone())) {
                Ok(config) => return (config, self),
                Err(error) => error,
            };
            let path =
                error.span().map(|span| smallest_around(self.tree.get_ref(), &span)).unwrap_or_default();
            // If serde misses a key because its value was removed, that is no second mistake.
            let is_consequence = messages::missing(error.message()).is_some_and(|name| {
                taken.iter().any(|gone| gone.split_last() == Some((&Step::from(name), path.as_slice())))
            });
            if !is_consequence {
                mistakes.push(self.mistake(error.span(), messages::shape(error.message(), &show(&path))));
            }
            if !remove(self.tree.get_mut(), &path) {
                break;
            }
            // The keys inside were removed with it, and another element may now have its index.
            taken.retain(|inside| !inside.starts_with(&path));
            taken.push(path);
        }
        self.tree = Spanned::new(0..0, DeTable::new());
        (Config::default(), self)
    }

    /// A mistake at a key: at the place of its value, or of the nearest table around it that the file contains.
    pub(super) fn at(&self, path: &str, message: &str) -> Mistake {
        let steps = steps(path);
        self.mistake(self.span(&steps), format!("{}: {message}", show(&steps)))
    }

    /// Line and column of a key's value, or of the nearest table around it that the file contains.
    pub(super) fn place_of(&self, path: &str) -> Option<(usize, usize)> {
        self.span(&steps(path)).map(|span| place(self.text, span.start))
    }

    /// Whether the file has the key.
    pub(super) fn says(&self, path: &str) -> bool {
        let mut at = None;
        steps(path).iter().all(|step| {
            let next = step.follow(at, self.tree.get_ref());
            at = next.map(Spanned::get_ref);
            next.is_some()
        })
    }

    fn span(&self, steps: &[Step]) -> Option<Range<usize>> {
        let mut span = None;
        let mut at = None;
        for step in steps {
            let Some(next) = step.follow(at, self.tree.get_ref()) else { break };
            span = Some(next.span());
            at = Some(next.get_ref());
        }
        span
    }

    fn mistake(&self, span: Option<Range<usize>>, message: String) -> Mistake {
        let place = span.map(|span| place(self.text, span.start));
        Mistake { file: self.file.to_owned(), place, message }
    }
}

/// The way to a key, its steps between full stops: `backend.0.address`.
fn steps(path: &str) -> Vec<Step> {
    path.split('.').map(Step::from).collect()
}

/// One step from a table or array to what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl From<&str> for Step {
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Key(text.to_owned()), Self::Index)
    }
}

impl Step {
    /// Takes the step from `at`, or from the root.
    fn follow<'t, 'i>(
        &self,
        at: Option<&'t DeValue<'i>>,
        root: &'t DeTable<'i>,
    ) -> Option<&'t Spanned<DeValue<'i>>> {
        match (self, at) {
            (Self::Key(key), None) => root.get(key.as_str()),
            (Self::Key(key), Some(DeValue::Table(table))) => table.get(key.as_str()),
            (Self::Index(index), Some(DeValue::Array(array))) => array.get(*index),
            _ => None,
        }
    }
}

/// A path as operators write it, without indices: the place identifies the backend among several.
fn show(path: &[Step]) -> String {
    let keys = path.iter().filter_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    });
    keys.collect::<Vec<_>>().join(".")
}

/// Path of the smallest key or value whose span holds `wanted`; empty when there is none.
fn smallest_around(root: &DeTable<'_>, wanted: &Range<usize>) -> Vec<Step> {
    let mut found = (usize::MAX, Vec::new());
    let mut path = Vec::new();
    search_table(root, wanted, &mut path, &mut found);
    found.1
}

fn search_table(
    table: &DeTable<'_>,
    wanted: &Range<usize>,
    path: &mut Vec<Step>,
    found: &mut (usize, Vec<Step>),
) {
    for (key, value) in table {
        path.push(Step::Key(key.get_ref().to_string()));
        consider(&key.span(), wanted, path, found);
        search_value(value, wanted, path, found);
        path.pop();
    }
}

fn search_value(
    value: &Spanned<DeValue<'_>>,
    wanted: &Range<usize>,
    path: &mut Vec<Step>,
    found: &mut (usize, Vec<Step>),
) {
    consider(&value.span(), wanted, path, found);
    match value.get_ref() {
        DeValue::Table(table) => search_table(table, wanted, path, found),
        DeValue::Array(array) => {
            for (index, element) in array.iter().enumerate() {
                path.push(Step::Index(index));
                search_value(element, wanted, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Uses `path` if its span contains `wanted` and is smaller than the best so far; among equals, the deepest.
fn consider(span: &Range<usize>, wanted: &Range<usize>, path: &[Step], found: &mut (usize, Vec<Step>)) {
    if span.start <= wanted.start && wanted.end <= span.end && span.len() <= found.0 {
        *found = (span.len(), path.to_vec());
    }
}

/// Removes the entry at `path`; `false`: it does not exist. A list that loses its last element is removed too,
/// because an empty list would cause another mistake.
fn remove(root: &mut DeTable<'_>, path: &[Step]) -> bool {
    let Some((last, above)) = path.split_last() else { return false };
    let Some(first) = above.first() else {
        return matches!(last, Step::Key(key) if root.remove(key.as_str()).is_some());
    };
    let Step::Key(first) = first else { return false };
    let mut at = root.get_mut(first.as_str()).map(Spanned::get_mut);
    for step in &above[1..] {
        at = match (step, at) {
            (Step::Key(key), Some(DeValue::Table(table))) => {
                table.get_mut(key.as_str()).map(Spanned::get_mut)
            }
            (Step::Index(index), Some(DeValue::Array(array))) => array.get_mut(*index).map(Spanned::get_mut),
            _ => None,
        };
    }
    match (last, at) {
        (Step::Key(key), Some(DeValue::Table(table))) => table.remove(key.as_str()).is_some(),
        (Step::Index(_), Some(DeValue::Array(array))) if array.len() == 1 => remove(root, above),
        (Step::Index(index), Some(DeValue::Array(array))) => take_element(array, *index),
        _ => false,
    }
}

/// [`toml::de::DeArray`] has no `remove`: builds it again without the element.
fn take_element(array: &mut toml::de::DeArray<'_>, index: usize) -> bool {
    if index >= array.len() {
        return false;
    }
    let mut rest = toml::de::DeArray::new();
    for (position, element) in array.iter().enumerate() {
        if position != index {
            rest.push(element.clone());
        }
    }
    *array = rest;
    true
}

/// Line and column of an octet offset, both from 1; columns are characters.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|octet| *octet == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// Enough to repair a file; a file with more is not a config.
const MISTAKES_MAX: usize = 50;

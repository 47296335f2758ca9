//! The mistakes of a config file: one line each, with its place and the remedy.
//!
//! Before: `config::load` has checked the file. After: `cli` prints the lines and exits with 1.
//! Never: stops at the first mistake if another one can be found.

use std::fmt;

/// One mistake. Its `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file; empty for text without a file.
    pub file: String,
    /// Line and column of the first character at fault, both from 1; `None` for the file as a whole.
    pub place: Option<(usize, usize)>,
    /// The mistake and its remedy.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// At least one mistake, in the order of the file. `Display` has a line for each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// The mistakes.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

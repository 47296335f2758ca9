//! A file becomes a [`Config`], or a list of everything that is wrong with it.
//!
//! Before: `cli` has a path, or none. After: `start` gives each module its part.
//! Holds: the order of checks: TOML, then shape and types, then ranges, then consistency.
//! Never: gives a config away that has a mistake without saying so; waits on a pipe; reads more than [`FILE_OCTETS_MAX`].

use std::{
    fs::{self, File},
    io,
    io::Read as _,
    path::Path,
};

use super::{
    Config, ConfigErrors, Mistake, consistency, consistency_dnstap, names, paths, range, source::Source,
};

/// Reads and checks `path`; without one, [`DEFAULT_PATH`] if it is there, else every default.
///
/// # Errors
/// [`ConfigErrors`] holds a line for every mistake that could be seen.
pub fn load(path: Option<&Path>) -> Result<Config, ConfigErrors> {
    load_placed(path).map(|placed| placed.config)
}

/// As [`load`], and keeps where each key stands: for who finds mistakes that only this machine can show.
///
/// # Errors
/// As [`load`].
pub fn load_placed(path: Option<&Path>) -> Result<Placed, ConfigErrors> {
    let (placed, mistakes) = load_what_is_sound(path)?;
    if mistakes.is_empty() { Ok(placed) } else { Err(ConfigErrors { mistakes }) }
}

/// As [`load_placed`], for a look at all mistakes at once: a key that cannot be taken has its default, and a mistake.
///
/// # Errors
/// Where nothing of the file can be taken: it cannot be read, or is no TOML.
pub fn load_what_is_sound(path: Option<&Path>) -> Result<(Placed, Vec<Mistake>), ConfigErrors> {
    let Some(Read { text, file }) = read(path)? else { return Ok((Placed::default(), Vec::new())) };
    let (config, mistakes) = examine(&text, &file)?;
    Ok((Placed { config, text, file }, mistakes))
}

/// A config file as it was read, not yet looked at.
pub struct Read {
    /// Its text.
    pub text: String,
    /// Its name in mistakes.
    pub file: String,
}

/// Reads `path`; without one, [`DEFAULT_PATH`], or nothing if that is not there.
///
/// # Errors
/// One line: why it cannot be read.
pub fn read(path: Option<&Path>) -> Result<Option<Read>, ConfigErrors> {
    let named = path.is_some();
    let path = path.unwrap_or(Path::new(DEFAULT_PATH));
    match read_text(path) {
        Ok(text) => Ok(Some(Read { text, file: path.display().to_string() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !named => Ok(None),
        Err(error) => {
            let message = match error.kind() {
                io::ErrorKind::NotFound => {
                    "no such file: name another with --config, or none for the defaults".into()
                }
                io::ErrorKind::InvalidData => "is not UTF-8: save it as that".into(),
                io::ErrorKind::PermissionDenied => "cannot be read: run as its owner or `chmod` it".into(),
                _ => format!("cannot be read: {error}"),
            };
            let file = path.display().to_string();
            Err(ConfigErrors { mistakes: vec![Mistake { file, place: None, message }] })
        }
    }
}

/// A config that is sound in itself, and where its keys stand.
#[derive(Default)]
pub struct Placed {
    /// The config.
    pub config: Config,
    text: String,
    file: String,
}

impl Placed {
    /// Whether there is a file and no key in it: it may have been cut off, or never been written.
    #[must_use]
    pub fn is_empty_file(&self) -> bool {
        let says_nothing = |line: &str| line.is_empty() || line.starts_with('#') || line.starts_with('[');
        !self.file.is_empty() && self.text.lines().map(str::trim).all(says_nothing)
    }

    /// What the file says, where there is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        (!self.file.is_empty()).then_some(&self.text)
    }

    /// What is doubtful about a file without a key.
    #[must_use]
    pub fn empty_warning(&self) -> String {
        format!("{}: sets no key: every default holds, and the embedded zone dotd.test answers", self.file)
    }

    /// What a mistake at `key` begins with: `FILE:LINE:COLUMN: `, of the nearest table around it when the file
    /// does not name it; empty when the key is a default.
    #[must_use]
    pub fn place(&self, key: &str) -> String {
        let place = Source::parse(&self.text, &self.file).0.place_of(key);
        place.map_or_else(String::new, |(line, column)| format!("{}:{line}:{column}: ", self.file))
    }
}

/// Checks the text of a config file; `file` is its name in mistakes.
///
/// # Errors
/// [`ConfigErrors`] holds a line for every mistake that could be seen.
pub fn parse(text: &str, file: &str) -> Result<Config, ConfigErrors> {
    let (config, mistakes) = examine(text, file)?;
    if mistakes.is_empty() { Ok(config) } else { Err(ConfigErrors { mistakes }) }
}

/// What can be taken of a config, and every mistake in it.
fn examine(text: &str, file: &str) -> Result<(Config, Vec<Mistake>), ConfigErrors> {
    let (source, mut mistakes) = Source::parse(text, file);
    let is_toml = mistakes.is_empty();
    let (mut config, source) = source.config(&mut mistakes);
    paths::resolve(&mut config, Path::new(file).parent().unwrap_or(Path::new("")));
    range::check(&config, &source, &mut mistakes);
    consistency::check(&config, &source, &mut mistakes);
    names::check(&config, &source, &mut mistakes);
    consistency_dnstap::check(&config, &source, &mut mistakes);
    mistakes.sort_by_key(|mistake| mistake.place);
    mistakes.dedup();
    if is_toml { Ok((config, mistakes)) } else { Err(ConfigErrors { mistakes }) }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // To open a pipe is to wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file; name one"));
    }
    File::open(path)?.take(FILE_OCTETS_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_OCTETS_MAX {
        return Err(io::Error::other(format!("larger than {FILE_OCTETS_MAX} octets, which no dotd.toml is")));
    }
    Ok(text)
}

/// Where packages put it.
pub const DEFAULT_PATH: &str = "/etc/dotd/dotd.toml";
/// 1 MiB: a thousand backends need a tenth of it.
const FILE_OCTETS_MAX: u64 = 1 << 20;

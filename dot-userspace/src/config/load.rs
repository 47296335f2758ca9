//! Turns a file into a [`Config`], or a list of all its mistakes.
//!
//! Before: `cli` has a path, or none. After: `start` gives each module its part.
//! Holds: the order of checks: TOML, then shape and types, then ranges, then consistency.
//! Never: returns a config with a mistake without reporting it; waits on a pipe; reads more than [`FILE_OCTETS_MAX`].

use std::{
    fs::{self, File},
    io,
    io::Read as _,
    path::Path,
};

use super::{
    Config, ConfigErrors, Mistake, consistency, consistency_dnstap, consistency_otlp, names, paths, range,
    source::Source,
};

/// Reads and checks `path`; without one, [`DEFAULT_PATH`] if it exists, else the default of every key.
///
/// # Errors
/// [`ConfigErrors`] has a line for every mistake that was found.
pub fn load(path: Option<&Path>) -> Result<Config, ConfigErrors> {
    load_placed(path).map(|placed| placed.config)
}

/// As [`load`], and keeps the place of each key, for checks that depend on this machine.
///
/// # Errors
/// As [`load`].
pub fn load_placed(path: Option<&Path>) -> Result<Placed, ConfigErrors> {
    let (placed, mistakes) = load_what_is_sound(path)?;
    if mistakes.is_empty() { Ok(placed) } else { Err(ConfigErrors { mistakes }) }
}

/// As [`load_placed`], to report all mistakes at once: a key with a mistake gets its default, and the mistake is
/// listed.
///
/// # Errors
/// Nothing of the file can be used: it cannot be read, or is not TOML.
pub fn load_what_is_sound(path: Option<&Path>) -> Result<(Placed, Vec<Mistake>), ConfigErrors> {
    let Some(Read { text, file }) = read(path)? else { return Ok((Placed::default(), Vec::new())) };
    let (config, mistakes) = examine(&text, &file)?;
    Ok((Placed { config, text, file }, mistakes))
}

/// The text of a config file, not yet parsed.
pub struct Read {
    /// The text.
    pub text: String,
    /// The file's name in mistakes.
    pub file: String,
}

impl Read {
    /// The text of the file at `path`; without one, of [`DEFAULT_PATH`].
    #[must_use]
    pub fn of(text: String, path: Option<&Path>) -> Self {
        Self { text, file: path.unwrap_or(Path::new(DEFAULT_PATH)).display().to_string() }
    }
}

/// Reads `path`; without one, [`DEFAULT_PATH`]. `None`: that does not exist.
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

/// A config without mistakes, and the places of its keys.
#[derive(Default)]
pub struct Placed {
    /// The config.
    pub config: Config,
    text: String,
    file: String,
}

impl Placed {
    /// Whether there is a file without any key: it may have been truncated, or never been written.
    #[must_use]
    pub fn is_empty_file(&self) -> bool {
        let says_nothing = |line: &str| line.is_empty() || line.starts_with('#') || line.starts_with('[');
        !self.file.is_empty() && self.text.lines().map(str::trim).all(says_nothing)
    }

    /// A config with the text that it was read from. It has been checked before.
    #[must_use]
    pub fn of(config: Config, text: String, file: String) -> Self {
        Self { config, text, file }
    }

    /// Whether the file has the key.
    #[must_use]
    pub fn says(&self, key: &str) -> bool {
        Source::parse(&self.text, &self.file).0.says(key)
    }

    /// The text of the file, if there is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        (!self.file.is_empty()).then_some(&self.text)
    }

    /// The warning about a file without a key.
    #[must_use]
    pub fn empty_warning(&self) -> String {
        format!(
            "{}: sets no key: every key has its default, and the embedded zone dotd.test answers",
            self.file
        )
    }

    /// The beginning of a mistake's line for `key`: `FILE:LINE:COLUMN: `, of the nearest table around it if the file
    /// does not contain it; empty if the key has its default.
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

/// The parts of a config that are valid, and every mistake in it.
fn examine(text: &str, file: &str) -> Result<(Config, Vec<Mistake>), ConfigErrors> {
    let (source, mut mistakes) = Source::parse(text, file);
    let is_toml = mistakes.is_empty();
    let (mut config, source) = source.config(&mut mistakes);
    paths::resolve(&mut config, Path::new(file).parent().unwrap_or(Path::new("")));
    range::check(&config, &source, &mut mistakes);
    consistency::check(&config, &source, &mut mistakes);
    names::check(&config, &source, &mut mistakes);
    consistency_dnstap::check(&config, &source, &mut mistakes);
    consistency_otlp::check(&config, &source, &mut mistakes);
    mistakes.sort_by_key(|mistake| mistake.place);
    mistakes.dedup();
    if is_toml { Ok((config, mistakes)) } else { Err(ConfigErrors { mistakes }) }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file; name one"));
    }
    File::open(path)?.take(FILE_OCTETS_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_OCTETS_MAX {
        return Err(io::Error::other(format!(
            "larger than {FILE_OCTETS_MAX} octets, which is too large for a dotd.toml"
        )));
    }
    Ok(text)
}

/// The path that packages use.
pub const DEFAULT_PATH: &str = "/etc/dotd/dotd.toml";
/// 1 MiB: a thousand backends need a tenth of it.
const FILE_OCTETS_MAX: u64 = 1 << 20;

//! A file becomes a [`Config`], or a list of everything that is wrong with it.
//!
//! Before: `cli` has a path, or none. After: `start` gives each room its part.
//! Holds: the order of checks: TOML, then shape and types, then ranges, then sense, then what this version
//! lacks.
//! Never: gives a config away that has a mistake; reads more than [`FILE_OCTETS_MAX`].

use std::{fs::File, io, io::Read as _, path::Path};

use super::{Config, ConfigErrors, Mistake, not_yet, range, sense, text::Text};

/// Reads and checks `path`; without one, [`DEFAULT_PATH`] if it is there, else every default.
///
/// # Errors
/// [`ConfigErrors`] holds a line for every mistake that could be seen.
pub fn load(path: Option<&Path>) -> Result<Config, ConfigErrors> {
    let named = path.is_some();
    let path = path.unwrap_or(Path::new(DEFAULT_PATH));
    match read(path) {
        Ok(text) => parse(&text, &path.display().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !named => Ok(Config::default()),
        Err(error) => {
            let message = match error.kind() {
                io::ErrorKind::NotFound => {
                    "no such file: name another with --config, or none for the defaults".into()
                }
                io::ErrorKind::PermissionDenied => "cannot be read: run as its owner or `chmod` it".into(),
                _ => format!("cannot be read: {error}"),
            };
            let file = path.display().to_string();
            Err(ConfigErrors { mistakes: vec![Mistake { file, place: None, message }] })
        }
    }
}

/// Checks the text of a config file; `file` is its name in mistakes.
///
/// # Errors
/// [`ConfigErrors`] holds a line for every mistake that could be seen.
pub fn parse(text: &str, file: &str) -> Result<Config, ConfigErrors> {
    let (text, mut mistakes) = Text::parse(text, file);
    let (config, text) = text.config(&mut mistakes);
    range::check(&config, &text, &mut mistakes);
    sense::check(&config, &text, &mut mistakes);
    not_yet::check(&config, &text, &mut mistakes);
    if mistakes.is_empty() {
        return Ok(config);
    }
    mistakes.sort_by_key(|mistake| mistake.place);
    mistakes.dedup();
    Err(ConfigErrors { mistakes })
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
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

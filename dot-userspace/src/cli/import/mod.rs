//! `dotd import`: the config of another TLS terminator becomes a `dotd.toml`.
//!
//! Before: files of stunnel, HAProxy or nginx. After: TOML on standard output that `dotd check` accepts, with the place in
//! the old file behind each value, and a comment for each line that has no counterpart.
//! Never: writes a file, follows an include, or drops a line without saying so.

mod draft;
mod haproxy;
mod haproxy_rules;
mod lists;
mod nginx;
mod place;
mod services;
mod stunnel;
#[cfg(test)]
mod tests;

use std::{fs, path::PathBuf};

use super::error::CliError;
use draft::Draft;

/// The program whose config is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Program {
    Stunnel,
    Haproxy,
    Nginx,
}

/// Most octets of one file. Configs are small; a device or a log named by mistake is not.
const FILE_OCTETS_MAX: u64 = 1 << 20;

/// The config for dotd that does what `files` do.
///
/// # Errors
/// A file cannot be read, or contains nothing that dotd can use.
pub(super) fn import(program: Program, files: &[PathBuf]) -> Result<String, CliError> {
    let mut draft = Draft::default();
    for file in files {
        let name = file.display().to_string();
        let refuse = |why: String| CliError::Import(format!("{name}: {why}"));
        let octets = fs::metadata(file).map_err(|error| refuse(error.to_string()))?;
        if !octets.is_file() || octets.len() > FILE_OCTETS_MAX {
            return Err(refuse(format!(
                "not a file of at most {FILE_OCTETS_MAX} octets: name a config file"
            )));
        }
        let text = fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?;
        let path = std::path::absolute(file).map_err(|error| refuse(error.to_string()))?;
        draft.folder = path.parent().map(PathBuf::from).unwrap_or_default();
        read(program, &name, &text, &mut draft);
    }
    if draft.is_empty() {
        return Err(CliError::Import(format!(
            "no TLS service on port 853, and none in front of port 53, in {}: name the file that holds it",
            files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
        )));
    }
    Ok(draft.to_toml())
}

/// Adds one file's services to the draft.
fn read(program: Program, name: &str, text: &str, draft: &mut Draft) {
    match program {
        Program::Stunnel => stunnel::read(name, text, draft),
        Program::Haproxy => haproxy::read(name, text, draft),
        Program::Nginx => nginx::read(name, text, draft),
    }
}

//! `dotd run`: reads the config and serves.
//!
//! Before: an operator or a service manager started dotd, or a keeper runs this program after a crash of its engine.
//! After: `start` serves.
//! Never: reads the config file again after a crash: the next engine serves by the config of the last one.

use std::path::{Path, PathBuf};

use super::error::CliError;
use crate::{
    config::{self, Config},
    keeper::Inheritance,
    start::{self, logging},
};

/// Runs the verb. `list`: the descriptor on which the program before, in this process, says what it leaves.
pub(super) fn run(list: Option<i32>, path: Option<PathBuf>) -> Result<u8, CliError> {
    if let Some(list) = list {
        return succeed(list, path);
    }
    let placed = config::load_placed(path.as_deref())?;
    logging::init(&placed.config.log);
    if placed.is_empty_file() {
        tracing::warn!("{}", placed.empty_warning());
    }
    let text = placed.text().map(str::to_owned);
    start::run(placed.config, text, path).map_err(CliError::Start)
}

fn succeed(list: i32, path: Option<PathBuf>) -> Result<u8, CliError> {
    let inherited = Inheritance::read(list).map_err(CliError::Inherited)?;
    let file = path.as_deref().unwrap_or(Path::new(config::DEFAULT_PATH)).display().to_string();
    let config = match &inherited.text {
        Some(text) => config::parse(text, &file)?,
        None => Config::default(),
    };
    logging::init(&config.log);
    start::succeed(config, &inherited, path).map_err(CliError::Start)
}

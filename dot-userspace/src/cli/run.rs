//! `dotd run`: reads the config and serves.
//!
//! Before: an operator or a service manager started dotd, or a keeper runs this program after a crash of its engine
//! or at an upgrade.
//! After: `start` serves.
//! Never: reads the config file again after a crash: the next engine uses the config of the last one.

use std::path::{Path, PathBuf};

use super::{error::CliError, print};
use crate::{
    config::{self, Config, ConfigErrors},
    keeper::{COULD_SERVE, Inheritance},
    start::{self, logging},
};

/// Runs the verb. `list`: the descriptor of the list that the previous program of this process wrote.
/// `is_trial`: only check whether this program could take over.
pub(super) fn run(list: Option<i32>, is_trial: bool, path: Option<PathBuf>) -> Result<u8, CliError> {
    if let Some(list) = list {
        return succeed(list, is_trial, path);
    }
    let placed = config::load_placed(path.as_deref())?;
    logging::init(&placed.config.log);
    if placed.is_empty_file() {
        tracing::warn!("{}", placed.empty_warning());
    }
    let text = placed.text().map(str::to_owned);
    start::run(placed.config, text, path).map_err(CliError::Start)
}

fn succeed(list: i32, is_trial: bool, path: Option<PathBuf>) -> Result<u8, CliError> {
    let inherited = Inheritance::read(list).map_err(CliError::Inherited)?;
    let read =
        if inherited.is_served() { read_anew(path.as_deref()) } else { served(&inherited, path.as_deref()) };
    if is_trial {
        inherited.understands().map_err(CliError::Inherited)?;
        start::could_succeed(read?.0).map_err(CliError::Start)?;
        return print(&format!("{COULD_SERVE}\n")).map(|()| 0);
    }
    logging::init(&read.as_ref().map(|(config, _)| config.log.clone()).unwrap_or_default());
    start::succeed(read.map_err(|errors| errors.to_string()), &inherited, path).map_err(CliError::Start)
}

/// At an upgrade: the present file.
fn read_anew(path: Option<&Path>) -> Result<(Config, Option<String>), ConfigErrors> {
    let placed = config::load_placed(path)?;
    let text = placed.text().map(str::to_owned);
    Ok((placed.config, text))
}

/// After a crash: the config that was served.
fn served(inherited: &Inheritance, path: Option<&Path>) -> Result<(Config, Option<String>), ConfigErrors> {
    let Some(text) = &inherited.text else { return Ok((Config::default(), None)) };
    let file = path.unwrap_or(Path::new(config::DEFAULT_PATH)).display().to_string();
    config::parse(text, &file).map(|config| (config, Some(text.clone())))
}

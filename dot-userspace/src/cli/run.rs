//! `dotd run`: reads the config and serves.
//!
//! Before: an operator or a service manager started dotd, or a keeper runs this program after a crash of its engine
//! or at an upgrade.
//! After: `start` serves.
//! Never: reads the config file again after a crash: the next engine uses the config of the last one.

use std::path::{Path, PathBuf};

use super::{error::CliError, print};
use crate::{
    config::{self, Config, ConfigErrors, Placed},
    keeper::{COULD_SERVE, Inheritance, served_before},
    start::{self, logging},
};

/// Runs the verb. `list`: the descriptor of the list that the previous program of this process wrote.
/// `is_trial`: only check whether this program could take over.
/// `restart_dir`: where a restart finds the config that was served.
pub(super) fn run(
    (list, is_trial): (Option<i32>, bool),
    path: Option<PathBuf>,
    restart_dir: Option<PathBuf>,
) -> Result<u8, CliError> {
    if let Some(list) = list {
        return succeed((list, is_trial), path, restart_dir);
    }
    let served = restart_dir.as_deref().map(served_before).transpose();
    let (served, doubt) = served.map_or_else(|error| (None, Some(error)), |served| (served.flatten(), None));
    let is_restart = served.is_some();
    let (placed, mistakes) = match (config::load_placed(path.as_deref()), served) {
        (Ok(placed), _) => (placed, None),
        (Err(errors), Some(text)) => {
            (parse_served(text, path.as_deref()).ok_or_else(|| errors.clone())?, Some(errors))
        }
        (Err(errors), None) => return Err(errors.into()),
    };
    logging::init(&placed.config.log);
    for line in mistakes.iter().flat_map(|errors| &errors.mistakes) {
        tracing::error!("{line}: dotd serves by the config from before this restart, until a reload");
    }
    if let Some(error) = doubt {
        tracing::warn!("--restart-dir: the config from before is not read: {error}");
    }
    if placed.is_empty_file() {
        tracing::warn!("{}", placed.empty_warning());
    }
    let text = placed.text().map(str::to_owned);
    start::run(placed.config, text, path, (restart_dir, is_restart)).map_err(CliError::Start)
}

/// The config that the same dotd wrote while it served, as it was read.
fn parse_served(text: String, path: Option<&Path>) -> Option<Placed> {
    let file = path.unwrap_or(Path::new(config::DEFAULT_PATH)).display().to_string();
    let config = config::parse(&text, &file).ok()?;
    Some(Placed::of(config, text, file))
}

fn succeed(
    (list, is_trial): (i32, bool),
    path: Option<PathBuf>,
    restart_dir: Option<PathBuf>,
) -> Result<u8, CliError> {
    let inherited = Inheritance::read(list).map_err(CliError::Inherited)?;
    let read =
        if inherited.is_served() { read_anew(path.as_deref()) } else { served(&inherited, path.as_deref()) };
    if is_trial {
        inherited.understands().map_err(CliError::Inherited)?;
        start::could_succeed(read?.0).map_err(CliError::Start)?;
        return print(&format!("{COULD_SERVE}\n")).map(|()| 0);
    }
    logging::init(&read.as_ref().map(|(config, _)| config.log.clone()).unwrap_or_default());
    let places = (path, restart_dir);
    start::succeed(read.map_err(|errors| errors.to_string()), &inherited, places).map_err(CliError::Start)
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

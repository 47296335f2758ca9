//! The config that runs, and the text that it was read from.
//!
//! Before: a start or a reload has taken effect. After: `dotd config` and the page show it, or compare it with a file.
//! Never: reads a file.

use super::{Process, lock};
use crate::{
    config::{self, Config, ConfigRow, Read},
    control::ConfigStatus,
};

/// The config that runs.
#[derive(Default)]
pub(super) struct Runs {
    /// Keys that wait for a restart have the value from before.
    config: Config,
    /// What it was read from; `None`: every default holds.
    read: Option<Read>,
    /// Every key of it, made once for all who ask.
    rows: Vec<ConfigRow>,
}

impl Process {
    /// The config that runs, with what waits for a restart as it was, and its text.
    pub(super) fn running_config(&self) -> ConfigStatus {
        let Runs { config, read, .. } = &*lock(&self.runs);
        let (file, text) = read.as_ref().map(|read| (read.file.clone(), read.text.clone())).unzip();
        ConfigStatus { file, text, config: config.clone() }
    }

    /// Every key of it.
    pub(super) fn running_rows(&self) -> Vec<ConfigRow> {
        lock(&self.runs).rows.clone()
    }

    /// This is in effect from now on; these keys of the text are not.
    pub(in crate::start) fn serve_file(&self, config: &Config, read: Option<Read>, waiting: &[&str]) {
        let rows = config::rows(config, read.as_ref(), waiting);
        *lock(&self.runs) = Runs { config: config.clone(), read, rows };
    }
}

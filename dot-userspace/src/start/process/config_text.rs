//! The config in effect, and the text that dotd read it from.
//!
//! Before: a start or a reload has taken effect. After: `dotd config` and the page show it, or compare it with a file.
//! Never: reads a file.

use super::{Process, lock};
use crate::{
    config::{self, Config, ConfigRow, Read},
    control::ConfigStatus,
};

/// The config in effect.
#[derive(Default)]
pub(super) struct Runs {
    /// Keys that need a restart have the previous value.
    pub(super) config: Config,
    /// The text that it was read from; `None`: there is no file, and every key has its default.
    read: Option<Read>,
    /// Every key of it. Made once, for all readers.
    rows: Vec<ConfigRow>,
}

impl Process {
    /// The config in effect, with its text. Keys that need a restart have the previous value.
    pub(super) fn running_config(&self) -> ConfigStatus {
        let Runs { config, read, .. } = &*lock(&self.runs);
        let (file, text) = read.as_ref().map(|read| (read.file.clone(), read.text.clone())).unzip();
        ConfigStatus { file, text, config: config.clone() }
    }

    /// Every key of the config in effect.
    pub(super) fn running_rows(&self) -> Vec<ConfigRow> {
        lock(&self.runs).rows.clone()
    }

    /// Notes the config that is in effect from now on. The keys in `waiting` need a restart.
    pub(in crate::start) fn serve_file(&self, config: &Config, read: Option<Read>, waiting: &[&str]) {
        let rows = config::rows(config, read.as_ref(), waiting);
        *lock(&self.runs) = Runs { config: config.clone(), read, rows };
    }
}

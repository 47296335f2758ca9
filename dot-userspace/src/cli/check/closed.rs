//! Files of a config that the packaged unit's dotd could not read: it has no right over files of other users.
//!
//! Before: a config whose files can be read with all rights of root. After: `check` warns of each one that root may read only by
//! CAP_DAC_READ_SEARCH or CAP_DAC_OVERRIDE, and that is closed to `server.user` too.
//! Never: leaves this process without a right that it had; reads what a file contains.
//!
//! Source: capabilities(7).

use std::{io, path::Path};

use crate::{config::Config, disk, effective, start::privileges};

/// A line for each such file.
pub(super) fn closed(config: &Config) -> Vec<String> {
    // A user that does not exist is a mistake of its own.
    effective::may_act_as(privileges::user(&config.server.user).ok().flatten());
    privileges::without_those_over_files(|| config.files().filter_map(|path| line(path)).collect())
}

fn line(path: &Path) -> Option<String> {
    let error =
        disk::open_directly(path).err().filter(|error| error.kind() == io::ErrorKind::PermissionDenied)?;
    Some(format!("{}: under the packaged unit: {error}", path.display()))
}

//! The file with the bans that a restart keeps, in `server.run_dir`.
//!
//! Before: the engine ends in order. After: the next one reads the file once, where the start follows a restart.
//! Holds: when it was written, in seconds since boot, so that a ban ends when it would have ended.
//! Never: reads more than [`FILE_OCTETS_MAX`]; survives a stop: the start that follows one removes the file unread.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::{
    disk::{self, Arrival, write_whole},
    xdp::BanRow,
};

/// Its name.
const FILE_NAME: &str = "bans";
/// Every ban that the map has room for, with a reason.
const FILE_OCTETS_MAX: u64 = 32 << 20;

/// The file.
#[derive(Serialize, Deserialize)]
struct Kept {
    at_seconds: u64,
    bans: Vec<BanRow>,
}

/// Writes the bans as they are now.
pub(super) fn save(run_dir: &Path, bans: &[BanRow]) -> io::Result<()> {
    let kept = Kept { at_seconds: seconds_since_boot(), bans: bans.to_vec() };
    write_whole(&run_dir.join(FILE_NAME), &serde_json::to_string(&kept)?, Arrival::Replace)
}

/// The bans that still apply, with the time that is left now; the file is gone then.
pub(super) fn take(run_dir: &Path) -> Vec<BanRow> {
    let kept = read(run_dir);
    forget(run_dir);
    let kept = match kept {
        Ok(kept) => kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!("{}: bans from before the restart are not read: {error}", run_dir.display());
            return Vec::new();
        }
    };
    let passed = seconds_since_boot().saturating_sub(kept.at_seconds);
    let left = |ban: BanRow| BanRow { seconds_left: ban.seconds_left.saturating_sub(passed), ..ban };
    kept.bans.into_iter().map(left).filter(|ban| ban.seconds_left > 0).collect()
}

/// Removes the file.
pub(super) fn forget(run_dir: &Path) {
    if let Ok(folder) = disk::open_folder(run_dir) {
        // It is not there as a rule.
        let _ = fs::remove_file(disk::path_of(&folder).join(FILE_NAME));
    }
}

fn read(run_dir: &Path) -> io::Result<Kept> {
    let file = disk::open_own(&run_dir.join(FILE_NAME))?;
    let mut text = String::new();
    file.take(FILE_OCTETS_MAX).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

fn seconds_since_boot() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(|now| Duration::from(now).as_secs()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: bans are read once, those that have ended meanwhile not at all, and none after a stop. Method: a file of ten seconds ago,
    /// with a ban of five and one of a hundred seconds.
    #[test]
    fn bans_are_kept_for_the_time_that_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let ban =
            |prefix: &str, seconds_left| BanRow { prefix: prefix.into(), seconds_left, ..BanRow::default() };
        let bans = vec![ban("192.0.2.1/32", 5), ban("192.0.2.2/32", 100)];
        let kept = Kept { at_seconds: seconds_since_boot().saturating_sub(10), bans: bans.clone() };
        fs::write(folder.path().join(FILE_NAME), serde_json::to_string(&kept).unwrap()).unwrap();
        let taken = take(folder.path());
        assert_eq!(taken.len(), 1);
        assert!(taken[0].prefix == "192.0.2.2/32" && (85..=90).contains(&taken[0].seconds_left), "{taken:?}");
        assert!(take(folder.path()).is_empty());
        save(folder.path(), &bans).unwrap();
        forget(folder.path());
        assert!(take(folder.path()).is_empty());
        fs::write(folder.path().join(FILE_NAME), "no bans").unwrap();
        assert!(take(folder.path()).is_empty());
        let pipe = folder.path().join(FILE_NAME);
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(take(folder.path()).is_empty() && !pipe.exists(), "it is not waited for");
    }
}

//! The file with the bans that a restart keeps, in `server.run_dir`.
//!
//! Before: the engine ends in order. After: the next one reads the file once, where the start follows a restart.
//! Holds: when it was written, in seconds since boot, so that a ban ends when it would have ended. The engine reads it, not the keeper:
//! its memory is that of a process without rights.
//! Never: reads more than [`FILE_OCTETS_MAX`]; survives a stop: the start that follows one removes the file unread.

use std::{io, path::Path, time::Duration};

use dot_common::maps::BANS_MAX;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::kept;
use crate::xdp::BanRow;

/// Its name.
const FILE_NAME: &str = "bans";
/// The longest row: an IPv6 prefix, and an operator's reason of 200 octets, each of which JSON may write as two.
const ROW_OCTETS_MAX: u64 = 600;
/// Every ban that the map has room for, each with such a row: what [`save`] writes can be read.
const FILE_OCTETS_MAX: u64 = (BANS_MAX as u64 + 1) * ROW_OCTETS_MAX;

/// The file.
#[derive(Serialize, Deserialize)]
struct Kept {
    at_seconds: u64,
    bans: Vec<BanRow>,
}

/// Writes the bans as they are now.
pub(super) fn save(run_dir: &Path, bans: &[BanRow]) -> io::Result<()> {
    let kept = Kept { at_seconds: seconds_since_boot(), bans: bans.to_vec() };
    kept::save(run_dir, FILE_NAME, &kept)
}

/// The bans that still apply, with the time that is left now; the file is gone then.
pub(super) fn take(run_dir: &Path) -> Vec<BanRow> {
    let kept = kept::read::<Kept>(run_dir, FILE_NAME, FILE_OCTETS_MAX);
    forget(run_dir);
    let kept = match kept {
        Ok(Some(kept)) => kept,
        Ok(None) => return Vec::new(),
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
    kept::forget(run_dir, FILE_NAME);
}

fn seconds_since_boot() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(|now| Duration::from(now).as_secs()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Goal: a table that is full of bans with the longest reasons is read again as a whole. Method: the longest row that there can be,
    /// with a reason of quotation marks, which JSON writes as two octets.
    #[test]
    fn a_full_table_fits() {
        let row = BanRow {
            prefix: "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/128".into(),
            cause: "x".repeat(64),
            reason: "\"".repeat(200),
            hits: u64::MAX,
            seconds_left: 604_800,
        };
        let octets = serde_json::to_string(&row).unwrap().len() as u64;
        assert!((500..ROW_OCTETS_MAX).contains(&octets), "{octets}");
        assert!(FILE_OCTETS_MAX > u64::from(BANS_MAX) * (octets + 1) + 64);
    }

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

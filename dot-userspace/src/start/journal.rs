//! Whether a standard stream of this process leads to systemd's journal, and the priority prefix of a line there.
//!
//! Before: systemd has set JOURNAL_STREAM. After: `logging` and `cli` begin each line with `<N>`, so that `journalctl
//! -p err` finds the errors.
//! Never: trusts the variable alone: a stream that was redirected since is another file.
//!
//! Source: systemd.exec(5) ($JOURNAL_STREAM), sd-daemon(3) (priority prefixes).

use std::{env, os::fd::AsFd, sync::OnceLock};

use nix::sys::stat::fstat;
use tracing::Level;

/// The value at the first call: the engine clears its environment before it serves.
static NAMED: OnceLock<Option<String>> = OnceLock::new();

/// Whether output to `stream` goes to the journal.
pub fn is_journal(stream: impl AsFd) -> bool {
    let Some(named) = NAMED.get_or_init(|| env::var("JOURNAL_STREAM").ok()) else { return false };
    fstat(stream).is_ok_and(|found| *named == format!("{}:{}", found.st_dev, found.st_ino))
}

/// The prefix of a line of this level in the journal.
#[must_use]
pub const fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each level has its priority of syslog(3). Method: the five levels.
    #[test]
    fn levels_have_priorities() {
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        assert_eq!(levels.map(prefix), ["<3>", "<4>", "<6>", "<7>", "<7>"]);
    }
}

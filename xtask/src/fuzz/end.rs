//! The outcome of a run: the target held, it broke, or the run says nothing about it.
//!
//! Before: libFuzzer's exit status and its log. After: which of the three, and the file that may have broken it.
//! Never: takes a run that was ended from outside for a broken one, or a crash for an interruption.

use std::{os::unix::process::ExitStatusExt, path::Path, process::ExitStatus};

/// libFuzzer's exit status after INT and TERM (`-interrupted_exitcode`).
const STATUS_INTERRUPTED: i32 = 72;
/// Its exit status when an input took too long (`-timeout_exitcode`).
const STATUS_TIMEOUT: i32 = 70;

/// HUP, INT, QUIT, KILL and TERM: signals from outside, where libFuzzer does not handle them.
const SIGNALS_FROM_OUTSIDE: [i32; 5] = [1, 2, 3, 9, 15];

/// The outcome of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Every assertion held for the requested time.
    Held,
    /// The run was ended from outside.
    Interrupted,
    /// An input took too long by the clock, which also runs while the process is stopped: the input must be run once
    /// more.
    Slow,
    /// An input made an assertion fail.
    Broke,
}

impl End {
    /// Reads an exit status.
    pub(super) fn of(status: ExitStatus) -> Self {
        match status.code() {
            Some(0) => Self::Held,
            Some(STATUS_INTERRUPTED) => Self::Interrupted,
            Some(STATUS_TIMEOUT) => Self::Slow,
            None if status.signal().is_some_and(|signal| SIGNALS_FROM_OUTSIDE.contains(&signal)) => {
                Self::Interrupted
            }
            _ => Self::Broke,
        }
    }
}

/// The file to which libFuzzer wrote the input that was the last one.
pub(super) fn written(log: &str) -> Option<&Path> {
    log.lines()
        .rev()
        .find_map(|line| line.split_once("Test unit written to "))
        .map(|(_, path)| Path::new(path))
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::ExitStatusExt,
        path::Path,
        process::{Command, ExitStatus},
    };

    use super::{End, written};

    /// Goal: only the target's own failures count. Method: libFuzzer's statuses, a panic's among them, death by
    /// SIGSEGV, and a real process that is killed.
    #[test]
    fn who_is_interrupted_has_not_broken() {
        let exited = |code: i32| End::of(ExitStatus::from_raw(code << 8));
        let ends = [exited(0), exited(70), exited(71), exited(72), exited(77), exited(101)];
        assert_eq!(ends, [End::Held, End::Slow, End::Broke, End::Interrupted, End::Broke, End::Broke]);
        assert_eq!(End::of(ExitStatus::from_raw(11)), End::Broke);
        let mut sleeper = Command::new("sleep").arg("60").spawn().expect("sleep is everywhere");
        sleeper.kill().expect("our own child");
        assert_eq!(End::of(sleeper.wait().expect("our own child")), End::Interrupted);
    }

    /// Goal: the input that is to be run again is the one that was written last. Method: a log as libFuzzer writes it.
    #[test]
    fn the_input_is_named_in_the_log() {
        let log = "==9== ERROR: libFuzzer: timeout after 21 seconds\nartifact_prefix='/t/found/query/'; \
                   Test unit written to /t/found/query/timeout-9f\nBase64: AA==\n";
        assert_eq!(written(log), Some(Path::new("/t/found/query/timeout-9f")));
        assert_eq!(written("INFO: Seed: 1\n"), None);
    }
}

//! Unit tests of the memory: when cleartext is permitted, what is suspicious, and what the file must have.

use super::*;

const DAY: u64 = 86_400;
const WINDOW: u64 = 7 * DAY;
const BEGAN: u64 = 1_800_000_000;

fn spoke() -> Remembered {
    let mut row = Remembered::default();
    row.succeed(BEGAN, "1.3", Some("ONE".into()));
    row
}

/// Goal: a server without a history may be asked in clear after a failure; one that spoke TLS within the window may not,
/// until that is over or an operator forgives it; a success ends both. Method: the rule, with a clock of its own, set back
/// too.
#[test]
fn cleartext_needs_a_failure_and_no_history() {
    let mut row = Remembered::default();
    assert!(!row.may_speak_clear(BEGAN, WINDOW), "nothing has failed");
    row.fail(BEGAN, TlsFault::Unconnected);
    assert!(row.may_speak_clear(BEGAN, WINDOW));
    let mut row = spoke();
    row.fail(BEGAN, TlsFault::Closed);
    for now in [0, BEGAN - DAY, BEGAN, BEGAN + WINDOW - 1] {
        assert!(!row.may_speak_clear(now, WINDOW), "{now}");
    }
    assert!(row.may_speak_clear(BEGAN + WINDOW, WINDOW));
    row.forgiven = BEGAN;
    assert!(row.may_speak_clear(BEGAN, WINDOW));
    row.succeed(BEGAN + 1, "1.3", None);
    row.fail(BEGAN + 2, TlsFault::Closed);
    assert!(!row.may_speak_clear(BEGAN + 2, WINDOW), "it spoke again");
}

/// Goal: three failures within TLS of a server that spoke it are suspicious; connections that are not accepted are only where
/// the same server answers in clear; a server without a history never is. Method: each kind of failure.
#[test]
fn a_downgrade_is_suspected_of_servers_that_spoke() {
    for fault in TlsFault::ALL {
        let (mut old, mut new) = (spoke(), Remembered::default());
        for count in 1..=3 {
            old.fail(BEGAN, fault);
            new.fail(BEGAN, fault);
            let is_enough = count == 3;
            assert_eq!(old.is_suspicious(BEGAN, WINDOW, true), is_enough, "{fault:?} {count}");
            let without = is_enough && fault != TlsFault::Unconnected;
            assert_eq!(old.is_suspicious(BEGAN, WINDOW, false), without, "{fault:?} {count}");
            assert!(!new.is_suspicious(BEGAN, WINDOW, true));
        }
        assert!(!old.is_suspicious(BEGAN + WINDOW, WINDOW, true));
    }
}

/// Goal: another key is kept with the one before and its time; the same key, or none, is no news. Method: four handshakes.
///
#[test]
fn another_key_is_remembered() {
    let mut row = spoke();
    row.succeed(BEGAN + 1, "1.2", Some("ONE".into()));
    row.succeed(BEGAN + 2, "1.2", None);
    assert_eq!((row.pin_changed, &*row.pin, &*row.version), (0, "ONE", "1.2"));
    row.succeed(BEGAN + 3, "1.3", Some("TWO".into()));
    assert_eq!((row.pin_changed, &*row.pin, &*row.pin_before), (BEGAN + 3, "TWO", "ONE"));
    assert_eq!((row.first_success, row.last_success), (BEGAN, BEGAN + 3));
}

/// Goal: after a crash the file still has a success within the window, however short that is, and a success of the future is
/// corrected. Method: ages on both sides of each limit.
#[test]
fn the_file_has_a_late_success() {
    for (window, age_max) in [(60, 30), (3600, 1800), (7200, 3600), (WINDOW, 3600)] {
        assert!(!is_too_old(BEGAN, BEGAN + age_max - 1, window), "{window}");
        assert!(is_too_old(BEGAN, BEGAN + age_max, window), "{window}");
        assert!(is_too_old(BEGAN + 10 * DAY, BEGAN, window), "{window}");
    }
}

/// Goal: what workers read follows each event, a suspicion is counted once, and only what the file must have makes it be
/// written. Method: a memory through success, failures, an operator's word, success.
#[test]
fn a_memory_follows_events() {
    let memory = TlsMemory::default();
    memory.judge_by(Duration::from_secs(WINDOW), true);
    let shown = |pin: &str| (TlsVersion::V1_3, Some(pin.to_owned()));
    assert_eq!(memory.forgive(), Err("its TLS does not fail: there is nothing to forgive"));
    memory.note_success("one", shown("ONE"));
    assert!(memory.is_unsaved() && !memory.is_failing());
    drop(memory.save());
    memory.note_success("one", shown("ONE"));
    assert!(!memory.is_unsaved(), "nothing new");
    (0..5).for_each(|_| memory.note_failure("one", TlsFault::NotTls));
    assert!(memory.is_failing() && memory.is_unsaved() && !memory.may_speak_clear());
    assert_eq!(memory.counts(), (1, 0));
    assert!(memory.row().suspected_since > 0);
    memory.forgive().unwrap();
    assert!(memory.may_speak_clear() && memory.row().suspected_since == 0);
    memory.note_success("one", shown("TWO"));
    assert!(!memory.may_speak_clear() && !memory.is_failing());
    assert_eq!(memory.counts(), (1, 1));
    let restarted = TlsMemory::of(memory.save());
    assert_eq!(restarted.row().pin, "TWO");
}

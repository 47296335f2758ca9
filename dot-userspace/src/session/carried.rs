//! Moves sessions to another process: what each session takes with it, and when it leaves.
//!
//! Before: another engine serves in place of this one, and accepts sessions. After: a session has left between two
//! turns with no query in flight; or the other process continues it without a change for the client.
//! Holds: the encoding of a session without its link: times as ages, counts, and octets of messages that are not
//! handled yet.
//! Never: leaves in the middle of a response; stops serving a session that cannot leave.

use std::{os::fd::OwnedFd, time::Duration};

use bytes::BytesMut;
use tokio::time::Instant;

use super::{Ended, Link, Session, SessionEnd, WorkerShared};
use crate::{
    octets::{Octets, put_run},
    policy::{Denial, Identity},
    proxy::Client,
    tls::Zeroizing,
};

/// Most octets of messages that are not handled yet: one read, and the octets that were pending before it.
const PENDING_OCTETS_MAX: usize = 96 * 1024;
/// Octets of the encoding without those.
const FORM_OCTETS: usize = 64;
/// Ages are in microseconds, and at most a week: no limit of a session is longer.
const AGE_MAX: Duration = Duration::from_secs(7 * 86_400);
/// The age of a time that is not set.
const NEVER: u64 = u64::MAX;

/// Whether the sessions of a worker move to another process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Moving {
    /// Sessions stay.
    #[default]
    No,
    /// Sessions stay for now, because the other process has no room. A session that has stopped reading reads again.
    Paused,
    /// Each session leaves when its turn ends and no query of it is in flight.
    WhenQuiet,
    /// As [`Moving::WhenQuiet`]; and since this moment no session reads another query before it leaves.
    Now(Instant),
}

/// A session between two turns, without its link.
pub struct Carried {
    pub(super) began: Instant,
    /// Since when the session has been idle. `None`: it is not idle.
    pub(super) idle_since: Option<Instant>,
    /// Since when a message has been incomplete.
    pub(super) message_since: Option<Instant>,
    pub(super) queries: u32,
    pub(super) malformed: u16,
    pub(super) pending: BytesMut,
}

impl Carried {
    /// A session that starts now.
    #[must_use]
    pub fn begun() -> Self {
        Self {
            began: Instant::now(),
            idle_since: None,
            message_since: None,
            queries: 0,
            malformed: 0,
            pending: BytesMut::new(),
        }
    }

    fn write(&self, now: Instant, out: &mut Vec<u8>) {
        let ages = [Some(self.began), self.idle_since, self.message_since];
        ages.iter().for_each(|at| out.extend_from_slice(&age(*at, now).to_be_bytes()));
        out.extend_from_slice(&self.queries.to_be_bytes());
        out.extend_from_slice(&self.malformed.to_be_bytes());
        put_run(out, &self.pending);
    }

    /// Decodes a session that another process wrote. `None`: the octets are not a session.
    #[must_use]
    pub fn read(octets: &mut Octets<'_>, now: Instant) -> Option<Self> {
        let mut moment = || octets.u64().map(|age| moment(age, now));
        let (began, idle_since, message_since) = (moment()??, moment()?, moment()?);
        Some(Self {
            began,
            idle_since,
            message_since,
            queries: octets.u32()?,
            malformed: octets.u16()?,
            pending: octets.run(PENDING_OCTETS_MAX)?.into(),
        })
    }

    /// Since when the session has been idle. `None`: it is not idle.
    #[must_use]
    pub fn idle_since(&self) -> Option<Instant> {
        self.idle_since
    }
}

/// A moment before the start of every session.
#[must_use]
pub fn long_ago() -> Instant {
    let now = Instant::now();
    now.checked_sub(AGE_MAX).unwrap_or(now)
}

/// The time since a moment, in microseconds.
pub fn age(at: Option<Instant>, now: Instant) -> u64 {
    let age = at.map(|at| now.saturating_duration_since(at).min(AGE_MAX).as_micros());
    age.map_or(NEVER, |age| u64::try_from(age).unwrap_or(NEVER))
}

/// The moment that was this long ago.
pub fn moment(age: u64, now: Instant) -> Option<Instant> {
    let age = (age != NEVER).then(|| Duration::from_micros(age).min(AGE_MAX));
    // If the machine has run for less than the age, the clock cannot represent the moment: use the present one.
    age.map(|age| now.checked_sub(age).unwrap_or(now))
}

/// How a session ended for its worker.
pub enum Outcome {
    /// The session ended.
    Ended(Ended),
    /// The session continues in another process.
    Moved(Departed),
}

/// A session that leaves for another process.
pub struct Departed {
    /// Its connection.
    pub socket: OwnedFd,
    /// The session and its link, to be decoded by [`Carried::read`] and then by the link. They contain its keys.
    pub octets: Zeroizing<Vec<u8>>,
    /// How long the session had not been read.
    pub paused: Duration,
    /// Its client.
    pub client: Client,
    /// Why the names in the client's handshake may not ask.
    pub by_names: Option<Denial>,
    /// Those names, if a tenant is recognised by names.
    pub identity: Option<Box<Identity>>,
    /// Counts of the session so far.
    pub so_far: Ended,
}

impl<L: Link> Session<L> {
    /// Whether the session leaves at the end of this turn.
    pub(super) fn may_move(&self) -> bool {
        matches!(self.shared.moving.get(), Moving::WhenQuiet | Moving::Now(_))
            && matches!(self.closing, None | Some(SessionEnd::Moved | SessionEnd::Drain))
            && self.inbox.is_quiet()
            && self.reader.pending().len() <= PENDING_OCTETS_MAX
            && self.link.octets_to_move().is_some()
    }

    /// Whether the session has stopped reading in order to leave, and the other process has no room for it.
    pub(super) fn waits_to_move(&self) -> bool {
        self.closing == Some(SessionEnd::Moved) && self.shared.moving.get() == Moving::Paused
    }

    /// The session may have stopped reading in this turn.
    pub(super) fn note_stop(&mut self, now: Instant) {
        if let (Some(SessionEnd::Moved), Moving::Now(since)) = (self.closing, self.shared.moving.get()) {
            self.stopped_us = microseconds(now.saturating_duration_since(since));
        }
    }

    /// Makes the session leave; its link must not be used afterwards. `None`: it stays, because a descriptor could
    /// not be duplicated.
    pub(super) fn depart(&mut self) -> Option<Departed> {
        let now = Instant::now();
        let octets_of_link = self.link.octets_to_move().filter(|_| self.may_move())?;
        let carried = Carried {
            began: self.timer.started(),
            idle_since: self.idle_since(),
            message_since: self.reader.message_since(),
            queries: self.reader.queries(),
            malformed: self.reader.malformed(),
            pending: self.reader.pending().into(),
        };
        // The vector is allocated at its full size, because one that grows would leave copies of keys in freed
        // memory.
        let room = FORM_OCTETS + carried.pending.len() + octets_of_link;
        let mut octets = Zeroizing::new(Vec::with_capacity(room));
        carried.write(now, &mut octets);
        let socket = self.link.hand_over(&mut octets)?;
        let paused = match self.closing {
            Some(SessionEnd::Moved) => paused(self.shared.moving.get(), self.stopped_us, now),
            _ => Duration::ZERO,
        };
        let (client, by_names) = (self.inbox.client.clone(), self.inbox.standing.by_names());
        let identity = self.inbox.standing.identity();
        self.inbox.close();
        let so_far = self.ended(SessionEnd::Moved);
        Some(Departed { socket, octets, paused, client, by_names, identity, so_far })
    }
}

/// How long a session has not been read: since it stopped by itself, and not since the first one did.
fn paused(moving: Moving, stopped_us: u32, now: Instant) -> Duration {
    match moving {
        Moving::Now(since) => {
            let until = microseconds(now.saturating_duration_since(since));
            Duration::from_micros(until.saturating_sub(stopped_us).into())
        }
        _ => Duration::ZERO,
    }
}

fn microseconds(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

impl WorkerShared {
    /// Sets whether sessions leave or stay. Each session acts on it when it runs next.
    pub fn move_sessions(&self, moving: Moving) {
        self.moving.set(moving);
    }

    /// The numbers of the sessions that are open, the oldest first.
    #[must_use]
    pub fn session_numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.sessions.borrow().keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    /// Wakes these sessions, so that they check whether to leave.
    pub fn wake_these(&self, numbers: &[u64]) {
        numbers.iter().filter_map(|number| self.session(*number)).for_each(|inbox| inbox.wake());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a session that leaves late, because the other process took those before it first, counts as not read only since it stopped
    /// reading. Method: sessions that stop at once, and after 400 ms.
    #[test]
    fn a_pause_begins_when_reading_ends() {
        let now = Instant::now();
        let since = now - Duration::from_millis(405);
        let milliseconds = |moving, stopped_us| paused(moving, stopped_us, now).as_millis();
        assert_eq!(milliseconds(Moving::Now(since), 0), 405);
        assert_eq!(milliseconds(Moving::Now(since), 400_000), 5);
        assert_eq!(milliseconds(Moving::Now(since), u32::MAX), 0);
        assert_eq!(milliseconds(Moving::WhenQuiet, 0), 0);
    }

    /// Goal: a session's times, counts and octets are the same in the next process. Method: one session with every
    /// field set, and every shorter prefix of its encoding.
    ///
    #[test]
    fn a_session_is_the_same_afterwards() {
        let now = Instant::now();
        let before = |seconds| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        let carried = Carried {
            began: before(30),
            idle_since: None,
            message_since: Some(before(2)),
            queries: 7,
            malformed: 3,
            pending: BytesMut::from(&b"\0\x11\0"[..]),
        };
        let mut form = Vec::new();
        carried.write(now, &mut form);
        assert!(form.len() <= FORM_OCTETS);
        let read = Carried::read(&mut Octets::new(&form), now).unwrap();
        assert_eq!((read.began, read.idle_since, read.message_since), (before(30), None, Some(before(2))));
        assert_eq!((read.queries, read.malformed, &read.pending[..]), (7, 3, &b"\0\x11\0"[..]));
        for length in 0..form.len() {
            assert!(Carried::read(&mut Octets::new(&form[..length]), now).is_none());
        }
        assert_eq!(
            moment(NEVER - 1, now),
            now.checked_sub(AGE_MAX).or(Some(now)),
            "an age that an attacker chose"
        );
    }
}

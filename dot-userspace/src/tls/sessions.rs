//! TLS 1.2 sessions by their ID, for clients that know no tickets.
//!
//! Before: rustls ended a full handshake in TLS 1.2. After: its client resumes it on any worker, for two rotations at most.
//! Holds: the sessions of this rotation and of the one before, so many of each at most; a new one is never refused, the
//! older half goes. They are this process's alone: nodes of a fleet share tickets.
//! Never: is asked in TLS 1.3, which resumes by tickets, or for a query; keeps a session where tickets are off, or one of a
//! connection that failed.
//!
//! Source: RFC 5246 §7.2, §7.2.2, §7.3, §7.4.1.2 and appendix F.1.4.

use std::{
    cell::Cell,
    collections::HashMap,
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustls::server::StoresServerSessions;

/// Sessions of one rotation: some 1 MiB. Clients without tickets are rare, so that this is hours of them; a stranger
/// who fills it has paid a full handshake for each, and costs others one.
const SESSIONS_MAX: usize = 4096;
/// Longest rotation: RFC 5246 F.1.4 suggests that no ID lives for more than a day.
const ROTATION_MAX: Duration = Duration::from_secs(12 * 3600);

type Table = HashMap<Vec<u8>, Vec<u8>>;

/// The sessions of this process.
pub(super) struct Sessions {
    rotation: Duration,
    tables: Mutex<Tables>,
}

struct Tables {
    current: Table,
    previous: Table,
    /// When the current ones are the previous ones.
    until: Instant,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Sessions")
    }
}

impl Sessions {
    pub(super) fn new(rotation: Duration) -> Self {
        Self::at(rotation, Instant::now())
    }

    fn at(rotation: Duration, now: Instant) -> Self {
        let rotation = rotation.min(ROTATION_MAX);
        let tables = Tables { current: Table::new(), previous: Table::new(), until: now + rotation };
        Self { rotation, tables: Mutex::new(tables) }
    }

    /// Begins the next rotation now; `ends_old`: no session of before is left.
    pub(super) fn rotate(&self, ends_old: bool) {
        let now = Instant::now();
        let mut tables = self.tables(now);
        tables.turn(now + self.rotation);
        if ends_old {
            tables.previous = Table::new();
        }
    }

    /// The tables of this moment. Taken once a handshake in TLS 1.2, never for a query.
    fn tables(&self, now: Instant) -> MutexGuard<'_, Tables> {
        // A poisoned lock is a panic elsewhere; tables are replaced whole, never half.
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(late) = now.checked_duration_since(tables.until) {
            tables.turn(now + self.rotation);
            if late >= self.rotation {
                tables.previous = Table::new();
            }
        }
        tables
    }

    fn put_at(&self, id: Vec<u8>, session: Vec<u8>, now: Instant) {
        let mut tables = self.tables(now);
        if tables.current.len() >= SESSIONS_MAX {
            tables.turn(now + self.rotation);
        }
        tables.current.insert(id, session);
    }

    fn get_at(&self, id: &[u8], now: Instant) -> Option<Vec<u8>> {
        let tables = self.tables(now);
        tables.current.get(id).or_else(|| tables.previous.get(id)).cloned()
    }
}

thread_local! {
    /// The ID of the session that rustls kept or found last, in a handshake of this thread.
    static LAST: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
}

/// The ID that rustls kept or found since the last call, in this thread: it does so while it is shown octets of one handshake.
pub(super) fn take_last() -> Option<Vec<u8>> {
    LAST.take()
}

/// The session of a connection, which ends with it if that fails.
pub(super) struct OfConnection {
    pub(super) sessions: Arc<Sessions>,
    pub(super) id: Vec<u8>,
}

impl OfConnection {
    /// The connection has failed: nobody resumes its session.
    pub(super) fn forget(self) {
        let mut tables = self.sessions.tables(Instant::now());
        tables.current.remove(&self.id);
        tables.previous.remove(&self.id);
    }
}

impl Tables {
    fn turn(&mut self, until: Instant) {
        self.previous = mem::take(&mut self.current);
        self.until = until;
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        LAST.set(Some(key.clone()));
        self.put_at(key, value, Instant::now());
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let found = self.get_at(key, Instant::now());
        if found.is_some() {
            LAST.set(Some(key.to_vec()));
        }
        found
    }

    /// For TLS 1.3 without tickets, where we keep nothing.
    fn take(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Goal: a session lives for one rotation more than its own and never for two, whether others came or nobody did.
    /// Method: sessions of the first hour, six hours a rotation, a look in every hour; a rotation of days is cut.
    /// Covers: C-70
    #[test]
    fn a_session_ends_after_two_rotations() {
        for (rotation, ends) in [(HOUR * 6, 12), (HOUR * 84, 24)] {
            for hour in 0..40 {
                let start = Instant::now();
                let [busy, quiet] = [Sessions::at(rotation, start), Sessions::at(rotation, start)];
                for sessions in [&busy, &quiet] {
                    sessions.put_at(vec![1], vec![10], start);
                }
                (0..hour).for_each(|hour| busy.put_at(vec![2], vec![20], start + HOUR * hour));
                let is_there =
                    [&busy, &quiet].map(|sessions| sessions.get_at(&[1], start + HOUR * hour).is_some());
                assert_eq!(is_there, [hour < ends; 2], "{rotation:?}, hour {hour}");
            }
        }
    }

    /// Goal: strangers cannot make it grow, nor keep a new session out. Method: ten times what it holds; the last ones
    /// are there, the first ones are not.
    #[test]
    fn a_flood_fills_two_tables_at_most() {
        let (now, sessions) = (Instant::now(), Sessions::new(HOUR));
        let id = |number: usize| number.to_be_bytes().to_vec();
        for number in 0..SESSIONS_MAX * 10 {
            sessions.put_at(id(number), vec![0], now);
            assert!(sessions.get_at(&id(number), now).is_some());
        }
        let tables = sessions.tables(now);
        assert_eq!((tables.current.len(), tables.previous.len()), (SESSIONS_MAX, SESSIONS_MAX));
        drop(tables);
        assert!(
            sessions.get_at(&id(0), now).is_none() && sessions.get_at(&id(SESSIONS_MAX * 9), now).is_some()
        );
    }

    /// Goal: the session of a connection that failed is gone, in whichever table it is, and no other. Method: as rustls asks; a
    /// session from before a rotation, one from after it. Covers: C-370
    #[test]
    fn a_failed_connection_ends_its_session() {
        let sessions = Arc::new(Sessions::new(HOUR));
        let keep = |id: u8| {
            assert!(sessions.put(vec![id], vec![0]));
            OfConnection { sessions: Arc::clone(&sessions), id: take_last().expect("it was kept") }
        };
        let [before, beside] = [1, 2].map(keep);
        sessions.rotate(false);
        let after = keep(3);
        assert!(take_last().is_none());
        assert!(sessions.get(&[1]).is_some() && sessions.get(&[9]).is_none());
        assert_eq!(take_last(), Some(vec![1]), "what was found, and not what was not");
        before.forget();
        after.forget();
        assert_eq!([1, 2, 3].map(|id| sessions.get(&[id]).is_some()), [false, true, false]);
        drop(beside);
    }
}

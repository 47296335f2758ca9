//! TLS 1.2 sessions by their ID, for clients without support for tickets.
//!
//! Before: rustls completed a full handshake in TLS 1.2. After: its client resumes it on any worker, for at most two
//! rotations.
//! Holds: the sessions of this rotation and of the one before, a bounded number of each. A new session is never
//! refused; the older half is dropped. They belong to this process: only tickets are shared with other nodes.
//! Never: is used in TLS 1.3, which resumes by tickets, or for a query; keeps a session if tickets are off, or one of a
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

/// Sessions of one rotation: about 1 MiB. Clients without tickets are rare, so this lasts for hours; an attacker who
/// fills it has paid a full handshake for each entry, and costs each other client one.
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
    /// When the current sessions become the previous ones.
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

    /// Begins the next rotation now; `ends_old`: all older sessions are dropped.
    pub(super) fn rotate(&self, ends_old: bool) {
        let now = Instant::now();
        let mut tables = self.tables(now);
        tables.turn(now + self.rotation);
        if ends_old {
            tables.previous = Table::new();
        }
    }

    /// The current tables. Locked once for each handshake in TLS 1.2, never for a query.
    fn tables(&self, now: Instant) -> MutexGuard<'_, Tables> {
        // A poisoned lock means a panic elsewhere; tables are replaced as a whole.
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
    /// The ID of the session that rustls last kept or found, in a handshake on this thread.
    static LAST: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
}

/// The ID that rustls kept or found on this thread since the last call: rustls does so while it processes octets of one
/// handshake.
pub(super) fn take_last() -> Option<Vec<u8>> {
    LAST.take()
}

/// The session of a connection, which ends if the connection fails.
pub(super) struct OfConnection {
    pub(super) sessions: Arc<Sessions>,
    pub(super) id: Vec<u8>,
}

impl OfConnection {
    /// The connection has failed: its session cannot be resumed any more.
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

    /// For TLS 1.3 without tickets, where nothing is kept.
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

    /// Goal: a session lives for one more rotation and never for two, whether others came or none. Method: sessions of
    /// the first hour, six hours a rotation, a lookup in every hour; a rotation of days is shortened.
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

    /// Goal: strangers cannot make the table grow, nor keep a new session out. Method: ten times its size; the last
    /// sessions are there, the first ones are not.
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

    /// Goal: the session of a failed connection is gone, in whichever table it is, and no other one. Method: calls as
    /// rustls makes them; a session from before a rotation, one from after it. Covers: C-370
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

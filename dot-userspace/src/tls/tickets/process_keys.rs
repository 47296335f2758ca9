//! Ticket keys of this process alone: random, replaced by its own clock.
//!
//! Before: no secret is configured. After: a ticket opens in its rotation and in the next, on every worker.
//! Holds: the current key and the one before. The clock is the monotonic one: a wall clock that was ahead once would
//! otherwise keep a key for as long as it was.
//! Never: opens a ticket that is two rotations old, also where nobody came in between.
//!
//! Source: RFC 5077 §5.5, RFC 8446 §4.6.1.

use std::{
    fmt, mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustls::server::ProducesTickets;

use super::shared_keys::Key;

/// Seals and opens tickets for this process.
pub(super) struct ProcessKeys {
    rotation: Duration,
    keys: Mutex<Keys>,
}

struct Keys {
    current: Key,
    previous: Option<Key>,
    /// When the current one is the previous one.
    until: Instant,
}

impl fmt::Debug for ProcessKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ProcessKeys")
    }
}

impl ProcessKeys {
    /// The first key; `None`: the kernel has no random numbers.
    pub(super) fn new(rotation: Duration) -> Option<Self> {
        Self::at(rotation, Instant::now())
    }

    fn at(rotation: Duration, now: Instant) -> Option<Self> {
        let keys = Keys { current: Key::random()?, previous: None, until: now + rotation };
        Some(Self { rotation, keys: Mutex::new(keys) })
    }

    /// Begins the next rotation now. `None`: the kernel has no random numbers, and nothing has changed.
    pub(super) fn rotate(&self, ends_old: bool) -> Option<()> {
        self.rotate_at(ends_old, Instant::now())
    }

    fn rotate_at(&self, ends_old: bool, now: Instant) -> Option<()> {
        let fresh = Key::random()?;
        let mut keys = self.keys(now)?;
        let last = mem::replace(&mut keys.current, fresh);
        keys.previous = (!ends_old).then_some(last);
        keys.until = now + self.rotation;
        Some(())
    }

    /// The keys of this moment. Taken once a handshake, never for a query.
    fn keys(&self, now: Instant) -> Option<MutexGuard<'_, Keys>> {
        // A poisoned lock is a panic elsewhere; keys are replaced whole, never half.
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(late) = now.checked_duration_since(keys.until) {
            let last = mem::replace(&mut keys.current, Key::random()?);
            let is_next = late < self.rotation;
            keys.previous = is_next.then_some(last);
            keys.until = if is_next { keys.until } else { now } + self.rotation;
        }
        Some(keys)
    }

    fn seal_at(&self, plain: &[u8], now: Instant) -> Option<Vec<u8>> {
        self.keys(now)?.current.seal(plain)
    }

    fn open_at(&self, ticket: &[u8], now: Instant) -> Option<Vec<u8>> {
        let keys = self.keys(now)?;
        let open = |key: &Key| key.open(ticket);
        open(&keys.current).or_else(|| keys.previous.as_ref().and_then(open))
    }
}

impl ProducesTickets for ProcessKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.rotation.as_secs().saturating_mul(2)).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal_at(plain, Instant::now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open_at(cipher, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const ROTATION: Duration = HOUR.saturating_mul(6);

    /// Goal: a rotation by command is a rotation: the last ticket opens until the next one's end, the one before no more; and
    /// where the old ones are to end, none of them opens. Method: three tickets, three commands. Covers: C-241
    #[test]
    fn a_rotation_by_command_is_one() {
        let start = Instant::now();
        let own = ProcessKeys::at(ROTATION, start).unwrap();
        let seal = |now| own.seal_at(b"session", now).unwrap();
        let opens = |ticket: &[u8], now| own.open_at(ticket, now).is_some();
        let first = seal(start);
        own.rotate_at(false, start + HOUR).unwrap();
        let second = seal(start + HOUR);
        assert!(opens(&first, start + HOUR * 6) && opens(&second, start + HOUR * 12));
        let own = ProcessKeys::at(ROTATION, start).unwrap();
        let (seal, opens) = (
            |now| own.seal_at(b"session", now).unwrap(),
            |ticket: &[u8], now| own.open_at(ticket, now).is_some(),
        );
        let first = seal(start);
        own.rotate_at(false, start).unwrap();
        let second = seal(start);
        own.rotate_at(false, start).unwrap();
        assert_eq!((opens(&first, start), opens(&second, start)), (false, true));
        own.rotate_at(true, start).unwrap();
        assert!(!opens(&second, start));
        let third = seal(start);
        assert!(opens(&third, start));
    }

    /// Goal: a ticket opens in its rotation and the next and never at two rotations' age, whether others came in between or
    /// nobody did. Method: tickets of the first hour and of the last, a look each hour, or a single one.
    #[test]
    fn a_ticket_ends_after_two_rotations() {
        for (sealed, opens_until) in [(0, 12), (5, 12)] {
            for hour in 0..40 {
                let start = Instant::now();
                let (busy, quiet) =
                    (ProcessKeys::at(ROTATION, start).unwrap(), ProcessKeys::at(ROTATION, start).unwrap());
                let tickets =
                    [&busy, &quiet].map(|one| one.seal_at(b"session", start + HOUR * sealed).unwrap());
                (sealed..hour).for_each(|hour| drop(busy.seal_at(b"another", start + HOUR * hour)));
                let opened = [(&busy, &tickets[0]), (&quiet, &tickets[1])]
                    .map(|(one, ticket)| one.open_at(ticket, start + HOUR * hour.max(sealed)).is_some());
                assert_eq!(opened, [hour < opens_until; 2], "sealed in hour {sealed}, shown in hour {hour}");
            }
        }
    }
}

//! Ticket keys of this process only: random, and replaced by its own clock.
//!
//! Before: no secret is configured. After: a ticket opens in its rotation and in the next, on every worker.
//! Holds: the current key and the previous one. The clock is monotonic: a wall clock that was ahead once would
//! otherwise keep a key for as long as it was ahead.
//! Never: opens a ticket that is two rotations old, even if no client came in between.
//!
//! Source: RFC 5077 §5.5, RFC 8446 §4.6.1.

use std::{
    fmt, mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustls::server::ProducesTickets;
use zeroize::{Zeroize as _, Zeroizing};

use super::shared_keys::{Key, MATERIAL_OCTETS};

/// The form of [`ProcessKeys::write`].
const FORM: u8 = 1;

/// Seals and opens tickets for this process.
pub(super) struct ProcessKeys {
    rotation: Duration,
    keys: Mutex<Keys>,
}

struct Keys {
    current: OwnKey,
    previous: Option<OwnKey>,
    /// When the current key becomes the previous one.
    until: Instant,
}

/// A key, and the octets from which the next engine can make it again.
struct OwnKey {
    key: Key,
    material: [u8; MATERIAL_OCTETS],
}

impl OwnKey {
    fn random() -> Option<Self> {
        let mut material = Zeroizing::new([0; MATERIAL_OCTETS]);
        getrandom::fill(material.as_mut()).ok()?;
        Self::of(&material)
    }

    fn of(material: &[u8; MATERIAL_OCTETS]) -> Option<Self> {
        Some(Self { key: Key::from_material(material)?, material: *material })
    }
}

impl Drop for OwnKey {
    fn drop(&mut self) {
        self.material.zeroize();
    }
}

impl fmt::Debug for ProcessKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ProcessKeys")
    }
}

impl ProcessKeys {
    /// The first key. `None`: the kernel has no random numbers.
    pub(super) fn new(rotation: Duration) -> Option<Self> {
        Self::at(rotation, Instant::now())
    }

    fn at(rotation: Duration, now: Instant) -> Option<Self> {
        let keys = Keys { current: OwnKey::random()?, previous: None, until: now + rotation };
        Some(Self { rotation, keys: Mutex::new(keys) })
    }

    /// The keys for the next engine: `[form][milliseconds until the next rotation: u64][current][previous, or nothing]`.
    pub(super) fn write(&self) -> Option<Vec<u8>> {
        let now = Instant::now();
        let keys = self.keys(now)?;
        let left = keys.until.saturating_duration_since(now).as_millis();
        let left = u64::try_from(left).unwrap_or(u64::MAX).to_be_bytes();
        let previous = keys.previous.as_ref().map_or(&[][..], |own| &own.material);
        Some([&[FORM][..], &left, &keys.current.material, previous].concat())
    }

    /// A number that changes with each key that seals.
    pub(super) fn revision(&self) -> Option<u64> {
        let keys = self.keys(Instant::now())?;
        keys.current.material.first_chunk().map(|name| u64::from_be_bytes(*name))
    }

    /// Continues with the keys that an engine wrote this long ago. `None`: they have another form, and the own keys
    /// stay.
    pub(super) fn read(&self, octets: &[u8], age: Duration) -> Option<()> {
        let (form, rest) = octets.split_first()?;
        let (left, rest) = rest.split_first_chunk::<8>()?;
        let (current, rest) = rest.split_first_chunk::<MATERIAL_OCTETS>()?;
        if *form != FORM {
            return None;
        }
        let previous = match rest {
            [] => None,
            rest => Some(OwnKey::of(rest.try_into().ok()?)?),
        };
        let left = Duration::from_millis(u64::from_be_bytes(*left)).min(self.rotation);
        let until = (Instant::now() + left).checked_sub(age)?;
        let fresh = Keys { current: OwnKey::of(current)?, previous, until };
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        Some(())
    }

    /// Begins the next rotation now. `None`: the kernel has no random numbers, and nothing has changed.
    pub(super) fn rotate(&self, ends_old: bool) -> Option<()> {
        self.rotate_at(ends_old, Instant::now())
    }

    fn rotate_at(&self, ends_old: bool, now: Instant) -> Option<()> {
        let fresh = OwnKey::random()?;
        let mut keys = self.keys(now)?;
        let last = mem::replace(&mut keys.current, fresh);
        keys.previous = (!ends_old).then_some(last);
        keys.until = now + self.rotation;
        Some(())
    }

    /// The keys at this moment. Taken once a handshake, never for a query.
    fn keys(&self, now: Instant) -> Option<MutexGuard<'_, Keys>> {
        // A poisoned lock means a panic elsewhere; keys are replaced as a whole.
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(late) = now.checked_duration_since(keys.until) {
            let last = mem::replace(&mut keys.current, OwnKey::random()?);
            let is_next = late < self.rotation;
            keys.previous = is_next.then_some(last);
            keys.until = if is_next { keys.until } else { now } + self.rotation;
        }
        Some(keys)
    }

    fn seal_at(&self, plain: &[u8], now: Instant) -> Option<Vec<u8>> {
        self.keys(now)?.current.key.seal(plain)
    }

    fn open_at(&self, ticket: &[u8], now: Instant) -> Option<Vec<u8>> {
        let keys = self.keys(now)?;
        let open = |own: &OwnKey| own.key.open(ticket);
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

    /// Goal: the next engine opens the tickets of the previous one, by both keys and until the same moment; octets of
    /// another form change nothing. Method: keys written and read; the same octets cut anywhere. Covers: C-500
    #[test]
    fn the_next_engine_opens_tickets() {
        let (one, next) = (ProcessKeys::new(ROTATION).unwrap(), ProcessKeys::new(ROTATION).unwrap());
        let first = one.seal_at(b"session", Instant::now()).unwrap();
        one.rotate(false).unwrap();
        let second = one.seal_at(b"session", Instant::now()).unwrap();
        let written = one.write().unwrap();
        for cut in (0..written.len()).filter(|cut| *cut != 1 + 8 + MATERIAL_OCTETS) {
            assert_eq!(next.read(&written[..cut], Duration::ZERO), None, "{cut}");
        }
        assert_eq!(next.read(&[&[FORM + 1], &written[1..]].concat(), Duration::ZERO), None);
        assert_eq!(next.open_at(&second, Instant::now()), None);
        next.read(&written, Duration::ZERO).unwrap();
        assert_eq!(next.revision(), one.revision());
        for ticket in [&first, &second] {
            assert_eq!(next.open_at(ticket, Instant::now()).as_deref(), Some(&b"session"[..]));
        }
        assert_eq!(next.open_at(&first, Instant::now() + ROTATION), None, "its time is over as before");
    }

    /// Goal: keys that were with the keeper for long are as old as if the engine had kept them. Method: read at three
    /// ages.
    /// Covers: A-437, C-500
    #[test]
    fn keys_age_while_no_engine_has_them() {
        for (age, opens) in [(HOUR, true), (ROTATION + HOUR, true), (ROTATION * 2 + HOUR, false)] {
            let (one, next) = (ProcessKeys::new(ROTATION).unwrap(), ProcessKeys::new(ROTATION).unwrap());
            let ticket = one.seal_at(b"session", Instant::now()).unwrap();
            // If the machine has been up for less than the age, there is no such moment.
            if next.read(&one.write().unwrap(), age).is_some() {
                assert_eq!(next.open_at(&ticket, Instant::now()).is_some(), opens, "{age:?}");
                assert_eq!(next.revision() == one.revision(), age < ROTATION);
            }
        }
    }

    /// Goal: a rotation by command works like one by time: the last ticket opens until the end of the next rotation,
    /// and the one before does not open; with `ends_old` none of them opens. Method: three tickets, three commands.
    /// Covers: C-241
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

    /// Goal: a ticket opens in its rotation and the next and never when it is two rotations old, whether or not other
    /// clients came in between. Method: tickets of the first hour and of the last, a lookup each hour, or a single
    /// one.
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

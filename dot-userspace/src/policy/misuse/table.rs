//! A table of fixed size with recent counts of the busiest keys: domains, clients, or both together.
//!
//! Before: a key, a hash with a random seed. After: its row, with the counts of the current window.
//! Holds: rows in sets of four; a key belongs to one set.
//! Never: allocates after it was made, or grows with keys that clients invent. A new key in a full set lowers the counts of the
//! others by one each, so that busy rows stay and no row stays for ever.

/// Rows of a set.
const WAYS: usize = 4;
/// Sets of a table: 4,096 rows.
const SETS: usize = 1024;

/// The time in seconds, and its window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) second: u32,
    pub(super) window: u32,
}

/// The counts of a row.
pub(super) trait Counts: Copy + Default {
    /// Another window has begun.
    fn begin_window(&mut self);
}

/// A row.
#[derive(Clone, Copy, Default)]
pub(super) struct Row<C> {
    /// 0: it is free.
    key: u64,
    window: u32,
    /// Number of look-ups in this window.
    asked: u32,
    /// The second at which the last action for it ends.
    held_until: u32,
    pub(super) counts: C,
}

/// The rows.
pub(super) struct Table<C> {
    rows: Box<[[Row<C>; WAYS]]>,
}

impl<C: Counts> Default for Table<C> {
    fn default() -> Self {
        Self { rows: vec![[Row::default(); WAYS]; SETS].into() }
    }
}

impl<C: Counts> Table<C> {
    /// The row of a key, if it has one.
    pub(super) fn known(&mut self, key: u64, now: Now) -> Option<&mut Row<C>> {
        let (set, key) = self.set(key)?;
        let row = set.iter_mut().find(|row| row.key == key)?;
        row.catch_up(now);
        Some(row)
    }

    /// The row of a key, which gets one now unless busier keys hold all places.
    pub(super) fn row(&mut self, key: u64, now: Now) -> Option<&mut Row<C>> {
        let (set, key) = self.set(key)?;
        let place = match set.iter().position(|row| row.key == key) {
            Some(place) => place,
            None => {
                let least = set.iter_mut().enumerate().min_by_key(|(_, row)| row.worth(now));
                let (place, row) = least?;
                if row.worth(now) > 1 {
                    row.asked = row.asked.saturating_sub(1);
                    return None;
                }
                *row = Row { key, window: now.window, ..Row::default() };
                place
            }
        };
        let row = set.get_mut(place)?;
        row.catch_up(now);
        row.asked = row.asked.saturating_add(1);
        Some(row)
    }

    fn set(&mut self, key: u64) -> Option<(&mut [Row<C>; WAYS], u64)> {
        let set = usize::try_from(key >> 32).ok()? % SETS;
        Some((self.rows.get_mut(set)?, key.max(1)))
    }
}

impl<C: Counts> Row<C> {
    /// The loss if it gives way.
    fn worth(&self, now: Now) -> u32 {
        let is_over = self.window != now.window && !self.is_held(now);
        if self.key == 0 || is_over { 0 } else { self.asked.max(1).saturating_add(self.is_held(now).into()) }
    }

    fn catch_up(&mut self, now: Now) {
        if self.window != now.window {
            (self.window, self.asked) = (now.window, 0);
            self.counts.begin_window();
        }
    }

    /// Whether an action applies to it now.
    pub(super) fn is_held(&self, now: Now) -> bool {
        self.held_until > now.second
    }

    /// An action applies to it for `seconds` from now on. `true`: none did.
    pub(super) fn hold(&mut self, now: Now, seconds: u32) -> bool {
        let is_new = !self.is_held(now);
        self.held_until = now.second.saturating_add(seconds);
        is_new
    }
}

/// Words of a [`Names`].
const WORDS: usize = 16;
const BITS: u32 = 1024;

/// A set of names: a bit for each hash.
///
/// Source: K.-Y. Whang and others, "A linear-time probabilistic counting algorithm" (1990).
#[derive(Clone, Copy, Default)]
pub(super) struct Names([u64; WORDS]);

impl Names {
    /// Notes a name. `true`: its bit is new.
    pub(super) fn note(&mut self, name: u64) -> bool {
        let (word, mask) = Self::place(name);
        let Some(word) = self.0.get_mut(word) else { return false };
        let is_new = *word & mask == 0;
        *word |= mask;
        is_new
    }

    /// Whether a name was noted, or another one with its bit.
    pub(super) fn has(&self, name: u64) -> bool {
        let (word, mask) = Self::place(name);
        self.0.get(word).is_some_and(|word| word & mask != 0)
    }

    fn place(name: u64) -> (usize, u64) {
        let bit = name % u64::from(BITS);
        (usize::try_from(bit / 64).unwrap_or_default(), 1 << (bit % 64))
    }

    /// The approximate number of names: within an eighth up to 2,500.
    pub(super) fn count(&self) -> u32 {
        let set: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        let empty = f64::from(BITS.saturating_sub(set).max(1));
        (f64::from(BITS) * (f64::from(BITS) / empty).ln()) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Default)]
    struct Sum(u32);

    impl Counts for Sum {
        fn begin_window(&mut self) {
            self.0 = 0;
        }
    }

    const NOW: Now = Now { second: 5, window: 0 };

    /// A number that looks random, like a keyed hash (splitmix64).
    fn hash(number: u64) -> u64 {
        let mut hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
        for factor in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
            hash = (hash ^ (hash >> 29)).wrapping_mul(factor);
        }
        hash ^ (hash >> 32)
    }

    /// Goal: a crowd of keys that come once pushes out neither a busy one nor one with an action, and the table does not
    /// grow. Method: a busy key between 200,000 others.
    #[test]
    fn a_crowd_hides_no_busy_key() {
        let mut table = Table::<Sum>::default();
        table.row(hash(2), NOW).unwrap().hold(NOW, 60);
        for number in 0..20_000 {
            table.row(hash(1), NOW).unwrap().counts.0 += 1;
            for other in 0..10 {
                table.row(hash(1_000_000 + number * 10 + other), NOW);
            }
            if number % 100 == 0 {
                table.row(hash(2), NOW);
            }
        }
        assert_eq!(table.known(hash(1), NOW).unwrap().counts.0, 20_000);
        assert!(table.known(hash(2), NOW).is_some_and(|row| row.is_held(NOW)));
        assert_eq!(table.rows.len() * WAYS, 4096);
    }

    /// Goal: in a set in which every key has an action, each key stays until its action ends, and then new keys have room
    /// again. Method: four keys of one set, held, and a thousand others of that set.
    #[test]
    fn a_crowd_wears_no_held_key_out() {
        let mut table = Table::<Sum>::default();
        (1..=4).for_each(|key| {
            table.row(key, NOW).unwrap().hold(NOW, 60);
        });
        assert!((5..1005).all(|other| table.row(other, NOW).is_none()));
        assert!((1..=4).all(|key| table.known(key, NOW).is_some_and(|row| row.is_held(NOW))));
        let over = Now { second: 65, window: 6 };
        assert!((5..9).all(|other| table.row(other, over).is_some()));
    }

    /// Goal: a window's counts end with it, and an action lasts as long as it was set for.
    #[test]
    fn windows_and_holds_end() {
        let mut table = Table::<Sum>::default();
        let row = table.row(7, NOW).unwrap();
        row.counts.0 = 9;
        assert!(row.hold(NOW, 60) && !row.hold(NOW, 60));
        let later = Now { second: 15, window: 1 };
        let row = table.known(7, later).unwrap();
        assert_eq!((row.counts.0, row.is_held(later)), (0, true));
        let over = Now { second: 65, window: 6 };
        assert!(!table.known(7, over).unwrap().is_held(over));
        assert!(table.known(8, NOW).is_none());
    }

    /// Goal: the count of names is as exact as such a bitmap permits.
    #[test]
    fn names_are_counted() {
        for count in [1_u64, 10, 100, 1000, 2500] {
            let mut names = Names::default();
            (0..count).for_each(|number| {
                names.note(hash(number));
            });
            let counted = i64::from(names.count());
            let count = i64::try_from(count).unwrap();
            assert!((counted - count).abs() <= count / 8 + 1, "{count}: {counted}");
        }
    }
}

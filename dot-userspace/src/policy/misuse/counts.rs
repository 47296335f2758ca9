//! The counts of a domain, of a client's names below a domain, and of a client, with their limits.
//!
//! Before: a query that goes to a backend, a message, an answer. After: `mod.rs` knows whether it is misuse.
//! Holds: the counts of one window. Never: holds a name, or chooses an action.

use super::{
    Kind,
    table::{Counts, Names},
};
use crate::config::Misuse;

/// Fewest octets of the labels in front of a domain that may carry data: shorter ones are words.
const CARRIER_OCTETS_MIN: usize = 28;
/// Bits for each octet of such labels. 3.0: Base32 and Base128 have more than 4, hexadecimal 3.5; names of few different characters,
/// such as lists of digits, have fewer.
const CARRIER_BITS_MIN: f32 = 3.0;

/// The counts of a domain, over all clients.
#[derive(Clone, Copy, Default)]
pub(super) struct Domain {
    answered: u32,
    missing: u32,
    /// New names that passed while it was flooded.
    passed: u32,
    asked: Names,
    /// Names that exist. They outlast a window, so that a flood does not cut off names that were known before it.
    there: Names,
}

impl Counts for Domain {
    fn begin_window(&mut self) {
        *self = Self { there: self.there, ..Self::default() };
    }
}

impl Domain {
    /// Notes a query. `true`: the domain is flooded.
    pub(super) fn ask(&mut self, name: u64, limits: &Misuse) -> bool {
        self.asked.note(name);
        let percent = u32::from(limits.random_names_missing_percent);
        let is_missing = self.missing.saturating_mul(100) >= self.answered.saturating_mul(percent);
        self.answered > 0 && is_missing && self.asked.count() >= limits.random_names_min
    }

    /// Whether a query goes to a backend while the domain is flooded: its name exists, or some of the budget is left.
    pub(super) fn passes(&mut self, name: u64, limits: &Misuse) -> bool {
        if self.there.has(name) {
            return true;
        }
        self.passed = self.passed.saturating_add(1);
        self.passed <= limits.random_names_budget
    }

    /// Notes an outcome. A name that exists counts once: many queries for it must not hide a flood beside them.
    pub(super) fn answer(&mut self, name: u64, is_missing: bool) {
        let is_new = is_missing || self.there.note(name);
        self.answered = self.answered.saturating_add(u32::from(is_new));
        self.missing = self.missing.saturating_add(u32::from(is_missing));
    }
}

/// The counts of one client's names below a domain.
#[derive(Clone, Copy, Default)]
pub(super) struct Carried {
    names: u32,
    answers: u32,
    asked: Names,
}

impl Counts for Carried {
    fn begin_window(&mut self) {
        *self = Self::default();
    }
}

impl Carried {
    /// Notes a query for a name, `labels` in front of its domain. `true`: this is a tunnel.
    pub(super) fn ask(&mut self, name: u64, labels: &[u8], limits: &Misuse) -> bool {
        if self.asked.note(name) && may_carry(labels) {
            self.names = self.names.saturating_add(u32::try_from(labels.len()).unwrap_or_default());
        }
        self.names >= limits.tunnel_name_octets || self.answers >= limits.tunnel_answer_octets
    }

    /// Notes an answer of a type that can carry data.
    pub(super) fn answer(&mut self, octets: usize) {
        self.answers = self.answers.saturating_add(u32::try_from(octets).unwrap_or_default());
    }
}

/// Whether labels are long and varied enough to carry data.
fn may_carry(labels: &[u8]) -> bool {
    labels.len() >= CARRIER_OCTETS_MIN && bits_per_octet(labels) >= CARRIER_BITS_MIN
}

/// Shannon's entropy of the octets.
fn bits_per_octet(octets: &[u8]) -> f32 {
    let mut counts = [0_u16; 256];
    for octet in octets {
        if let Some(count) = counts.get_mut(usize::from(*octet)) {
            *count += 1;
        }
    }
    let all = octets.len() as f32;
    let of = |count: &u16| f32::from(*count) * (all / f32::from(*count)).log2();
    counts.iter().filter(|count| **count > 0).map(of).sum::<f32>() / all
}

/// Whether answers of this type can carry many octets that the client does not know beforehand: NULL, TXT, KEY, SRV, MX, CNAME, and the
/// private type that iodine uses.
pub(super) fn is_carrier(qtype: u16) -> bool {
    matches!(qtype, 5 | 10 | 15 | 16 | 25 | 33 | 65_399)
}

/// The counts of a client.
#[derive(Clone, Copy, Default)]
pub(super) struct Client {
    messages: u32,
    answers: u32,
    failures: u32,
    octets: u64,
    /// By kind: the second at which the action for this reason ends.
    until: [u32; Kind::ALL.len()],
}

impl Counts for Client {
    fn begin_window(&mut self) {
        *self = Self { until: self.until, ..Self::default() };
    }
}

impl Client {
    /// An action for this reason applies to it until then. `true`: none did.
    pub(super) fn hold(&mut self, kind: Kind, second: u32, until: u32) -> bool {
        let is_new = !self.is_held(kind, second);
        self.until.get_mut(kind as usize).into_iter().for_each(|held| *held = until);
        is_new
    }

    /// Whether an action for this reason applies to it now.
    pub(super) fn is_held(&self, kind: Kind, second: u32) -> bool {
        self.until.get(kind as usize).is_some_and(|until| *until > second)
    }

    /// Notes a message. `true`: there are too many.
    pub(super) fn message(&mut self, limits: &Misuse) -> bool {
        self.messages = self.messages.saturating_add(1);
        self.messages > limits.queries_max
    }

    /// Notes an answer. Returns whether too many answers were failures, and whether all of them together are too long.
    pub(super) fn answer(&mut self, octets: usize, is_failure: bool, limits: &Misuse) -> (bool, bool) {
        self.answers = self.answers.saturating_add(1);
        self.failures = self.failures.saturating_add(u32::from(is_failure));
        self.octets = self.octets.saturating_add(octets as u64);
        let percent = u64::from(limits.failures_percent);
        let fails = self.answers >= limits.failures_min
            && u64::from(self.failures) * 100 >= u64::from(self.answers) * percent;
        (fails, self.octets > u64::from(limits.answer_octets_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: names of tunnels carry data; words, short names and long names of few different characters do not.
    #[test]
    fn names_of_tunnels_are_told_from_words() {
        for (labels, carries) in [
            (&b"\x3c0ibbz82\xbe\xbf\xc0\xd1\xd2\xd3\xe1\xe2abcdefghijklmnopq"[..], true),
            (b"\x32mzxw6ytboi4dkmrqgqztmnzygaytemzugu3tqojqge2tmmzq", true),
            (b"\x203f786850e387550fdab836ed7e6dc881de", true),
            (b"\x03www", false),
            (b"\x08pictures\x07holiday", false),
            (b"\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x011\x010\x010\x012\x011\x018", false),
        ] {
            assert_eq!(may_carry(labels), carries, "{:?}", labels.escape_ascii().to_string());
        }
    }
}

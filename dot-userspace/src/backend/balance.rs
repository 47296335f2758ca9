//! Which backend is next: one pure function for each policy.
//!
//! Before: `fleet` knows which backends are awake and what each has to do. After: the query is queued there.
//! Never: allocates, looks at a clock, or asks whether a backend is there.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::config::Policy;

/// A backend that may be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<K> {
    /// Its place in the list.
    pub index: usize,
    /// What it is known by on every worker and every node: its address.
    pub key: K,
    /// Its share.
    pub weight: u16,
    /// Unanswered queries.
    pub outstanding: usize,
}

/// Chooses among `candidates`; `turn` grows by one with each query, `qname` is in wire form.
pub fn choose<K: Hash>(
    policy: Policy,
    turn: usize,
    qname: &[u8],
    mut candidates: impl Iterator<Item = Candidate<K>> + Clone,
) -> Option<usize> {
    match policy {
        Policy::First => candidates.next().map(|first| first.index),
        Policy::LeastOutstanding => candidates
            .min_by_key(|one| one.outstanding.saturating_mul(WEIGHT_MAX) / usize::from(one.weight.max(1)))
            .map(|idlest| idlest.index),
        Policy::RoundRobin => {
            let total: usize = candidates.clone().map(|one| usize::from(one.weight)).sum();
            let mut left = turn.checked_rem(total)?;
            let next = candidates.find(|one| {
                let share = usize::from(one.weight);
                let is_next = left < share;
                left = left.saturating_sub(share);
                is_next
            });
            next.map(|next| next.index)
        }
        Policy::Hash => candidates
            .map(|one| (score(qname, &one.key, one.weight), one.index))
            .max_by(|one, other| one.0.total_cmp(&other.0))
            .map(|(_, index)| index),
    }
}

/// Rendezvous hashing: the highest score wins, so that a backend that goes takes along only its own names
/// and they spread over all others. Weighted as −w / ln(u) (Schindelhauer and Schomaker, 2005).
fn score<K: Hash>(qname: &[u8], key: &K, weight: u16) -> f64 {
    // Its keys are fixed: every worker and every node gives a name to the same backend.
    let mut hasher = DefaultHasher::new();
    // A label's length is below 64, so that folding by octets leaves it alone.
    qname.iter().for_each(|octet| hasher.write_u8(octet.to_ascii_lowercase()));
    key.hash(&mut hasher);
    // 32 bits are exact in an f64, and above zero so that the logarithm is finite.
    let drawn = u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX);
    let unit = (f64::from(drawn) + 0.5) / (f64::from(u32::MAX) + 1.0);
    -f64::from(weight) / unit.ln()
}

/// Keeps the quotient of outstanding and weight apart in whole numbers (`config::limit::BACKEND_WEIGHT`).
const WEIGHT_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(weights: &[(u16, usize)]) -> Vec<Candidate<usize>> {
        let numbered = weights.iter().enumerate();
        numbered
            .map(|(index, (weight, outstanding))| Candidate {
                index,
                key: index,
                weight: *weight,
                outstanding: *outstanding,
            })
            .collect()
    }

    fn name(number: usize) -> Vec<u8> {
        let label = format!("host-{number}");
        [&[u8::try_from(label.len()).unwrap()], label.as_bytes(), &[4], b"test", &[0]].concat()
    }

    #[test]
    fn least_outstanding_is_per_weight() {
        let all = backends(&[(1, 3), (10, 20), (1, 4)]);
        assert_eq!(choose(Policy::LeastOutstanding, 0, &[], all.into_iter()), Some(1));
    }

    #[test]
    fn round_robin_gives_shares() {
        let all = backends(&[(2, 0), (1, 0)]);
        let order: Vec<_> =
            (0..6).map(|turn| choose(Policy::RoundRobin, turn, &[], all.iter().copied()).unwrap()).collect();
        assert_eq!(order, [0, 0, 1, 0, 0, 1]);
    }

    #[test]
    fn nobody_is_chosen_of_none() {
        for policy in [Policy::First, Policy::LeastOutstanding, Policy::RoundRobin, Policy::Hash] {
            assert_eq!(choose(policy, 3, &[0], backends(&[]).into_iter()), None);
        }
    }

    /// Goal: a name stays with one backend however it is written, names spread by weight, and a backend that
    /// goes moves no name but its own. Method: 30,000 names over weights 1, 1 and 2, then without the last.
    #[test]
    fn hash_is_stable_fair_and_least_disruptive() {
        let all = backends(&[(1, 0), (1, 0), (2, 0)]);
        let at = |name: &[u8], count: usize| {
            choose(Policy::Hash, 0, name, all.iter().take(count).copied()).unwrap()
        };
        let mut shares = [0_usize; 3];
        for number in 0..30_000 {
            let name = name(number);
            let chosen = at(&name, 3);
            shares[chosen] += 1;
            assert_eq!(at(&name.to_ascii_uppercase(), 3), chosen);
            if chosen < 2 {
                assert_eq!(at(&name, 2), chosen);
            }
        }
        for (share, expected) in shares.into_iter().zip([7_500_usize, 7_500, 15_000]) {
            assert!(share.abs_diff(expected) < expected / 20, "{shares:?}");
        }
    }
}

//! Which backend is next: one pure function for each policy.
//!
//! Before: `pool` knows which backends are awake and what each has to do. After: the query is queued there.
//! Never: allocates, looks at a clock, or asks whether a backend is there.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::config::Policy;

/// A backend that may be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<K> {
    /// Its place in the list.
    pub index: usize,
    /// Its key, the same on every worker and every node: its address.
    pub key: K,
    /// Its share.
    pub weight: u16,
    /// Unanswered queries.
    pub outstanding: usize,
}

/// The property of a query that decides its backend, under policies that use one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity<'a> {
    /// Its qname, in wire form.
    Name(&'a [u8]),
    /// The client part of its cookie. The server part is valid at one server only, and another server takes it
    /// for a forgery (BADCOOKIE, RFC 7873 §5.2). So all queries of that client go to the same backend while it is
    /// there.
    Cookie(&'a [u8]),
}

/// Chooses among `candidates`; `turn` grows by one with each query.
pub fn choose<K: Hash>(
    policy: Policy,
    turn: usize,
    affinity: Affinity<'_>,
    mut candidates: impl Iterator<Item = Candidate<K>> + Clone,
) -> Option<usize> {
    let (policy, octets) = match affinity {
        // Under `first` all clients have the same backend anyway.
        Affinity::Cookie(cookie) if policy != Policy::First => (Policy::Hash, cookie),
        Affinity::Cookie(octets) | Affinity::Name(octets) => (policy, octets),
    };
    match policy {
        Policy::First => candidates.next().map(|first| first.index),
        Policy::LeastOutstanding => {
            // The unit is the least weight: a backend may have that many queries before it counts as busier than
            // an idle one.
            let least_weight = candidates.clone().map(|one| weight(&one)).min()?;
            let load = |one: &Candidate<K>| one.outstanding.saturating_mul(least_weight) / weight(one);
            let least_load = candidates.clone().map(|one| load(&one)).min()?;
            let idlest = candidates.filter(|one| load(one) == least_load);
            let total = idlest.clone().map(|one| weight(&one)).sum();
            at_share(spread(turn, total), idlest)
        }
        Policy::RoundRobin => {
            let total: usize = candidates.clone().map(|one| weight(&one)).sum();
            at_share(turn.checked_rem(total)?, candidates)
        }
        Policy::Hash => candidates
            .map(|one| (score(octets, &one.key, one.weight), one.index))
            .max_by(|one, other| one.0.total_cmp(&other.0))
            .map(|(_, index)| index),
    }
}

fn weight<K>(one: &Candidate<K>) -> usize {
    usize::from(one.weight.max(1))
}

/// The candidate whose share holds `position`; each has as many positions as its weight.
fn at_share<K>(mut position: usize, mut candidates: impl Iterator<Item = Candidate<K>>) -> Option<usize> {
    let chosen = candidates.find(|one| {
        let share = weight(one);
        let is_it = position < share;
        position = position.saturating_sub(share);
        is_it
    });
    chosen.map(|chosen| chosen.index)
}

/// A position below `total` for each turn. Any run of turns covers every part of the whole in proportion to its
/// size, in an order that leaves no backend out for long (multiples of the golden ratio, modulo one).
fn spread(turn: usize, total: usize) -> usize {
    let fraction = (turn as u64).wrapping_mul(GOLDEN_RATIO);
    usize::try_from((u128::from(fraction) * total as u128) >> 64).unwrap_or_default()
}

/// Rendezvous hashing: the highest score wins. So when a backend goes, only its own names move, and they spread
/// over all others. Weighted as −w / ln(u) (Schindelhauer and Schomaker, 2005).
fn score<K: Hash>(octets: &[u8], key: &K, weight: u16) -> f64 {
    // The keys of the hash are fixed, so every worker and every node gives a name to the same backend.
    let mut hasher = DefaultHasher::new();
    // A label's length is below 64, so folding by octets does not change it.
    octets.iter().for_each(|octet| hasher.write_u8(octet.to_ascii_lowercase()));
    key.hash(&mut hasher);
    // 32 bits are exact in an f64, and above zero so that the logarithm is finite.
    let drawn = u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX);
    let unit = (f64::from(drawn) + 0.5) / (f64::from(u32::MAX) + 1.0);
    -f64::from(weight) / unit.ln()
}

/// The fraction of the golden ratio, times 2^64.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Affinity<'static> = Affinity::Name(&[0]);

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
        assert_eq!(choose(Policy::LeastOutstanding, 0, ANY, all.into_iter()), Some(1));
    }

    /// Goal: weights hold when nothing is in flight, and when few queries are: no backend is idle while another
    /// has more than its share, and every backend is used. Method: 10,000 queries one at a time, then with two to
    /// eight in flight, the oldest answered first, at several weights. Covers: C-234
    #[test]
    fn least_outstanding_honours_weights_when_idle() {
        for weights in [&[1, 3][..], &[100, 300], &[1, 1], &[1, 1, 2], &[5, 1000]] {
            for concurrency in [1, 2, 8] {
                let (mut outstanding, mut asked) =
                    (vec![0_usize; weights.len()], vec![0_usize; weights.len()]);
                let mut in_flight = std::collections::VecDeque::new();
                for turn in 0..10_000 {
                    let all: Vec<_> = weights.iter().copied().zip(outstanding.iter().copied()).collect();
                    let all = backends(&all);
                    let chosen = choose(Policy::LeastOutstanding, turn, ANY, all.iter().copied()).unwrap();
                    asked[chosen] += 1;
                    outstanding[chosen] += 1;
                    in_flight.push_back(chosen);
                    if in_flight.len() >= concurrency {
                        outstanding[in_flight.pop_front().unwrap()] -= 1;
                    }
                }
                let total: usize = weights.iter().copied().map(usize::from).sum();
                for (asked_of, weight) in asked.iter().zip(weights) {
                    let expected = 10_000 * usize::from(*weight) / total;
                    let slack = if concurrency == 1 { 20 } else { 1500 };
                    assert!(asked_of.abs_diff(expected) <= slack, "{weights:?} × {concurrency}: {asked:?}");
                }
            }
        }
    }

    #[test]
    fn round_robin_gives_shares() {
        let all = backends(&[(2, 0), (1, 0)]);
        let order: Vec<_> =
            (0..6).map(|turn| choose(Policy::RoundRobin, turn, ANY, all.iter().copied()).unwrap()).collect();
        assert_eq!(order, [0, 0, 1, 0, 0, 1]);
    }

    #[test]
    fn nobody_is_chosen_of_none() {
        for policy in [Policy::First, Policy::LeastOutstanding, Policy::RoundRobin, Policy::Hash] {
            assert_eq!(choose(policy, 3, ANY, backends(&[]).into_iter()), None);
        }
    }

    /// Goal: a name stays with one backend in any spelling, names spread by weight, and a backend that goes moves
    /// only its own names. Method: 30,000 names over weights 1, 1 and 2, then without the last backend.
    #[test]
    fn hash_is_stable_fair_and_least_disruptive() {
        let all = backends(&[(1, 0), (1, 0), (2, 0)]);
        let at = |name: &[u8], count: usize| {
            choose(Policy::Hash, 0, Affinity::Name(name), all.iter().take(count).copied()).unwrap()
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

    /// Goal: a client with a cookie has one backend under every policy and for every name, clients spread by
    /// weight, and a backend that goes moves only its own clients. Method: 3,000 cookies over weights 1 and 2.
    /// Covers: C-242
    #[test]
    fn a_cookie_stays_with_a_backend() {
        let all = backends(&[(1, 0), (2, 7)]);
        let mut shares = [0_usize; 2];
        for number in 0..3000_u64 {
            let cookie = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            let at =
                |policy, turn| choose(policy, turn, Affinity::Cookie(&cookie), all.iter().copied()).unwrap();
            let chosen = at(Policy::RoundRobin, 0);
            for policy in [Policy::RoundRobin, Policy::LeastOutstanding, Policy::Hash] {
                assert!((0..4).all(|turn| at(policy, turn) == chosen), "{policy:?}");
            }
            assert_eq!(at(Policy::First, 0), 0);
            shares[chosen] += 1;
        }
        assert!(shares[0].abs_diff(1000) < 100, "{shares:?}");
    }
}

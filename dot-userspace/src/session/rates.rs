//! How many messages a client may send in a second over all its connections and workers; and, in another table, how
//! many handshakes it may begin.
//!
//! Before: the reader has a whole message. After: it is within its client's rate, waits, or exceeds the rate.
//! Holds: one number for each recent client, which all workers share: the time at which its next message would be on
//! schedule (GCRA, as in `dot_common::rate` for the kernel half). The table has a fixed size, with four places for a
//! client; if other clients hold all four, the one nearest to its schedule is forgotten.
//! Never: allocates before there is a limit, locks, or admits more than burst + rate · t messages of a client in any
//! time t, unless four clients that share its places exceed theirs.
//!
//! Source: ITU-T I.371, Annex A (virtual scheduling).

use std::{
    net::IpAddr,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use dot_common::rate::Rate;
use tokio::time::Instant;

use super::keyed::Keyed;
use crate::config::QueriesOver;

/// Sets of the table, as a power of two: 512 KiB.
const SETS_BITS: u32 = 14;
/// Places of a set.
const PLACES: usize = 4;
/// Low bits of a place: the scheduled time, in units of 128 ns, which wraps in 39 hours. The other bits identify the
/// client.
const TIME_BITS: u32 = 40;
/// Nanoseconds in a unit, as a power of two.
const UNIT_BITS: u32 = 7;
/// A client is at most this far ahead of its schedule: two hours (the config allows one). A larger distance means that
/// it is behind.
const AHEAD_MAX: u64 = 1 << 36;
/// Longest wait of a message; a message that would wait longer exceeds the rate. 1 s: a stub resolver asks again after
/// some five.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Attempts, when other workers change the place meanwhile, before a message counts as exceeding the rate.
const TRIES_MAX: usize = 16;

/// The limit of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryRate {
    /// Messages and burst; may be unlimited.
    pub rate: Rate,
    /// What happens to messages beyond the rate.
    pub over: QueriesOver,
}

/// The decision about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// It is answered now.
    Within,
    /// It is answered at that time, which is reserved for it.
    At(Instant),
    /// It exceeds the rate.
    Over,
}

/// The rates of all clients of a process.
#[derive(Debug)]
pub struct Rates {
    began: Instant,
    keyed: Keyed,
    places: OnceLock<Box<[AtomicU64]>>,
}

impl Default for Rates {
    fn default() -> Self {
        Self { began: Instant::now(), keyed: Keyed::default(), places: OnceLock::new() }
    }
}

impl Rates {
    /// Decides about a message of `client` that came now; `bits` are the prefix lengths for IPv4 and IPv6.
    pub(super) fn take(&self, client: IpAddr, bits: (u8, u8), limit: QueryRate, now: Instant) -> Pace {
        let number = self.keyed.number(client, bits);
        let now_units = units(now.saturating_duration_since(self.began));
        let wait_max = if limit.over == QueriesOver::Delay { WAIT_MAX } else { Duration::ZERO };
        for _ in 0..TRIES_MAX {
            let Some((place, held)) = self.place(number, now_units) else { break };
            let ahead = if is_of(held, number) { ahead(held, now_units) } else { 0 };
            let Some((next, wait)) = schedule(limit.rate, ahead, now_units, units(wait_max)) else {
                return Pace::Over;
            };
            let next = (number & !TIME) | (next & TIME);
            if place.compare_exchange_weak(held, next, Relaxed, Relaxed).is_ok() {
                let wait = Duration::from_nanos(wait << UNIT_BITS);
                return if wait.is_zero() { Pace::Within } else { Pace::At(now + wait) };
            }
        }
        Pace::Over
    }

    /// Whether `client` may do now what `rate` limits. If so, it is counted.
    pub fn admits(&self, client: IpAddr, bits: (u8, u8), rate: Rate, now: Instant) -> bool {
        let limit = QueryRate { rate, over: QueriesOver::Refuse };
        !rate.is_limit() || self.take(client, bits, limit, now) == Pace::Within
    }

    /// How far a client is ahead of its schedule.
    pub fn ahead_ns(&self, client: IpAddr, bits: (u8, u8), now: Instant) -> u64 {
        if self.places.get().is_none() {
            return 0;
        }
        let number = self.keyed.number(client, bits);
        let now = units(now.saturating_duration_since(self.began));
        let held = self.place(number, now).map(|(_, held)| held).filter(|held| is_of(*held, number));
        held.map_or(0, |held| ahead(held, now) << UNIT_BITS)
    }

    /// The client's place, or a place for it, and its content.
    fn place(&self, number: u64, now: u64) -> Option<(&AtomicU64, u64)> {
        let places =
            self.places.get_or_init(|| (0..PLACES << SETS_BITS).map(|_| AtomicU64::new(0)).collect());
        // Other bits than those that identify clients within a set.
        let set = usize::try_from(number & ((1 << SETS_BITS) - 1)).ok()?;
        let places = places.get(set * PLACES..(set + 1) * PLACES)?.iter();
        let held = places.map(|place| (place, place.load(Relaxed)));
        held.min_by_key(|(_, held)| (!is_of(*held, number), ahead(*held, now)))
    }
}

const TIME: u64 = (1 << TIME_BITS) - 1;

fn is_of(held: u64, number: u64) -> bool {
    held & !TIME == number & !TIME
}

/// How far the time in a place is ahead of now.
fn ahead(held: u64, now: u64) -> u64 {
    Some(held.wrapping_sub(now) & TIME).filter(|ahead| *ahead <= AHEAD_MAX).unwrap_or(0)
}

/// A duration in units.
fn units(time: Duration) -> u64 {
    u64::try_from(time.as_nanos() >> UNIT_BITS).unwrap_or(TIME)
}

/// The next scheduled time, and how long the message waits, in units. `None`: it would wait too long.
fn schedule(rate: Rate, ahead: u64, now: u64, wait_max: u64) -> Option<(u64, u64)> {
    let period = rate.period_ns.div_ceil(1 << UNIT_BITS).max(1);
    let tolerance = rate.tolerance_ns / rate.period_ns.max(1) * period;
    // No message under this rate can have led there: the time is from another rate, before a reload.
    let is_foreign = ahead > tolerance + period + wait_max + units(STALE);
    let ahead = if is_foreign { 0 } else { ahead };
    let wait = ahead.saturating_sub(tolerance);
    (wait <= wait_max).then_some((now + ahead + period, wait))
}

/// How much later another worker's time may be.
const STALE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const BITS: (u8, u8) = (32, 56);

    fn limit(per_second: u32, burst: u32, over: QueriesOver) -> QueryRate {
        QueryRate { rate: Rate::new(per_second, burst), over }
    }

    /// Goal: a client has its burst and its rate, and another client its own. Method: a client that sends everything at
    /// once, then after a tenth of a second; its neighbour.
    #[test]
    fn a_client_has_its_burst_and_its_rate() {
        let (rates, now) = (Rates::default(), Instant::now() + Duration::from_secs(5));
        let limit = limit(100, 10, QueriesOver::Refuse);
        let admitted = |client: &str, after: u64, count: usize| {
            let at = now + Duration::from_millis(after);
            let client = client.parse().unwrap();
            (0..count).filter(|_| rates.take(client, BITS, limit, at) == Pace::Within).count()
        };
        assert_eq!(admitted("2001:db8::1", 0, 5) + admitted("2001:db8:0:ff::2", 0, 50), 10, "one /56");
        assert_eq!(admitted("2001:db8:0:100::1", 0, 50), 10);
        assert!((9..=10).contains(&admitted("2001:db8::3", 100, 50)));
        assert_eq!(admitted("2001:db8::3", 5000, 50), 10);
    }

    /// Goal: delayed messages leave at the rate, one after the other, and none waits longer than a second. Method: two
    /// hundred at once at a rate of a hundred a second.
    #[test]
    fn delayed_messages_leave_at_the_rate() {
        let (rates, now) = (Rates::default(), Instant::now() + Duration::from_secs(5));
        let limit = limit(100, 10, QueriesOver::Delay);
        let client = Ipv4Addr::new(192, 0, 2, 1).into();
        let paces: Vec<Pace> = (0..200).map(|_| rates.take(client, BITS, limit, now)).collect();
        let is_within = |pace: &&Pace| **pace == Pace::Within;
        assert_eq!(paces.iter().filter(is_within).count(), 10);
        let waits: Vec<Instant> =
            paces.iter().filter_map(|pace| if let Pace::At(at) = pace { Some(*at) } else { None }).collect();
        assert!((99..=100).contains(&waits.len()), "{}", waits.len());
        let gaps = waits.iter().zip(waits.iter().skip(1)).map(|(one, next)| *next - *one);
        assert!(gaps.into_iter().all(|gap| gap >= Duration::from_millis(10)));
        assert!(waits.iter().all(|at| *at <= now + WAIT_MAX));
    }

    /// Goal: with more clients than places the table forgets, and does not refuse: each new client has its burst,
    /// unless it shares the set and the 24 bits of another, as one in four million does. Method: 200,000 clients with
    /// two messages each; in one of twenty runs this refuses one client.
    #[test]
    fn a_crowd_of_clients_refuses_nobody() {
        let (rates, now) = (Rates::default(), Instant::now() + Duration::from_secs(5));
        let limit = limit(1, 2, QueriesOver::Refuse);
        let is_refused = |client: &u32| {
            let client: IpAddr = Ipv4Addr::from_bits(0x0a00_0000 + client).into();
            [0, 1].map(|_| rates.take(client, BITS, limit, now)) != [Pace::Within; 2]
        };
        let refused = (0..200_000).filter(is_refused).count();
        assert!(refused <= 3, "{refused} refused");
    }

    /// Goal: workers that count one client at the same time admit no more than its burst. Method: four threads, ten
    /// thousand messages each, at one moment.
    #[test]
    fn workers_share_a_clients_rate() {
        let (rates, now) = (Rates::default(), Instant::now() + Duration::from_secs(5));
        let limit = limit(1, 1000, QueriesOver::Refuse);
        let client: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
        let first = rates.take(client, BITS, limit, now);
        let admitted: usize = std::thread::scope(|scope| {
            let worker =
                || (0..10_000).filter(|_| rates.take(client, BITS, limit, now) == Pace::Within).count();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!((first, admitted), (Pace::Within, 999));
    }
}

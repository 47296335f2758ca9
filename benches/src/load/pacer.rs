//! The open loop: queries fall due at random times, whether or not the server keeps up.
//!
//! Before: `threads` has sessions and a rate. After: `connection` sends the queries that are due on its lane, and
//! counts latency from the time when a query was due, not from when it could be sent. So a server that stalls delays
//! all queries that fall due meanwhile, and the report shows that (no coordinated omission).
//! Holds: Poisson arrivals, each on a connection chosen at random; the kernel's timer, because tokio's
//! counts in milliseconds. Never: waits for a response.
//!
//! Source: timerfd_create(2); exponential gaps by inversion.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    os::fd::AsFd,
    rc::Rc,
    time::{Duration, Instant},
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::{io::AsyncReadExt, net::unix::pipe, sync::Notify, task::yield_now};

use super::threads::Share;

/// The queries that are due on one connection.
#[derive(Default)]
pub struct Lane {
    due: RefCell<VecDeque<(usize, Instant)>>,
    bell: Notify,
    is_over: Cell<bool>,
}

impl Lane {
    /// The query that fell due first, and when.
    pub fn take(&self) -> Option<(usize, Instant)> {
        self.due.borrow_mut().pop_front()
    }

    /// No query is due, and none will be.
    pub fn is_done(&self) -> bool {
        self.is_over.get() && self.due.borrow().is_empty()
    }

    /// Queries that fell due and were not taken.
    pub fn left(&self) -> u64 {
        self.due.borrow().len() as u64
    }

    /// Waits until a query is due, or none will be any more.
    ///
    /// # Cancel safety
    /// A notification without a waiter is kept.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    fn push(&self, query: usize, due: Instant) {
        self.due.borrow_mut().push_back((query, due));
        self.bell.notify_one();
    }
}

/// Lets queries fall due at `rate` a second until the thread's share is used up, then ends the lanes.
///
/// # Errors
/// The kernel gives no timer.
pub async fn pace(share: Rc<Share>, lanes: Vec<Rc<Lane>>, rate: f64, seed: u64) -> io::Result<()> {
    let paced = fall_due(&share, &lanes, rate, seed).await;
    for lane in &lanes {
        lane.is_over.set(true);
        lane.bell.notify_one();
    }
    paced
}

async fn fall_due(share: &Share, lanes: &[Rc<Lane>], rate: f64, seed: u64) -> io::Result<()> {
    let mut timer = Timer::new()?;
    let mut random = Random::new(seed);
    let mut due = Instant::now();
    loop {
        due += random.gap(rate);
        timer.until(due).await?;
        let now = Instant::now();
        // Asked about `due`: what fell due within the time is sent, though we look later.
        let Some(query) = share.next(due) else { return Ok(()) };
        share.tally.borrow_mut().lag(now.saturating_duration_since(due));
        if let Some(lane) = lanes.get(random.below(lanes.len())) {
            lane.push(query, due);
        }
    }
}

/// A timer of the kernel's, with its resolution.
struct Timer {
    timer: TimerFd,
    /// The same, to be read: a descriptor that becomes readable, which is all that tokio asks of a pipe.
    rings: pipe::Receiver,
}

impl Timer {
    fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let rings = pipe::Receiver::from_owned_fd_unchecked(timer.as_fd().try_clone_to_owned()?)?;
        Ok(Self { timer, rings })
    }

    /// Waits until then; when that is past, lets the connections run.
    async fn until(&mut self, when: Instant) -> io::Result<()> {
        let left = when.saturating_duration_since(Instant::now());
        if left.is_zero() {
            yield_now().await;
            return Ok(());
        }
        let expiration = Expiration::OneShot(TimeSpec::from_duration(left));
        self.timer.set(expiration, TimerSetTimeFlags::empty())?;
        // The number of expirations, as eight octets: one.
        self.rings.read_u64_le().await.map(|_| ())
    }
}

/// xorshift64*: the same arrivals each run, and no security in it.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        // Neighbouring seeds far apart, and never zero, at which it would stay.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// At least 0, and below 1.
    fn fraction(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Time to the next arrival: exponential, `1 / rate` seconds on average.
    pub(super) fn gap(&mut self, rate: f64) -> Duration {
        Duration::from_secs_f64(-(1.0 - self.fraction()).ln() / rate)
    }

    fn below(&mut self, end: usize) -> usize {
        // At most `end - 1`: the fraction is below one.
        (self.fraction() * end as f64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: arrivals are a Poisson process of the rate asked for. Method: of 100,000 gaps the mean is 1/rate and
    /// the standard deviation as large, each within two percent; the generator is seeded, so this is no chance.
    #[test]
    fn gaps_are_exponential() {
        let mut random = Random::new(7);
        let gaps: Vec<f64> = (0..100_000).map(|_| random.gap(500.0).as_secs_f64() * 500.0).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 1.0).abs() < 0.02 && (variance.sqrt() - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    /// Goal: every connection gets its part, and no other is named. Method: 10,000 choices among seven.
    #[test]
    fn chooses_every_lane() {
        let mut random = Random::new(0);
        let mut counts = [0_u32; 7];
        (0..10_000).for_each(|_| counts[random.below(7)] += 1);
        assert!(counts.iter().all(|count| (1200..1700).contains(count)), "{counts:?}");
    }

    /// Goal: a lane ends only when nothing is left on it. Method: one query, taken after the end.
    #[test]
    fn lane_is_done_when_empty() {
        let lane = Lane::default();
        let due = Instant::now();
        lane.push(3, due);
        lane.is_over.set(true);
        assert!(!lane.is_done() && lane.left() == 1);
        assert_eq!(lane.take(), Some((3, due)));
        assert!(lane.is_done());
    }
}

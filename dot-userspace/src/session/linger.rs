//! An orderly end of a session: the last record, the FIN, and waiting until the client has read everything.
//!
//! Before: no response waits, and the kernel has all written octets. After: the connection can be closed without loss.
//! Closing a socket with unread octets of the client resets the connection, and a reset destroys octets on their way.
//! So octets that the client still sends are read and discarded until it closes too.
//! Holds: the lingering sessions of a worker, a bounded number; the one that has lingered longest ends first. A
//! lingering session gives its place or its descriptor to another connection, as an idle one does.
//! Never: holds a buffer, waits longer for a client than its pace permits, or reads without bound.
//!
//! Source: RFC 8446 §6.1, RFC 7766 §6.2.3, RFC 1122 §4.2.2.13.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{IdleProbe, Link, SessionEnd, Wanted, WorkerShared, pace::Pace};
use crate::ledger::{Counter, WorkerCounters};

/// Sessions of a worker that linger and hold a place under the caps.
const LINGERING_MAX: usize = 1024;
/// Sessions that linger after another connection got their place. Each needs a descriptor beyond the cap on
/// connections; `start::plan` reserves this many for each worker.
pub const EVICTED_LINGERING_MAX: usize = 32;
/// How often dotd asks the kernel what the client has acknowledged: there is no event for it.
const LOOK: Duration = Duration::from_millis(250);
/// A client that has acknowledged everything and is silent for this time will send nothing that could reset the
/// connection.
const SILENCE: Duration = Duration::from_millis(500);
/// The longest wait for a client that has acknowledged everything and goes on sending.
const TALK_MAX: Duration = Duration::from_secs(5);
/// Octets of a client that goes on sending: as many as both kernels may hold of a pipeline, with Linux's largest
/// buffers.
const DISCARDED_OCTETS_MAX: usize = 16 << 20;
/// The same after the client broke the protocol: octets that it had sent before it could learn of that.
const DISCARDED_OCTETS_MAX_BROKEN: usize = 64 * 1024;

/// The result for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The client has everything, or its kernel will deliver it.
    Complete,
    /// Some octets were lost.
    Incomplete,
}

/// Sends the last record over `link` and waits while that helps the client, and until another connection needs what
/// this one holds (`probe`).
pub(super) async fn leave<L: Link>(
    link: &mut L,
    shared: &WorkerShared,
    probe: &IdleProbe,
    end: SessionEnd,
) -> Left {
    // It may have been asked to leave just after it began to end for another reason.
    let wanted = probe.wanted();
    let lingering = shared.lingering.enter(wanted == Some(Wanted::Place));
    probe.note_lingering(lingering.number);
    if wanted == Some(Wanted::Descriptor) {
        lingering.must_go.notify_one();
    }
    let mut departure = Departure::new(Instant::now(), discarded_octets_max(end));
    let mut timer = pin!(sleep_until(Instant::now() + LOOK));
    let departed = poll_fn(|context| {
        loop {
            let now = Instant::now();
            match departure.poll(link, context, shared, now) {
                Verdict::Left(left) => return Poll::Ready(left),
                Verdict::WaitUntil(at) => timer.as_mut().reset(at),
            }
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    });
    let left = tokio::select! {
        // The last record comes first, also for a session that must end at once.
        biased;
        left = departed => Some(left),
        () = lingering.must_go.notified() => None,
    };
    // A session that gives way loses only octets that were not acknowledged.
    left.unwrap_or(if link.unacknowledged() == 0 { Left::Complete } else { Left::Incomplete })
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Left(Left),
    WaitUntil(Instant),
}

/// A session that is ending.
struct Departure {
    has_said_all: bool,
    /// When the client last sent octets, or the end began.
    heard: Instant,
    discarded: usize,
    discarded_max: usize,
    /// Since when the client has had everything.
    complete_since: Option<Instant>,
    pace: Pace,
}

impl Departure {
    fn new(now: Instant, discarded_max: usize) -> Self {
        Self {
            has_said_all: false,
            heard: now,
            discarded: 0,
            discarded_max,
            complete_since: None,
            pace: Pace::default(),
        }
    }

    /// Does everything that is possible now: the last record, one read, one look at acknowledgements.
    fn poll<L: Link>(
        &mut self,
        link: &mut L,
        context: &mut Context<'_>,
        shared: &WorkerShared,
        now: Instant,
    ) -> Verdict {
        if !self.has_said_all {
            match link.poll_farewell(context) {
                // The client has closed: the kernel delivers the rest without dotd.
                Poll::Ready(Ok(true)) => return Verdict::Left(Left::Complete),
                Poll::Ready(Ok(false)) => self.has_said_all = true,
                Poll::Ready(Err(_)) => return Verdict::Left(Left::Incomplete),
                Poll::Pending => {}
            }
        }
        if self.discarded < self.discarded_max {
            match link.poll_discard(context, &mut shared.scratch.borrow_mut()) {
                Poll::Ready(Ok(0)) if self.has_said_all => return Verdict::Left(Left::Complete),
                Poll::Ready(Ok(0)) | Poll::Pending => {}
                Poll::Ready(Ok(more)) => {
                    self.discarded += more;
                    self.heard = now;
                    // One read a turn, so that other sessions run.
                    context.waker().wake_by_ref();
                }
                Poll::Ready(Err(_)) => return Verdict::Left(Left::Incomplete),
            }
        }
        let waiting = link.unsent() + link.unacknowledged();
        self.look(waiting, link.taken(), now, shared.limits().write_timeout)
    }

    /// Whether to wait on, and until when. `waiting`: octets that the client has not acknowledged; `taken`: those it
    /// has.
    fn look(&mut self, waiting: usize, taken: u64, now: Instant, write_timeout: Duration) -> Verdict {
        if waiting > 0 || !self.has_said_all {
            self.complete_since = None;
            let ends = self.pace.note(now, taken, write_timeout);
            return match ends <= now {
                true => Verdict::Left(Left::Incomplete),
                false => Verdict::WaitUntil(ends.min(now + LOOK)),
            };
        }
        let since = *self.complete_since.get_or_insert(now);
        let silent_at = self.heard.max(since) + SILENCE;
        let over_at = silent_at.min(since + TALK_MAX);
        if over_at <= now || self.discarded >= self.discarded_max {
            return Verdict::Left(Left::Complete);
        }
        Verdict::WaitUntil(over_at)
    }
}

fn discarded_octets_max(end: SessionEnd) -> usize {
    match end {
        SessionEnd::Tls | SessionEnd::Framing => DISCARDED_OCTETS_MAX_BROKEN,
        _ => DISCARDED_OCTETS_MAX,
    }
}

/// The lingering sessions of a worker.
pub(super) struct Lingering {
    counters: WorkerCounters,
    next: Cell<u64>,
    placed: RefCell<BTreeMap<u64, Rc<Notify>>>,
    evicted: RefCell<BTreeMap<u64, Rc<Notify>>>,
}

/// A lingering session; dropping it removes it.
struct LingeringEntry<'a> {
    lingering: &'a Lingering,
    number: u64,
    must_go: Rc<Notify>,
}

impl Lingering {
    pub(super) fn new(counters: &WorkerCounters) -> Self {
        Self {
            counters: counters.clone(),
            next: Cell::new(0),
            placed: RefCell::default(),
            evicted: RefCell::default(),
        }
    }

    /// Whether no session lingers.
    pub(super) fn is_empty(&self) -> bool {
        self.placed.borrow().is_empty() && self.evicted.borrow().is_empty()
    }

    /// Adds a lingering session.
    fn enter(&self, is_evicted: bool) -> LingeringEntry<'_> {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let must_go = Rc::new(Notify::new());
        self.counters.add(Counter::Lingering, 1);
        match is_evicted {
            true => insert(&self.evicted, EVICTED_LINGERING_MAX, number, &must_go),
            false => insert(&self.placed, LINGERING_MAX, number, &must_go),
        }
        LingeringEntry { lingering: self, number, must_go }
    }

    /// Another connection needs what the session with this number holds. Without its place, it is one of the few that
    /// may linger without one; without its descriptor it ends.
    pub(super) fn give_up(&self, number: u64, wanted: Wanted) {
        let placed = self.placed.borrow_mut().remove(&number);
        match (wanted, placed) {
            (Wanted::Place, Some(must_go)) => {
                insert(&self.evicted, EVICTED_LINGERING_MAX, number, &must_go);
            }
            (Wanted::Descriptor, Some(must_go)) => must_go.notify_one(),
            (Wanted::Descriptor, None) => {
                if let Some(must_go) = self.evicted.borrow().get(&number) {
                    must_go.notify_one();
                }
            }
            // It has no place, or has ended.
            (Wanted::Place, None) => {}
        }
    }
}

/// Adds one to `queue`. If it is one too many, the one that has lingered longest ends.
fn insert(queue: &RefCell<BTreeMap<u64, Rc<Notify>>>, max: usize, number: u64, must_go: &Rc<Notify>) {
    let mut queue = queue.borrow_mut();
    queue.insert(number, Rc::clone(must_go));
    if queue.len() > max
        && let Some((_, longest)) = queue.pop_first()
    {
        longest.notify_one();
    }
}

impl Drop for LingeringEntry<'_> {
    fn drop(&mut self) {
        self.lingering.placed.borrow_mut().remove(&self.number);
        self.lingering.evicted.borrow_mut().remove(&self.number);
        self.lingering.counters.subtract(Counter::Lingering, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);
    const STEP: Duration = Duration::from_millis(250);

    fn departure(now: Instant) -> Departure {
        Departure { has_said_all: true, ..Departure::new(now, DISCARDED_OCTETS_MAX) }
    }

    /// Goal: dotd waits for a client that reads 16 KiB a second, however long that lasts, and cuts one that reads
    /// nothing after `write_timeout`. Method: a megabyte, checked four times a second.
    #[test]
    fn a_slow_reader_gets_all_of_it() {
        for (pace, expected) in
            [(16 * 1024, Left::Complete), (0, Left::Incomplete), (8 * 1024, Left::Incomplete)]
        {
            let (start, mut taken, all) = (Instant::now(), 0, 1 << 20);
            let mut departure = departure(start);
            let left = (0..400).find_map(|step| {
                taken = (taken + pace / 4).min(all);
                let now = start + STEP * step;
                match departure.look(usize::try_from(all - taken).unwrap(), taken, now, TIMEOUT) {
                    Verdict::Left(left) => Some(left),
                    Verdict::WaitUntil(at) => {
                        assert!(at > now);
                        None
                    }
                }
            });
            assert_eq!(left, Some(expected), "{pace} octets a second");
        }
    }

    /// Goal: dotd soon leaves a client that has everything and is silent, and reads from one that goes on sending for
    /// five seconds or 16 MiB. Method: silence; an octet with each check; 64 KiB with each check.
    #[test]
    fn a_client_that_talks_on_is_left_in_the_end() {
        for (octets, looks) in [(0, 2), (1, 20), (1 << 20, 16)] {
            let start = Instant::now();
            let mut departure = departure(start);
            let looks_needed = (0..100).find(|step| {
                let now = start + STEP * *step;
                if octets > 0 {
                    departure.discarded += octets;
                    departure.heard = now;
                }
                departure.look(0, 100, now, TIMEOUT) == Verdict::Left(Left::Complete)
            });
            assert_eq!(
                looks_needed.map(|looks| looks + u32::from(octets > 1)),
                Some(looks),
                "{octets} octets a look"
            );
        }
    }

    /// Goal: a session that cannot even send its last record, because the client reads nothing, is cut like a slow
    /// reader. Method: the record finds no room; nothing else waits.
    #[test]
    fn words_that_nobody_takes_are_not_waited_for_without_end() {
        let start = Instant::now();
        let mut departure = Departure::new(start, DISCARDED_OCTETS_MAX);
        let wait = departure.look(0, 0, start, TIMEOUT);
        assert_eq!(wait, Verdict::WaitUntil(start + LOOK));
        assert_eq!(departure.look(0, 0, start + TIMEOUT, TIMEOUT), Verdict::Left(Left::Incomplete));
    }

    /// Goal: a bounded number lingers; the one that has lingered longest ends first, and sessions without a place never
    /// displace those with one. Method: one more than the bound, of each kind.
    #[test]
    fn the_longest_lingering_gives_way() {
        let counters = WorkerCounters::default();
        for (is_evicted, max) in [(true, EVICTED_LINGERING_MAX), (false, LINGERING_MAX)] {
            let lingering = Lingering::new(&counters);
            let other = lingering.enter(!is_evicted);
            let probes: Vec<_> = (0..max).map(|_| lingering.enter(is_evicted)).collect();
            let must_go = |probe: &LingeringEntry<'_>| {
                let mut notified = pin!(probe.must_go.notified());
                notified.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
            };
            assert!(!probes.iter().any(must_go));
            let last = lingering.enter(is_evicted);
            let gone: Vec<_> = probes.iter().map(must_go).collect();
            assert!(gone[0] && !gone[1..].contains(&true) && !must_go(&last) && !must_go(&other));
            assert_eq!(counters.get(Counter::Lingering), max as u64 + 2);
            drop((probes, last, other));
            assert!(lingering.is_empty());
            assert_eq!(counters.get(Counter::Lingering), 0);
        }
    }
}

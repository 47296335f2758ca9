//! Chooses the session that ends when every place is taken: the one of this worker that has been idle longest. Also
//! wakes sessions whose time is over when timeouts have shrunk.
//!
//! Before: `admission` refused a connection. After: there is a place for it, or no session here is idle.
//! Holds: the sessions in the order of the times since which they were known to be idle: over all, within each client
//! prefix and within each listen address. A time that is out of date is corrected when it comes to the front, so a
//! query costs nothing here, and a look costs O(log n).
//! Never: ends a session with unfinished queries, or one that was busy a moment ago; looks at more than a few at a
//! time.
//!
//! Source: RFC 7766 §6.2.2, RFC 9210 §4.2.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use dot_common::prefix::ClientPrefix;
use tokio::time::Instant;

use super::admission::Place;
use crate::session::{IdleProbe, Wanted};

/// A session that was busy within this time stays: a client that waits for its next answer asks again at once.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// Sessions that are looked at for one new connection. In practice most sessions are idle.
const LOOKS_MAX: usize = 64;
/// Sessions that are woken at once because their time is over. 4096: one or two milliseconds of a worker's time, so a
/// hundred thousand sessions leave within half a minute.
const WAKES_MAX: usize = 4096;

/// The sessions of a worker that may be ended.
pub(super) struct EvictionQueue {
    began: Instant,
    queue: RefCell<Queue>,
    next: Cell<u64>,
}

/// Milliseconds since the worker's start.
type Moment = u64;

/// Sessions that share a cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    /// The sessions of a client prefix.
    Prefix(Option<ClientPrefix>),
    /// The sessions of a listen address, by its index.
    Listener(usize),
}

/// Both orders, with the same time for each session.
#[derive(Default)]
struct Queue {
    all: BTreeMap<(Moment, u64), Rc<Candidate>>,
    by_group: BTreeMap<(Group, Moment, u64), Rc<Candidate>>,
}

/// One session.
struct Candidate {
    probe: Rc<IdleProbe>,
    number: u64,
    groups: [Group; 2],
    /// Its key in the queue.
    known_since: Cell<Moment>,
    /// Freed when the session ends, or when another connection takes it.
    place: RefCell<Option<Place>>,
}

/// A session's entry; dropping it removes it.
pub(super) struct Queued {
    eviction: Rc<EvictionQueue>,
    candidate: Rc<Candidate>,
}

impl EvictionQueue {
    /// An empty queue. No session has been idle since before `began`, or it counts as idle since then.
    pub(super) fn new(began: Instant) -> Self {
        Self { began, queue: RefCell::default(), next: Cell::new(0) }
    }

    /// Adds a session with its `probe` and its `place`; `since`: it has been idle since then, not since now.
    pub(super) fn take(
        self: &Rc<Self>,
        probe: &Rc<IdleProbe>,
        place: Place,
        since: Option<Instant>,
    ) -> Queued {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let candidate = Rc::new(Candidate {
            probe: Rc::clone(probe),
            number,
            groups: [Group::Prefix(place.prefix()), Group::Listener(place.listener())],
            known_since: Cell::new(self.moment(since.unwrap_or_else(Instant::now))),
            place: RefCell::new(Some(place)),
        });
        self.queue.borrow_mut().insert(&candidate);
        Queued { eviction: Rc::clone(self), candidate }
    }

    /// Makes the longest idle session give up its place: in the group `within`, if that is at its cap, otherwise of
    /// all. `false`: no session here has been idle for long enough.
    pub(super) fn make_room(&self, wanted: Wanted, within: Option<Group>, now: Instant) -> bool {
        let latest = self.moment(now).checked_sub(IDLE_MIN.as_millis().try_into().unwrap_or(Moment::MAX));
        let Some(latest) = latest else { return false };
        let mut queue = self.queue.borrow_mut();
        for _ in 0..LOOKS_MAX {
            let Some(candidate) = queue.first(within) else { return false };
            if candidate.known_since.get() > latest {
                return false;
            }
            queue.remove(&candidate);
            let idle_since =
                candidate.probe.idle_since().map_or_else(|| self.moment(now), |at| self.moment(at));
            if idle_since <= candidate.known_since.get() {
                candidate.place.take();
                candidate.probe.ask_to_leave(wanted);
                return true;
            }
            candidate.known_since.set(idle_since);
            queue.insert(&candidate);
        }
        false
    }

    /// Wakes sessions that have been idle since `latest` or longer: their timer was set for a longer timeout.
    pub(super) fn wake_overdue(&self, latest: Instant, now: Instant) {
        let latest = self.moment(latest);
        let mut queue = self.queue.borrow_mut();
        let overdue = queue.all.values().take_while(|candidate| candidate.known_since.get() <= latest);
        let overdue: Vec<_> = overdue.take(WAKES_MAX).map(Rc::clone).collect();
        for candidate in overdue {
            let idle_since =
                candidate.probe.idle_since().map_or_else(|| self.moment(now), |at| self.moment(at));
            if idle_since <= latest {
                candidate.probe.wake();
            }
            if idle_since > candidate.known_since.get() {
                queue.remove(&candidate);
                candidate.known_since.set(idle_since);
                queue.insert(&candidate);
            }
        }
    }

    fn moment(&self, at: Instant) -> Moment {
        at.saturating_duration_since(self.began).as_millis().try_into().unwrap_or(Moment::MAX)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.eviction.queue.borrow_mut().remove(&self.candidate);
    }
}

impl Queue {
    fn insert(&mut self, candidate: &Rc<Candidate>) {
        let since = candidate.known_since.get();
        self.all.insert((since, candidate.number), Rc::clone(candidate));
        for group in candidate.groups {
            self.by_group.insert((group, since, candidate.number), Rc::clone(candidate));
        }
    }

    fn remove(&mut self, candidate: &Candidate) {
        let since = candidate.known_since.get();
        self.all.remove(&(since, candidate.number));
        for group in candidate.groups {
            self.by_group.remove(&(group, since, candidate.number));
        }
    }

    /// The session that has been idle longest, of a group or of all.
    fn first(&self, within: Option<Group>) -> Option<Rc<Candidate>> {
        let Some(group) = within else { return self.all.values().next().map(Rc::clone) };
        let mut of_group = self.by_group.range((group, 0, 0)..=(group, Moment::MAX, u64::MAX));
        of_group.next().map(|(_, candidate)| Rc::clone(candidate))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::worker::{Admission, Caps, Refused};

    const SECOND: Duration = Duration::from_secs(1);

    struct Scene {
        admission: Arc<Admission>,
        eviction: Rc<EvictionQueue>,
        began: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let eviction = Rc::new(EvictionQueue::new(Instant::now()));
            let caps = Caps { total: 100, per_prefix: 100, ..Caps::default() };
            Self { admission: Arc::new(Admission::new(caps, (32, 56), 2)), began: eviction.began, eviction }
        }

        fn sit(&self, client: &str) -> (Rc<IdleProbe>, Queued) {
            self.sit_at(client, 0)
        }

        fn sit_at(&self, client: &str, listener: usize) -> (Rc<IdleProbe>, Queued) {
            let probe = Rc::new(IdleProbe::default());
            let place = self.admission.admit(client.parse().unwrap(), listener).ok().unwrap();
            let queued = self.eviction.take(&probe, place, None);
            (probe, queued)
        }

        fn make_room(&self, refused: Refused, client: &str, at: Duration) -> bool {
            let prefix = self.admission.prefix_of(client.parse().unwrap());
            let within = Some(Group::Prefix(Some(prefix))).filter(|_| refused == Refused::Prefix);
            self.eviction.make_room(Wanted::Place, within, self.began + at)
        }
    }

    /// Goal: the longest idle session ends, of all or of its prefix, and its place is free at once. Covers: C-25
    #[test]
    fn the_longest_idle_gives_way() {
        let scene = Scene::new();
        let sessions = ["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(|client| scene.sit(client));
        for ((probe, _), idle) in sessions.iter().zip([5, 3, 1]) {
            probe.note_for_test(Some(scene.began + idle * SECOND));
        }
        let left = || sessions.iter().map(|(probe, _)| probe.is_asked_to_leave()).collect::<Vec<_>>();
        assert!(scene.make_room(Refused::Prefix, "192.0.2.1", 20 * SECOND));
        assert_eq!((left(), scene.admission.total()), (vec![false, true, false], 2));
        assert!(scene.make_room(Refused::Total, "198.51.100.1", 20 * SECOND));
        assert_eq!((left(), scene.admission.total()), (vec![false, true, true], 1));
        assert!(!scene.make_room(Refused::Prefix, "192.0.2.2", 20 * SECOND), "no session is left there");
        drop(sessions);
        assert!(
            scene.eviction.queue.borrow().all.is_empty() && scene.eviction.queue.borrow().by_group.is_empty()
        );
        assert_eq!(scene.admission.total(), 0);
    }

    /// Goal: at a listener's cap its longest idle session ends, even if one of another listener has been idle longer.
    /// Covers: C-244
    #[test]
    fn a_listeners_own_gives_way() {
        let scene = Scene::new();
        let sessions = [0, 1, 1].map(|listener| scene.sit_at("192.0.2.1", listener));
        for ((probe, _), idle) in sessions.iter().zip([1, 5, 3]) {
            probe.note_for_test(Some(scene.began + idle * SECOND));
        }
        let now = scene.began + 20 * SECOND;
        assert!(scene.eviction.make_room(Wanted::Place, Some(Group::Listener(1)), now));
        let left = sessions.each_ref().map(|(probe, _)| probe.is_asked_to_leave());
        assert_eq!((left, scene.admission.total()), ([false, false, true], 2));
        assert!(
            !scene.eviction.make_room(Wanted::Place, Some(Group::Listener(2)), now),
            "no session came there"
        );
    }

    /// Goal: a session with unfinished queries, or one that was busy within the last second, stays.
    #[test]
    fn the_busy_stay() {
        let scene = Scene::new();
        let (busy, _busy) = scene.sit("192.0.2.1");
        let (recent, _recent) = scene.sit("192.0.2.1");
        busy.note_for_test(None);
        recent.note_for_test(Some(scene.began + 19 * SECOND + SECOND / 2));
        for refused in [Refused::Total, Refused::Prefix] {
            assert!(!scene.make_room(refused, "192.0.2.1", 20 * SECOND));
        }
        assert!(scene.make_room(Refused::Total, "192.0.2.1", 21 * SECOND));
        assert!(recent.is_asked_to_leave() && !busy.is_asked_to_leave());
    }

    /// Goal: sessions that have been idle for the current timeout are woken, others are not, and get their correct
    /// place in the order. Method: five seconds are too long; one session idle for ten, one for three, one busy.
    #[test]
    fn the_overdue_are_woken() {
        let scene = Scene::new();
        let sessions = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|client| scene.sit(client));
        for ((probe, _), idle) in sessions.iter().zip([Some(10), Some(17), None]) {
            probe.note_for_test(idle.map(|idle| scene.began + idle * SECOND));
        }
        scene.eviction.wake_overdue(scene.began + 15 * SECOND, scene.began + 20 * SECOND);
        let woken = sessions.iter().map(|(probe, _)| probe.times_woken()).collect::<Vec<_>>();
        assert_eq!(woken, [1, 0, 0]);
        let known: Vec<_> = scene.eviction.queue.borrow().all.keys().map(|(since, _)| *since).collect();
        assert_eq!(known, [10_000, 17_000, 20_000]);
    }

    /// Goal: one new connection looks at a few sessions only; the ones behind them come later.
    #[test]
    fn a_look_is_bounded() {
        let scene = Scene::new();
        let busy: Vec<_> = (0..LOOKS_MAX).map(|_| scene.sit("192.0.2.1")).collect();
        let (idle, _idle) = scene.sit("192.0.2.1");
        idle.note_for_test(Some(scene.began + SECOND));
        assert!(!scene.make_room(Refused::Total, "192.0.2.1", 20 * SECOND));
        assert!(scene.make_room(Refused::Total, "192.0.2.1", 20 * SECOND));
        assert!(idle.is_asked_to_leave());
        drop(busy);
    }
}

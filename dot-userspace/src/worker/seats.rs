//! Who gives way when every place is taken: the session of this worker that has been idle longest. And who is to look at
//! its clock, when timeouts have shrunk.
//!
//! Before: `admission` refused a connection. After: a place is free for it, or nobody here is idle.
//! Holds: the sessions in the order of the moments since which they were known to be idle, once over all, once within
//! each client prefix. A moment that is out of date is corrected when it comes to the front: a query costs nothing
//! here, and a look costs O(log n).
//! Never: ends a session that is owed an answer, or that was busy a moment ago; looks at more than a few at a time.
//!
//! Source: RFC 7766 §6.2.2, RFC 9210 §4.2.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use tokio::time::Instant;

use super::admission::{Place, Prefix};
use crate::session::{Seat, Wanted};

/// Who was busy within this time keeps its place: a client that waits for its next answer asks again at once.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// Sessions looked at for one new connection. Most of them are idle where it matters.
const LOOKS_MAX: usize = 64;
/// Sessions that are woken at once, to learn that their time is over. 4096: a millisecond or two of a worker's time, so
/// that a hundred thousand leave within half a minute.
const WAKES_MAX: usize = 4096;

/// The sessions of a worker that may have to give way.
pub(super) struct Seats {
    began: Instant,
    queue: RefCell<Queue>,
    next: Cell<u64>,
}

/// Milliseconds since the worker began.
type Moment = u64;

/// Both orders, in which each guest stands by the same moment.
#[derive(Default)]
struct Queue {
    all: BTreeMap<(Moment, u64), Rc<Guest>>,
    by_prefix: BTreeMap<(Option<Prefix>, Moment, u64), Rc<Guest>>,
}

/// One session.
struct Guest {
    seat: Rc<Seat>,
    number: u64,
    prefix: Option<Prefix>,
    /// Where it stands in the queue.
    known_since: Cell<Moment>,
    /// Given back with the session, or when another gets it.
    place: RefCell<Option<Place>>,
}

/// A session's entry, which ends with it.
pub(super) struct Taken {
    seats: Rc<Seats>,
    guest: Rc<Guest>,
}

impl Seats {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), queue: RefCell::default(), next: Cell::new(0) }
    }

    /// A session begins at `seat`, by the right of `place`.
    pub(super) fn take(self: &Rc<Self>, seat: &Rc<Seat>, place: Place) -> Taken {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let guest = Rc::new(Guest {
            seat: Rc::clone(seat),
            number,
            prefix: place.prefix(),
            known_since: Cell::new(self.moment(Instant::now())),
            place: RefCell::new(Some(place)),
        });
        self.queue.borrow_mut().insert(&guest);
        Taken { seats: Rc::clone(self), guest }
    }

    /// Has the longest idle session give its place back: of the prefix `within`, where one is at its cap, else of
    /// all. `false`: nobody here has been idle for long enough.
    pub(super) fn make_room(&self, wanted: Wanted, within: Option<Prefix>, now: Instant) -> bool {
        let latest = self.moment(now).checked_sub(IDLE_MIN.as_millis().try_into().unwrap_or(Moment::MAX));
        let Some(latest) = latest else { return false };
        let mut queue = self.queue.borrow_mut();
        for _ in 0..LOOKS_MAX {
            let Some(guest) = queue.first(within) else { return false };
            if guest.known_since.get() > latest {
                return false;
            }
            queue.remove(&guest);
            let idle_since = guest.seat.idle_since().map_or_else(|| self.moment(now), |at| self.moment(at));
            if idle_since <= guest.known_since.get() {
                guest.place.take();
                guest.seat.ask_to_leave(wanted);
                return true;
            }
            guest.known_since.set(idle_since);
            queue.insert(&guest);
        }
        false
    }

    /// Wakes those that have been idle since `latest` or longer: their timer was set by a longer timeout than there is now.
    pub(super) fn wake_overdue(&self, latest: Instant, now: Instant) {
        let latest = self.moment(latest);
        let mut queue = self.queue.borrow_mut();
        let overdue = queue.all.values().take_while(|guest| guest.known_since.get() <= latest);
        let overdue: Vec<_> = overdue.take(WAKES_MAX).map(Rc::clone).collect();
        for guest in overdue {
            let idle_since = guest.seat.idle_since().map_or_else(|| self.moment(now), |at| self.moment(at));
            if idle_since <= latest {
                guest.seat.wake();
            }
            if idle_since > guest.known_since.get() {
                queue.remove(&guest);
                guest.known_since.set(idle_since);
                queue.insert(&guest);
            }
        }
    }

    fn moment(&self, at: Instant) -> Moment {
        at.saturating_duration_since(self.began).as_millis().try_into().unwrap_or(Moment::MAX)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.seats.queue.borrow_mut().remove(&self.guest);
    }
}

impl Queue {
    fn insert(&mut self, guest: &Rc<Guest>) {
        let since = guest.known_since.get();
        self.all.insert((since, guest.number), Rc::clone(guest));
        self.by_prefix.insert((guest.prefix, since, guest.number), Rc::clone(guest));
    }

    fn remove(&mut self, guest: &Guest) {
        let since = guest.known_since.get();
        self.all.remove(&(since, guest.number));
        self.by_prefix.remove(&(guest.prefix, since, guest.number));
    }

    /// Who has been known to be idle longest, of `prefix` or of all.
    fn first(&self, prefix: Option<Prefix>) -> Option<Rc<Guest>> {
        if prefix.is_none() {
            return self.all.values().next().map(Rc::clone);
        }
        let mut of_prefix = self.by_prefix.range((prefix, 0, 0)..=(prefix, Moment::MAX, u64::MAX));
        of_prefix.next().map(|(_, guest)| Rc::clone(guest))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::worker::{Admission, Refused};

    const SECOND: Duration = Duration::from_secs(1);

    struct Scene {
        admission: Arc<Admission>,
        seats: Rc<Seats>,
        began: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let seats = Rc::new(Seats::new());
            Self { admission: Arc::new(Admission::new(100, 100, 32, 56)), began: seats.began, seats }
        }

        fn sit(&self, client: &str) -> (Rc<Seat>, Taken) {
            let seat = Rc::new(Seat::default());
            let place = self.admission.admit(client.parse().unwrap()).ok().unwrap();
            let taken = self.seats.take(&seat, place);
            (seat, taken)
        }

        fn make_room(&self, refused: Refused, client: &str, at: Duration) -> bool {
            let prefix = self.admission.prefix_of(client.parse().unwrap());
            let within = Some(prefix).filter(|_| refused == Refused::Prefix);
            self.seats.make_room(Wanted::Place, within, self.began + at)
        }
    }

    /// Goal: the longest idle one goes, of all or of its prefix, and its place is free at once. Covers: C-25
    #[test]
    fn the_longest_idle_gives_way() {
        let scene = Scene::new();
        let sessions = ["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(|client| scene.sit(client));
        for ((seat, _), idle) in sessions.iter().zip([5, 3, 1]) {
            seat.note_for_test(Some(scene.began + idle * SECOND));
        }
        let left = || sessions.iter().map(|(seat, _)| seat.is_asked_to_leave()).collect::<Vec<_>>();
        assert!(scene.make_room(Refused::Prefix, "192.0.2.1", 20 * SECOND));
        assert_eq!((left(), scene.admission.total()), (vec![false, true, false], 2));
        assert!(scene.make_room(Refused::Total, "198.51.100.1", 20 * SECOND));
        assert_eq!((left(), scene.admission.total()), (vec![false, true, true], 1));
        assert!(!scene.make_room(Refused::Prefix, "192.0.2.2", 20 * SECOND), "nobody is left there");
        drop(sessions);
        assert!(scene.seats.queue.borrow().all.is_empty() && scene.seats.queue.borrow().by_prefix.is_empty());
        assert_eq!(scene.admission.total(), 0);
    }

    /// Goal: who is owed an answer, or was busy within the last second, stays.
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

    /// Goal: who has been idle for the time of the moment is woken, who was not is not, and stands where it belongs now.
    /// Method: five seconds are too long; one session idle for ten, one for three, one busy.
    #[test]
    fn the_overdue_are_woken() {
        let scene = Scene::new();
        let sessions = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|client| scene.sit(client));
        for ((seat, _), idle) in sessions.iter().zip([Some(10), Some(17), None]) {
            seat.note_for_test(idle.map(|idle| scene.began + idle * SECOND));
        }
        scene.seats.wake_overdue(scene.began + 15 * SECOND, scene.began + 20 * SECOND);
        let woken = sessions.iter().map(|(seat, _)| seat.times_woken()).collect::<Vec<_>>();
        assert_eq!(woken, [1, 0, 0]);
        let known: Vec<_> = scene.seats.queue.borrow().all.keys().map(|(since, _)| *since).collect();
        assert_eq!(known, [10_000, 17_000, 20_000]);
    }

    /// Goal: one new connection looks at no more than a few, and those behind them come later.
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

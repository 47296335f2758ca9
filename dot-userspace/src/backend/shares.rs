//! How much of what a worker's backends can have in flight one session, one client and one kind of client may have.
//!
//! Before: a session or a datagram asks for what a backend must say. After: it is within its shares, or waits, or comes back
//! another way.
//! Holds: the arithmetic. Never: counts, or keeps a session with nothing in flight from one query.

use super::{fleet::Fleet, flights::share};

/// Sessions' shares that one client may have, by all its sessions: what a household asks for at once.
const CLIENT_SESSIONS: usize = 4;
/// The part of all that queries by UDP may have, together: their senders have proved nothing, and a flood of forged ones
/// must leave room for those who have; at least one query, where there may be any. A client that finds no room there is told to
/// ask over TCP.
const DATAGRAM_PART: usize = 4;

/// What one may have in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// One session.
    pub session: usize,
    /// One client, beyond one query of each of its sessions.
    pub client: usize,
}

impl Shares {
    /// With so many queries in flight, where there can be `capacity`.
    fn of(outstanding: usize, capacity: usize) -> Self {
        let session = share(outstanding, capacity);
        Self { session, client: session.saturating_mul(CLIENT_SESSIONS) }
    }
}

/// What one client may have in flight by UDP, while all have so many there.
fn datagram_share(datagrams: usize, capacity: usize) -> usize {
    let max = (capacity / DATAGRAM_PART).max(capacity.min(1));
    if datagrams >= max { 0 } else { share(datagrams, max).saturating_mul(CLIENT_SESSIONS) }
}

impl Fleet {
    /// What a session and its client may have in flight at the moment.
    pub fn shares(&self) -> Shares {
        Shares::of(self.flights.borrow().outstanding(), self.capacity)
    }

    /// What a client may have in flight by UDP, while all have so many there.
    pub fn datagram_share(&self, datagrams: usize) -> usize {
        datagram_share(datagrams, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a client may have what it likes up to half of the capacity, then as much as four sessions, whatever their number.
    ///
    #[test]
    fn a_clients_share_is_that_of_four_sessions() {
        assert_eq!(Shares::of(2047, 4096), Shares { session: usize::MAX, client: usize::MAX });
        assert_eq!(Shares::of(2048, 4096), Shares { session: 16, client: 64 });
        assert_eq!(Shares::of(4096, 4096), Shares { session: 1, client: 4 });
    }

    /// Goal: datagrams from everywhere leave three quarters to sessions, those of one client half of that quarter to others,
    /// and a client that has nothing there finds room until the quarter is full. Method: one client, then as many as there are,
    /// take all that they may.
    #[test]
    fn datagrams_leave_room_for_sessions() {
        let capacity = 4096;
        let mut one = 0;
        while one < datagram_share(one, capacity) {
            one += 1;
        }
        assert_eq!(one, 512);
        let mut all = one;
        while 0 < datagram_share(all, capacity) {
            all += 1;
        }
        assert_eq!(all, 1024);
        assert_eq!(datagram_share(0, 0), 0);
    }

    /// Goal: where backends can have but a few queries in flight, one of them may have come by UDP. Method: the least that
    /// `outstanding_max` can be, up to what has a quarter.
    #[test]
    fn a_datagram_has_room_however_few_there_may_be() {
        for capacity in 1..=4 {
            let shares = [0, 1].map(|datagrams| datagram_share(datagrams, capacity) > 0);
            assert_eq!(shares, [true, false], "{capacity}");
        }
    }
}

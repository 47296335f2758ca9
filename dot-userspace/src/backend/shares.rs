//! How much of what a worker's backends can have in flight one session, one client and one kind of client may have.
//!
//! Before: a session or a datagram asks for what a backend must say. After: it is within its shares, or waits, or comes back
//! another way.
//! Holds: the arithmetic. Never: counts, or keeps a session with nothing in flight from one query.

use super::{flights::share, pool::Pool};

/// Sessions' shares that one client may have, by all its sessions: what a household asks for at once.
const CLIENT_SESSIONS: usize = 4;
/// The part of all that queries by UDP may have, together: their senders have proved nothing, and a flood of forged ones
/// must leave room for those who have; at least one query, where there may be any. A client that finds no room there is told to
/// ask over TCP.
const DATAGRAM_PART: usize = 4;

/// The part of all that is left to clients that have little in flight, of which each session may ask one query otherwise: many
/// sessions of few clients must not take all there is.
const RESERVE_PART: usize = 8;

/// What one may have in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// One session.
    pub session: usize,
    /// One client, beyond one query of each of its sessions.
    pub client: usize,
    /// One client, counting also the first query of each of its sessions.
    pub client_total: usize,
}

impl Shares {
    /// With so many queries in flight, where there can be `capacity`.
    fn of(outstanding: usize, capacity: usize) -> Self {
        let session = share(outstanding, capacity);
        let client = session.saturating_mul(CLIENT_SESSIONS);
        let client_total = if is_reserve(outstanding, capacity) { client } else { usize::MAX };
        Self { session, client, client_total }
    }
}

/// Whether what is left is the reserve.
fn is_reserve(outstanding: usize, capacity: usize) -> bool {
    outstanding > 0 && outstanding >= capacity - capacity / RESERVE_PART
}

/// How many queries one client may have in flight by UDP, while all clients have `datagrams` by UDP and `outstanding` over every
/// transport. UDP gets nothing of the reserve, because its senders have not proved their addresses.
fn datagram_share(datagrams: usize, outstanding: usize, capacity: usize) -> usize {
    let max = (capacity / DATAGRAM_PART).max(capacity.min(1));
    if datagrams >= max || is_reserve(outstanding, capacity) {
        0
    } else {
        share(datagrams, max).saturating_mul(CLIENT_SESSIONS)
    }
}

impl Pool {
    /// What a session and its client may have in flight at the moment.
    pub fn shares(&self) -> Shares {
        Shares::of(self.flights.borrow().outstanding(), self.capacity)
    }

    /// What a client may have in flight by UDP, while all have so many there.
    pub fn datagram_share(&self, datagrams: usize) -> usize {
        datagram_share(datagrams, self.flights.borrow().outstanding(), self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a client may have what it likes up to half of the capacity, then as much as four sessions, whatever their number.
    ///
    #[test]
    fn a_clients_share_is_that_of_four_sessions() {
        let shares = |outstanding| {
            let Shares { session, client, client_total } = Shares::of(outstanding, 4096);
            (session, client, client_total)
        };
        assert_eq!(shares(2047), (usize::MAX, usize::MAX, usize::MAX));
        assert_eq!(shares(2048), (16, 64, usize::MAX));
        assert_eq!(shares(3583), (4, 16, usize::MAX));
        assert_eq!(shares(3584), (4, 16, 16));
        assert_eq!(shares(4096), (1, 4, 4));
    }

    /// Goal: datagrams from everywhere leave three quarters to sessions, those of one client half of that quarter to others,
    /// and a client that has nothing there finds room until the quarter is full. Method: one client, then as many as there are,
    /// take all that they may.
    #[test]
    fn datagrams_leave_room_for_sessions() {
        let capacity = 4096;
        let mut one = 0;
        while one < datagram_share(one, one, capacity) {
            one += 1;
        }
        assert_eq!(one, 512);
        let mut all = one;
        while 0 < datagram_share(all, all, capacity) {
            all += 1;
        }
        assert_eq!(all, 1024);
        assert_eq!(datagram_share(0, 0, 0), 0);
        assert_eq!(
            [3583, 3584].map(|all| datagram_share(0, all, capacity)),
            [usize::MAX, 0],
            "the reserve is for those who have proved it"
        );
    }

    /// Goal: where backends can have but a few queries in flight, one of them may have come by UDP. Method: the least that
    /// `outstanding_max` can be, up to what has a quarter.
    #[test]
    fn a_datagram_has_room_however_few_there_may_be() {
        for capacity in 1..=4 {
            let shares = [0, 1].map(|datagrams| datagram_share(datagrams, datagrams, capacity) > 0);
            assert_eq!(shares, [true, false], "{capacity}");
        }
    }

    /// Goal: however many sessions few clients have, each client that comes after them finds room for as much as four queries.
    /// Method: 30 clients with 500 sessions each take all that they may, in rounds, until nobody may take more, where a
    /// backend over connections can have 4,096 queries and where one over UDP can have 32,768; then 60 others come.
    ///
    #[test]
    fn many_sessions_of_few_clients_leave_room() {
        for (capacity, clients) in [(4096, 30), (32_768, 90)] {
            let mut taken = vec![(0_usize, [0_usize; 500]); clients];
            let (mut all, mut before) = (0, usize::MAX);
            while before != all {
                before = all;
                for number in 0..500 {
                    for (own, sessions) in &mut taken {
                        let shares = Shares::of(all, capacity);
                        let may = match sessions[number] {
                            0 => *own < shares.client_total,
                            in_flight => in_flight < shares.session.min(256) && *own < shares.client,
                        };
                        let more = usize::from(may);
                        (sessions[number], *own, all) = (sessions[number] + more, *own + more, all + more);
                    }
                }
            }
            assert_eq!(all, capacity - capacity / RESERVE_PART, "the reserve is untouched");
            for _ in 0..60 {
                let share = Shares::of(all, capacity).client_total;
                assert!(share >= 4, "{share} of {all}");
                all += 4;
            }
            assert!(all < capacity);
        }
    }
}

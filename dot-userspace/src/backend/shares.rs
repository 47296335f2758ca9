//! How many of the queries in flight one session, one client and one transport may have.
//!
//! Before: a session or a datagram wants to ask a backend. After: it is within its shares, or waits, or comes
//! back over another transport.
//! Holds: the arithmetic. Never: counts, or denies a session with nothing in flight its one query.

use super::{flights::share, pool::Pool};

/// A client may have, over all its sessions, the shares of this many sessions: what a household asks for at once.
const CLIENT_SESSIONS: usize = 4;
/// The part of the capacity for all queries by UDP. Their senders have not proved their addresses, and a flood of
/// forged queries must leave room for clients that have. It is at least one query. A client that finds no room is
/// told to ask over TCP.
const DATAGRAM_PART: usize = 4;

/// The part of the capacity that is reserved for clients with little in flight. Each session may always ask one
/// query, so many sessions of few clients could take everything otherwise.
const RESERVE_PART: usize = 8;

/// The most queries in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// One session.
    pub session: usize,
    /// Of one client, besides one query of each of its sessions.
    pub client: usize,
    /// Of one client, including the first query of each of its sessions.
    pub client_total: usize,
}

impl Shares {
    /// The shares with `outstanding` queries in flight and room for `capacity`.
    fn of(outstanding: usize, capacity: usize) -> Self {
        let session = share(outstanding, capacity);
        let client = session.saturating_mul(CLIENT_SESSIONS);
        let client_total = if is_reserve(outstanding, capacity) { client } else { usize::MAX };
        Self { session, client, client_total }
    }
}

/// Whether only the reserve is left.
fn is_reserve(outstanding: usize, capacity: usize) -> bool {
    outstanding > 0 && outstanding >= capacity - capacity / RESERVE_PART
}

/// How many queries one client may have in flight by UDP, while all clients have `datagrams` by UDP and
/// `outstanding` over every transport. UDP gets nothing of the reserve, because its senders have not proved their
/// addresses.
fn datagram_share(datagrams: usize, outstanding: usize, capacity: usize) -> usize {
    let max = (capacity / DATAGRAM_PART).max(capacity.min(1));
    if datagrams >= max || is_reserve(outstanding, capacity) {
        0
    } else {
        share(datagrams, max).saturating_mul(CLIENT_SESSIONS)
    }
}

impl Pool {
    /// The shares of a session and its client now.
    pub fn shares(&self) -> Shares {
        Shares::of(self.flights.borrow().outstanding(), self.capacity.get())
    }

    /// How many queries a client may have in flight by UDP, while all clients together have `datagrams`.
    pub fn datagram_share(&self, datagrams: usize) -> usize {
        datagram_share(datagrams, self.flights.borrow().outstanding(), self.capacity.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a client may have any number up to half of the capacity, then as much as four sessions, however many
    /// it has.
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

    /// Goal: datagrams from everywhere leave three quarters to sessions; those of one client leave half of that
    /// quarter to others, and a client without any finds room until the quarter is full. Method: one client, then
    /// as many as fit, take all that they may.
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

    /// Goal: a backend that takes only a few queries still takes one by UDP. Method: the smallest
    /// `outstanding_max`, up to one with a quarter.
    #[test]
    fn a_datagram_has_room_however_few_there_may_be() {
        for capacity in 1..=4 {
            let shares = [0, 1].map(|datagrams| datagram_share(datagrams, datagrams, capacity) > 0);
            assert_eq!(shares, [true, false], "{capacity}");
        }
    }

    /// Goal: each client that comes after few clients with very many sessions finds room for four queries.
    /// Method: 30 clients with 500 sessions each take all that they may, in rounds, until none may take more,
    /// with room for 4,096 queries (connections) and for 32,768 (UDP); then 60 others come.
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

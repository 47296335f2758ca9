//! What each client uses of a worker now, by prefix: queries in flight, and units of this turn.
//!
//! Before: a session begins, or a datagram wants to ask a backend. After: the client's use is compared with its share.
//! Holds: a table of fixed size, in which a keyed hash gives each prefix its row. Two prefixes in one row share one
//! share. An attacker cannot choose its row; one in 8,192 other prefixes shares it.
//! Never: allocates, forgets a query that is in flight, or reads a clock.

use std::{cell::Cell, net::IpAddr};

use super::keyed::Keyed;

/// Rows as a power of two: 128 KiB a worker.
const ROWS_BITS: u32 = 13;

/// The row of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Row(pub(super) u16);

/// The sums of one row.
#[derive(Clone, Debug, Default)]
struct Sums {
    /// Queries in flight of its sessions.
    queries: Cell<u32>,
    /// Queries in flight that came by UDP, whose source addresses are unproved.
    datagrams: Cell<u32>,
    /// The turn to which `units` belongs.
    turn: Cell<u32>,
    units: Cell<u32>,
}

/// The table of one worker.
pub(super) struct Clients {
    rows: Box<[Sums]>,
    keyed: Keyed,
    /// All queries in flight that came by UDP.
    datagrams: Cell<usize>,
}

impl Default for Clients {
    fn default() -> Self {
        let rows = vec![Sums::default(); 1 << ROWS_BITS].into_boxed_slice();
        Self { rows, keyed: Keyed::default(), datagrams: Cell::new(0) }
    }
}

impl Clients {
    /// The row of a client; `bits` are the lengths of prefixes, IPv4 and IPv6.
    pub(super) fn row_of(&self, client: IpAddr, bits: (u8, u8)) -> Row {
        let row = self.keyed.number(client, bits) >> (u64::BITS - ROWS_BITS);
        Row(u16::try_from(row).unwrap_or_default())
    }

    fn sums(&self, row: Row) -> Option<&Sums> {
        self.rows.get(usize::from(row.0))
    }

    /// A session's query is in flight now.
    pub(super) fn begin_query(&self, row: Row) {
        self.sums(row).inspect(|sums| sums.queries.set(sums.queries.get() + 1));
    }

    /// `count` of them are over.
    pub(super) fn end_queries(&self, row: Row, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.sums(row).inspect(|sums| sums.queries.set(sums.queries.get().saturating_sub(count)));
    }

    /// Queries in flight of the row's sessions.
    pub(super) fn queries(&self, row: Row) -> usize {
        self.sums(row).map_or(0, |sums| sums.queries.get() as usize)
    }

    /// A query by UDP is in flight now.
    pub(super) fn begin_datagram(&self, row: Row) {
        self.datagrams.set(self.datagrams.get() + 1);
        self.sums(row).inspect(|sums| sums.datagrams.set(sums.datagrams.get() + 1));
    }

    /// One of them is over.
    pub(super) fn end_datagram(&self, row: Row) {
        self.datagrams.set(self.datagrams.get().saturating_sub(1));
        self.sums(row).inspect(|sums| sums.datagrams.set(sums.datagrams.get().saturating_sub(1)));
    }

    /// Queries in flight by UDP: of the row, and of all rows.
    pub(super) fn datagrams(&self, row: Row) -> (usize, usize) {
        let own = self.sums(row).map_or(0, |sums| sums.datagrams.get() as usize);
        (own, self.datagrams.get())
    }

    /// Units of this turn that the row has used.
    pub(super) fn units(&self, row: Row, turn: u32) -> u32 {
        self.sums(row).filter(|sums| sums.turn.get() == turn).map_or(0, |sums| sums.units.get())
    }

    /// Adds used units to the row.
    pub(super) fn spend(&self, row: Row, turn: u32, units: u32) {
        let before = self.units(row, turn);
        if let Some(sums) = self.sums(row) {
            sums.turn.set(turn);
            sums.units.set(before.saturating_add(units));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: begins and ends balance, for each kind separately, and units belong to one turn.
    #[test]
    fn sums_go_up_and_down() {
        let clients = Clients::default();
        let (one, other) = (Row(1), Row(2));
        (0..5).for_each(|_| clients.begin_query(one));
        (0..3).for_each(|_| clients.begin_datagram(one));
        clients.begin_datagram(other);
        assert_eq!((clients.queries(one), clients.queries(other)), (5, 0));
        assert_eq!((clients.datagrams(one), clients.datagrams(other)), ((3, 4), (1, 4)));
        clients.end_queries(one, 5);
        clients.end_datagram(one);
        assert_eq!((clients.queries(one), clients.datagrams(one)), (0, (2, 3)));
        clients.spend(one, 7, 10);
        clients.spend(one, 7, 5);
        assert_eq!((clients.units(one, 7), clients.units(one, 8), clients.units(other, 7)), (15, 0, 0));
        clients.spend(one, 8, 1);
        assert_eq!((clients.units(one, 7), clients.units(one, 8)), (0, 1));
    }
}

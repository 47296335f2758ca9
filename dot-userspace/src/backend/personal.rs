//! Connections that belong to one client each, for a backend that learns the client from a PROXY header.
//!
//! Before: `streams` has queries that wait. After: each is on the connection of its own client, or goes elsewhere.
//! Why: a header stands at the beginning of a connection and holds for all of it. Over a shared connection the
//! backend would take one client for another.
//! Never: lets one client's query travel over another's connection; holds more than [`CONNECTIONS_MAX`].
//!
//! Source: "The PROXY protocol", section 2; RFC 7766 §6.2.2 (few connections) cannot hold here.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use tokio::task::{AbortHandle, spawn_local};

use super::{
    connection::{Connection, live},
    flights::Half,
    sink::Failure,
    upstream::Upstream,
};
use crate::{ledger::Counter, proxy::Client};

/// Connections of one worker to one backend; a further client waits for the end of an idle one, or fails.
const CONNECTIONS_MAX: usize = 256;

/// A connection and the task that serves it.
type Served = (Rc<Connection>, AbortHandle);

/// The connections of one backend, by client. `None`: queries that nobody in particular asked.
#[derive(Default)]
pub struct Personal(RefCell<HashMap<Option<Client>, Served>>);

impl Personal {
    /// Forgets a connection that is over.
    pub fn forget(&self, connection: &Rc<Connection>) {
        self.0.borrow_mut().retain(|_, (one, _)| !Rc::ptr_eq(one, connection));
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Closes every one.
    pub fn close(&self) {
        self.0.take().values().for_each(|(_, task)| task.abort());
    }

    fn of(&self, client: &Option<Client>) -> Option<Rc<Connection>> {
        self.0.borrow().get(client).map(|(connection, _)| Rc::clone(connection))
    }

    /// Makes room for another connection; closes an idle one if it must. `false`: all are in use.
    fn make_room(&self) -> bool {
        let mut connections = self.0.borrow_mut();
        if connections.len() < CONNECTIONS_MAX {
            return true;
        }
        let idle = connections.iter().find(|(_, (connection, _))| connection.is_quiet());
        let Some(client) = idle.map(|(client, _)| *client) else { return false };
        if let Some((_, task)) = connections.remove(&client) {
            task.abort();
        }
        true
    }
}

/// Gives what waits to the connections of its clients; opens those that are missing.
pub fn hand_out(upstream: &Rc<Upstream>) {
    let streams = &upstream.streams;
    let may_open = streams.backs_off_until().is_none();
    let mut waiting_on = Vec::new();
    while let Some(slot) = streams.next() {
        let client = {
            let flights = upstream.fleet.flights.borrow();
            match flights.get(slot).filter(|flight| flight.waits_at(upstream.index, Half::Stream)) {
                Some(flight) => flight.client(),
                // It ended, or moved to another backend, while it waited.
                None => continue,
            }
        };
        match streams.personal.of(&client) {
            Some(connection) if connection.takes_more() => give(upstream, slot, &connection),
            Some(_) => waiting_on.push(slot),
            None if !may_open => waiting_on.push(slot),
            None if streams.personal.make_room() => give(upstream, slot, &open(upstream, client)),
            None => upstream.fleet.try_elsewhere(slot, Failure::Full),
        }
    }
    streams.put_back(waiting_on);
}

fn open(upstream: &Rc<Upstream>, client: Option<Client>) -> Rc<Connection> {
    let connection = Rc::new(Connection::of(client));
    let task = spawn_local(live(Rc::clone(upstream), Rc::clone(&connection)));
    let served = (Rc::clone(&connection), task.abort_handle());
    upstream.streams.personal.0.borrow_mut().insert(client, served);
    connection
}

fn give(upstream: &Upstream, slot: u16, connection: &Connection) {
    let fleet = &upstream.fleet;
    let mut flights = fleet.flights.borrow_mut();
    let Some(flight) = flights.get_mut(slot) else { return };
    if flight.send_over(slot, &connection.ids, &fleet.random) && connection.push(flight, upstream.config.pads)
    {
        fleet.counters.add(Counter::BackendStreamSent, 1);
        connection.wake();
    } else {
        drop(flights);
        fleet.try_elsewhere(slot, Failure::Full);
    }
}

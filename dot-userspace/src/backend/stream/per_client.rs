//! Connections that belong to one client each, for a backend that learns the client from a PROXY header.
//!
//! Before: the backend has queries that wait. After: each is on its own client's connection, or goes elsewhere.
//! Why: a header stands at the beginning of a connection and holds for all of it. Over a shared connection the
//! backend would take one client for another.
//! Never: sends one client's query over another's connection; holds more than [`CONNECTIONS_MAX`].
//!
//! Source: "The PROXY protocol", section 2; RFC 7766 §6.2.2 (few connections) cannot hold here.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use tokio::task::spawn_local;

use super::{
    Served, Streams,
    connection::{Connection, Lane},
    connection_io::live,
};
use crate::{backend::flights::Half, proxy::Client};

/// Connections of one worker to one backend. A further client waits until one of them is unused, and takes its
/// place.
const CONNECTIONS_MAX: usize = 256;

/// The connections of one backend, by client. `None`: dotd's own queries.
#[derive(Default)]
pub struct PerClient {
    connections: RefCell<HashMap<Option<Client>, Served>>,
    /// Queries whose clients have no connection, while all connections are in use.
    waiting: RefCell<VecDeque<u16>>,
}

impl PerClient {
    /// Forgets a connection that is over.
    pub fn forget(&self, connection: &Rc<Connection>) {
        self.connections.borrow_mut().retain(|_, (one, _)| !Rc::ptr_eq(one, connection));
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    /// Whether a query waits for a place.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Takes all queries that wait for a place.
    pub fn take(&self) -> VecDeque<u16> {
        self.waiting.take()
    }

    /// Calls `each` with every connection.
    pub fn for_each(&self, mut each: impl FnMut(&Rc<Connection>)) {
        self.connections.borrow().values().for_each(|(connection, _)| each(connection));
    }

    /// Closes every one.
    pub fn close(&self) {
        self.connections.take().values().for_each(|(_, task)| task.abort());
    }

    fn of(&self, client: &Option<Client>) -> Option<Rc<Connection>> {
        self.connections.borrow().get(client).map(|(connection, _)| Rc::clone(connection))
    }

    /// Makes room for another connection, by closing an unused one if necessary. `false`: all are in use.
    fn make_room(&self) -> bool {
        let mut connections = self.connections.borrow_mut();
        if connections.len() < CONNECTIONS_MAX {
            return true;
        }
        let quiet = connections.iter().find(|(_, (connection, _))| connection.is_quiet());
        let Some(client) = quiet.map(|(client, _)| client.clone()) else { return false };
        if let Some((_, task)) = connections.remove(&client) {
            task.abort();
        }
        true
    }
}

/// Gives waiting queries to the connections of their clients, and opens missing ones.
pub fn hand_out(streams: &Rc<Streams>) {
    let (queue, per_client) = (&streams.backend.stream_queue, &streams.per_client);
    let may_open = streams.backs_off_until().is_none();
    let mut waiting_on = Vec::new();
    // Queries that already wait for a place come first.
    let mut has_places = may_open;
    while has_places {
        let Some(slot) = per_client.waiting.borrow_mut().pop_front() else { break };
        if place(streams, slot, true) == Place::None {
            per_client.waiting.borrow_mut().push_front(slot);
            has_places = false;
        }
    }
    while let Some(slot) = queue.pop() {
        match place(streams, slot, has_places) {
            Place::Given => {}
            Place::Full => waiting_on.push(slot),
            Place::None => {
                has_places = false;
                per_client.waiting.borrow_mut().push_back(slot);
            }
        }
    }
    waiting_on.into_iter().for_each(|slot| queue.add(slot));
}

/// The outcome for one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Its client's connection has it, or it ended or moved to another backend while it waited.
    Given,
    /// Its client's connection takes no more queries now.
    Full,
    /// Its client has no connection, and none can be opened.
    None,
}

fn place(streams: &Rc<Streams>, slot: u16, may_open: bool) -> Place {
    let (backend, per_client) = (&streams.backend, &streams.per_client);
    let (client, company) = {
        let flights = streams.pool.flights.borrow();
        match flights.get(slot).filter(|flight| flight.waits_at(backend.index, Half::Stream)) {
            Some(flight) => (flight.client(), flight.history.company),
            None => return Place::Given,
        }
    };
    let connection = match per_client.of(&client) {
        Some(connection) if connection.takes_company(company) => connection,
        Some(_) => return Place::Full,
        None if may_open && per_client.make_room() => open(streams, client),
        None => return Place::None,
    };
    connection.give(streams, slot);
    connection.wake();
    Place::Given
}

fn open(streams: &Rc<Streams>, client: Option<Client>) -> Rc<Connection> {
    let connection = Rc::new(Connection::of(Lane::PerClient(client.clone())));
    let task = spawn_local(live(Rc::clone(streams), Rc::clone(&connection)));
    let served = (Rc::clone(&connection), task.abort_handle());
    streams.per_client.connections.borrow_mut().insert(client, served);
    connection
}

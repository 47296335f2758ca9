//! Takes connections from a worker's listeners and sees each one through. Step 4 of 9.
//!
//! Before: the kernel chose this worker for the connection. After: its handshake, session and end are counted.
//! Never: spins when descriptors run out, or lets one connection's panic take another one with it (each is
//! a task of its own).

use std::{cell::RefCell, io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    task::spawn_local,
    time::{Instant, sleep},
};

use super::{
    Admission, Settings,
    admission::{Place, Refused},
};
use crate::{
    ledger::{Counter, WorkerCounters},
    session::{self, Room},
    tls::{self, Serving, Turnstile},
};

/// Rest after `accept` failed for want of descriptors or memory: others must end first.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// What new connections need; a reload changes it for the next one.
pub(super) struct Doors {
    room: Rc<Room>,
    admission: Arc<Admission>,
    turnstile: Rc<Turnstile>,
    current: RefCell<(Serving, Duration)>,
}

impl Doors {
    pub(super) fn new(room: Rc<Room>, admission: Arc<Admission>, settings: &Settings) -> Self {
        let current = RefCell::new((settings.serving.clone(), settings.handshake_timeout));
        let turnstile = Rc::new(Turnstile::default());
        spawn_local(Rc::clone(&turnstile).run());
        Self { room, admission, turnstile, current }
    }

    pub(super) fn reload(&self, settings: &Settings) {
        self.current.replace((settings.serving.clone(), settings.handshake_timeout));
    }
}

/// Accepts until aborted.
pub(super) async fn accept_all(listener: TcpListener, doors: Rc<Doors>) {
    let counters = doors.room.counters.clone();
    loop {
        match listener.accept().await {
            Ok((tcp, client)) => {
                counters.add(Counter::Accepted, 1);
                admit(tcp, client, &doors);
            }
            Err(error) => {
                counters.add(Counter::AcceptFailed, 1);
                if !is_of_the_connection(&error) {
                    tracing::warn!(%error, "no connection can be accepted for the moment");
                    sleep(ACCEPT_REST).await;
                }
            }
        }
    }
}

/// The connection died in the queue: the next one may be fine.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn admit(tcp: TcpStream, client: SocketAddr, doors: &Rc<Doors>) {
    let counters = &doors.room.counters;
    match doors.admission.admit(client.ip()) {
        Ok(place) => {
            let (serving, timeout) = doors.current.borrow().clone();
            let open = Open::new(counters.clone(), place);
            let deadline = Instant::now() + timeout;
            spawn_local(converse(tcp, serving, deadline, Rc::clone(doors), open));
        }
        Err(Refused::Total) => counters.add(Counter::RefusedTotal, 1),
        Err(Refused::Prefix) => counters.add(Counter::RefusedPrefix, 1),
    }
}

/// An open connection: one in the gauge and one place, given back however it ends.
struct Open {
    counters: WorkerCounters,
    _place: Place,
}

impl Open {
    fn new(counters: WorkerCounters, place: Place) -> Self {
        counters.add(Counter::Open, 1);
        Self { counters, _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counters.subtract(Counter::Open, 1);
    }
}

/// One connection from handshake to end.
async fn converse(tcp: TcpStream, serving: Serving, deadline: Instant, doors: Rc<Doors>, open: Open) {
    // In a box: what a handshake needs is not for the session to hold.
    let handshake = Box::pin(tls::accept(tcp, &serving, &doors.turnstile, deadline)).await;
    match handshake {
        Ok(handshake) => {
            drop(serving);
            open.counters.add(handshake.kind.counter(), 1);
            let end = session::serve(handshake.stream, Rc::clone(&doors.room)).await;
            open.counters.add(end.counter(), 1);
        }
        Err(failure) => open.counters.add(failure.counter(), 1),
    }
}

//! Events of one client as they happen, for `dotd trace`.
//!
//! Before: a worker accepts, shakes hands, reads a query, writes an answer, refuses or ends. After: each trace that is about that
//! client has an event.
//! Holds: at most [`TRACES_MAX`] traces, each with room for [`EVENTS_MAX`] events on their way.
//! Never: costs more than a branch while there is no trace, or waits for a reader: an event that finds no room is counted and lost.

use std::{
    cell::{Cell, RefCell},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Traces at the same time.
pub const TRACES_MAX: usize = 4;
/// Events of a trace on their way: as many queries as a fast client asks in some tens of milliseconds.
pub const EVENTS_MAX: usize = 4096;

/// The clients that a trace is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// All clients with an address in this prefix.
    Clients(IpNet),
    /// One session: its worker, and its number there.
    Session(usize, u64),
}

/// One trace. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Its number, for [`Tracing::end`].
    pub number: u64,
    /// Its clients.
    pub subject: Subject,
    /// One of so many connections; 1: every one.
    pub sample: u32,
    /// Whether events may hold the names that are asked for.
    pub with_names: bool,
    /// Where events go.
    pub events: mpsc::Sender<TraceEvent>,
    /// Events that found no room.
    pub lost: Arc<AtomicU64>,
}

/// Something that happened to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEvent {
    /// Microseconds since 1970.
    pub at_us: u64,
    /// The worker that saw it; absent: the kernel half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<usize>,
    /// The client's address and port; of the kernel half, its prefix.
    pub client: String,
    /// Its session, as `dotd explain` calls it, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// What it was.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The kernel half refused packets: at most once a minute for each reason.
    Packets {
        /// What it did.
        verdict: String,
        /// Why.
        reason: String,
    },
    /// A connection was accepted.
    Accepted {
        /// At this address.
        listener: String,
    },
    /// Something was refused, or the connection was ended for it.
    Refused {
        /// As it is counted.
        reason: String,
        /// The key that would change it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// The alert that the client sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        alert: Option<u8>,
    },
    /// A handshake is done.
    Handshake {
        /// "1.2" or "1.3".
        tls: String,
        /// By a ticket or a session.
        resumed: bool,
        /// ALPN `dot` was chosen.
        alpn: bool,
        /// The name under which the client asked for dotd.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        server_name: Option<String>,
        /// From accept to the first octets of the hello.
        hello_us: u32,
        /// From there to the keys.
        handshake_us: u32,
    },
    /// A session begins.
    Session,
    /// A message came.
    Query {
        /// Its ID.
        id: u16,
        /// Its length.
        octets: usize,
        /// Its type; absent where it is no query.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        qtype: Option<u16>,
        /// The name that it asks for, where names are wanted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// A response waits to be written.
    Response {
        /// The ID of its query.
        id: u16,
        /// Its length.
        octets: usize,
        /// Its response code, as far as its header has it.
        rcode: u8,
        /// "forwarded", "cached", "responded" or "failed".
        by: String,
        /// Since the query was read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        took_us: Option<u64>,
    },
    /// Responses went to the kernel.
    Written {
        /// So many octets of them.
        octets: usize,
    },
    /// The connection is over.
    Ended {
        /// How, as it is counted.
        end: String,
        /// Messages that came.
        queries: u32,
        /// Since it was accepted.
        open_us: u64,
    },
    /// Nothing happened for a while, or events were lost.
    Lost {
        /// So many so far.
        events: u64,
    },
}

/// The traces of one worker.
#[derive(Debug, Default)]
pub struct Tracing {
    is_on: Cell<bool>,
    worker: Cell<usize>,
    traces: RefCell<Vec<Trace>>,
}

impl Tracing {
    /// Whether there is a trace.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on.get()
    }

    /// Begins a trace, as the worker with this number.
    pub fn begin(&self, worker: usize, trace: Trace) {
        self.worker.set(worker);
        let mut traces = self.traces.borrow_mut();
        traces.retain(|trace| !trace.events.is_closed());
        if traces.len() < TRACES_MAX {
            traces.push(trace);
        }
        self.is_on.set(true);
    }

    /// Ends a trace.
    pub fn end(&self, number: u64) {
        let mut traces = self.traces.borrow_mut();
        traces.retain(|trace| trace.number != number && !trace.events.is_closed());
        self.is_on.set(!traces.is_empty());
    }

    /// Tells what happened to a client, in its session if it has one. `what` is made once it is wanted; it hears whether names
    /// are.
    #[inline]
    pub fn tell(&self, client: SocketAddr, session: Option<u64>, what: impl Fn(bool) -> What) {
        if self.is_on.get() {
            self.tell_each(client, session, what);
        }
    }

    #[cold]
    fn tell_each(&self, client: SocketAddr, session: Option<u64>, what: impl Fn(bool) -> What) {
        for trace in self.traces.borrow().iter() {
            let is_meant = match trace.subject {
                Subject::Clients(net) => net.contains(&client.ip().to_canonical()),
                Subject::Session(worker, number) => worker == self.worker.get() && session == Some(number),
            };
            if is_meant && trace.has_drawn(client) {
                let worker = self.worker.get();
                trace.send(TraceEvent {
                    at_us: now_us(),
                    worker: Some(worker),
                    client: client.to_string(),
                    session: session.map(|number| format!("{worker}.{number}")),
                    what: what(trace.with_names),
                });
            }
        }
    }
}

impl Trace {
    /// Whether a connection is one of those that are told of: each event of it or none.
    fn has_drawn(&self, client: SocketAddr) -> bool {
        if self.sample <= 1 {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        client.hash(&mut hasher);
        hasher.finish().is_multiple_of(u64::from(self.sample))
    }

    /// Sends an event, or counts it as lost.
    pub fn send(&self, event: TraceEvent) {
        if self.events.try_send(event).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

/// Microseconds since 1970.
#[must_use]
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(number: u64, subject: Subject, room: usize) -> (Trace, mpsc::Receiver<TraceEvent>) {
        let (events, receiver) = mpsc::channel(room);
        (Trace { number, subject, sample: 1, with_names: false, events, lost: Arc::default() }, receiver)
    }

    /// Goal: a trace hears of its clients, or of its session, and of nobody else; names where they are wanted; nothing before it
    /// begins and after its end. Method: two traces, two clients.
    #[test]
    fn a_trace_hears_of_its_own() {
        let tracing = Tracing::default();
        let [ours, other]: [SocketAddr; 2] =
            ["192.0.2.7:1000", "198.51.100.1:1000"].map(|at| at.parse().unwrap());
        let tell = |client, session| {
            tracing.tell(client, session, |names| What::Query {
                id: 1,
                octets: 40,
                qtype: Some(1),
                name: names.then(|| "www.".to_owned()),
            })
        };
        tell(ours, None);
        let (first, mut by_prefix) = trace(1, Subject::Clients("192.0.2.0/24".parse().unwrap()), 8);
        let (second, mut by_session) = trace(2, Subject::Session(3, 17), 8);
        tracing.begin(3, first);
        tracing.begin(3, Trace { with_names: true, ..second });
        tell(ours, Some(4));
        tell(other, Some(17));
        tell(other, Some(18));
        let event = by_prefix.try_recv().unwrap();
        assert_eq!((event.client.as_str(), event.session.as_deref()), ("192.0.2.7:1000", Some("3.4")));
        assert!(matches!(event.what, What::Query { name: None, .. }) && by_prefix.try_recv().is_err());
        let event = by_session.try_recv().unwrap();
        assert!(matches!(event.what, What::Query { name: Some(_), .. }) && by_session.try_recv().is_err());
        tracing.end(1);
        drop(by_session);
        tracing.end(9);
        assert!(!tracing.is_on(), "a reader that has gone away is forgotten");
    }

    /// Goal: a reader that does not read loses events, and hears how many; there are only so many traces; a sample has whole
    /// connections. Method: room for two events; one trace more than there may be; many connections.
    #[test]
    fn a_slow_reader_loses_events() {
        let tracing = Tracing::default();
        let everybody = Subject::Clients("0.0.0.0/0".parse().unwrap());
        let (slow, _receiver) = trace(1, everybody, 2);
        let lost = Arc::clone(&slow.lost);
        tracing.begin(0, slow);
        let at = |port| SocketAddr::new([192, 0, 2, 7].into(), port);
        (0..5).for_each(|_| tracing.tell(at(9), None, |_| What::Session));
        assert_eq!(lost.load(Relaxed), 3);
        let mut readers = Vec::new();
        for number in 2..9 {
            let (more, reader) = trace(number, everybody, 5000);
            tracing.begin(0, Trace { sample: 10, ..more });
            readers.push(reader);
        }
        assert_eq!(tracing.traces.borrow().len(), TRACES_MAX);
        for port in 0..1000 {
            (0..2).for_each(|_| tracing.tell(at(port), None, |_| What::Session));
        }
        let mut heard = std::collections::BTreeMap::new();
        while let Ok(event) = readers[0].try_recv() {
            *heard.entry(event.client).or_insert(0) += 1;
        }
        assert!(
            (50..150).contains(&heard.len()) && heard.values().all(|events| *events == 2),
            "{}",
            heard.len()
        );
    }
}

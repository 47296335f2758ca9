//! Reports the events of one client as they happen, for `dotd trace`.
//!
//! Before: a worker accepts a connection, completes a handshake, reads a query, writes a response, refuses or ends.
//! After: each trace of that client has an event.
//! Holds: at most [`TRACES_MAX`] traces, each with room for [`EVENTS_MAX`] events that wait for the reader.
//! Never: costs more than a branch while there is no trace, or waits for a reader: an event that finds no room is
//! counted as lost.

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

use super::{
    answering,
    traceparent::{self, SpanIds},
};

/// Most traces at the same time.
pub const TRACES_MAX: usize = 8;
/// Most events of a trace that wait for its reader: as many as a fast client causes in some tens of milliseconds.
pub const EVENTS_MAX: usize = 4096;

/// The clients of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// All clients with an address in this prefix.
    Clients(IpNet),
    /// One session: the number of its worker, and its number there.
    Session(usize, u64),
}

/// One trace. Clones share its channel.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Its number, for [`Tracing::end`].
    pub number: u64,
    /// The clients.
    pub subject: Subject,
    /// One connection in this many; 1: every one.
    pub sample: u32,
    /// Whether events may contain qnames.
    pub with_names: bool,
    /// The EDNS option by which backends hear of a query's span; `None`: they do not.
    pub option: Option<u16>,
    /// The channel for events.
    pub events: mpsc::Sender<TraceEvent>,
    /// Events that found no room.
    pub lost: Arc<AtomicU64>,
}

/// An event of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEvent {
    /// Microseconds since 1970.
    pub at_us: u64,
    /// The worker that reports it; absent: the kernel half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<usize>,
    /// The client's address and port.
    pub client: String,
    /// Its session, as `dotd explain` names it, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The event.
    #[serde(flatten)]
    pub what: What,
}

/// The kinds of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The kernel half judged a packet that begins a connection, or refused a packet.
    Packet {
        /// Its destination.
        to: String,
        /// The verdict.
        verdict: String,
        /// The reason.
        reason: String,
        /// The key that would change the verdict, if the packet was refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// How many packets of this kind the client's rate still permits at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        left: Option<u64>,
        /// The burst of that rate.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        burst: Option<u64>,
    },
    /// A connection was accepted.
    Accepted {
        /// The listening address.
        listener: String,
        /// Time since the kernel answered its SYN, if the kernel half saw that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        syn_us: Option<u32>,
    },
    /// dotd refused something, or ended the connection.
    Refused {
        /// The reason, by the name of its counter.
        reason: String,
        /// The key that would change it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// The alert that the client sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        alert: Option<u8>,
    },
    /// A message or a query is misuse.
    Misuse {
        /// The kind, by its key.
        kind: String,
        /// The action.
        action: String,
    },
    /// A handshake was completed.
    Handshake {
        /// "1.2" or "1.3".
        tls: String,
        /// Whether a ticket or a session was resumed.
        resumed: bool,
        /// Whether ALPN `dot` was chosen.
        alpn: bool,
        /// The server name in the ClientHello.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        server_name: Option<String>,
        /// The versions of TLS in the ClientHello.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offered: Option<String>,
        /// JA4 of its ClientHello.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fingerprint: Option<String>,
        /// Time from accept to the first octets of the ClientHello.
        hello_us: u32,
        /// Time from there until the keys are agreed on.
        handshake_us: u32,
    },
    /// A session has started.
    Session,
    /// A message was read.
    Query {
        /// Its ID.
        id: u16,
        /// Its length.
        octets: usize,
        /// The qtype; absent if it is not a query.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        qtype: Option<u16>,
        /// The qname, if names are wanted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Its span, where its backend hears of that.
        #[serde(skip)]
        ids: Option<SpanIds>,
    },
    /// A response waits to be written.
    Response {
        /// The ID of its query.
        id: u16,
        /// Its length.
        octets: usize,
        /// The response code, as far as the header contains it.
        rcode: u8,
        /// "forwarded", "cached", "responded" or "failed".
        by: String,
        /// Time since the query was read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        took_us: Option<u64>,
        /// The backend that answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backend: Option<String>,
        /// How many backends had the query, plus one if it was sent again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tries: Option<u32>,
    },
    /// The kernel has taken responses.
    Written {
        /// Their octets.
        octets: usize,
    },
    /// The connection has ended.
    Ended {
        /// How it ended, by the name of the counter.
        end: String,
        /// Messages of the client.
        queries: u32,
        /// Time since it was accepted.
        open_us: u64,
    },
    /// Nothing happened for a while, or events were lost.
    Lost {
        /// Events lost so far.
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

    /// Starts a trace, on the worker with this number.
    pub fn begin(&self, worker: usize, trace: Trace) {
        self.worker.set(worker);
        let mut traces = self.traces.borrow_mut();
        traces.retain(|trace| !trace.events.is_closed());
        if traces.len() < TRACES_MAX {
            traces.push(trace);
        }
        self.is_on.set(true);
        answering::set_tracing(true);
    }

    /// Ends the trace with this number.
    pub fn end(&self, number: u64) {
        let mut traces = self.traces.borrow_mut();
        traces.retain(|trace| trace.number != number && !trace.events.is_closed());
        self.is_on.set(!traces.is_empty());
        answering::set_tracing(!traces.is_empty());
    }

    /// Reports an event of a client, in its session if it has one. `what` is called only if a trace wants the event;
    /// its argument says whether names are wanted.
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
                Subject::Clients(_) => trace.is_about(client),
                Subject::Session(worker, number) => {
                    worker == self.worker.get() && session == Some(number) && trace.has_drawn(client)
                }
            };
            if is_meant {
                let (worker, mut what) = (self.worker.get(), what(trace.with_names));
                if let (Some(option), What::Query { ids, .. }) = (trace.option, &mut what) {
                    *ids = Some(traceparent::begin(option));
                }
                trace.send(TraceEvent {
                    at_us: now_us(),
                    worker: Some(worker),
                    client: client.to_string(),
                    session: session.map(|number| format!("{worker}.{number}")),
                    what,
                });
            }
        }
    }
}

impl Trace {
    /// Whether the trace is about this client, and this connection belongs to its sample.
    #[must_use]
    pub fn is_about(&self, client: SocketAddr) -> bool {
        let Subject::Clients(net) = self.subject else { return false };
        net.contains(&client.ip().to_canonical()) && self.has_drawn(client)
    }

    /// Whether a connection is sampled: each of its events is reported, or none is.
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
mod tests;

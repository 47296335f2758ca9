//! Copies DNS messages of clients and backends for a dnstap reader.
//!
//! Before: a worker reads or writes a message, and `[dnstap]` asks for it. After: the thread that `start::tap` runs
//! has it as a frame in a batch.
//! Holds: for the current thread, the sink of its batches and the unfinished batch.
//! Never: costs more than a branch while the config names no reader, waits, or grows: a message that finds no room is
//! counted as lost.
//!
//! Source: dnstap.proto (dnstap.info); the fields of a message are in `message`, its frame in Frame Streams.

mod message;
mod sink;

use std::{
    cell::{Cell, RefCell},
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use tokio::{task::spawn_local, time::sleep};

use crate::{config::ClientAddress, ledger::turn_time, moment::Moment, proxy::Client};
pub use sink::{Batch, TapCounts, TapSink};

use message::Message;

/// A batch is sent when it is this long…
const BATCH_OCTETS: usize = 32 * 1024;
/// …or this old.
const BATCH_TIME: Duration = Duration::from_millis(100);
/// For this long a reading of the wall clock is extrapolated by the monotonic clock, in nanoseconds.
const CLOCK_TIME: u64 = 10_000_000_000;
/// Bits of a client's address that are kept if only its network is wanted, for IPv4 and IPv6: as in log lines.
const NETWORK_BITS: (u8, u8) = (24, 56);

thread_local! {
    static IS_ON: Cell<bool> = const { Cell::new(false) };
    static TAP: RefCell<Option<Tap>> = const { RefCell::new(None) };
}

/// The kind of a message: its sender and its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tapped {
    /// A query from a client to dotd.
    ClientQuery,
    /// A response from dotd to a client.
    ClientResponse,
    /// A query from dotd to a backend.
    BackendQuery,
    /// A response from a backend to dotd.
    BackendResponse,
}

/// The transport of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A datagram.
    Udp,
    /// A connection in clear.
    Tcp,
    /// A connection over TLS.
    Dot,
}

/// The two ends of a message and its transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The side that asks, if it is known.
    pub asker: Option<SocketAddr>,
    /// The side that is asked.
    pub asked: SocketAddr,
    /// The transport.
    pub carrier: Carrier,
}

impl From<&Client> for Way {
    fn from(client: &Client) -> Self {
        let carrier = match client.tls {
            Some(_) => Carrier::Dot,
            None if client.is_datagram => Carrier::Udp,
            None => Carrier::Tcp,
        };
        Self { asker: Some(client.source), asked: client.destination, carrier }
    }
}

/// The query that a message belongs to.
#[derive(Clone, Copy, Debug)]
pub struct OfQuery {
    /// The ID that the client chose.
    pub id: u16,
    /// When the query was read, if that is known: together with the ID it identifies the messages of one query.
    pub read: Option<Moment>,
    /// When dotd sent or read it.
    pub began: Option<Moment>,
}

/// Whether messages are copied.
#[inline]
#[must_use]
pub fn is_on() -> bool {
    IS_ON.get()
}

/// Sets the sink of this thread's messages from now on. Messages that wait for the old sink are sent to it first.
pub fn send_to(sink: Option<TapSink>) {
    IS_ON.set(sink.is_some());
    TAP.with_borrow_mut(|tap| {
        tap.iter_mut().for_each(Tap::send);
        *tap = sink.map(Tap::to);
    });
}

/// As [`send_to`], unless the thread already sends to that sink.
pub fn renew(old: Option<&TapSink>, new: Option<&TapSink>) {
    let is_same = match (old, new) {
        (Some(old), Some(new)) => old.is_same(new),
        (old, new) => old.is_none() && new.is_none(),
    };
    if !is_same {
        send_to(new.cloned());
    }
}

/// Copies `message` for the reader, if the reader wants it. Call it only if [`is_on`].
#[cold]
pub fn tell(what: Tapped, query: OfQuery, way: impl FnOnce() -> Way, message: &[u8]) {
    TAP.with_borrow_mut(|tap| {
        let Some(tap) = tap else { return };
        if !tap.wants(what, query) {
            return;
        }
        if tap.add(what, query, way(), message) {
            spawn_local(async {
                sleep(BATCH_TIME).await;
                TAP.with_borrow_mut(|tap| tap.iter_mut().for_each(Tap::send_by_timer));
            });
        }
    });
}

/// The state of one thread.
struct Tap {
    sink: TapSink,
    batch: Batch,
    /// Buffer for a message whose length is not known yet.
    scratch: Vec<u8>,
    /// A timer runs that sends the batch, unless it is empty by then.
    has_timer: bool,
    /// A moment, and the time since 1970 at that moment.
    clock: (Moment, Duration),
    hasher: RandomState,
}

impl Tap {
    fn to(sink: TapSink) -> Self {
        Self {
            sink,
            batch: Batch::default(),
            scratch: Vec::new(),
            has_timer: false,
            clock: clock(),
            hasher: RandomState::new(),
        }
    }

    /// Whether the reader wants such messages, and the query belongs to the sample: all messages of a query do, or
    /// none.
    fn wants(&self, what: Tapped, query: OfQuery) -> bool {
        let plan = self.sink.plan();
        let is_wanted = match what {
            Tapped::ClientQuery | Tapped::ClientResponse => plan.clients,
            Tapped::BackendQuery | Tapped::BackendResponse => plan.backends,
        };
        is_wanted && (plan.sample <= 1 || self.is_drawn(query, plan.sample))
    }

    fn is_drawn(&self, query: OfQuery, sample: u32) -> bool {
        let read = query.read.unwrap_or_else(turn_time::moment);
        self.hasher.hash_one((read, query.id)).is_multiple_of(u64::from(sample))
    }

    /// Adds a message to the batch. `true`: no timer runs, and one must send the batch.
    fn add(&mut self, what: Tapped, query: OfQuery, way: Way, message: &[u8]) -> bool {
        if self.sink.is_full() {
            self.sink.lose(1);
            return false;
        }
        let now = turn_time::moment();
        let is_query = matches!(what, Tapped::ClientQuery | Tapped::BackendQuery);
        let began = if is_query { query.began.or(Some(now)) } else { query.began };
        let began = began.map(|moment| self.time_of(moment));
        let ended = (!is_query).then(|| self.time_of(now));
        let whole = Message { what, way: self.shown(what, way), began, ended, octets: message };
        whole.write(self.sink.plan(), &mut self.scratch, &mut self.batch.octets);
        self.batch.frames += 1;
        if self.batch.octets.len() >= BATCH_OCTETS {
            self.send();
        }
        !std::mem::replace(&mut self.has_timer, true)
    }

    /// The ends of a message, with as much of the client's address as may be shown.
    fn shown(&self, what: Tapped, way: Way) -> Way {
        let is_client = matches!(what, Tapped::ClientQuery | Tapped::ClientResponse);
        let how = self.sink.plan().client_address;
        let asker = way.asker.filter(|_| !is_client || how != ClientAddress::None);
        let shown = |asker: SocketAddr| match is_client && how == ClientAddress::Prefix {
            true => SocketAddr::new(network_of(asker.ip()), 0),
            false => SocketAddr::new(asker.ip().to_canonical(), asker.port()),
        };
        let asked = SocketAddr::new(way.asked.ip().to_canonical(), way.asked.port());
        Way { asker: asker.map(shown), asked, ..way }
    }

    /// The time since 1970 at `moment`.
    fn time_of(&mut self, moment: Moment) -> Duration {
        if moment.nanoseconds_since(self.clock.0) > CLOCK_TIME {
            self.clock = clock();
        }
        let (known, time) = self.clock;
        (time + moment.since(known)).saturating_sub(known.since(moment))
    }

    fn send_by_timer(&mut self) {
        self.has_timer = false;
        self.send();
    }

    fn send(&mut self) {
        if self.batch.frames > 0 {
            self.sink.send(std::mem::take(&mut self.batch));
        }
    }
}

/// Runs at the end of the thread.
impl Drop for Tap {
    fn drop(&mut self) {
        self.send();
    }
}

fn clock() -> (Moment, Duration) {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (Moment::of(Instant::now()), since_1970)
}

fn network_of(address: IpAddr) -> IpAddr {
    let address = address.to_canonical();
    let bits = if address.is_ipv4() { NETWORK_BITS.0 } else { NETWORK_BITS.1 };
    IpNet::new(address, bits).map_or(address, |network| network.trunc().addr())
}

#[cfg(test)]
mod tests;

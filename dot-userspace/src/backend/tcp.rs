//! Asks a backend over TCP what a datagram could not carry.
//!
//! Before: a response with TC=1 over UDP (RFC 9210 §3), or a query too long for a datagram.
//! After: the sink has the whole response, or a failure.
//! Holds: one connection a query, at most [`OVER_TCP_MAX`] of them, all under the query's own deadline.
//! Never: asks a third time: TC=1 over TCP goes to the client as it is.

use std::{io, rc::Rc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_local,
    time::{Instant, timeout_at},
};

use super::{
    sink::{Failure, Sink},
    upstream::Upstream,
};
use crate::{
    dns::{self, Asked},
    ledger::Counter,
};

/// Most connections of one worker to one backend.
const OVER_TCP_MAX: usize = 256;
/// Messages that do not match before we believe the backend to be confused.
const MISMATCHES_MAX: usize = 8;

/// A query outside the table of flights: it has left UDP.
struct Stray {
    /// The query's octets, our ID in front.
    query: Vec<u8>,
    /// What the client asked of its hop.
    asked: Asked,
    /// Who waits.
    sink: Rc<dyn Sink>,
    /// When we give up.
    deadline: Instant,
}

/// Takes the query in `slot`, whose response was truncated, off UDP and asks it over TCP.
pub fn ask_again(upstream: &Rc<Upstream>, slot: u16) {
    upstream.counters.add(Counter::BackendTruncated, 1);
    take_over(upstream, slot);
}

/// Takes the query in `slot` out of the table and asks it over TCP.
pub fn take_over(upstream: &Rc<Upstream>, slot: u16) {
    let stray = {
        let mut flights = upstream.flights.borrow_mut();
        let deadline = flights.get(slot).map(|flight| flight.deadline);
        let sink = flights.end(slot);
        let held = flights.ended(slot).map(|(asked, query)| (asked, query.to_vec()));
        match (deadline, sink, held) {
            (Some(deadline), Some(sink), Some((asked, query))) => Stray { query, asked, sink, deadline },
            _ => return,
        }
    };
    upstream.counters.subtract(Counter::BackendOutstanding, 1);
    ask(upstream, stray);
}

/// Asks over TCP; the outcome goes to the stray's sink.
fn ask(upstream: &Rc<Upstream>, mut stray: Stray) {
    if let (Some(id), Some(octets)) = (upstream.random.u16(), stray.query.first_chunk_mut::<2>()) {
        *octets = id.to_be_bytes();
    }
    if upstream.over_tcp.get() >= OVER_TCP_MAX {
        upstream.count_failure(Failure::Full);
        return stray.sink.failure(stray.asked, &stray.query, Failure::Full);
    }
    upstream.over_tcp.set(upstream.over_tcp.get() + 1);
    upstream.counters.add(Counter::BackendOutstanding, 1);
    let upstream = Rc::clone(upstream);
    spawn_local(async move {
        let outcome = timeout_at(stray.deadline, exchange(&upstream, &stray)).await;
        upstream.over_tcp.set(upstream.over_tcp.get().saturating_sub(1));
        upstream.counters.subtract(Counter::BackendOutstanding, 1);
        let failure = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                tracing::debug!(%error, backend = %upstream.address, "no response over TCP");
                upstream.counters.add(Counter::BackendTcpFailed, 1);
                Failure::Unreachable
            }
            Err(_) => Failure::Silent,
        };
        upstream.count_failure(failure);
        stray.sink.failure(stray.asked, &stray.query, failure);
    });
}

/// One query and its response over a connection of their own.
async fn exchange(upstream: &Upstream, stray: &Stray) -> io::Result<()> {
    let mut stream = TcpStream::connect(upstream.address).await?;
    stream.set_nodelay(true)?;
    let octets = u16::try_from(stray.query.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = Vec::with_capacity(stray.query.len() + 2);
    framed.extend_from_slice(&octets.to_be_bytes());
    framed.extend_from_slice(&stray.query);
    stream.write_all(&framed).await?;
    let mut response = Vec::new();
    for _ in 0..MISMATCHES_MAX {
        let octets = stream.read_u16().await?;
        response.resize(usize::from(octets), 0);
        stream.read_exact(&mut response).await?;
        let is_ours = response.first_chunk::<2>() == stray.query.first_chunk::<2>()
            && dns::question_matches(&response, &stray.query, usize::from(stray.asked.question_end));
        if is_ours && stray.sink.response(stray.asked, &response).is_ok() {
            return Ok(());
        }
        upstream.counters.add(Counter::BackendUnmatched, 1);
    }
    Err(io::ErrorKind::InvalidData.into())
}

//! One connection: as many queries in flight as it may, each response checked against its query.
//!
//! Before: `client` opens sessions. After: every query is counted in the thread's tally.
//! Holds: the slot of each ID. Never: waits for a response while it could write, or the reverse: with deep pipelines
//! both sides would wait for each other.
//!
//! Source: RFC 7858 §3.3, RFC 7766 §6.2.1.1 (pipelining) and §7 (responses in any order).

use std::{
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::client::TlsStream;

use super::{client::Client, pacer::Lane, population::Population, threads::Share};

/// After this many refusals in a row the server counts as gone for this run.
pub(super) const FAILURES_MAX: u32 = 10;
/// First pause after a failure; doubled each time.
const PAUSE: Duration = Duration::from_millis(5);
/// Time for the close_notify to be sent.
pub(super) const CLOSING: Duration = Duration::from_millis(200);
/// Without queries in flight there is no timeout.
const FOR_EVER: Duration = Duration::from_secs(86_400);

/// A session with its server.
pub type Stream = TlsStream<TcpStream>;

/// The end of a session without an error.
pub(super) enum End {
    /// Nothing is left to send.
    Done,
    /// It has sent what one connection may.
    Spent,
}

/// Connects within the time allowed and counts the handshake; `None` when it failed, counted as well.
pub async fn open(share: &Share, client: &Client) -> Option<Stream> {
    let begun = Instant::now();
    match timeout(share.patience, client.connect()).await {
        Ok(Ok(stream)) => {
            let kind = stream.get_ref().1.handshake_kind();
            let is_resumed = kind == Some(rustls::HandshakeKind::Resumed);
            share.tally.borrow_mut().handshake(is_resumed, begun.elapsed());
            Some(stream)
        }
        Ok(Err(error)) => {
            share.tally.borrow_mut().error(format!("connect: {error}"));
            None
        }
        Err(_) => {
            share.tally.borrow_mut().error(format!("connect: nothing within {:?}", share.patience));
            None
        }
    }
}

/// Sends queries until the thread's share is used up, or its lane is done, on one connection after another.
pub async fn drive(share: Rc<Share>, client: Client, mut first: Option<Stream>, lane: Option<Rc<Lane>>) {
    let lane = lane.as_deref();
    let may_send = || lane.map_or_else(|| share.may_send(), |lane| !lane.is_done());
    let mut failures = 0;
    while first.is_some() || (may_send() && failures < FAILURES_MAX) {
        let stream = match first.take() {
            Some(stream) => stream,
            None => match open(&share, &client).await {
                Some(stream) => stream,
                None => {
                    failures += 1;
                    sleep(PAUSE * 2_u32.pow(failures)).await;
                    continue;
                }
            },
        };
        match serve(&share, lane, stream).await {
            Ok(End::Done) => return,
            Ok(End::Spent) => failures = 0,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                share.tally.borrow_mut().closed_by_server += 1;
                failures += 1;
            }
            Err(error) => {
                share.tally.borrow_mut().error(error.to_string());
                failures += 1;
            }
        }
    }
}

/// One session, from its first query to its end. Queries in flight when it fails are lost.
async fn serve(share: &Share, lane: Option<&Lane>, stream: Stream) -> io::Result<End> {
    let (mut reader, mut writer) = split(stream);
    let mut flight = Flight::new(share.depth, Population::Chatty);
    let result = exchange(share, lane, &mut flight, share.per_connection, &mut reader, &mut writer).await;
    share.tally.borrow_mut().lost += flight.in_flight();
    if result.is_ok() {
        // The server may be gone by now, which does not matter.
        let _ = timeout(CLOSING, writer.shutdown()).await;
    }
    result
}

/// Sends `allowance` queries, or the queries that are due, and reads all responses.
pub(super) async fn exchange(
    share: &Share,
    lane: Option<&Lane>,
    flight: &mut Flight,
    mut allowance: u64,
    reader: &mut ReadHalf<Stream>,
    writer: &mut WriteHalf<Stream>,
) -> io::Result<End> {
    let (mut outgoing, mut incoming) = (Vec::new(), Vec::with_capacity(4096));
    loop {
        match lane {
            Some(lane) => fill_from(lane, share, flight, &mut outgoing),
            None => fill(share, flight, &mut allowance, &mut outgoing),
        }
        if flight.in_flight() == 0 && lane.is_none_or(Lane::is_done) {
            return Ok(if lane.is_none() && share.may_send() { End::Spent } else { End::Done });
        }
        if !outgoing.is_empty() {
            write(reader, writer, &outgoing, &mut incoming).await?;
            outgoing.clear();
        }
        if take_all(share, flight, &mut incoming) > 0 {
            continue;
        }
        let patience = if flight.in_flight() > 0 { share.patience } else { FOR_EVER };
        let rung = async {
            match lane {
                Some(lane) => lane.rung().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            read = read(reader, &mut incoming, patience) => {
                read?;
                take_all(share, flight, &mut incoming);
            }
            () = rung => {}
        }
    }
}

/// Reads everything that is available.
async fn read(reader: &mut ReadHalf<Stream>, incoming: &mut Vec<u8>, patience: Duration) -> io::Result<()> {
    let read = timeout(patience, reader.read_buf(incoming)).await;
    let octets = read
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no response within {patience:?}")))??;
    if octets == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// Encodes queries that are due into free slots; the latency of each counts from the time when it was due.
fn fill_from(lane: &Lane, share: &Share, flight: &mut Flight, outgoing: &mut Vec<u8>) {
    while flight.has_room() {
        let Some((query, due)) = lane.take() else { return };
        if let Some(id) = flight.take_off(query, due) {
            share.queries[query].write(id, outgoing);
        }
    }
}

/// Encodes queries into every free slot.
fn fill(share: &Share, flight: &mut Flight, allowance: &mut u64, outgoing: &mut Vec<u8>) {
    let now = Instant::now();
    while *allowance > 0 && flight.has_room() {
        let Some(query) = share.next(now) else { return };
        if let Some(id) = flight.take_off(query, now) {
            share.queries[query].write(id, outgoing);
            *allowance -= 1;
        }
    }
}

/// Writes everything, and reads meanwhile, so that neither side waits for the other's buffer.
async fn write(
    reader: &mut ReadHalf<Stream>,
    writer: &mut WriteHalf<Stream>,
    outgoing: &[u8],
    incoming: &mut Vec<u8>,
) -> io::Result<()> {
    let write = async {
        writer.write_all(outgoing).await?;
        writer.flush().await
    };
    tokio::pin!(write);
    loop {
        tokio::select! {
            biased;
            written = &mut write => return written,
            read = reader.read_buf(incoming) => if read? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            },
        }
    }
}

/// Takes every whole message from the front of `incoming`, and returns how many there were.
fn take_all(share: &Share, flight: &mut Flight, incoming: &mut Vec<u8>) -> usize {
    let now = Instant::now();
    let (mut at, mut count) = (0, 0);
    while let Some((message, rest)) = first_message(&incoming[at..]) {
        at = incoming.len() - rest;
        count += 1;
        let id = message.get(..2).map(|id| u16::from_be_bytes([id[0], id[1]]));
        match id.and_then(|id| flight.land(id)) {
            Some((query, sent)) => {
                let checked = share.queries[query].check(message);
                share.answered(flight.population, checked, now.saturating_duration_since(sent));
            }
            None => share.tally.borrow_mut().unknown_id += 1,
        }
    }
    incoming.drain(..at);
    count
}

/// The first message and the number of octets after it.
fn first_message(octets: &[u8]) -> Option<(&[u8], usize)> {
    let (prefix, rest) = octets.split_first_chunk::<2>()?;
    let (message, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*prefix)))?;
    Some((message, rest.len()))
}

/// The queries in flight. An ID is its slot plus a multiple of the depth, which changes with every use, so that a
/// repeated response matches no query.
pub(super) struct Flight {
    population: Population,
    slots: Vec<Slot>,
    free: Vec<u16>,
    depth: u16,
}

#[derive(Clone)]
struct Slot {
    id: u16,
    query: usize,
    sent: Option<Instant>,
}

impl Flight {
    pub(super) fn new(depth: u16, population: Population) -> Self {
        let slots = (0..depth).map(|id| Slot { id, query: 0, sent: None }).collect();
        Self { population, slots, free: (0..depth).rev().collect(), depth }
    }

    fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    pub(super) fn in_flight(&self) -> u64 {
        (self.slots.len() - self.free.len()) as u64
    }

    /// Takes a free slot and returns its new ID.
    fn take_off(&mut self, query: usize, now: Instant) -> Option<u16> {
        let index = self.free.pop()?;
        let slot = &mut self.slots[usize::from(index)];
        // Past the last whole round the slot begins again with its own number.
        let next = slot.id.checked_add(self.depth).filter(|id| id / self.depth < u16::MAX / self.depth);
        *slot = Slot { id: next.unwrap_or(index), query, sent: Some(now) };
        Some(slot.id)
    }

    /// Frees the slot of this ID; `None` when no query has it.
    fn land(&mut self, id: u16) -> Option<(usize, Instant)> {
        let index = id % self.depth;
        let slot = self.slots.get_mut(usize::from(index)).filter(|slot| slot.id == id)?;
        let sent = slot.sent.take()?;
        self.free.push(index);
        Some((slot.query, sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an ID finds its query once, and a duplicate or a stranger finds none, over every ID there is.
    /// Method: depths that divide 65536 and depths that do not, 70,000 flights each, landing out of order.
    #[test]
    fn ids_find_their_query_once() {
        for depth in [1, 2, 3, 100, 4096] {
            let mut flight = Flight::new(depth, Population::Chatty);
            let mut flying = std::collections::VecDeque::new();
            for query in 0..70_000 {
                let id = flight.take_off(query, Instant::now()).expect("room");
                assert_eq!(flight.land(id.wrapping_add(depth)), None, "depth {depth}");
                flying.push_back((id, query));
                if !flight.has_room() {
                    let (id, query) = flying.remove(flying.len() / 2).expect("one flies");
                    assert_eq!(flight.land(id).map(|(query, _)| query), Some(query), "depth {depth}");
                    assert_eq!(flight.land(id), None, "depth {depth}");
                }
            }
            assert_eq!(flight.in_flight(), u64::from(depth) - 1);
        }
    }

    /// Goal: messages are cut where their length says. Method: two and a half of them.
    #[test]
    fn cuts_messages() {
        let octets = [0, 2, 7, 8, 0, 1, 9, 0, 3, 1];
        assert_eq!(first_message(&octets), Some((&[7, 8][..], 6)));
        assert_eq!(first_message(&octets[4..]), Some((&[9][..], 3)));
        assert_eq!(first_message(&octets[7..]), None);
        assert_eq!(first_message(&[0]), None);
    }
}

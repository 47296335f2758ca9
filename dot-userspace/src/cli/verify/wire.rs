//! Follows captured TCP connections, and tells TLS records from octets in clear.
//!
//! Before: segments in the order of the capture. After: records by version, octets in clear by sender.
//! Holds: a bounded number of connections, of each only where its next record begins.
//! Never: decrypts, keeps a payload, or counts an octet twice: what comes again, or over two interfaces, is left out.
//!
//! Source: RFC 8446 §4.1.3, §5.1; RFC 5246 §6.2.1; the PROXY protocol, versions 1 and 2.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
};

use serde::Serialize;

use super::segment::Segment;

/// Connections that are followed at once; the oldest gives way. 100 octets each.
const CONNECTIONS_MAX: usize = 16_384;
/// The header of a record: type, version, length.
const HEADER_OCTETS: usize = 5;
/// The longest payload of a record that an implementation must take (RFC 5246 §6.2.3).
const RECORD_MAX: usize = (1 << 14) + 2048;
/// The handshake record, whose first message from a server is its ServerHello.
const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
/// Octets of a ServerHello's record before its session ID: header, message header, version, random.
const BEFORE_SESSION: usize = HEADER_OCTETS + 4 + 2 + 32;
/// First octets of a PROXY header, version 2.
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const PROXY_V1: &[u8] = b"PROXY ";
/// The longest header of version 1.
const PROXY_V1_MAX: usize = 107;

/// The counts of a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Seen {
    /// TCP segments with a payload, as captured: those that came again too.
    pub(super) packets: u64,
    /// Connections with a payload.
    pub(super) connections: u64,
    pub(super) tls13: Records,
    pub(super) tls12: Records,
    /// Records of connections whose ServerHello was not captured.
    pub(super) tls: Records,
    /// Octets of PROXY headers, by which a load balancer names its client.
    pub(super) proxy_octets: u64,
    /// Octets from clients that are no TLS.
    pub(super) client_clear_octets: u64,
    /// Octets from the server that are no TLS.
    pub(super) server_clear_octets: u64,
    /// Octets from the server in TLS records.
    pub(super) server_tls_octets: u64,
    /// Octets that could not be judged: the capture began, or lost packets, inside a record.
    pub(super) unjudged_octets: u64,
}

/// A number of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Records {
    pub(super) records: u64,
    pub(super) octets: u64,
}

/// A connection: client and server.
type Ends = (SocketAddr, SocketAddr);

/// All connections of a capture.
#[derive(Default)]
pub(super) struct Wire {
    ports: Vec<u16>,
    connections: HashMap<Ends, Connection>,
    /// The same in the order in which they began.
    order: VecDeque<Ends>,
    seen: Seen,
}

#[derive(Default)]
struct Connection {
    version: Version,
    records: Records,
    is_counted: bool,
    client: Direction,
    server: Direction,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Version {
    #[default]
    Unknown,
    Tls12,
    Tls13,
}

/// The octets of one direction.
#[derive(Default)]
struct Direction {
    /// The sequence number of the next octet, once one is known.
    next: Option<u32>,
    state: State,
    /// The beginning of a record's header that ended with its segment.
    begun: Vec<u8>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// The capture began, or lost packets, inside the connection: a segment that looks like a record is waited for.
    #[default]
    Lost,
    /// No octet yet: a PROXY header may come.
    Begins,
    /// Behind this many octets of a PROXY header a record begins.
    Proxy(usize),
    /// A record begins after this many octets.
    Record(usize),
    /// No TLS: each further octet is in clear.
    Clear,
}

impl Wire {
    /// For a server at these ports.
    pub(super) fn new(ports: Vec<u16>) -> Self {
        Self { ports, ..Self::default() }
    }

    /// Judges a packet, from its IP header on.
    pub(super) fn packet(&mut self, packet: &[u8]) {
        let Some(segment) = Segment::read(packet) else { return };
        let is_server = self.ports.contains(&segment.from.port());
        if !is_server && !self.ports.contains(&segment.to.port()) {
            return;
        }
        if segment.payload.is_empty() && !segment.is_syn {
            return;
        }
        self.seen.packets += u64::from(!segment.payload.is_empty());
        let ends = if is_server { (segment.to, segment.from) } else { (segment.from, segment.to) };
        if segment.is_syn && !is_server {
            // The same ports again: another connection, unless the SYN came again.
            let first = self.connections.get(&ends).map(|known| known.client.next);
            if first.is_some_and(|next| next != Some(segment.sequence)) {
                self.end(ends);
            }
        }
        let connection = self.connection(ends);
        let direction = if is_server { &mut connection.server } else { &mut connection.client };
        let Some(fresh) = direction.fresh(&segment) else { return };
        if fresh.is_empty() {
            return;
        }
        let is_first = !std::mem::replace(&mut connection.is_counted, true);
        let mut judged = Judged::default();
        direction.judge(fresh, &mut judged);
        if is_server && connection.version == Version::Unknown {
            connection.version = judged.version.unwrap_or_default();
        }
        connection.records.records += judged.records.records;
        connection.records.octets += judged.records.octets;
        self.seen.connections += u64::from(is_first);
        self.seen.proxy_octets += judged.proxy;
        self.seen.unjudged_octets += judged.lost;
        self.seen.server_tls_octets += if is_server { judged.records.octets } else { 0 };
        let clear =
            if is_server { &mut self.seen.server_clear_octets } else { &mut self.seen.client_clear_octets };
        *clear += judged.clear;
    }

    /// Segments with a payload so far.
    pub(super) fn packets(&self) -> u64 {
        self.seen.packets
    }

    /// The counts so far.
    pub(super) fn seen(&self) -> Seen {
        let mut seen = self.seen.clone();
        for connection in self.connections.values() {
            seen.add(connection);
        }
        seen
    }

    fn connection(&mut self, ends: Ends) -> &mut Connection {
        if !self.connections.contains_key(&ends) {
            if self.order.len() >= CONNECTIONS_MAX
                && let Some(oldest) = self.order.front().copied()
            {
                self.end(oldest);
            }
            self.order.push_back(ends);
        }
        self.connections.entry(ends).or_default()
    }

    /// Forgets a connection and keeps its counts.
    fn end(&mut self, ends: Ends) {
        if let Some(connection) = self.connections.remove(&ends) {
            self.seen.add(&connection);
        }
        if let Some(at) = self.order.iter().position(|known| *known == ends) {
            self.order.remove(at);
        }
    }
}

impl Seen {
    fn add(&mut self, connection: &Connection) {
        let records = match connection.version {
            Version::Tls13 => &mut self.tls13,
            Version::Tls12 => &mut self.tls12,
            Version::Unknown => &mut self.tls,
        };
        records.records += connection.records.records;
        records.octets += connection.records.octets;
    }
}

/// What a piece of one direction held.
#[derive(Default)]
struct Judged {
    records: Records,
    proxy: u64,
    clear: u64,
    lost: u64,
    version: Option<Version>,
}

impl Direction {
    /// The octets of a segment that were not there before. `None`: it brings nothing new.
    fn fresh<'a>(&mut self, segment: &Segment<'a>) -> Option<&'a [u8]> {
        let length = u32::try_from(segment.payload.len()).ok()?;
        let end = segment.sequence.wrapping_add(length);
        let Some(next) = self.next else {
            self.next = Some(end);
            if segment.is_syn {
                self.state = State::Begins;
            }
            return Some(segment.payload);
        };
        // Serial number arithmetic (RFC 1982): less than half the space behind is before.
        let ahead = segment.sequence.wrapping_sub(next);
        if ahead == 0 {
            self.next = Some(end);
            return Some(segment.payload);
        }
        if ahead > u32::MAX / 2 {
            let known = usize::try_from(next.wrapping_sub(segment.sequence)).ok()?;
            let fresh = segment.payload.get(known..).filter(|fresh| !fresh.is_empty())?;
            self.next = Some(end);
            return Some(fresh);
        }
        // Octets are missing: those of one record, or of many.
        self.next = Some(end);
        if self.state != State::Clear {
            self.state = State::Lost;
            self.begun.clear();
        }
        Some(segment.payload)
    }

    fn judge(&mut self, octets: &[u8], judged: &mut Judged) {
        let joined;
        let mut octets = octets;
        if !self.begun.is_empty() {
            let mut begun = std::mem::take(&mut self.begun);
            begun.extend_from_slice(octets);
            joined = begun;
            octets = &joined;
        }
        while !octets.is_empty() {
            match self.state {
                State::Clear => {
                    judged.clear += octets.len() as u64;
                    return;
                }
                State::Lost if header(octets).is_none_or(|length| length.is_none()) => {
                    judged.lost += octets.len() as u64;
                    return;
                }
                State::Lost => self.state = State::Record(0),
                State::Begins => match proxy_header(octets) {
                    Proxy::Of(length) => self.state = State::Proxy(length),
                    Proxy::Part => {
                        self.begun = octets.to_vec();
                        return;
                    }
                    Proxy::None => self.state = State::Record(0),
                },
                State::Proxy(0) => self.state = State::Record(0),
                State::Proxy(left) => {
                    let taken = left.min(octets.len());
                    judged.proxy += taken as u64;
                    octets = octets.get(taken..).unwrap_or_default();
                    self.state = State::Proxy(left - taken);
                }
                State::Record(0) => match header(octets) {
                    Some(Some(length)) => {
                        judged.records.records += 1;
                        judged.version = judged.version.or_else(|| version_of(octets));
                        self.state = State::Record(HEADER_OCTETS + length);
                    }
                    Some(None) => {
                        self.begun = octets.to_vec();
                        return;
                    }
                    None => self.state = State::Clear,
                },
                State::Record(left) => {
                    let taken = left.min(octets.len());
                    judged.records.octets += taken as u64;
                    octets = octets.get(taken..).unwrap_or_default();
                    self.state = State::Record(left - taken);
                }
            }
        }
    }
}

/// The length in a record's header; `Some(None)`: these octets may be the beginning of one; `None`: they are no header.
fn header(octets: &[u8]) -> Option<Option<usize>> {
    let is_header = |(at, octet): (usize, &u8)| match at {
        0 => (20..=23).contains(octet),
        1 => *octet == 3,
        _ => (1..=3).contains(octet),
    };
    if !octets.iter().take(3).enumerate().all(is_header) {
        return None;
    }
    let Some(length) = octets.get(3..).and_then(|length| length.first_chunk()) else { return Some(None) };
    let length = usize::from(u16::from_be_bytes(*length));
    (length <= RECORD_MAX).then_some(Some(length))
}

/// The version that a ServerHello settles: suites of TLS 1.3 begin with 0x13 (RFC 8446 §B.4).
fn version_of(octets: &[u8]) -> Option<Version> {
    if *octets.first()? != HANDSHAKE || *octets.get(HEADER_OCTETS)? != SERVER_HELLO {
        return None;
    }
    let session = usize::from(*octets.get(BEFORE_SESSION)?);
    let suite = *octets.get(BEFORE_SESSION + 1 + session)?;
    Some(if suite == 0x13 { Version::Tls13 } else { Version::Tls12 })
}

/// What begins a connection behind a load balancer.
enum Proxy {
    /// A header of this length.
    Of(usize),
    /// The beginning of one, whose length is not known yet: at most [`PROXY_V1_MAX`] octets.
    Part,
    None,
}

fn proxy_header(octets: &[u8]) -> Proxy {
    let begins = |with: &[u8]| octets.iter().zip(with).all(|(octet, expected)| octet == expected);
    if begins(PROXY_V2) {
        let Some(length) = octets.get(14..).and_then(|length| length.first_chunk()) else {
            return Proxy::Part;
        };
        return Proxy::Of(16 + usize::from(u16::from_be_bytes(*length)));
    }
    if begins(PROXY_V1) {
        return match octets.windows(2).position(|pair| pair == b"\r\n") {
            Some(at) => Proxy::Of(at + 2),
            None if octets.len() <= PROXY_V1_MAX => Proxy::Part,
            None => Proxy::None,
        };
    }
    Proxy::None
}

#[cfg(test)]
mod tests;

//! What we know of a TCP connection, and whether its first octets can be TLS.
//!
//! Before: the learner saw our own SYN-ACK and wrote a [`Flow`]. After: [`crate::judge`] asks where in the
//! stream a segment lies, and whether its octets there fit.
//! Holds: the key, the value, and the arithmetic of sequence numbers, which wraps.
//! Never: keeps state of its own: each segment is judged alone, so reordering and retransmission are nothing.
//!
//! Source: RFC 9293 §3.4 (sequence numbers), RFC 8446 §5.1 and RFC 5246 §6.2.1 (record header), §4 and
//! §7.4 (handshake type).

/// A TCP sequence number, in host order.
pub type Sequence = u32;

/// One connection, seen from the client. Ten 32-bit words, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Client address; IPv4 is the first word.
    pub client: [u32; 4],
    /// Server address; IPv4 is the first word.
    pub server: [u32; 4],
    /// Client port in the high half, server port in the low one.
    pub ports: u32,
    /// 4 or 6.
    pub version: u32,
}

impl FlowKey {
    /// A key from its parts.
    #[must_use]
    #[inline(always)]
    pub const fn new(
        client: [u32; 4],
        client_port: u16,
        server: [u32; 4],
        server_port: u16,
        is_v6: bool,
    ) -> Self {
        let ports = (client_port as u32) << 16 | server_port as u32;
        Self { client, server, ports, version: if is_v6 { 6 } else { 4 } }
    }
}

/// What the learner wrote down about a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Monotonic time of our SYN-ACK, in nanoseconds.
    pub learned_ns: u64,
    /// The client's initial sequence number, as our stack accepted it.
    pub initial: Sequence,
    /// Segments refused so far.
    pub offences: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 40 && size_of::<Flow>() == 16);

/// How long after our SYN-ACK a segment is held to the template: 60 s.
///
/// Sequence numbers wrap after 4 GiB: a segment at that distance would be taken for the stream's start. A
/// session's handshake ends long before (`session.handshake_timeout`), and no client of ours sends that
/// much in a minute.
pub const ENFORCED_NS: u64 = 60_000_000_000;

impl Flow {
    /// Whether segments are still judged at `now_ns`.
    #[must_use]
    #[inline(always)]
    pub const fn is_enforced(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.learned_ns) <= ENFORCED_NS
    }
}

/// Octets at the start of a stream that a ClientHello fixes: `16 03 minor length length 01`.
pub const TEMPLATE_OCTETS: u32 = 6;

/// The part of a segment that lies within the first [`TEMPLATE_OCTETS`] of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Octets of the segment before it: sent again, from before the stream's start.
    pub skip: u32,
    /// Its place in the stream, 0 to 5.
    pub place: u32,
    /// Its length, 1 to 6.
    pub count: u32,
}

/// Which octets of a segment at `place` (of its first octet, wrapping) with `octets` are in the opening.
#[must_use]
#[inline(always)]
pub const fn opening(place: Sequence, octets: u32) -> Option<Opening> {
    // Distances up to half the space lie ahead, others behind: a segment that begins before the stream.
    let begins_before = place >= 1 << 31;
    let skip = if begins_before { place.wrapping_neg() } else { 0 };
    let place = if begins_before { 0 } else { place };
    if octets <= skip || place >= TEMPLATE_OCTETS {
        return None;
    }
    let (left, room) = (octets - skip, TEMPLATE_OCTETS - place);
    Some(Opening { skip, place, count: if left < room { left } else { room } })
}

/// Whether octets can be those of a TLS ClientHello at their place in the stream.
///
/// `octets` holds `opening.count` of them, the first in the lowest eight bits; bits above do not matter.
#[must_use]
#[inline(always)]
pub const fn fits_client_hello(octets: u64, opening: &Opening) -> bool {
    /// Record type handshake, major version 3, message type ClientHello: octets 0, 1 and 5.
    const FIXED: u64 = 0x0000_0100_0000_0316;
    const FIXED_MASK: u64 = 0x0000_ff00_0000_ffff;
    /// Minor version up to 4: clients say 1 or 3 here, and TLS 1.3 is 4 in other places.
    const MINOR_MAX: u64 = 4;
    /// High octet of the record's length: 2^14 plus 256 at most.
    const LENGTH_HIGH_MAX: u64 = 0x40;
    let shift = opening.place * 8;
    let present = ((1 << (opening.count * 8)) - 1) << shift;
    // Absent octets are zero, and zero is within both limits.
    let octets = octets << shift & present;
    let minor = octets >> 16 & 0xff;
    let length_high = octets >> 24 & 0xff;
    (octets ^ FIXED) & FIXED_MASK & present == 0 && minor <= MINOR_MAX && length_high <= LENGTH_HIGH_MAX
}

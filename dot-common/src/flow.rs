//! The state of a TCP connection, and whether the first octets of its stream can be TLS.
//!
//! Before: the learner saw our own SYN-ACK and wrote a [`Flow`]. After: [`crate::judge`] asks for the place of a
//! segment in its stream, and whether its octets fit that place.
//! Holds: the key, the value, and the arithmetic of sequence numbers, which wraps.
//! Never: keeps state of its own: each segment is judged alone, so reordering and retransmission change nothing.
//!
//! Source: RFC 9293 §3.4 (sequence numbers), RFC 8446 §5.1 and RFC 5246 §6.2.1 (record header), §4 and
//! §7.4 (handshake type).

/// A TCP sequence number, in host order.
pub type Sequence = u32;

/// One connection, seen from the client. 40 octets, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Client address, its octets in the order of the wire; IPv4 is the first four.
    pub client: [u64; 2],
    /// Server address, in the same way.
    pub server: [u64; 2],
    /// Client port in the high half, server port in the low one.
    pub ports: u32,
    /// 4 or 6.
    pub version: u32,
}

impl FlowKey {
    /// A key from its parts: addresses as words of RFC diagrams, highest bit first.
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
        Self { client: raw(client), server: raw(server), ports, version: if is_v6 { 6 } else { 4 } }
    }

    /// The client's address as words, highest bit first.
    #[must_use]
    #[inline(always)]
    pub const fn client_words(&self) -> [u32; 4] {
        words(self.client)
    }

    /// The server's address as words, highest bit first.
    #[must_use]
    #[inline(always)]
    pub const fn server_words(&self) -> [u32; 4] {
        words(self.server)
    }

    /// The key among flows of IP version 4: client, server and ports.
    #[must_use]
    #[inline(always)]
    pub const fn v4(&self) -> [u32; 3] {
        [self.client[0] as u32, self.server[0] as u32, self.ports]
    }

    /// The key among flows of IP version 6, in the same order.
    #[must_use]
    #[inline(always)]
    pub const fn v6(&self) -> [u32; 9] {
        let ([a, b], [c, d]) = (self.client, self.server);
        let (e, f, g, h) = (a >> 32, b >> 32, c >> 32, d >> 32);
        [a as u32, e as u32, b as u32, f as u32, c as u32, g as u32, d as u32, h as u32, self.ports]
    }

    /// Whether the flow is of IP version 6.
    #[must_use]
    #[inline(always)]
    pub const fn is_v6(&self) -> bool {
        self.version == 6
    }
}

/// Words as octets in the order of the wire, the first of them lowest.
#[inline(always)]
const fn raw([a, b, c, d]: [u32; 4]) -> [u64; 2] {
    [
        (b.swap_bytes() as u64) << 32 | a.swap_bytes() as u64,
        (d.swap_bytes() as u64) << 32 | c.swap_bytes() as u64,
    ]
}

/// The inverse of [`raw`]: words from octets.
#[inline(always)]
const fn words([a, b]: [u64; 2]) -> [u32; 4] {
    let (a, b) = (a.swap_bytes(), b.swap_bytes());
    [(a >> 32) as u32, a as u32, (b >> 32) as u32, b as u32]
}

/// The learner's record of a connection.
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

/// How long after our SYN-ACK a segment is compared with the template: 60 s.
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
    /// Octets of the segment that lie before the opening: a retransmission from before the start of the stream.
    pub skip: u32,
    /// Its place in the stream, 0 to 5.
    pub place: u32,
    /// Its length, 1 to 6.
    pub count: u32,
}

/// Which octets of a segment at `place` (the place of its first octet, wrapping) with `octets` octets are in the
/// opening.
#[must_use]
#[inline(always)]
pub const fn opening(place: Sequence, octets: u32) -> Option<Opening> {
    // Distances up to half the space lie ahead, others behind: such a segment begins before the stream.
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

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const HELLO: [u8; 6] = [0x16, 3, 1, 2, 0, 1];

    /// The template again, octet by octet, in the plainest form.
    fn fits_octet(place: usize, octet: u8) -> bool {
        match place {
            0 => octet == 0x16,
            1 => octet == 3,
            2 => octet <= 4,
            3 => octet <= 0x40,
            4 => true,
            _ => octet == 1,
        }
    }

    fn packed(octets: &[u8]) -> u64 {
        octets.iter().rev().fold(0, |word, octet| word << 8 | u64::from(*octet))
    }

    /// Goal: a real ClientHello fits however it is cut. Method: every part of it.
    #[test]
    fn every_part_of_a_client_hello_fits() {
        for from in 0..6 {
            for to in from + 1..=6 {
                let part = Opening { skip: 0, place: from as u32, count: (to - from) as u32 };
                assert!(fits_client_hello(packed(&HELLO[from..to]), &part), "{from}..{to}");
            }
        }
    }

    /// Goal: enforcement ends after a minute, and a clock that is behind the learner's does not end it earlier.
    #[test]
    fn enforcement_ends() {
        let flow = Flow { learned_ns: 5_000_000_000, initial: 0, offences: 0 };
        assert!(flow.is_enforced(0));
        assert!(flow.is_enforced(65_000_000_000));
        assert!(!flow.is_enforced(65_000_000_001));
    }

    proptest! {
        /// Goal: the masked arithmetic is the octet-by-octet template. Method: random octets near the
        /// template; garbage above the counted octets must not matter.
        #[test]
        fn template_is_what_it_says(
            octets in prop::collection::vec(prop_oneof![0u8..6, Just(0x16), Just(0x40), any::<u8>()], 6),
            garbage: u64, place in 0usize..6, length in 1usize..=6,
        ) {
            let count = length.min(6 - place);
            let part = Opening { skip: 0, place: place as u32, count: count as u32 };
            let word = packed(&octets[..count]) | garbage << (count * 8);
            let wanted = (0..count).all(|index| fits_octet(place + index, octets[index]));
            prop_assert_eq!(fits_client_hello(word, &part), wanted);
        }

        /// Goal: an opening is exactly the overlap of a segment with the first six octets of its stream.
        /// Method: counts the overlap octet by octet, with positions that wrap.
        #[test]
        fn opening_is_the_overlap(place in prop_oneof![0u32..9, (u32::MAX - 40)..=u32::MAX, any::<u32>()], octets in 0u32..70_000) {
            let far = u64::from(octets.min(50));
            let signed = i64::from(place as i32);
            let inside: Vec<i64> = (0..i64::try_from(far).unwrap()).filter(|index| (0..6).contains(&(signed + index))).collect();
            // A segment that begins more than 50 octets early may reach the opening too; the test does not enumerate
            // those.
            prop_assume!(signed >= -40);
            match opening(place, octets) {
                None => prop_assert!(inside.is_empty()),
                Some(found) => {
                    prop_assert_eq!(i64::from(found.skip), inside[0]);
                    prop_assert_eq!(i64::from(found.place), signed + inside[0]);
                    prop_assert_eq!(found.count as usize, inside.len());
                }
            }
        }

        /// Goal: no position and length can panic, or lead outside the segment.
        #[test]
        fn opening_stays_inside_the_segment(place: u32, octets: u32) {
            if let Some(found) = opening(place, octets) {
                prop_assert!((1..=6).contains(&found.count) && found.place + found.count <= 6);
                prop_assert!(u64::from(found.skip) + u64::from(found.count) <= u64::from(octets));
            }
        }
    }
}

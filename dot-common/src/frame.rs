//! Reads a frame within its bounds. The parser reaches the octets through this file only.
//!
//! Before: the driver, the stack, or a test has a frame. After: [`crate::packet`] reads headers,
//! [`crate::judge`] the first octets of a stream.
//! Holds: the two traits, and their implementation for a plain slice. dot-ebpf implements them for kernel contexts with
//! pointers that the verifier follows.
//! Never: panics; a field outside the frame is `None`.

use crate::walk::{self, Walked};

/// Offset of a frame's first EtherType, behind two addresses.
const ETHERTYPE_OFFSET: u32 = 12;

/// Largest offset at which a header may begin.
///
/// Eight VLAN tags, IPv6 and seven extension headers of 2,048 octets end below 14,500; headers beyond that are refused.
/// The kernel's verifier needs a bound, and this one can be a mask.
pub const HEADER_OFFSET_MAX: u32 = 0x3fff;

/// Headers: 16- and 32-bit fields in the order in which RFC diagrams draw them.
pub trait Headers {
    /// Whether every packet is walked ([`Headers::walk`]), also one whose headers follow each other directly. That
    /// leaves the verifier fewer paths, and costs each packet some nanoseconds.
    const WALKS_ALWAYS: bool = false;

    /// Octets of the whole frame, also of those parts that lie outside the first buffer.
    fn octets(&self) -> u32;

    /// Whether the frame has that many octets. The kernel half looks at the parts outside the first buffer only if the
    /// first buffer is too short.
    fn reaches(&self, end: u32) -> bool {
        end <= self.octets()
    }

    /// The 16-bit field at `offset`, in host order.
    fn u16_at(&self, offset: u32) -> Option<u16>;

    /// `N` 32-bit words from `offset` on, in host order: bit 0 of the RFC's diagram is the highest bit.
    fn words_at<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;

    /// `N` times eight octets from `offset` on, in their order in memory: the first is the lowest eight bits.
    fn octets_at<const N: usize>(&self, offset: u32) -> Option<[u64; N]>;

    /// The type of what follows the link header, and where that begins. The default reads Ethernet; tunnels have no
    /// link header.
    #[inline(always)]
    fn link(&self) -> Option<(u16, u32)> {
        Some((self.u16_at(ETHERTYPE_OFFSET)?, ETHERTYPE_OFFSET + 2))
    }

    /// Returns its argument.
    ///
    /// In the kernel `place` is in a map and is read again from there. The verifier then knows nothing about the origin
    /// of the value, so that all paths through the parser become one (159,821 verified instructions became 7,010 when
    /// this was tried).
    fn settle<'a, T>(&self, place: &'a mut T) -> &'a mut T {
        place
    }

    /// [`walk::locate`], in the cheapest way: the kernel half makes it a function call, because few frames need it.
    fn walk(&self, located: &mut Located) -> Walked
    where
        Self: Sized,
    {
        walk::locate(self, located)
    }
}

/// Payload: a few octets of a stream, in whichever buffer they lie.
pub trait Payload: Headers {
    /// `count` octets (1 to 8) from `offset` on; the first is the lowest eight bits.
    fn load(&self, offset: u32, count: u32) -> Option<u64>;

    /// Returns its argument; see [`Headers::settle`]. `None` never comes: the kernel's verifier alone does not know that,
    /// and a second value in its place would double every path that follows.
    fn forget(&self, value: u32) -> Option<u32> {
        Some(value)
    }
}

/// Where the headers of a datagram lie. All offsets count from the frame's first octet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Located {
    /// First octet of the IP header.
    pub ip: u32,
    /// First octet of the transport header.
    pub transport: u32,
    /// One past the datagram's last octet, as its IP header claims.
    pub end: u32,
    /// Protocol number in bits 0 to 7, [`Located::V6`], [`Located::FIRST_FRAGMENT`], [`Located::DO53`].
    pub kind: u32,
    /// Source port in the high half, destination port in the low one; 0: not read.
    pub ports: u32,
}

impl Located {
    /// Bit of `kind`: IPv6.
    pub const V6: u32 = 1 << 8;
    /// Bit of `kind`: the first of several fragments.
    pub const FIRST_FRAGMENT: u32 = 1 << 9;
    /// Bit of `kind`: the destination port is that of cleartext DNS, and none of DNS over TLS.
    pub const DO53: u32 = 1 << 10;

    /// The transport protocol's number.
    #[must_use]
    #[inline(always)]
    pub const fn protocol(&self) -> u32 {
        self.kind & 0xff
    }

    /// Whether the IP header is version 6.
    #[must_use]
    #[inline(always)]
    pub const fn is_v6(&self) -> bool {
        self.kind & Self::V6 != 0
    }

    /// Whether the destination port is that of cleartext DNS.
    #[must_use]
    #[inline(always)]
    pub const fn is_do53(&self) -> bool {
        self.kind & Self::DO53 != 0
    }

    /// Whether more fragments follow this first one.
    #[must_use]
    #[inline(always)]
    pub const fn is_first_fragment(&self) -> bool {
        self.kind & Self::FIRST_FRAGMENT != 0
    }
}

impl Headers for &[u8] {
    fn octets(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn u16_at(&self, offset: u32) -> Option<u16> {
        let octets = header(self, offset)?.first_chunk::<2>()?;
        Some(u16::from_be_bytes(*octets))
    }

    fn words_at<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let (octets, _) = header(self, offset)?.as_chunks::<4>();
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            *word = u32::from_be_bytes(*octets.get(index)?);
        }
        Some(words)
    }

    fn octets_at<const N: usize>(&self, offset: u32) -> Option<[u64; N]> {
        let (octets, _) = header(self, offset)?.as_chunks::<8>();
        let mut found = [0; N];
        for (index, eight) in found.iter_mut().enumerate() {
            *eight = u64::from_le_bytes(*octets.get(index)?);
        }
        Some(found)
    }
}

impl Payload for &[u8] {
    fn load(&self, offset: u32, count: u32) -> Option<u64> {
        let from = usize::try_from(offset).ok()?;
        let count = usize::try_from(count).ok().filter(|count| (1..=8).contains(count))?;
        let octets = self.get(from..from.checked_add(count)?)?;
        Some(octets.iter().rev().fold(0, |word, octet| word << 8 | u64::from(*octet)))
    }
}

fn header(frame: &[u8], offset: u32) -> Option<&[u8]> {
    if offset > HEADER_OFFSET_MAX {
        return None;
    }
    frame.get(usize::try_from(offset).ok()?..)
}

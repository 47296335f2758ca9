//! Reads a packet at tc from its network header on, whether or not its interface has a link header.
//!
//! Before: the stack has a packet, and has removed its outer VLAN tag. After: `dot_common::packet` reads it like any
//! frame.
//! Holds: [`Datagram`]: the kernel copies the octets out of the first buffer, so that no pointer needs a check.
//! Never: writes.
//!
//! The packet's first octet does not show where the network header is: on a GRE interface it belongs to the outer IP
//! header, on a tun to the packet itself.

use core::mem::MaybeUninit;

use aya_ebpf::{helpers::bpf_skb_load_bytes_relative, programs::TcContext};
use dot_common::{
    frame::{Headers, Located, Payload},
    walk::Walked,
};

use crate::{
    context::{forget, opaque},
    scratch, subprograms,
};

/// BPF_HDR_START_NET.
const FROM_NETWORK_HEADER: u32 = 1;

const TCP: u32 = 6;
const UDP: u32 = 17;

/// No link header, and no outer header of a tunnel, is longer.
const LINK_OCTETS_MAX: u32 = 128;

/// A packet without its link header.
pub(crate) struct Datagram<'a>(pub(crate) &'a TcContext);

/// Octets with which a packet can be attributed to a port of ours: Ethernet, IPv6, eight octets. The first buffer of a
/// bulk transfer's segment (with timestamps) always holds at least that much, so that nothing is copied for other
/// services' transfers.
pub(crate) const ATTRIBUTABLE_OCTETS: usize = 66;
/// The same with all headers except a chain of extension headers, and with the octets that a gate looks at.
pub(crate) const JUDGEABLE_OCTETS: usize = 192;
/// The same with a chain of extension headers, or tags; headers beyond that are not walked.
pub(crate) const WALKABLE_OCTETS: usize = 4096;

impl Datagram<'_> {
    /// Makes sure that the packet's first buffer, from which headers are copied, holds that many octets, if the packet
    /// has them.
    #[inline(always)]
    pub(crate) fn gather<const OCTETS: usize>(&self) {
        if self.0.data() + OCTETS > self.0.data_end() {
            let (all, wanted) = (self.0.len(), OCTETS as u32);
            // Octets that are not available are not read, and so the packet is not attributed.
            let _ = self.0.pull_data(if all < wanted { all } else { wanted });
        }
    }

    /// Whether it is a TCP segment whose fixed header lies in the first buffer, and longer than what [`Headers::reaches`] copies to
    /// know. Nothing of it is gathered: of a segment that another socket of this machine still holds, as on a veth, that would be a
    /// copy. [`Payload::load`] gathers where a gate looks at the payload.
    #[inline(always)]
    pub(crate) fn is_long_segment(&self, located: &Located) -> bool {
        located.protocol() == TCP
            && self.0.len() as usize > JUDGEABLE_OCTETS
            && self.u16_at(located.transport + 14).is_some()
    }

    /// Whether IP follows directly, and TCP or UDP behind it.
    #[inline(always)]
    pub(crate) fn is_straight(&self) -> bool {
        match self.link() {
            Some((0x0800, _)) => self.copy::<u8>(0) == Some(0x45),
            Some((0x86dd, _)) => matches!(self.copy::<u8>(6).map(u32::from), Some(TCP | UDP)),
            _ => false,
        }
    }

    /// Copies as many octets as `T` has.
    #[inline(always)]
    fn copy<T: Copy>(&self, offset: u32) -> Option<T> {
        let mut copied = MaybeUninit::<T>::uninit();
        let (skb, octets) = (self.0.skb.skb, size_of::<T>() as u32);
        // SAFETY: the context is the one the kernel gave this program; there is room for that many octets.
        let failed = unsafe {
            bpf_skb_load_bytes_relative(
                skb.cast(),
                offset,
                copied.as_mut_ptr().cast(),
                octets,
                FROM_NETWORK_HEADER,
            )
        };
        // SAFETY: the kernel wrote all of it; `T` is integers, of which every bit pattern is a value.
        if failed == 0 { Some(unsafe { copied.assume_init() }) } else { None }
    }
}

impl Headers for Datagram<'_> {
    const WALKS_ALWAYS: bool = true;

    /// This includes the link header, whose length is not known. A packet that claims only that many octets too many is
    /// left to the stack, which refuses it.
    #[inline(always)]
    fn octets(&self) -> u32 {
        self.0.len()
    }

    #[inline(always)]
    fn reaches(&self, end: u32) -> bool {
        // A short packet lies in the first buffer as a whole.
        self.copy::<u8>(end.wrapping_sub(1)).is_some()
            || end <= self.0.len() && self.0.len() as usize > JUDGEABLE_OCTETS
    }

    #[inline(always)]
    fn u16_at(&self, offset: u32) -> Option<u16> {
        self.copy::<u16>(offset).map(u16::from_be)
    }

    #[inline(always)]
    fn words_at<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.copy::<[u32; N]>(offset).map(|words| words.map(u32::from_be))
    }

    #[inline(always)]
    fn octets_at<const N: usize>(&self, offset: u32) -> Option<[u64; N]> {
        self.copy(offset)
    }

    #[inline(always)]
    fn link(&self) -> Option<(u16, u32)> {
        // SAFETY: the context is the one the kernel gave this program.
        let protocol = unsafe { (*self.0.skb.skb).protocol };
        Some((u16::from_be(protocol as u16), 0))
    }

    #[inline(always)]
    fn settle<'a, T>(&self, place: &'a mut T) -> &'a mut T {
        // SAFETY: as above.
        unsafe { &mut *forget(place) }
    }

    #[inline(always)]
    fn walk(&self, _: &mut Located) -> Walked {
        // The function finds the same map value by itself.
        subprograms::walk_datagram(self.0)
    }
}

impl Payload for Datagram<'_> {
    #[inline(always)]
    fn load(&self, offset: u32, count: u32) -> Option<u64> {
        // 1 to 8 by construction: the verifier of Linux 6.1 learns nothing from a comparison with zero.
        let count = (opaque(count.wrapping_sub(1) as usize) & 7) + 1;
        let mut octets = 0u64;
        let mut copy = || {
            // SAFETY: `octets` is eight octets on the stack, `count` is at most eight.
            unsafe {
                bpf_skb_load_bytes_relative(
                    self.0.skb.skb.cast(),
                    offset,
                    (&raw mut octets).cast(),
                    count as u32,
                    FROM_NETWORK_HEADER,
                )
            }
        };
        if copy() == 0 {
            return Some(octets);
        }
        // It may lie behind a long chain, and in another buffer.
        let end = offset + count as u32 + LINK_OCTETS_MAX;
        let all = self.0.len();
        let _ = self.0.pull_data(if end < all { end } else { all });
        // The BPF target is little-endian: the first octet is the lowest.
        if copy() == 0 { Some(octets) } else { None }
    }

    #[inline(always)]
    fn forget(&self, value: u32) -> Option<u32> {
        scratch::through_scratch(value)
    }
}

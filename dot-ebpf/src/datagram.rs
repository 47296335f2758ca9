//! Reads a packet at tc from its network header on, whatever link header its interface has, or none.
//!
//! Before: the stack has a packet, and has taken its outer VLAN tag off. After: `dot_common::packet` reads it like any frame.
//! Holds: [`Datagram`]: the kernel copies what is asked for out of the first buffer, so that no pointer is checked.
//! Never: writes.
//!
//! The packet's first octet is no help: it is the outer IP header on a GRE interface, and the packet itself on a tun.

use core::mem::MaybeUninit;

use aya_ebpf::{helpers::bpf_skb_load_bytes_relative, programs::TcContext};
use dot_common::{
    frame::{Headers, Located, Payload},
    walk::Walked,
};

use crate::{
    context::{forget, opaque},
    maps, subprograms,
};

/// BPF_HDR_START_NET.
const FROM_NETWORK_HEADER: u32 = 1;

/// No link header, and no outer header of a tunnel, is longer.
const LINK_OCTETS_MAX: u32 = 128;

/// A packet without its link header.
pub(crate) struct Datagram<'a>(pub(crate) &'a TcContext);

/// Octets with which a packet can be attributed to a port of ours: Ethernet, IPv6, eight octets. No less of a bulk transfer's
/// segments, which have timestamps, lies in a first buffer anywhere, so that nothing of others' is copied.
pub(crate) const ATTRIBUTABLE_OCTETS: usize = 66;
/// The same with all headers but a chain of extension headers, and what a gate looks at.
pub(crate) const JUDGEABLE_OCTETS: usize = 192;
/// The same with a chain of extension headers, or tags; what lies beyond is not walked.
pub(crate) const WALKABLE_OCTETS: usize = 4096;

impl Datagram<'_> {
    /// Has so many octets in the packet's first buffer, from which headers are copied, if there are so many.
    #[inline(always)]
    pub(crate) fn gather<const OCTETS: usize>(&self) {
        if self.0.data() + OCTETS > self.0.data_end() {
            let (all, wanted) = (self.0.len(), OCTETS as u32);
            // What cannot be had is not read, and so not attributed.
            let _ = self.0.pull_data(if all < wanted { all } else { wanted });
        }
    }

    /// Whether IP is at once, and TCP or UDP behind it.
    #[inline(always)]
    pub(crate) fn is_straight(&self) -> bool {
        const TCP: u8 = 6;
        const UDP: u8 = 17;
        match self.link() {
            Some((0x0800, _)) => self.copy::<u8>(0) == Some(0x45),
            Some((0x86dd, _)) => matches!(self.copy::<u8>(6), Some(TCP | UDP)),
            _ => false,
        }
    }

    /// Copies as many octets as `T` has.
    #[inline(always)]
    fn copy<T: Copy>(&self, offset: u32) -> Option<T> {
        let mut copied = MaybeUninit::<T>::uninit();
        let (skb, octets) = (self.0.skb.skb, size_of::<T>() as u32);
        // SAFETY: the context is the one the kernel gave this program; there is room for so many octets.
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

    /// With the link header, whose length is not known: what claims so few octets too many is the stack's to refuse.
    #[inline(always)]
    fn octets(&self) -> u32 {
        self.0.len()
    }

    #[inline(always)]
    fn reaches(&self, end: u32) -> bool {
        // A short packet lies in the first buffer, whole.
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
        // SAFETY: the same place.
        unsafe { &mut *forget(place) }
    }

    #[inline(always)]
    fn walk(&self, _: &mut Located) -> Walked {
        // The function finds the same room by itself.
        subprograms::walk_datagram(self.0)
    }
}

impl Payload for Datagram<'_> {
    #[inline(always)]
    fn load(&self, offset: u32, count: u32) -> Option<u64> {
        // 1 to 8 by construction: Linux 6.1 learns nothing from a comparison with zero.
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
        // Behind a long chain, and in another buffer.
        let end = offset + count as u32 + LINK_OCTETS_MAX;
        let all = self.0.len();
        let _ = self.0.pull_data(if end < all { end } else { all });
        // BPF is little-endian as we build it: the first octet is the lowest.
        if copy() == 0 { Some(octets) } else { None }
    }

    #[inline(always)]
    fn forget(&self, value: u32) -> u32 {
        maps::through_scratch(value).unwrap_or_default()
    }
}

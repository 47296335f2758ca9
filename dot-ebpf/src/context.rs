//! Reads and writes frames within bounds that the kernel's verifier can follow.
//!
//! Before: a program's context. After: `dot_common::packet` reads it like any other frame.
//! Holds: [`Frame`] for the two kinds of context, and the only pointers into packets in this crate.
//! Never: keeps a pointer: each access forms its own, checks it, uses it.
//!
//! The idiom: make the offset opaque to LLVM, bound it, add it to the frame's start, make the sum opaque,
//! check *that* pointer against the end, and use *that* pointer. Otherwise LLVM checks one register and
//! reads through another, and Linux 6.1 refuses.

use core::arch::asm;

use aya_ebpf::{
    helpers::{bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::{TcContext, XdpContext},
};
use dot_common::{
    frame::{HEADER_OFFSET_MAX, Headers, Located, Payload},
    walk::{self, Walked},
};

use crate::{scratch, subprograms};

/// A context whose first buffer can be addressed.
pub(crate) trait Linear {
    /// [`dot_common::walk::locate`]: a function call for one kind of context, inlined for the other.
    fn walk(&self, located: &mut Located) -> Walked
    where
        Self: Sized,
    {
        walk::locate(&Frame(self), located)
    }

    /// Address of the frame's first octet.
    fn start(&self) -> usize;
    /// Address one past the first buffer's last octet.
    fn end(&self) -> usize;
    /// Octets of the frame in all its buffers.
    fn octets(&self) -> u32;
}

impl Linear for XdpContext {
    #[inline(always)]
    fn walk(&self, _: &mut Located) -> Walked {
        // The function finds the same map value by itself.
        subprograms::walk(self)
    }

    #[inline(always)]
    fn start(&self) -> usize {
        opaque(self.data())
    }

    #[inline(always)]
    fn end(&self) -> usize {
        opaque(self.data_end())
    }

    #[inline(always)]
    fn octets(&self) -> u32 {
        // SAFETY: the context is the one the kernel gave this program.
        let octets = unsafe { bpf_xdp_get_buff_len(self.ctx) };
        octets as u32
    }
}

impl Linear for TcContext {
    #[inline(always)]
    fn start(&self) -> usize {
        opaque(self.data())
    }

    #[inline(always)]
    fn end(&self) -> usize {
        opaque(self.data_end())
    }

    #[inline(always)]
    fn octets(&self) -> u32 {
        self.len()
    }
}

/// The frame of a context.
pub(crate) struct Frame<'a, C>(pub(crate) &'a C);

impl<C: Linear> Frame<'_, C> {
    /// A checked pointer to `OCTETS` octets at `offset`.
    #[inline(always)]
    fn at<const OCTETS: usize>(&self, offset: u32) -> Option<usize> {
        let offset = opaque(offset as usize);
        if offset > HEADER_OFFSET_MAX as usize {
            return None;
        }
        let pointer = opaque(self.0.start() + offset);
        if pointer + OCTETS > self.0.end() { None } else { Some(pointer) }
    }

    /// Writes the 16-bit field at `offset`, given in host order.
    #[inline(always)]
    pub(crate) fn put_u16(&self, offset: u32, value: u16) -> Option<()> {
        let pointer = self.at::<2>(offset)?;
        // SAFETY: `at` checked two octets; BPF stores may be unaligned, which a Rust store may not.
        unsafe {
            asm!("*(u16 *)({to} + 0) = {value}", to = in(reg) pointer,
                value = in(reg) u64::from(value.to_be()), options(nostack, preserves_flags));
        }
        Some(())
    }

    /// Writes the 32-bit word at `offset`, given in host order.
    #[inline(always)]
    pub(crate) fn put_word(&self, offset: u32, value: u32) -> Option<()> {
        let pointer = self.at::<4>(offset)?;
        // SAFETY: `at` checked four octets; BPF stores may be unaligned, which a Rust store may not.
        unsafe {
            asm!("*(u32 *)({to} + 0) = {value}", to = in(reg) pointer,
                value = in(reg) u64::from(value.to_be()), options(nostack, preserves_flags));
        }
        Some(())
    }
}

impl Frame<'_, XdpContext> {
    /// The number of the interface on which the frame came in.
    #[inline(always)]
    pub(crate) fn interface(&self) -> u32 {
        // SAFETY: the context is the one the kernel gave this program.
        unsafe { (*self.0.ctx).ingress_ifindex }
    }

    /// Sends the frame back: Ethernet's destination and source change places, as three words for twelve octets.
    #[inline(always)]
    pub(crate) fn turn_round(&self) -> Option<()> {
        let [a, b, c] = self.words_at::<3>(0)?;
        self.put_word(0, b << 16 | c >> 16)?;
        self.put_word(4, c << 16 | a >> 16)?;
        self.put_word(8, a << 16 | b >> 16)
    }

    /// Removes that many octets from the frame's end.
    #[inline(always)]
    pub(crate) fn shorten(&self, octets: u32) -> Option<()> {
        if octets == 0 {
            return Some(());
        }
        // SAFETY: the context is the one the kernel gave this program; each access forms its own pointer.
        let failed = unsafe { bpf_xdp_adjust_tail(self.0.ctx, -(octets as i32)) };
        if failed == 0 { Some(()) } else { None }
    }
}

impl<C: Linear> Headers for Frame<'_, C> {
    #[inline(always)]
    fn octets(&self) -> u32 {
        self.0.octets()
    }

    #[inline(always)]
    fn reaches(&self, end: u32) -> bool {
        // A comparison of pointers costs nothing, the helper a few nanoseconds a packet.
        self.at::<0>(end).is_some() || end <= self.0.octets()
    }

    #[inline(always)]
    fn u16_at(&self, offset: u32) -> Option<u16> {
        let pointer = self.at::<2>(offset)?;
        let field: u64;
        // SAFETY: `at` checked two octets; BPF loads may be unaligned, which a Rust load may not.
        unsafe {
            asm!("{field} = *(u16 *)({from} + 0)", field = lateout(reg) field, from = in(reg) pointer,
                options(nostack, preserves_flags, readonly));
        }
        Some(u16::from_be(field as u16))
    }

    #[inline(always)]
    fn words_at<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        const { assert!(N <= 8) };
        // One check for the largest need; `N * 4` cannot be a const argument on a stable compiler.
        let first = match N {
            1 => self.at::<4>(offset)?,
            2 => self.at::<8>(offset)?,
            3 => self.at::<12>(offset)?,
            4 => self.at::<16>(offset)?,
            5 => self.at::<20>(offset)?,
            _ => self.at::<32>(offset)?,
        };
        let mut words = [0; N];
        let mut index = 0;
        while index < N {
            let word: u64;
            // SAFETY: `at` checked `N` words; BPF loads may be unaligned, which a Rust load may not.
            unsafe {
                asm!("{word} = *(u32 *)({from} + 0)", word = lateout(reg) word,
                    from = in(reg) first + index * 4, options(nostack, preserves_flags, readonly));
            }
            words[index] = u32::from_be(word as u32);
            index += 1;
        }
        Some(words)
    }

    #[inline(always)]
    fn octets_at<const N: usize>(&self, offset: u32) -> Option<[u64; N]> {
        const { assert!(N == 1 || N == 4) };
        let first = if N == 1 { self.at::<8>(offset)? } else { self.at::<32>(offset)? };
        let mut found = [0; N];
        let mut index = 0;
        while index < N {
            // SAFETY: `at` checked `N` times eight octets; BPF loads may be unaligned, which a Rust load may not.
            unsafe {
                asm!("{octets} = *(u64 *)({from} + 0)", octets = lateout(reg) found[index],
                    from = in(reg) first + index * 8, options(nostack, preserves_flags, readonly));
            }
            index += 1;
        }
        Some(found)
    }

    #[inline(always)]
    fn settle<'a, T>(&self, place: &'a mut T) -> &'a mut T {
        // SAFETY: the same pointer as above.
        unsafe { &mut *forget(place) }
    }

    #[inline(always)]
    fn walk(&self, located: &mut Located) -> Walked {
        self.0.walk(located)
    }
}

impl Payload for Frame<'_, XdpContext> {
    #[inline(always)]
    fn load(&self, offset: u32, count: u32) -> Option<u64> {
        // 1 to 8 by construction: the verifier of Linux 6.1 learns nothing from a comparison with zero.
        let count = (opaque(count.wrapping_sub(1) as usize) & 7) + 1;
        let mut octets = 0u64;
        // SAFETY: `octets` is eight octets on the stack, `count` is at most eight.
        let failed =
            unsafe { bpf_xdp_load_bytes(self.0.ctx, offset, (&raw mut octets).cast(), count as u32) };
        // The BPF target is little-endian: the first octet is the lowest.
        if failed == 0 { Some(octets) } else { None }
    }

    #[inline(always)]
    fn forget(&self, value: u32) -> Option<u32> {
        scratch::through_scratch(value)
    }
}

/// Hides from LLVM what a pointer points to.
#[inline(always)]
pub(crate) fn forget<T>(mut pointer: *mut T) -> *mut T {
    // SAFETY: moves a register to itself; without `nomem` LLVM must assume that memory has changed.
    unsafe { asm!("{0} = {0}", inout(reg) pointer, options(nostack, preserves_flags)) };
    pointer
}

/// Hides a value's history from LLVM, so that later checks apply to the register that is used.
#[inline(always)]
pub(crate) fn opaque(mut value: usize) -> usize {
    // SAFETY: moves a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack, preserves_flags)) };
    value
}

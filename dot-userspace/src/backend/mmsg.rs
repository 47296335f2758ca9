//! `sendmmsg` and `recvmmsg` over a connected socket. The only `unsafe` of the engine's query path.
//!
//! Before: `backend::udp` has a batch, or room for one. After: one system call for all of it.
//! Never: blocks, allocates once warm, or keeps a pointer past the call.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::RawFd,
};

/// Most datagrams of one call, each way.
pub const BATCH_MAX: usize = 64;
/// Room for one datagram: more than any backend may send to the 1400 octets we advertise.
pub const DATAGRAM_OCTETS_MAX: usize = 4096;

/// Sends up to [`BATCH_MAX`] datagrams; returns how many the kernel took.
///
/// # Errors
/// The error of the *first* datagram: the kernel reports a later one's error at the next call.
pub fn send<'a>(socket: RawFd, datagrams: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
    let mut slices: [IoSlice<'_>; BATCH_MAX] = std::array::from_fn(|_| IoSlice::new(&[]));
    let mut count = 0;
    for (slice, datagram) in slices.iter_mut().zip(datagrams) {
        *slice = IoSlice::new(datagram);
        count += 1;
    }
    let mut headers = [EMPTY; BATCH_MAX];
    for (header, slice) in headers.iter_mut().zip(&mut slices) {
        // An IoSlice is an iovec (std guarantees the ABI); the kernel only reads through it.
        header.msg_hdr.msg_iov = std::ptr::from_mut(slice).cast();
        header.msg_hdr.msg_iovlen = 1;
    }
    let count = libc::c_uint::try_from(count).unwrap_or_default();
    // SAFETY: `headers` holds at least `count` entries, each with one iovec into `slices`, and both
    // outlive the call. No name or control buffer is set.
    let sent = unsafe { libc::sendmmsg(socket, headers.as_mut_ptr(), count, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Room for one batch of received datagrams; one per worker.
pub struct Inbound {
    octets: Box<[[u8; DATAGRAM_OCTETS_MAX]]>,
    lengths: [(usize, bool); BATCH_MAX],
}

impl Default for Inbound {
    fn default() -> Self {
        let octets = vec![[0; DATAGRAM_OCTETS_MAX]; BATCH_MAX].into_boxed_slice();
        Self { octets, lengths: [(0, false); BATCH_MAX] }
    }
}

impl Inbound {
    /// Takes up to [`BATCH_MAX`] waiting datagrams; returns how many.
    ///
    /// # Errors
    /// `WouldBlock` when none waits; `ConnectionRefused` when an earlier one met a closed port.
    pub fn receive(&mut self, socket: RawFd) -> io::Result<usize> {
        let mut octets = self.octets.iter_mut();
        let mut slices: [IoSliceMut<'_>; BATCH_MAX] =
            std::array::from_fn(|_| IoSliceMut::new(octets.next().map_or(&mut [], |room| room)));
        let mut headers = [EMPTY; BATCH_MAX];
        for (header, slice) in headers.iter_mut().zip(&mut slices) {
            header.msg_hdr.msg_iov = std::ptr::from_mut(slice).cast();
            header.msg_hdr.msg_iovlen = 1;
        }
        let count = libc::c_uint::try_from(BATCH_MAX).unwrap_or_default();
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: as in `send`; the kernel writes at most each iovec's length into rooms that we own.
        let got = unsafe { libc::recvmmsg(socket, headers.as_mut_ptr(), count, flags, std::ptr::null_mut()) };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        for (length, header) in self.lengths.iter_mut().zip(headers.iter().take(got)) {
            let octets = usize::try_from(header.msg_len).unwrap_or_default();
            *length = (octets, header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0);
        }
        Ok(got)
    }

    /// The datagrams of the last call, and whether each was cut to fit.
    pub fn datagrams(&self, count: usize) -> impl Iterator<Item = (&[u8], bool)> {
        let rooms = self.octets.iter().zip(&self.lengths).take(count);
        rooms.filter_map(|(room, (octets, is_cut))| Some((room.get(..*octets)?, *is_cut)))
    }
}

/// A header with nothing in it.
const EMPTY: libc::mmsghdr = libc::mmsghdr {
    msg_hdr: libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    },
    msg_len: 0,
};

//! `sendmmsg` and `recvmmsg` over a connected socket. The only `unsafe` of the engine's query path.
//!
//! Before: `send` has a batch, or `receive` has room for one. After: one system call has moved all of it.
//! Consecutive datagrams of one length leave as one datagram that the kernel segments (UDP_SEGMENT): it passes
//! through the network stack once for all of them.
//! Never: blocks, allocates once warm, or keeps a pointer past the call.

use std::{io, mem::MaybeUninit, os::fd::RawFd};

/// Most datagrams of one call, in each direction.
pub const BATCH_MAX: usize = 64;
/// Buffer of one datagram: more than any backend may send to the 1400 octets that dotd advertises.
pub const DATAGRAM_OCTETS_MAX: usize = 4096;

/// Longest datagrams that leave as one: a whole batch of them must be less than 64 KiB.
const SEGMENT_OCTETS_MAX: usize = 1000;

/// Sends up to [`BATCH_MAX`] datagrams; returns how many the kernel took. `may_segment`: consecutive datagrams of
/// one length may leave as one.
///
/// # Errors
/// The error of the *first* header: the kernel reports a later one's error at the next call.
pub fn send<'a>(
    socket: RawFd,
    datagrams: impl Iterator<Item = &'a [u8]>,
    may_segment: bool,
) -> io::Result<usize> {
    let mut slices = [const { MaybeUninit::uninit() }; BATCH_MAX];
    let mut runs = [const { MaybeUninit::uninit() }; BATCH_MAX];
    let mut headers = [const { MaybeUninit::uninit() }; BATCH_MAX];
    let mut lengths = [0; BATCH_MAX];
    let mut slice_count = 0;
    // Only as many headers as datagrams: a batch of one must not pay for 64.
    for ((slice, length), datagram) in slices.iter_mut().zip(&mut lengths).zip(datagrams) {
        slice.write(slice_over(datagram.as_ptr(), datagram.len()));
        *length = datagram.len();
        slice_count += 1;
    }
    let lengths = lengths.get(..slice_count).unwrap_or_default();
    let (mut rest, mut count) = (&mut slices[..], 0);
    let belongs = |one: &usize, next: &usize| may_segment && one == next && *one <= SEGMENT_OCTETS_MAX;
    for ((header, run), group) in headers.iter_mut().zip(&mut runs).zip(lengths.chunk_by(belongs)) {
        let Some((own, others)) = rest.split_at_mut_checked(group.len()) else { break };
        rest = others;
        let header = header.write(EMPTY);
        header.msg_hdr.msg_iov = own.as_mut_ptr().cast();
        header.msg_hdr.msg_iovlen = group.len();
        if let [length, _, ..] = group {
            let control = run.write(Segment::of(*length));
            header.msg_hdr.msg_control = std::ptr::from_mut(control).cast();
            header.msg_hdr.msg_controllen = size_of::<Segment>();
        }
        count += 1;
    }
    // SAFETY: the first `count` headers are written, each over slices that are, each over octets borrowed for
    // longer than this call, some with a control message that is written; the kernel only reads through them.
    let sent = unsafe { libc::sendmmsg(socket, headers.as_mut_ptr().cast(), count, libc::MSG_NOSIGNAL) };
    let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
    Ok(lengths.chunk_by(belongs).take(sent).map(<[usize]>::len).sum())
}

/// Whether an error says that this path does not support UDP_SEGMENT: a device without checksum offload, or one
/// with a smaller MTU than our longest query.
pub fn lacks_segmentation(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP))
}

/// Whether an error says that the kernel had no memory to send with. It says nothing about the backend or the
/// path.
pub fn lacks_memory(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

/// The control message that makes the kernel segment a datagram: `cmsghdr`, the length of each part, padding.
#[repr(C)]
struct Segment {
    header: libc::cmsghdr,
    octets: u16,
    padding: [u8; 6],
}

impl Segment {
    fn of(octets: usize) -> Self {
        // Bounded by SEGMENT_OCTETS_MAX.
        let octets = u16::try_from(octets).unwrap_or(u16::MAX);
        let length = size_of::<libc::cmsghdr>() + size_of::<u16>();
        let header =
            libc::cmsghdr { cmsg_len: length, cmsg_level: libc::SOL_UDP, cmsg_type: libc::UDP_SEGMENT };
        Self { header, octets, padding: [0; 6] }
    }
}

/// Buffers for one batch of received datagrams; one per worker. The headers are set up once.
pub struct Inbound {
    octets: Box<[[u8; DATAGRAM_OCTETS_MAX]]>,
    _slices: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl Default for Inbound {
    fn default() -> Self {
        let mut octets = vec![[0u8; DATAGRAM_OCTETS_MAX]; BATCH_MAX].into_boxed_slice();
        let slices = octets.iter_mut().map(|room| slice_over(room.as_mut_ptr(), room.len()));
        let mut slices: Box<[_]> = slices.collect();
        let headers = slices.iter_mut().map(header_over).collect();
        Self { octets, _slices: slices, headers }
    }
}

impl Inbound {
    /// Receives up to [`BATCH_MAX`] waiting datagrams; returns their number.
    ///
    /// # Errors
    /// `WouldBlock` when none waits; `ConnectionRefused` when an earlier datagram met a closed port.
    pub fn receive(&mut self, socket: RawFd) -> io::Result<usize> {
        let count = libc::c_uint::try_from(self.headers.len()).unwrap_or_default();
        let (headers, flags) = (self.headers.as_mut_ptr(), libc::MSG_DONTWAIT);
        // SAFETY: `count` headers over slices over rooms, all boxed and ours as long as `self`, which is
        // borrowed alone; the kernel writes at most each room's length.
        let got = unsafe { libc::recvmmsg(socket, headers, count, flags, std::ptr::null_mut()) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// The datagrams of the last call, and whether each was truncated.
    pub fn datagrams(&self, count: usize) -> impl Iterator<Item = (&[u8], bool)> {
        let rooms = self.octets.iter().zip(&self.headers).take(count);
        rooms.filter_map(|(room, header)| {
            let octets = usize::try_from(header.msg_len).ok()?;
            Some((room.get(..octets)?, header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0))
        })
    }
}

fn slice_over(octets: *const u8, length: usize) -> libc::iovec {
    libc::iovec { iov_base: octets.cast_mut().cast(), iov_len: length }
}

fn header_over(slice: &mut libc::iovec) -> libc::mmsghdr {
    let mut header = EMPTY;
    header.msg_hdr.msg_iov = slice;
    header.msg_hdr.msg_iovlen = 1;
    header
}

/// An empty header.
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

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsRawFd};

    use super::*;

    /// Goal: what one call sends, one call receives, octet for octet and in order; a datagram that is too long is
    /// marked; an empty queue would block. Method: two sockets on loopback, three rounds, so that headers are
    /// reused.
    #[test]
    fn a_batch_arrives_as_it_was_sent() {
        let (near, far) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        near.connect(far.local_addr().unwrap()).unwrap();
        let mut inbound = Inbound::default();
        for round in 0..3u8 {
            let datagrams: Vec<Vec<u8>> =
                (0..40).map(|n| vec![n ^ round; usize::from(n / 5) * 7 + 1]).collect();
            let all = datagrams.iter().map(Vec::as_slice);
            assert_eq!(send(near.as_raw_fd(), all, round != 1).unwrap(), 40);
            let mut seen = Vec::new();
            while let Ok(got) = inbound.receive(far.as_raw_fd()) {
                seen.extend(inbound.datagrams(got).map(|(octets, is_cut)| (octets.to_vec(), is_cut)));
            }
            let expected: Vec<_> = datagrams.into_iter().map(|octets| (octets, false)).collect();
            assert_eq!(seen, expected);
        }
        near.send(&[1; DATAGRAM_OCTETS_MAX + 1]).unwrap();
        assert_eq!(inbound.receive(far.as_raw_fd()).unwrap(), 1);
        assert_eq!(inbound.datagrams(1).next().unwrap().0.len(), DATAGRAM_OCTETS_MAX);
        assert!(inbound.datagrams(1).next().unwrap().1, "cut");
        assert_eq!(inbound.receive(far.as_raw_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}

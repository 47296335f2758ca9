//! `recvmmsg` and `sendmmsg` with addresses: many clients over one socket. Uses `unsafe`, because no safe crate has
//! both without allocating for each call.
//!
//! Before: a socket has datagrams, or there are datagrams to send. After: one system call moved up to [`BATCH_MAX`] of
//! them.
//! Holds: for each datagram its source, and which of our addresses it came to: the answer leaves from there.
//! Never: blocks, allocates once warm, or keeps a pointer past the call.
//!
//! Source: recvmmsg(2), ip(7) and ipv6(7) for IP_PKTINFO and IPV6_PKTINFO.

use std::{
    io,
    mem::{self, MaybeUninit},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::RawFd,
};

use socket2::{SockAddr, SockAddrStorage};

/// Most datagrams of one call, in each direction.
pub const BATCH_MAX: usize = 64;
/// Buffer for one query: far more than any client sends, and a longer datagram is no query.
pub const QUERY_OCTETS_MAX: usize = 4096;
/// Buffer for one control message with the longer kind of packet information.
const CONTROL_OCTETS: usize = 64;

/// The two addresses of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub client: SocketAddr,
    /// Our address that was asked, and its interface. `None`: the socket has only one address.
    pub ours: Option<(IpAddr, u32)>,
}

impl Ends {
    /// Whether an answer can arrive, and at one host only.
    pub fn are_answerable(&self) -> bool {
        let host = self.client.ip().to_canonical();
        self.client.port() != 0 && !host.is_unspecified() && !host.is_multicast()
    }
}

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_OCTETS]);

/// Makes the kernel report to which address each datagram came, for a socket bound to all addresses.
///
/// # Errors
/// The error of setsockopt.
pub fn tell_destination(socket: RawFd, is_v6: bool) -> io::Result<()> {
    let (level, option) = if is_v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    };
    let (on, length) = (1 as libc::c_int, mem::size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the kernel reads `length` octets from `on`, which lives until the call returns.
    let result = unsafe { libc::setsockopt(socket, level, option, (&raw const on).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Buffers for one batch of received datagrams.
pub struct Inbound {
    octets: Box<[[u8; QUERY_OCTETS_MAX]]>,
    names: Box<[SockAddrStorage]>,
    controls: Box<[Control]>,
    _slices: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl Default for Inbound {
    fn default() -> Self {
        let mut octets = vec![[0u8; QUERY_OCTETS_MAX]; BATCH_MAX].into_boxed_slice();
        let mut names: Box<[_]> = (0..BATCH_MAX).map(|_| SockAddrStorage::zeroed()).collect();
        let mut controls = vec![Control([0; CONTROL_OCTETS]); BATCH_MAX].into_boxed_slice();
        let slices = octets.iter_mut().map(|shared| slice_over(shared.as_mut_ptr(), shared.len()));
        let mut slices: Box<[_]> = slices.collect();
        let parts = names.iter_mut().zip(controls.iter_mut()).zip(slices.iter_mut());
        let headers = parts.map(|((name, control), slice)| {
            let mut header = empty_header();
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        let headers = headers.collect();
        Self { octets, names, controls, _slices: slices, headers }
    }
}

impl Inbound {
    /// Receives up to [`BATCH_MAX`] waiting datagrams; returns their number.
    ///
    /// # Errors
    /// `WouldBlock` when none waits.
    pub fn receive(&mut self, socket: RawFd) -> io::Result<usize> {
        for header in &mut self.headers {
            // The kernel overwrote these lengths with the lengths that it used.
            header.msg_hdr.msg_namelen = mem::size_of::<SockAddrStorage>() as libc::socklen_t;
            header.msg_hdr.msg_controllen = CONTROL_OCTETS;
        }
        let count = self.headers.len() as libc::c_uint;
        let (headers, flags) = (self.headers.as_mut_ptr(), libc::MSG_DONTWAIT);
        // SAFETY: `count` headers over names, controls and slices of octets, all boxed and ours as long as `self`,
        // which is borrowed alone; the kernel writes at most the lengths that stand beside each.
        let got = unsafe { libc::recvmmsg(socket, headers, count, flags, std::ptr::null_mut()) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// The datagrams of the last call, their addresses, and whether each was truncated.
    pub fn datagrams(&self, count: usize) -> impl Iterator<Item = (&[u8], Ends, bool)> {
        let slots = self.octets.iter().zip(&self.names).zip(&self.controls).zip(&self.headers).take(count);
        slots.filter_map(|(((octets, name), control), header)| {
            let octets = octets.get(..usize::try_from(header.msg_len).ok()?)?;
            let length = header.msg_hdr.msg_namelen;
            // SAFETY: the kernel wrote a socket address of this length there; a copy of it is made.
            let client = unsafe { SockAddr::new(std::ptr::read(name), length) }.as_socket()?;
            let ours = destination(control, header.msg_hdr.msg_controllen);
            Some((octets, Ends { client, ours }, header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0))
        })
    }
}

/// Reads the one control message that the kernel wrote, if it is packet information.
fn destination(control: &Control, length: usize) -> Option<(IpAddr, u32)> {
    let head = mem::size_of::<libc::cmsghdr>();
    let written = control.0.get(..length.min(CONTROL_OCTETS))?;
    // SAFETY: any octets are a cmsghdr (three integers), and there are as many as it has.
    let header: libc::cmsghdr =
        unsafe { written.get(..head)?.as_ptr().cast::<libc::cmsghdr>().read_unaligned() };
    let body = written.get(head..)?;
    match (header.cmsg_level, header.cmsg_type) {
        // struct in_pktinfo: interface, the address that took it, the address in the datagram's header.
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            let interface = u32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
            let address: [u8; 4] = body.get(8..12)?.try_into().ok()?;
            Some((Ipv4Addr::from(address).into(), interface))
        }
        // struct in6_pktinfo: the address in the datagram's header, interface.
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let address: [u8; 16] = body.get(..16)?.try_into().ok()?;
            let interface = u32::from_ne_bytes(body.get(16..20)?.try_into().ok()?);
            Some((Ipv6Addr::from(address).into(), interface))
        }
        _ => None,
    }
}

/// Buffers for one batch of datagrams to send.
#[derive(Default)]
pub struct Outbound {
    names: Vec<SockAddr>,
    controls: Vec<(Control, usize)>,
    slices: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Outbound {
    /// Sends up to [`BATCH_MAX`] datagrams; returns how many the kernel took.
    ///
    /// # Errors
    /// The error of the *first* datagram: the kernel reports a later one's error at the next call.
    pub fn send<'a>(
        &mut self,
        socket: RawFd,
        datagrams: impl Iterator<Item = (&'a [u8], Ends)>,
    ) -> io::Result<usize> {
        self.names.clear();
        self.controls.clear();
        self.slices.clear();
        self.headers.clear();
        for (octets, ends) in datagrams.take(BATCH_MAX) {
            self.names.push(SockAddr::from(ends.client));
            self.controls.push(source(ends.ours));
            self.slices.push(slice_over(octets.as_ptr().cast_mut(), octets.len()));
        }
        // Pointers are set only now, because none of the lists moves any more.
        for ((name, (control, octets)), slice) in
            self.names.iter().zip(&mut self.controls).zip(&mut self.slices)
        {
            let mut header = empty_header();
            header.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = name.len();
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
            if *octets > 0 {
                header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = *octets;
            }
            self.headers.push(header);
        }
        let count = self.headers.len() as libc::c_uint;
        // SAFETY: `count` headers over names, controls and slices in lists of ours that do not change before the call
        // returns; the octets are borrowed for longer than it. The kernel only reads through them.
        let sent = unsafe { libc::sendmmsg(socket, self.headers.as_mut_ptr(), count, libc::MSG_NOSIGNAL) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// The control message that makes a datagram leave from `ours`, and its length. 0: the kernel chooses the address.
fn source(ours: Option<(IpAddr, u32)>) -> (Control, usize) {
    let head = mem::size_of::<libc::cmsghdr>();
    let mut control = Control([0; CONTROL_OCTETS]);
    let (level, kind, length) = match ours {
        None => return (control, 0),
        Some((IpAddr::V4(address), _)) => {
            // struct in_pktinfo: no interface (the route decides), the address to leave from, unused.
            put(&mut control, head + 4, &address.octets());
            (libc::IPPROTO_IP, libc::IP_PKTINFO, 12)
        }
        Some((IpAddr::V6(address), interface)) => {
            put(&mut control, head, &address.octets());
            // A link-local address is valid on its own link only.
            let interface = if address.is_unicast_link_local() { interface } else { 0 };
            put(&mut control, head + 16, &interface.to_ne_bytes());
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 20)
        }
    };
    put(&mut control, 0, &(head + length).to_ne_bytes());
    put(&mut control, mem::size_of::<usize>(), &level.to_ne_bytes());
    put(&mut control, mem::size_of::<usize>() + 4, &kind.to_ne_bytes());
    (control, (head + length).next_multiple_of(mem::align_of::<libc::cmsghdr>()))
}

fn put(control: &mut Control, offset: usize, octets: &[u8]) {
    if let Some(place) = control.0.get_mut(offset..offset + octets.len()) {
        place.copy_from_slice(octets);
    }
}

fn slice_over(octets: *mut u8, length: usize) -> libc::iovec {
    libc::iovec { iov_base: octets.cast(), iov_len: length }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: a header of zeroes is one without name, octets and control: null pointers and lengths of zero.
    unsafe { MaybeUninit::<libc::mmsghdr>::zeroed().assume_init() }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsRawFd};

    use super::*;

    /// Goal: datagrams to several addresses of a wildcard socket are received together, each with both its addresses,
    /// and answers leave from the address that was asked. Method: loopback has all of 127/8; clients are connected, so
    /// an answer from another address would not reach them.
    #[test]
    fn answers_leave_from_where_they_were_asked() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        tell_destination(server.as_raw_fd(), false).unwrap();
        let port = server.local_addr().unwrap().port();
        let (mut inbound, mut outbound) = (Inbound::default(), Outbound::default());
        for round in 0..3u8 {
            let clients: Vec<_> = (1..9u8)
                .map(|last| {
                    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
                    client.connect((Ipv4Addr::new(127, 0, 0, last), port)).unwrap();
                    client.send(&[last, round]).unwrap();
                    (client, last)
                })
                .collect();
            let got = inbound.receive(server.as_raw_fd()).unwrap();
            assert_eq!(got, clients.len());
            for ((octets, ends, is_cut), (client, last)) in inbound.datagrams(got).zip(&clients) {
                assert_eq!((octets, is_cut), (&[*last, round][..], false));
                assert_eq!(ends.client, client.local_addr().unwrap());
                assert_eq!(
                    ends.ours.map(|(address, _)| address),
                    Some(Ipv4Addr::new(127, 0, 0, *last).into())
                );
            }
            let answers = inbound.datagrams(got).map(|(octets, ends, _)| (octets, ends));
            assert_eq!(outbound.send(server.as_raw_fd(), answers).unwrap(), clients.len());
            for (client, last) in clients {
                let mut octets = [0; 16];
                assert_eq!(client.recv(&mut octets).unwrap(), 2);
                assert_eq!(octets[..2], [last, round]);
            }
        }
        assert_eq!(
            inbound
                .receive({
                    server.set_nonblocking(true).unwrap();
                    server.as_raw_fd()
                })
                .unwrap_err()
                .kind(),
            io::ErrorKind::WouldBlock
        );
    }

    /// The same over IPv6, and a datagram that is too long says so.
    #[test]
    fn ipv6_has_both_ends_too() {
        let server = UdpSocket::bind("[::]:0").unwrap();
        tell_destination(server.as_raw_fd(), true).unwrap();
        let port = server.local_addr().unwrap().port();
        let client = UdpSocket::bind("[::1]:0").unwrap();
        client.connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        client.send(&[7; QUERY_OCTETS_MAX + 1]).unwrap();
        let (mut inbound, mut outbound) = (Inbound::default(), Outbound::default());
        assert_eq!(inbound.receive(server.as_raw_fd()).unwrap(), 1);
        let (octets, ends, is_cut) = inbound.datagrams(1).next().unwrap();
        assert_eq!((octets.len(), is_cut), (QUERY_OCTETS_MAX, true));
        assert_eq!(ends.ours.map(|(address, _)| address), Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(outbound.send(server.as_raw_fd(), std::iter::once((&b"ok"[..], ends))).unwrap(), 1);
        let mut octets = [0; 16];
        assert_eq!(client.recv(&mut octets).unwrap(), 2);
    }
}

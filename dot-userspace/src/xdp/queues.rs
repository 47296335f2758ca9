//! The kernel's queues between a SYN and its accept: connections that wait for a worker, and those that listeners
//! dropped.
//!
//! Before: listeners are bound. After: `dotd stats` reports the fate of the SYNs that the kernel half let pass.
//! Holds: a socket for the kernel's answers (sock_diag), opened before the engine loses the right to open one; and
//! the listen addresses. Decoding answers is pure.
//! Never: asks about connections, whose number clients choose, but only about listeners.
//!
//! Source: sock_diag(7), linux/inet_diag.h, linux/sock_diag.h (SK_MEMINFO_DROPS).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use netlink_sys::Socket;

use super::{
    netlink,
    routes::{HEADER_OCTETS, aligned, next, numbers},
};
use crate::ledger::KernelQueues;

/// NETLINK_SOCK_DIAG.
const PROTOCOL: isize = 4;
/// SOCK_DIAG_BY_FAMILY.
const BY_FAMILY: u16 = 20;
/// The bit of TCP_LISTEN.
const LISTEN: u32 = 1 << 10;
/// IPPROTO_TCP.
const TCP: u8 = 6;
/// INET_DIAG_SKMEMINFO, as an attribute and as a bit of a question.
const MEMORY: u16 = 7;
const MEMORY_BIT: u8 = 1 << (MEMORY - 1);
/// The place of SK_MEMINFO_DROPS.
const DROPS: usize = 8;
/// struct inet_diag_sockid, and struct inet_diag_msg with it.
const ID_OCTETS: usize = 48;
const ROW_OCTETS: usize = 4 + ID_OCTETS + 20;
/// struct inet_diag_req_v2.
const QUESTION_OCTETS: usize = 8 + ID_OCTETS;

/// The socket for questions.
pub struct Queues {
    socket: Socket,
    listeners: Vec<SocketAddr>,
}

impl Queues {
    /// Opens the socket, for these listen addresses.
    ///
    /// # Errors
    /// The kernel has no sock_diag, or a sandbox refuses it.
    pub fn open(listeners: Vec<SocketAddr>) -> io::Result<Self> {
        Ok(Self { socket: netlink::open(PROTOCOL)?, listeners })
    }

    /// The counts at this moment.
    ///
    /// # Errors
    /// The kernel refused the question, or did not answer.
    pub fn counts(&self) -> io::Result<KernelQueues> {
        let mut counts = KernelQueues::default();
        netlink::drain(&self.socket)?;
        for family in [numbers::AF_INET, numbers::AF_INET6] {
            self.socket.send(&question(family), 0)?;
            while !read(&netlink::receive(&self.socket)?, &self.listeners, &mut counts)? {}
        }
        Ok(counts)
    }
}

/// The question about every TCP listener of a family.
fn question(family: u8) -> Vec<u8> {
    let octets = (HEADER_OCTETS + QUESTION_OCTETS) as u32;
    let mut question = Vec::with_capacity(octets as usize);
    question.extend(octets.to_ne_bytes());
    question.extend(BY_FAMILY.to_ne_bytes());
    question.extend(numbers::LIST.to_ne_bytes());
    // Sequence number and sender are zero: only one question is open, and the kernel knows the sender.
    question.extend([0; 8]);
    question.extend([family, TCP, MEMORY_BIT, 0]);
    question.extend(LISTEN.to_ne_bytes());
    question.extend([0; ID_OCTETS]);
    question
}

/// Decodes the messages of one datagram, and adds the counts of dotd's listeners. Returns whether it was the last
/// one.
fn read(mut octets: &[u8], listeners: &[SocketAddr], counts: &mut KernelQueues) -> io::Result<bool> {
    let mut is_last = octets.is_empty();
    while let Some((message, kind, _, rest)) = next(octets) {
        match kind {
            numbers::NLMSG_DONE => is_last = true,
            numbers::NLMSG_ERROR => {
                let code = message.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                return Err(io::Error::from_raw_os_error(-code));
            }
            BY_FAMILY => {
                if let Some((_, row)) = listener(message).filter(|(at, _)| is_of(*at, listeners)) {
                    counts.waiting += row.waiting;
                    counts.dropped += row.dropped;
                }
            }
            _ => {}
        }
        octets = rest;
    }
    Ok(is_last)
}

/// Whether a row is about one of these. A row has no scope: a link-local address is known by its octets.
fn is_of(at: SocketAddr, listeners: &[SocketAddr]) -> bool {
    listeners.iter().any(|own| (own.ip(), own.port()) == (at.ip(), at.port()))
}

/// A listener's address and counts.
fn listener(row: &[u8]) -> Option<(SocketAddr, KernelQueues)> {
    let family = *row.first()?;
    let port = u16::from_be_bytes(*row.get(4..)?.first_chunk()?);
    let source = row.get(8..)?;
    let address = match family {
        numbers::AF_INET => IpAddr::from(Ipv4Addr::from(*source.first_chunk::<4>()?)),
        _ => IpAddr::from(Ipv6Addr::from(*source.first_chunk::<16>()?)),
    };
    let waiting = u32::from_ne_bytes(*row.get(4 + ID_OCTETS + 4..)?.first_chunk()?);
    let mut dropped = 0;
    let mut attributes = row.get(ROW_OCTETS..)?;
    while let Some(length) =
        attributes.first_chunk::<2>().map(|length| usize::from(u16::from_ne_bytes(*length)))
    {
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?) == MEMORY {
            dropped = value.get(DROPS * 4..)?.first_chunk().map_or(0, |drops| u32::from_ne_bytes(*drops));
        }
        attributes = attributes.get(aligned(length)..).unwrap_or_default();
    }
    let counts = KernelQueues { waiting: waiting.into(), dropped: dropped.into() };
    Some((SocketAddr::new(address, port), counts))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Goal: connections without an accept are counted as waiting, those of other listeners are not, and drops by a
    /// full queue are counted. Method: listeners of this process, one with a queue of one; clients that connect and
    /// stay. Covers: C-702
    #[test]
    fn what_waits_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
        let at = listener.local_addr().unwrap();
        let queues = Queues::open(vec![at]).unwrap();
        assert_eq!(queues.counts().unwrap(), KernelQueues::default());
        let waits: Vec<_> = (0..3).map(|_| TcpStream::connect(at).unwrap()).collect();
        let _elsewhere = TcpStream::connect(other.local_addr().unwrap()).unwrap();
        assert_eq!(queues.counts().unwrap(), KernelQueues { waiting: 3, dropped: 0 });
        (0..3).for_each(|_| drop(listener.accept().unwrap()));
        assert_eq!(queues.counts().unwrap().waiting, 0);
        drop(waits);
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        let many: Vec<_> = (0..8).map(|_| connecting(at)).collect();
        let full = queues.counts().unwrap();
        assert!(full.dropped > 0 && (1..=2).contains(&full.waiting), "{full:?}");
        drop(many);
    }

    /// A connection that is being established.
    fn connecting(at: SocketAddr) -> socket2::Socket {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&at.into());
        socket
    }

    /// Goal: the counts are those of this moment, also after a call that gave up in the middle of an answer. Method: a question
    /// whose answer is not read. Covers: C-702
    #[test]
    fn the_rest_of_an_answer_is_not_the_next_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let queues = Queues::open(vec![at]).unwrap();
        queues.socket.send(&question(numbers::AF_INET), 0).unwrap();
        let _client = TcpStream::connect(at).unwrap();
        assert_eq!(queues.counts().unwrap(), KernelQueues { waiting: 1, dropped: 0 });
    }

    /// Goal: a listener at a link-local address is counted. Method: its address with a scope, as the config has it; other ports
    /// and addresses. Covers: C-702
    #[test]
    fn a_scope_hides_no_listener() {
        let own = ["[fe80::1%7]:853".parse().unwrap()];
        assert!(is_of("[fe80::1]:853".parse().unwrap(), &own));
        assert!(
            !is_of("[fe80::1]:854".parse().unwrap(), &own) && !is_of("[fe80::2]:853".parse().unwrap(), &own)
        );
    }

    /// Goal: octets that are cut short cause no panic, and an error is returned. Method: a row cut at every length.
    /// Covers: C-702
    #[test]
    fn broken_answers_are_refused_or_skipped() {
        let mut row = vec![numbers::AF_INET, 10, 0, 0];
        row.extend(853u16.to_be_bytes());
        row.extend([0; 2]);
        row.extend([192, 0, 2, 1]);
        row.resize(4 + ID_OCTETS + 4, 0);
        row.extend(5u32.to_ne_bytes());
        row.resize(ROW_OCTETS, 0);
        row.extend([40, 0, MEMORY as u8, 0]);
        row.resize(ROW_OCTETS + 4 + DROPS * 4, 0);
        row.extend(7u32.to_ne_bytes());
        let expected = ("192.0.2.1:853".parse().unwrap(), KernelQueues { waiting: 5, dropped: 7 });
        assert_eq!(listener(&row), Some(expected));
        for cut in 0..ROW_OCTETS {
            assert_eq!(listener(&row[..cut]), None, "{cut}");
        }
        let mut refusal = 20u32.to_ne_bytes().to_vec();
        refusal.extend(numbers::NLMSG_ERROR.to_ne_bytes());
        refusal.extend([0; 10]);
        refusal.extend((-1i32).to_ne_bytes());
        let error = read(&refusal, &[], &mut KernelQueues::default()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(1));
    }
}

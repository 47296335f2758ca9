//! Reads the IP and TCP headers of a captured packet.
//!
//! Before: octets from the network layer on. After: addresses, ports, sequence number and payload of a TCP segment.
//! Never: looks into fragments, of which only the first has ports, or into IPv6 extension headers.
//!
//! Source: RFC 791 §3.1, RFC 8200 §3, RFC 9293 §3.1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// IP's number of TCP.
pub(super) const TCP: u8 = 6;
/// The SYN bit of a TCP header's flags.
const SYN: u8 = 0x02;

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    /// The sequence number of the first octet of payload.
    pub(super) sequence: u32,
    /// It opens a connection: no octet of this direction came before.
    pub(super) is_syn: bool,
    pub(super) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// `None`: no TCP segment that can be read.
    pub(super) fn read(packet: &'a [u8]) -> Option<Self> {
        let (from, to, tcp) = match packet.first()? >> 4 {
            4 => {
                let header = usize::from(packet.first()? & 0xf) * 4;
                let is_part = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) & 0x3fff != 0;
                if is_part || *packet.get(9)? != TCP {
                    return None;
                }
                let address =
                    |at: usize| Some(IpAddr::from(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?)));
                let length = u16::from_be_bytes(*packet.get(2..)?.first_chunk()?);
                (address(12)?, address(16)?, inside(packet, header, length.into())?)
            }
            6 => {
                if *packet.get(6)? != TCP {
                    return None;
                }
                let address =
                    |at: usize| Some(IpAddr::from(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?)));
                let length = usize::from(u16::from_be_bytes(*packet.get(4..)?.first_chunk()?));
                // A length of 0: the kernel joined segments to more than 64 KiB.
                let end = if length == 0 { 0 } else { length + 40 };
                (address(8)?, address(24)?, inside(packet, 40, end)?)
            }
            _ => return None,
        };
        let port = |at: usize| Some(u16::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
        let is_syn = tcp.get(13)? & SYN != 0;
        let number = u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?);
        Some(Self {
            from: SocketAddr::new(from, port(0)?),
            to: SocketAddr::new(to, port(2)?),
            // A SYN has a number of its own (RFC 9293 §3.4).
            sequence: number.wrapping_add(u32::from(is_syn)),
            is_syn,
            payload: tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?,
        })
    }
}

/// The octets behind a header, without what pads the frame. `end` 0: all.
fn inside(packet: &[u8], header: usize, end: usize) -> Option<&[u8]> {
    let end = if end == 0 { packet.len() } else { end.min(packet.len()) };
    packet.get(header..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: both families are read, padding is left out, and no length makes it panic. Method: a segment in IPv4 with
    /// two octets of padding, one in IPv6, each cut at every length. Covers: C-585
    #[test]
    fn segments_are_read() {
        let tcp =
            [&[0x03, 0x55, 0x9c, 0x40, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 0x12, 0, 0, 0, 0, 0, 0][..], b"hello"]
                .concat();
        let v4 = [0x45, 0, 0, 45, 0, 0, 0x40, 0, 64, TCP, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        let v4 = [&v4[..], &tcp, &[0, 0]].concat();
        let segment = Segment::read(&v4).unwrap();
        assert_eq!(
            segment,
            Segment {
                from: "192.0.2.1:853".parse().unwrap(),
                to: "192.0.2.2:40000".parse().unwrap(),
                sequence: 10,
                is_syn: true,
                payload: b"hello",
            }
        );
        let mut v6 = vec![0x60, 0, 0, 0, 0, 25, TCP, 64];
        v6.extend([0; 31]);
        v6.push(1);
        v6.extend(&tcp);
        assert_eq!(Segment::read(&v6).map(|segment| segment.payload), Some(&b"hello"[..]));
        for packet in [v4, v6] {
            for length in 0..packet.len() {
                let _ = Segment::read(&packet[..length]);
            }
        }
    }
}

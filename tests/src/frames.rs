//! Builds Ethernet frames by code, with true lengths and checksums, which a test may then falsify.
//!
//! Before: a test describes a frame ([`Build`]). After: octets, and the place of each header ([`Frame`]).
//! Holds: one client and one server of each version; [`mod@shapes`], every named arrangement of headers around a segment.
//! Never: uses the code under test to build a header.
//!
//! Source: RFC 791 §3.1, RFC 8200 §3 and §4, RFC 9293 §3.1, RFC 768, RFC 1071 (checksum).

mod shapes;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use shapes::{Shape, shapes};

/// FIN, SYN, RST, PSH and ACK of a TCP header.
pub const FIN: u8 = 1;
/// See [`FIN`].
pub const SYN: u8 = 2;
/// See [`FIN`].
pub const RST: u8 = 4;
/// See [`FIN`].
pub const PSH: u8 = 8;
/// See [`FIN`].
pub const ACK: u8 = 16;

/// The first octets of a TLS ClientHello, as OpenSSL sends them.
pub const CLIENT_HELLO: [u8; 11] = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
/// A DNS query over TCP: length prefix, ID, RD, one question.
pub const CLEARTEXT_QUERY: [u8; 14] = [0, 27, 0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];

/// A DNS query over UDP: `www.dotd.test`, A, RD.
pub const QUERY: [u8; 31] = *b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x04dotd\x04test\0\0\x01\0\x01";
/// An OPT record without options: DO, 1,400 octets.
pub const OPT: [u8; 11] = [0, 0, 41, 5, 120, 0, 0, 0x80, 0, 0, 0];

/// The client's IPv4 address.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
/// The server's IPv4 address.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The client's IPv6 address.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0x17, 0, 0, 0, 7);
/// The server's IPv6 address.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// A built frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// All octets.
    pub octets: Vec<u8>,
    /// Where the IP header begins.
    pub ip: usize,
    /// Where the transport header begins.
    pub transport: usize,
}

impl Frame {
    /// Overwrites octets at `offset`, so that a test can falsify a field.
    #[must_use]
    pub fn patched(mut self, offset: usize, octets: &[u8]) -> Self {
        self.octets[offset..offset + octets.len()].copy_from_slice(octets);
        self
    }

    /// Cuts the frame, whatever its headers claim.
    #[must_use]
    pub fn cut_to(mut self, octets: usize) -> Self {
        self.octets.truncate(octets);
        self
    }
}

/// How a datagram is fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// The first of several.
    First,
    /// A later one, at this offset in units of eight octets.
    Later(u16),
    /// IPv6 only: a fragment header on a whole datagram.
    Atomic,
}

/// A frame to build. Made by [`Build::tcp`] or [`Build::udp`], refined by its methods, ended by [`Build::frame`].
#[derive(Clone, Debug)]
pub struct Build {
    is_v6: bool,
    client: Option<IpAddr>,
    server: Option<IpAddr>,
    protocol: u8,
    client_port: u16,
    server_port: u16,
    is_reply: bool,
    sequence: u32,
    /// The acknowledgment number, where it has to be right.
    pub acknowledgment: u32,
    flags: u8,
    tcp_options: usize,
    has_segment_size: bool,
    payload: Vec<u8>,
    tags: Vec<u16>,
    ip_options: usize,
    extensions: Vec<(u8, usize)>,
    fragment: Option<Fragment>,
    padding: usize,
}

impl Build {
    /// A TCP segment from the client.
    #[must_use]
    pub fn tcp(server_port: u16, flags: u8, sequence: u32, payload: &[u8]) -> Self {
        Self {
            is_v6: false,
            client: None,
            server: None,
            protocol: 6,
            client_port: 40_000,
            server_port,
            is_reply: false,
            sequence,
            acknowledgment: 0x0bad_cafe,
            flags,
            tcp_options: 0,
            has_segment_size: false,
            payload: payload.to_vec(),
            tags: Vec::new(),
            ip_options: 0,
            extensions: Vec::new(),
            fragment: None,
            padding: 0,
        }
    }

    /// A UDP datagram from the client.
    #[must_use]
    pub fn udp(server_port: u16, payload: &[u8]) -> Self {
        Self { protocol: 17, ..Self::tcp(server_port, 0, 0, payload) }
    }

    /// dotd's own SYN-ACK, which accepts the client's `initial` sequence number.
    #[must_use]
    pub fn syn_ack(server_port: u16, initial: u32) -> Self {
        let build = Self::tcp(server_port, SYN | ACK, 0x5eed, &[]);
        Self { is_reply: true, acknowledgment: initial.wrapping_add(1), tcp_options: 20, ..build }
    }

    /// From the server to the client.
    #[must_use]
    pub fn reply(self) -> Self {
        Self { is_reply: true, ..self }
    }

    /// Over IPv6.
    #[must_use]
    pub fn v6(self) -> Self {
        Self { is_v6: true, ..self }
    }

    /// From this client, of either IP version.
    #[must_use]
    pub fn client(self, client: IpAddr) -> Self {
        Self { is_v6: client.is_ipv6(), client: Some(client), ..self }
    }

    /// To this server.
    #[must_use]
    pub fn server(self, server: IpAddr) -> Self {
        Self { server: Some(server), ..self }
    }

    /// From this client port.
    #[must_use]
    pub fn client_port(self, client_port: u16) -> Self {
        Self { client_port, ..self }
    }

    /// With that many octets of TCP options (a multiple of four, at most 40).
    #[must_use]
    pub fn tcp_options(self, tcp_options: usize) -> Self {
        Self { tcp_options, ..self }
    }

    /// With one TCP option: segments of 1,460 octets.
    #[must_use]
    pub fn segment_size(self) -> Self {
        Self { tcp_options: 4, has_segment_size: true, ..self }
    }

    /// With a VLAN tag of this type, inside those before.
    #[must_use]
    pub fn tag(mut self, ethertype: u16) -> Self {
        self.tags.push(ethertype);
        self
    }

    /// With that many octets of IPv4 options (a multiple of four, at most 40).
    #[must_use]
    pub fn ip_options(self, ip_options: usize) -> Self {
        Self { ip_options, ..self }
    }

    /// With an IPv6 extension header of this number and length, after those before.
    #[must_use]
    pub fn extension(mut self, number: u8, octets: usize) -> Self {
        self.extensions.push((number, octets));
        self
    }

    /// Fragmented; over IPv6 the fragment header comes last.
    #[must_use]
    pub fn fragment(self, fragment: Fragment) -> Self {
        Self { fragment: Some(fragment), ..self }
    }

    /// With that many octets of padding after the datagram, as short frames have.
    #[must_use]
    pub fn padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// The address the frame comes from.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        if self.is_reply { self.server_address() } else { self.client_address() }
    }

    /// The address the frame goes to.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        if self.is_reply { self.client_address() } else { self.server_address() }
    }

    fn client_address(&self) -> IpAddr {
        self.client.unwrap_or(if self.is_v6 { CLIENT_V6.into() } else { CLIENT_V4.into() })
    }

    fn server_address(&self) -> IpAddr {
        self.server.unwrap_or(if self.is_v6 { SERVER_V6.into() } else { SERVER_V4.into() })
    }

    /// The octets.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let mut octets = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in &self.tags {
            octets.extend(tag.to_be_bytes());
            octets.extend([0, 5]);
        }
        octets.extend(if self.is_v6 { [0x86, 0xdd] } else { [8, 0] });
        let ip = octets.len();
        let transport_octets = self.transport();
        octets.extend(if self.is_v6 {
            self.header_v6(&transport_octets)
        } else {
            self.header_v4(&transport_octets)
        });
        let transport = octets.len();
        octets.extend(transport_octets);
        octets.resize(octets.len() + self.padding, 0);
        Frame { octets, ip, transport }
    }

    fn header_v4(&self, transport: &[u8]) -> Vec<u8> {
        let header_octets = 20 + self.ip_options;
        let mut header = vec![0x40 | (header_octets / 4) as u8, 0];
        header.extend(((header_octets + transport.len()) as u16).to_be_bytes());
        header.extend([0x30, 0x39]);
        let fragment: u16 = match self.fragment {
            None | Some(Fragment::Atomic) => 0x4000,
            Some(Fragment::First) => 0x2000,
            Some(Fragment::Later(offset)) => offset,
        };
        header.extend(fragment.to_be_bytes());
        header.extend([64, self.protocol, 0, 0]);
        header.extend(address(self.source()));
        header.extend(address(self.destination()));
        // Option 1 does nothing, and is one octet long.
        header.resize(header_octets, 1);
        let checksum = checksum(&[&header]);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn header_v6(&self, transport: &[u8]) -> Vec<u8> {
        let mut chain = self.extensions.clone();
        if self.fragment.is_some() {
            chain.push((44, 8));
        }
        let mut extensions = Vec::new();
        for (index, (number, octets)) in chain.iter().enumerate() {
            let next = chain.get(index + 1).map_or(self.protocol, |(number, _)| *number);
            let mut extension = vec![0; *octets];
            extension[0] = next;
            extension[1] = match number {
                44 => 0,
                51 => (octets / 4 - 2) as u8,
                _ => (octets / 8 - 1) as u8,
            };
            if *number == 44 {
                let offset_and_more: u16 = match self.fragment {
                    None | Some(Fragment::Atomic) => 0,
                    Some(Fragment::First) => 1,
                    Some(Fragment::Later(offset)) => offset << 3,
                };
                extension[2..4].copy_from_slice(&offset_and_more.to_be_bytes());
            }
            extensions.extend(extension);
        }
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(((extensions.len() + transport.len()) as u16).to_be_bytes());
        header.extend([chain.first().map_or(self.protocol, |(number, _)| *number), 64]);
        header.extend(address(self.source()));
        header.extend(address(self.destination()));
        header.extend(extensions);
        header
    }

    fn transport(&self) -> Vec<u8> {
        let (from, to) = if self.is_reply {
            (self.server_port, self.client_port)
        } else {
            (self.client_port, self.server_port)
        };
        let mut octets = [from.to_be_bytes(), to.to_be_bytes()].concat();
        let checksum_offset = if self.protocol == 17 {
            octets.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            octets.extend([0, 0]);
            6
        } else {
            let header_words = 5 + self.tcp_options / 4;
            octets.extend(self.sequence.to_be_bytes());
            octets.extend(self.acknowledgment.to_be_bytes());
            octets.extend([(header_words << 4) as u8, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
            octets.extend([2, 4, 5, 0xb4].into_iter().take(if self.has_segment_size { 4 } else { 0 }));
            octets.resize(header_words * 4, 1);
            16
        };
        octets.extend(&self.payload);
        let checksum = self.transport_checksum(&octets);
        octets[checksum_offset..checksum_offset + 2].copy_from_slice(&checksum.to_be_bytes());
        octets
    }

    /// The checksum of a transport header and its payload under this frame's addresses; 0 if the checksum in it is
    /// right.
    #[must_use]
    pub fn transport_checksum(&self, octets: &[u8]) -> u16 {
        let trailer = [0, self.protocol];
        let length = (octets.len() as u16).to_be_bytes();
        checksum(&[&address(self.source()), &address(self.destination()), &trailer, &length, octets])
    }
}

/// The one's complement checksum over parts of even length (the last may be odd).
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

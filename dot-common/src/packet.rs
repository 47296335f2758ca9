//! Finds out whether a frame carries a packet to one of dotd's ports, and of which kind. Step 2 of 9 of a query.
//!
//! Before: a frame from the network. After: [`crate::judge`] decides about a [`Packet`].
//! Holds: Ethernet, IPv4 with options, IPv6, fragments, TCP, UDP; [`crate::walk`] has VLAN tags and extension headers.
//! Never: looks at payload, at a checksum (the stack checks them), or judges an address; whether a destination belongs
//! to this machine is the caller's question.
//!
//! A packet is malformed, and refused, only if it is for this machine, can be *attributed* (its version, header length
//! and extension headers lead to a destination port of dotd's), and its length or its transport header is false. A
//! packet that cannot be attributed passes uncounted: the stack discards it, and another service may want to see that.
//! The exception is a packet that the stack would accept and that is not read to its end here
//! ([`Malformed::ChainTooLong`], [`Malformed::ChainCut`], [`Malformed::TooManyTags`]). Frame padding after the datagram
//! is lawful. Later fragments carry no port: they pass, and never become a datagram, because their first fragment is
//! refused.
//!
//! Source: RFC 791 §3.1, RFC 8200 §3 and §4, RFC 4302 §2.2 (AH counts in 4-octet units), RFC 9293 §3.1,
//! RFC 768, IEEE 802.1Q.

use crate::{
    flow::{FlowKey, Sequence},
    frame::{Headers, Located},
    settings::Services,
    walk::{self, Walked},
};

/// A packet to one of dotd's ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Client, server and their ports.
    pub flow: FlowKey,
    /// The service that has the port.
    pub service: Service,
    /// The transport header.
    pub transport: Transport,
    /// The places of its headers.
    pub located: Located,
}

/// The service of dotd's that a port belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// DNS over TLS (RFC 7858).
    #[default]
    Dot,
    /// DNS in cleartext (RFC 1035, RFC 7766).
    Do53,
}

/// The transport of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// A datagram, or the first fragment of one.
    #[default]
    Udp,
    /// The first fragment of a segment. No stack cuts a segment that path MTU discovery could keep whole.
    TcpFragment,
    /// A whole segment.
    Tcp(Segment),
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of its first octet (or of its SYN, if it has one).
    pub sequence: Sequence,
    /// The eight control bits, see [`flags`].
    pub flags: u8,
    /// Offset of its octets in the frame.
    pub payload_offset: u32,
    /// The number of its octets.
    pub payload_octets: u32,
}

/// Control bits of a TCP header.
pub mod flags {
    /// No more octets follow.
    pub const FIN: u8 = 1;
    /// Begins a connection.
    pub const SYN: u8 = 2;
    /// Ends one at once.
    pub const RST: u8 = 4;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 16;
}

impl Segment {
    /// Whether any of the control bits `bits` is set.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, bits: u8) -> bool {
        self.flags & bits != 0
    }
}

/// What is false about a packet to one of dotd's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The IP header claims more octets than the frame has, or fewer than its own headers take.
    IpLength,
    /// The datagram ends inside the TCP header.
    TcpTruncated,
    /// The data offset is below five, or leads beyond the datagram.
    TcpDataOffset,
    /// The UDP length is below eight, or beyond the datagram.
    UdpLength,
    /// More IPv6 extension headers than are walked, or headers beyond what can be read.
    ChainTooLong,
    /// A first fragment that ends within its IPv6 extension headers (RFC 7112 §5).
    ChainCut,
    /// More VLAN tags than are walked.
    TooManyTags,
}

/// How closely a packet to one of dotd's ports is looked at, once its addresses, ports and headers are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// It is ignored, malformed or not.
    Nobodys,
    /// It is another server's, and looked at if it is well-formed.
    Lawful,
    /// It is dotd's, malformed or not.
    Whole,
}

/// Reads a frame, whatever its destination. `Ok(None)`: the frame is not for dotd's ports, or cannot be attributed to
/// them.
///
/// # Errors
/// [`Malformed`]: the packet is for one of dotd's ports and is false, or cannot be read to its end.
pub fn parse(frame: &impl Headers, ports: &impl Services) -> Result<Option<Packet>, Malformed> {
    let mut packet = Packet::default();
    parse_into(frame, ports, || Some(&mut packet), |_| Interest::Whole).map(|packet| packet.copied())
}

/// The same, into memory from `room`, which is called once the packet is known to be for dotd's ports; without memory
/// the packet is ignored. `interest` decides how closely the packet is looked at, before its transport header is read.
///
/// The kernel half's memory is a map: fields that are written there at once occupy no register and no stack.
///
/// # Errors
/// [`Malformed`]: the packet is for one of dotd's ports and is false, or cannot be read to its end.
#[inline(always)]
pub fn parse_into<'a>(
    frame: &impl Headers,
    ports: &impl Services,
    room: impl FnOnce() -> Option<&'a mut Packet>,
    interest: impl FnOnce(&Packet) -> Interest,
) -> Result<Option<&'a Packet>, Malformed> {
    // Most frames of a machine are for other services, and end before the paths of the parser meet.
    let (packet, broken) = match begin(frame) {
        None => return Ok(None),
        Some(Way::Straight(located)) => {
            let Some(located) = attribute(frame, located, ports) else { return Ok(None) };
            let Some(packet) = room() else { return Ok(None) };
            packet.located = located;
            (packet, None)
        }
        Some(Way::Winding) => {
            let Some(packet) = room() else { return Ok(None) };
            let walked = frame.walk(&mut packet.located);
            let packet = frame.settle(packet);
            let broken = match walked {
                Walked::Nowhere => return Ok(None),
                Walked::Located => {
                    let Some(located) = attribute(frame, packet.located, ports) else { return Ok(None) };
                    packet.located = located;
                    None
                }
                Walked::ChainTooLong => Some(Malformed::ChainTooLong),
                Walked::ChainCut => Some(Malformed::ChainCut),
                Walked::TooManyTags => return Err(Malformed::TooManyTags),
            };
            (packet, broken)
        }
    };
    let packet = frame.settle(packet);
    if write_flow(frame, packet, packet.located.ports).is_none() {
        return Ok(None);
    }
    let packet = frame.settle(packet);
    let interest = interest(packet);
    if matches!(interest, Interest::Nobodys) {
        return Ok(None);
    }
    let malformed = match broken {
        None => read(frame, packet).err(),
        broken => broken,
    };
    if let Some(malformed) = malformed {
        return if matches!(interest, Interest::Lawful) { Ok(None) } else { Err(malformed) };
    }
    Ok(Some(frame.settle(packet)))
}

/// Reads an outgoing SYN-ACK of dotd's: the flow as seen from its client, and the client's initial sequence number.
///
/// The number is `acknowledgment - 1`: it is what the stack accepted, and not what a SYN claimed. It includes octets
/// that came with the SYN (Fast Open).
pub fn parse_syn_ack(frame: &impl Headers, ports: &impl Services) -> Option<(FlowKey, Sequence)> {
    let mut packet = Packet::default();
    parse_syn_ack_into(frame, ports, &mut packet).map(|(flow, initial)| (*flow, initial))
}

/// The same, into memory of the caller: see [`parse_into`].
#[inline(always)]
pub fn parse_syn_ack_into<'a>(
    frame: &impl Headers,
    ports: &impl Services,
    room: &'a mut Packet,
) -> Option<(&'a FlowKey, Sequence)> {
    match begin(frame)? {
        Way::Straight(located) => room.located = located,
        Way::Winding if matches!(frame.walk(&mut room.located), Walked::Located) => {}
        Way::Winding => return None,
    }
    let packet = frame.settle(room);
    let located = packet.located;
    if located.protocol() != PROTOCOL_TCP || located.is_first_fragment() {
        return None;
    }
    let [both_ports, _, acknowledgment, control] = frame.words_at::<4>(located.transport)?;
    let (from, _) = split(both_ports);
    ports.service(from)?;
    if control >> 16 & u32::from(flags::SYN | flags::ACK) != u32::from(flags::SYN | flags::ACK) {
        return None;
    }
    let flow = write_flow(frame, packet, both_ports.rotate_left(16))?;
    (flow.client, flow.server) = (flow.server, flow.client);
    Some((flow, acknowledgment.wrapping_sub(1)))
}

pub(crate) const PROTOCOL_TCP: u32 = 6;
pub(crate) const PROTOCOL_UDP: u32 = 17;
pub(crate) const UDP_HEADER_OCTETS: u32 = 8;
const TCP_HEADER_OCTETS_MIN: u32 = 20;

/// How the headers of a frame follow each other.
enum Way {
    /// IP follows directly, and its transport header behind it.
    Straight(Located),
    /// VLAN tags or extension headers come between: [`walk::locate`].
    Winding,
}

/// Looks at a frame's first headers. `None`: not IP, or neither TCP nor UDP, or a later fragment.
#[inline(always)]
fn begin<F: Headers>(frame: &F) -> Option<Way> {
    if F::WALKS_ALWAYS {
        return Some(Way::Winding);
    }
    let (ethertype, ip) = frame.link()?;
    match ethertype {
        0x0800 => locate_v4(frame, ip).map(Way::Straight),
        0x86dd => {
            let (claimed, next) = read_v6(frame, ip)?;
            if walk::is_extension(next) {
                return Some(Way::Winding);
            }
            let end = end_of(frame, ip, claimed, HEADER_OCTETS_V6 + claimed);
            let transport = ip + HEADER_OCTETS_V6;
            Some(Way::Straight(Located { ip, transport, end, kind: next | Located::V6, ports: 0 }))
        }
        ethertype if walk::is_tag(ethertype) => Some(Way::Winding),
        _ => None,
    }
}

/// Follows an IPv4 header to its transport. `None`: not IPv4, or a later fragment.
#[inline(always)]
pub(crate) fn locate_v4(frame: &impl Headers, ip: u32) -> Option<Located> {
    const MORE_FRAGMENTS: u32 = 0x2000;
    const FRAGMENT_OFFSET: u32 = 0x1fff;
    let [first, second, third] = frame.words_at::<3>(ip)?;
    let header_words = first >> 24 & 0xf;
    if first >> 28 != 4 || header_words < 5 || second & FRAGMENT_OFFSET != 0 {
        return None;
    }
    let mut kind = third >> 16 & 0xff;
    if second & MORE_FRAGMENTS != 0 {
        kind |= Located::FIRST_FRAGMENT;
    }
    let claimed = first & 0xffff;
    let end = end_of(frame, ip, claimed, claimed);
    Some(Located { ip, transport: ip + header_words * 4, end, kind, ports: 0 })
}

pub(crate) const HEADER_OCTETS_V6: u32 = 40;

/// The payload length that an IPv6 header claims, and what follows it. `None`: not IPv6.
#[inline(always)]
pub(crate) fn read_v6(frame: &impl Headers, ip: u32) -> Option<(u32, u32)> {
    let [first, second] = frame.words_at::<2>(ip)?;
    if first >> 28 != 6 {
        return None;
    }
    Some((second >> 16, second >> 8 & 0xff))
}

/// One past the datagram's last octet.
///
/// A length field of zero in a frame beyond 65,535 octets is the stack's own ("BIG TCP" aggregates,
/// RFC 2675 jumbograms): such a datagram ends where the frame does.
#[inline(always)]
pub(crate) fn end_of(frame: &impl Headers, ip: u32, claimed: u32, octets: u32) -> u32 {
    if claimed == 0 && frame.octets() > 0xffff { frame.octets() } else { ip + octets }
}

/// Attributes a located datagram to one of dotd's ports.
#[inline(always)]
fn attribute(frame: &impl Headers, located: Located, ports: &impl Services) -> Option<Located> {
    if !matches!(located.protocol(), PROTOCOL_TCP | PROTOCOL_UDP) {
        return None;
    }
    let [both_ports] = frame.words_at::<1>(located.transport)?;
    let (_, to) = split(both_ports);
    let service = match ports.service(to)? {
        Service::Dot => 0,
        Service::Do53 => Located::DO53,
    };
    Some(Located { kind: located.kind | service, ports: both_ports, ..located })
}

/// Checks what an attributed datagram claims, and writes its fields down.
#[inline(always)]
fn read(frame: &impl Headers, packet: &mut Packet) -> Result<(), Malformed> {
    let located = packet.located;
    if !frame.reaches(located.end) || located.end < located.transport {
        return Err(Malformed::IpLength);
    }
    let octets = located.end - located.transport;
    packet.service = if located.kind & Located::DO53 == 0 { Service::Dot } else { Service::Do53 };
    if located.protocol() == PROTOCOL_UDP {
        check_udp(frame, &located, octets)?;
        packet.transport = Transport::Udp;
    } else if located.is_first_fragment() {
        packet.transport = Transport::TcpFragment;
    } else {
        packet.transport = Transport::Tcp(read_segment(frame, &located, octets)?);
    }
    Ok(())
}

#[inline(always)]
fn check_udp(frame: &impl Headers, located: &Located, octets: u32) -> Result<(), Malformed> {
    let Some(length) = frame.u16_at(located.transport + 4) else { return Err(Malformed::UdpLength) };
    let length = u32::from(length);
    // The length counts all fragments: of a first fragment it is only known that it is not too short.
    let is_too_long = length > octets && !located.is_first_fragment();
    if octets < UDP_HEADER_OCTETS || length < UDP_HEADER_OCTETS || is_too_long {
        return Err(Malformed::UdpLength);
    }
    Ok(())
}

#[inline(always)]
fn read_segment(frame: &impl Headers, located: &Located, octets: u32) -> Result<Segment, Malformed> {
    if octets < TCP_HEADER_OCTETS_MIN {
        return Err(Malformed::TcpTruncated);
    }
    let words = frame.words_at::<3>(located.transport + 4);
    let Some([sequence, _, control]) = words else { return Err(Malformed::TcpTruncated) };
    let header_octets = (control >> 28) * 4;
    if header_octets < TCP_HEADER_OCTETS_MIN || header_octets > octets {
        return Err(Malformed::TcpDataOffset);
    }
    Ok(Segment {
        sequence,
        flags: (control >> 16 & 0xff) as u8,
        payload_offset: located.transport + header_octets,
        payload_octets: octets - header_octets,
    })
}

/// Writes down the addresses in wire order, the sender's as the client's.
#[inline(always)]
fn write_flow<'a>(frame: &impl Headers, packet: &'a mut Packet, ports: u32) -> Option<&'a mut FlowKey> {
    let ip = packet.located.ip;
    if packet.located.is_v6() {
        let [a, b, c, d] = frame.octets_at::<4>(ip + 8)?;
        packet.flow = FlowKey { client: [a, b], server: [c, d], ports, version: 6 };
        // Here and below: each IP version writes its own words; otherwise all words would stay on the stack until the
        // paths meet.
        Some(&mut frame.settle(packet).flow)
    } else {
        let [both] = frame.octets_at::<1>(ip + 12)?;
        packet.flow = FlowKey { client: [both & 0xffff_ffff, 0], server: [both >> 32, 0], ports, version: 4 };
        Some(&mut frame.settle(packet).flow)
    }
}

/// Source and destination port of a transport header's first word.
#[inline(always)]
pub(crate) const fn split(both_ports: u32) -> (u16, u16) {
    ((both_ports >> 16) as u16, (both_ports & 0xffff) as u16)
}

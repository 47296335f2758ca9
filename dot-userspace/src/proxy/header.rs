//! The octets of a header: written for backends, read from load balancers. Pure.
//!
//! Before: a [`Client`], or octets of unknown content. After: octets, or both addresses.
//! Holds: every number of the protocol. Never: allocates by a length from the wire, or reads version 1.
//!
//! ```text
//! [signature: 12][version 2, command: 1][family, transport: 1][octets that follow: u16]
//! [source address][destination address][source port: u16][destination port: u16]
//! [type: u8][octets: u16][value] …
//! ```

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use thiserror::Error;

use super::{Client, ClientTls, Named};

/// The first octets of every header; no TLS record and no length prefix of a DNS client begins with them.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family and length.
pub const PREAMBLE_OCTETS: usize = 16;
/// Two IPv6 addresses and two ports: the most octets behind the preamble that are read.
pub const ADDRESSES_OCTETS_MAX: usize = 36;
/// The longest header that [`write()`] makes.
pub const WRITTEN_OCTETS_MAX: usize =
    PREAMBLE_OCTETS + ADDRESSES_OCTETS_MAX + TLV_OCTETS_MAX + KEPT_OCTETS_MAX;
/// Most octets of a load balancer's own fields that are passed on; with more, none is. 256: enough for a cookie, a
/// tenant's name and an identifier of the connection, and a datagram still has room for its query.
pub const PASSED_OCTETS_MAX: usize = 256;
/// The most octets of [`Tlvs`]: those that are passed on, a server name and a name of a certificate.
pub const KEPT_OCTETS_MAX: usize =
    PASSED_OCTETS_MAX + (3 + SERVER_NAME_OCTETS_MAX) + (3 + COMMON_NAME_OCTETS_MAX);
/// A host name's most octets (RFC 1035 §2.3.4).
const SERVER_NAME_OCTETS_MAX: usize = 255;
/// A common name's most octets that are passed on: X.520 has 64 characters for it.
const COMMON_NAME_OCTETS_MAX: usize = 64;
/// ALPN `dot`, and TLS with its version.
const TLV_OCTETS_MAX: usize = (3 + ALPN.len()) + (3 + SSL_FIXED_OCTETS + 3 + TLS13.len());

const VERSION: u8 = 0x20;
const COMMAND_LOCAL: u8 = 0x0;
const COMMAND_PROXY: u8 = 0x1;
const FAMILY_INET: u8 = 0x10;
const FAMILY_INET6: u8 = 0x20;
const TRANSPORT_STREAM: u8 = 0x1;
const TRANSPORT_DGRAM: u8 = 0x2;
const IPV4_OCTETS: usize = 12;

/// PP2_TYPE_ALPN.
const TYPE_ALPN: u8 = 0x01;
/// PP2_TYPE_AUTHORITY: the host name that the client asked for (SNI).
const TYPE_AUTHORITY: u8 = 0x02;
/// PP2_TYPE_CRC32C: of the header that it stands in.
const TYPE_CRC32C: u8 = 0x03;
/// PP2_TYPE_NOOP: no content.
const TYPE_NOOP: u8 = 0x04;
/// PP2_TYPE_SSL.
const TYPE_SSL: u8 = 0x20;
/// PP2_SUBTYPE_SSL_VERSION.
const SUBTYPE_SSL_VERSION: u8 = 0x21;
/// PP2_SUBTYPE_SSL_CN: the common name in the client's certificate. It stands within PP2_TYPE_SSL; among [`Tlvs`], which never take
/// it from a header, it waits to be written there.
const SUBTYPE_SSL_CN: u8 = 0x22;
/// PP2_CLIENT_SSL: the client came over TLS.
const CLIENT_SSL: u8 = 0x01;
/// PP2_CLIENT_CERT_CONN and PP2_CLIENT_CERT_SESS: it showed a certificate, over this connection.
const CLIENT_CERT: u8 = 0x02 | 0x04;
/// PP2_TYPE_SSL begins with flags of the client and a 32-bit result.
const SSL_FIXED_OCTETS: usize = 5;
const ALPN: &[u8] = b"dot";
const TLS12: &[u8] = b"TLSv1.2";
const TLS13: &[u8] = b"TLSv1.3";

/// The first sixteen octets of a header, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// The kind of the addresses. `None`: they are ignored, and those of the connection are used (LOCAL, or an
    /// unknown kind).
    family: Option<Family>,
    /// Whether the client asked by datagram.
    pub is_datagram: bool,
    /// The number of octets that follow.
    pub octets: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Inet,
    Inet6,
}

/// The reason why octets are not accepted as a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// They do not begin like a header: TLS without a header, version 1, or other octets.
    #[error("not a PROXY header of version 2")]
    Signature,
    /// Another version or command.
    #[error("version and command {0:#04x}")]
    Command(u8),
    /// Not IP, or neither TCP nor UDP.
    #[error("address family and transport {0:#04x}")]
    Family(u8),
    /// Shorter than its addresses.
    #[error("{0} octets are too few for two addresses of their family")]
    Addresses(u16),
}

/// A load balancer's fields beside the addresses, type, length and value of each, unchanged; and the names in the client's
/// handshake. Cloning shares them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tlvs(Arc<[u8]>);

impl Tlvs {
    /// The fields among `octets`, which follow the addresses, that are valid after dotd too. `None`: there are none,
    /// they do not fit into their header, or they have more octets than [`PASSED_OCTETS_MAX`].
    #[must_use]
    pub fn read(octets: &[u8]) -> Option<Self> {
        let mut kept = Vec::new();
        for tlv in tlvs(octets) {
            let (kind, octets) = tlv?;
            if !matches!(kind, TYPE_CRC32C | TYPE_NOOP | SUBTYPE_SSL_CN) {
                kept.extend_from_slice(octets);
            }
        }
        (1..=PASSED_OCTETS_MAX).contains(&kept.len()).then(|| Self(kept.into()))
    }

    /// What [`Tlvs::octets`] gave before. `None`: nothing.
    #[must_use]
    pub fn again(octets: &[u8]) -> Option<Self> {
        (1..=KEPT_OCTETS_MAX).contains(&octets.len()).then(|| Self(octets.into()))
    }

    /// The fields of an earlier hop with the names in a handshake with dotd: the host name that the client asked for, which replaces
    /// an earlier hop's, and the common name in its certificate. A name that is too long is left out.
    #[must_use]
    pub fn named(
        earlier: Option<Self>,
        server_name: Option<&str>,
        common_name: Option<&str>,
    ) -> Option<Self> {
        let server_name = server_name.filter(|name| name.len() <= SERVER_NAME_OCTETS_MAX);
        let common_name = common_name.filter(|name| (1..=COMMON_NAME_OCTETS_MAX).contains(&name.len()));
        if server_name.is_none() && common_name.is_none() {
            return earlier;
        }
        let mut kept = Vec::new();
        for (kind, octets) in earlier.iter().flat_map(|earlier| tlvs(&earlier.0).flatten()) {
            if kind != TYPE_AUTHORITY || server_name.is_none() {
                kept.extend_from_slice(octets);
            }
        }
        for (kind, name) in [(TYPE_AUTHORITY, server_name), (SUBTYPE_SSL_CN, common_name)] {
            name.into_iter().for_each(|name| write_tlv(kind, &[name.as_bytes()], &mut kept));
        }
        Some(Self(kept.into()))
    }

    /// The common name's field.
    fn common_name(&self) -> Option<&[u8]> {
        tlvs(&self.0).flatten().find(|(kind, _)| *kind == SUBTYPE_SSL_CN).map(|(_, octets)| octets)
    }

    /// The octets as the client sent them.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// Appends them; if the client's TLS ended at this hop, without fields about an earlier hop's TLS.
    fn write(&self, has_tls: bool, out: &mut Vec<u8>) {
        for (kind, octets) in tlvs(&self.0).flatten() {
            if kind != SUBTYPE_SSL_CN && !(has_tls && matches!(kind, TYPE_ALPN | TYPE_SSL)) {
                out.extend_from_slice(octets);
            }
        }
    }
}

/// Type of each, and its octets with type and length. `None` if one does not fit.
fn tlvs(octets: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    let mut rest = octets;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let cut = rest.first_chunk::<3>().and_then(|[kind, high, low]| {
            let octets = 3 + usize::from(u16::from_be_bytes([*high, *low]));
            rest.split_at_checked(octets).map(|(tlv, behind)| (*kind, tlv, behind))
        });
        rest = cut.map_or(&[], |(_, _, behind)| behind);
        Some(cut.map(|(kind, tlv, _)| (kind, tlv)))
    })
}

/// Source and destination that a header names.
pub type Addresses = (SocketAddr, SocketAddr);

/// Reads the beginning of a header.
///
/// # Errors
/// [`Malformed`]: the connection cannot be used.
pub fn parse_preamble(octets: &[u8; PREAMBLE_OCTETS]) -> Result<Preamble, Malformed> {
    let [signature @ .., command, family, high, low] = octets;
    if signature != &SIGNATURE {
        return Err(Malformed::Signature);
    }
    let octets = u16::from_be_bytes([*high, *low]);
    let is_local = match command ^ VERSION {
        COMMAND_LOCAL => true,
        COMMAND_PROXY => false,
        _ => return Err(Malformed::Command(*command)),
    };
    let (named, address_octets) = match (*family, is_local) {
        // The addresses of LOCAL must be ignored, and those of "unspecified" too.
        (_, true) | (0, false) => (None, 0),
        (0x11 | 0x12, false) => (Some(Family::Inet), IPV4_OCTETS),
        (0x21 | 0x22, false) => (Some(Family::Inet6), ADDRESSES_OCTETS_MAX),
        (other, false) => return Err(Malformed::Family(other)),
    };
    if usize::from(octets) < address_octets {
        return Err(Malformed::Addresses(octets));
    }
    let is_datagram = named.is_some() && family & 0x0f == TRANSPORT_DGRAM;
    Ok(Preamble { family: named, is_datagram, octets })
}

impl Preamble {
    /// The octets of the addresses, which come first; the other fields follow.
    #[must_use]
    pub fn address_octets(&self) -> usize {
        match self.family {
            None => 0,
            Some(Family::Inet) => IPV4_OCTETS,
            Some(Family::Inet6) => ADDRESSES_OCTETS_MAX,
        }
    }

    /// The addresses in `octets`, which follow the preamble. `None`: the addresses of the connection are the client's.
    ///
    /// # Errors
    /// [`Malformed::Addresses`] when fewer than [`Preamble::address_octets`] are given.
    pub fn addresses(&self, octets: &[u8]) -> Result<Option<Addresses>, Malformed> {
        let short = Malformed::Addresses(self.octets);
        match self.family {
            None => Ok(None),
            Some(Family::Inet) => {
                let (addresses, ports) = octets.split_first_chunk::<8>().ok_or(short)?;
                let [a, b, c, d, e, f, g, h] = *addresses;
                endpoints([a, b, c, d].into(), [e, f, g, h].into(), ports).ok_or(short).map(Some)
            }
            Some(Family::Inet6) => {
                let (source, rest) = octets.split_first_chunk::<16>().ok_or(short)?;
                let (destination, ports) = rest.split_first_chunk::<16>().ok_or(short)?;
                endpoints((*source).into(), (*destination).into(), ports).ok_or(short).map(Some)
            }
        }
    }
}

fn endpoints(source: IpAddr, destination: IpAddr, ports: &[u8]) -> Option<Addresses> {
    let [a, b, c, d] = *ports.first_chunk::<4>()?;
    let (source_port, destination_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Some((
        SocketAddr::new(source.to_canonical(), source_port),
        SocketAddr::new(destination.to_canonical(), destination_port),
    ))
}

/// A whole header in front of `octets`: its content and its length. `Ok(None)`: it is not complete yet.
///
/// # Errors
/// [`Malformed`]: further octets would not help.
pub fn parse(octets: &[u8]) -> Result<Option<(Named, usize)>, Malformed> {
    let Some((preamble, rest)) = octets.split_first_chunk::<PREAMBLE_OCTETS>() else {
        let begins = SIGNATURE.iter().zip(octets).all(|(expected, found)| expected == found);
        return if begins { Ok(None) } else { Err(Malformed::Signature) };
    };
    let preamble = parse_preamble(preamble)?;
    let Some(body) = rest.get(..usize::from(preamble.octets)) else { return Ok(None) };
    let addresses = preamble.addresses(body)?;
    let tlvs = addresses.and_then(|_| Tlvs::read(body.get(preamble.address_octets()..)?));
    Ok(Some((Named { addresses, is_datagram: preamble.is_datagram, tlvs }, PREAMBLE_OCTETS + body.len())))
}

/// Appends the header of a query that `client` asked; `None`: dotd itself asks (LOCAL).
///
/// The transport is the client's, as the specification requires, whatever carries the header.
pub fn write(client: Option<&Client>, out: &mut Vec<u8>) {
    out.extend_from_slice(&SIGNATURE);
    let Some(client) = client else {
        out.extend_from_slice(&[VERSION | COMMAND_LOCAL, 0, 0, 0]);
        return;
    };
    let transport = if client.is_datagram { TRANSPORT_DGRAM } else { TRANSPORT_STREAM };
    let length_at = out.len() + 2;
    let (source, destination) = (client.source, client.destination);
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend_from_slice(&[VERSION | COMMAND_PROXY, FAMILY_INET | transport, 0, 0]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        (from, to) => {
            out.extend_from_slice(&[VERSION | COMMAND_PROXY, FAMILY_INET6 | transport, 0, 0]);
            out.extend_from_slice(&as_ipv6(from).octets());
            out.extend_from_slice(&as_ipv6(to).octets());
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
    if let Some(tls) = client.tls {
        write_tls(tls, client.tlvs.as_ref().and_then(Tlvs::common_name).unwrap_or_default(), out);
    }
    if let Some(tlvs) = &client.tlvs {
        tlvs.write(client.tls.is_some(), out);
    }
    let octets = u16::try_from(out.len() - length_at - 2).unwrap_or_default();
    if let Some(length) = out.get_mut(length_at..length_at + 2) {
        length.copy_from_slice(&octets.to_be_bytes());
    }
}

fn as_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn write_tls(tls: ClientTls, common_name: &[u8], out: &mut Vec<u8>) {
    if tls.has_alpn {
        write_tlv(TYPE_ALPN, &[ALPN], out);
    }
    let flags = if tls.is_certified { CLIENT_SSL | CLIENT_CERT } else { CLIENT_SSL };
    // Zero is "a certificate, and verified" (section 2.2.5).
    let verify = u32::from(!tls.is_certified).to_be_bytes();
    let version = if tls.is_tls13 { TLS13 } else { TLS12 };
    let inner = [SUBTYPE_SSL_VERSION, 0, u8::try_from(version.len()).unwrap_or_default()];
    write_tlv(TYPE_SSL, &[&[flags], &verify, &inner, version, common_name], out);
}

fn write_tlv(kind: u8, parts: &[&[u8]], out: &mut Vec<u8>) {
    let octets = parts.iter().map(|part| part.len()).sum::<usize>();
    out.push(kind);
    out.extend_from_slice(&u16::try_from(octets).unwrap_or_default().to_be_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

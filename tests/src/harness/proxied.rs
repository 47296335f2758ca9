//! PROXY headers as the scripted backend reads them, and as a test's load balancer writes them.
//!
//! Before: octets. After: the client that the header names; every octet is kept.
//! Never: shares code with dotd.
//!
//! Source: "The PROXY protocol, versions 1 & 2", section 2.2.

use std::net::{IpAddr, SocketAddr};

/// The first octets of every header of version 2.
pub const SIGNATURE: [u8; 12] = [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];

/// A header that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version and command: 0x20 LOCAL, 0x21 PROXY.
    pub command: u8,
    /// Family and transport: 0x11 TCP over IPv4, 0x21 TCP over IPv6.
    pub family: u8,
    /// The client, and the address that it connected to.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The octets behind the addresses.
    pub tlvs: Vec<u8>,
}

/// Takes a header from the front, if a whole one is there.
///
/// # Panics
/// When its lengths are false.
pub fn take_header(buffer: &mut Vec<u8>) -> Option<Header> {
    if !buffer.starts_with(&SIGNATURE) || buffer.len() < 16 {
        return None;
    }
    let (command, family) = (buffer[12], buffer[13]);
    let length = usize::from(u16::from_be_bytes([buffer[14], buffer[15]]));
    if buffer.len() < 16 + length {
        return None;
    }
    let body: Vec<u8> = buffer.drain(..16 + length).skip(16).collect();
    let octets = match family {
        0x11 | 0x12 => 4,
        0x21 | 0x22 => 16,
        _ => return Some(Header { command, family, addresses: None, tlvs: body }),
    };
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let source = SocketAddr::new(address(&body[..octets]), port(2 * octets));
    let destination = SocketAddr::new(address(&body[octets..2 * octets]), port(2 * octets + 2));
    let tlvs = body[2 * octets + 4..].to_vec();
    Some(Header { command, family, addresses: Some((source, destination)), tlvs })
}

fn address(octets: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(octets) {
        Ok(v4) => v4.into(),
        Err(_) => <[u8; 16]>::try_from(octets).expect("four octets or sixteen").into(),
    }
}

/// A header as a load balancer writes it, TCP over IPv4.
#[must_use]
pub fn header_v4(source: ([u8; 4], u16), destination: ([u8; 4], u16), tlvs: &[u8]) -> Vec<u8> {
    let ports = [source.1.to_be_bytes(), destination.1.to_be_bytes()].concat();
    raw_header(0x21, 0x11, &[&source.0[..], &destination.0, &ports, tlvs].concat())
}

/// Any header.
#[must_use]
pub fn raw_header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("fits").to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, body].concat()
}

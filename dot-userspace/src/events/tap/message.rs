//! Encodes one dnstap message in a data frame of Frame Streams.
//!
//! Before: a tap has a message, its addresses and its times. After: the batch has another frame.
//! Never: allocates beyond the batch and the scratch buffer, which are reused.
//!
//! Source: dnstap.proto (dnstap.info); Frame Streams: a data frame is its length, 32 bits big-endian, and its octets.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use prost::encoding::{WireType, encode_key, encode_varint, fixed32, uint32, uint64};

use super::{Carrier, Tapped, Way, sink::Plan};

/// `Dnstap.version`.
const VERSION: &str = concat!("dotd ", env!("CARGO_PKG_VERSION"));
/// `Dnstap.Type.MESSAGE`, the only one.
const TYPE_MESSAGE: u32 = 1;
/// RD in the third octet of a header (RFC 1035 §4.1.1).
const RD: u8 = 1;

/// A message that was read or written.
pub(super) struct Message<'a> {
    pub what: Tapped,
    pub way: Way,
    /// Time since 1970.
    pub began: Option<Duration>,
    /// For a response: the time at which it was read or written.
    pub ended: Option<Duration>,
    pub octets: &'a [u8],
}

impl Message<'_> {
    /// Appends the frame to `out`. The content of `scratch` has no meaning afterwards.
    pub(super) fn write(&self, plan: &Plan, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        scratch.clear();
        self.write_fields(scratch);
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        if !plan.identity.is_empty() {
            octets(1, &plan.identity, out);
        }
        octets(2, VERSION.as_bytes(), out);
        octets(14, scratch, out);
        uint32::encode(15, &TYPE_MESSAGE, out);
        let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
        if let Some(place) = out.get_mut(start..start + 4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }

    fn write_fields(&self, out: &mut Vec<u8>) {
        let Way { asker, asked, carrier } = self.way;
        uint32::encode(1, &self.kind(), out);
        uint32::encode(2, &if asked.is_ipv4() { 1 } else { 2 }, out);
        let carrier: u32 = match carrier {
            Carrier::Udp => 1,
            Carrier::Tcp => 2,
            Carrier::Dot => 3,
        };
        uint32::encode(3, &carrier, out);
        if let Some(asker) = asker {
            address(4, asker, out);
        }
        address(5, asked, out);
        // A client's network has no port.
        if let Some(port) = asker.map(|asker| asker.port()).filter(|port| *port != 0) {
            uint32::encode(6, &u32::from(port), out);
        }
        uint32::encode(7, &u32::from(asked.port()), out);
        let is_response = self.ended.is_some();
        if let Some(began) = self.began {
            time((8, 9), began, out);
        }
        if !is_response {
            octets(10, self.octets, out);
        }
        if let Some(ended) = self.ended {
            time((12, 13), ended, out);
            octets(14, self.octets, out);
        }
    }

    /// `Message.Type`. A query with RD to a backend means that the backend recurses and dotd is its forwarder;
    /// without RD, dotd asks as a resolver asks an authoritative server.
    fn kind(&self) -> u32 {
        let is_recursive = self.octets.get(2).is_some_and(|flags| flags & RD != 0);
        match (self.what, is_recursive) {
            (Tapped::BackendQuery, false) => 3,
            (Tapped::BackendResponse, false) => 4,
            (Tapped::ClientQuery, _) => 5,
            (Tapped::ClientResponse, _) => 6,
            (Tapped::BackendQuery, true) => 7,
            (Tapped::BackendResponse, true) => 8,
        }
    }
}

fn octets(tag: u32, octets: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(octets.len() as u64, out);
    out.extend_from_slice(octets);
}

fn address(tag: u32, address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(address) => octets(tag, &address.octets(), out),
        IpAddr::V6(address) => octets(tag, &address.octets(), out),
    }
}

fn time((seconds, nanoseconds): (u32, u32), time: Duration, out: &mut Vec<u8>) {
    uint64::encode(seconds, &time.as_secs(), out);
    fixed32::encode(nanoseconds, &time.subsec_nanos(), out);
}

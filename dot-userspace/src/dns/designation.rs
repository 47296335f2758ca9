//! The designation of this resolver: the name, address and port for DNS over TLS. Pure.
//!
//! Before: a certificate and listen addresses. After: SVCB records for queries about this resolver.
//! Holds: the name and the addresses that the certificate is valid for, and the ports of DNS over TLS.
//! Never: names an address that the certificate does not cover: a client that verifies would refuse it, and one that
//! does not verify could be led to any server.
//!
//! Source: RFC 9462 §4 (`_dns.resolver.arpa`) and §5 (a resolver's own name), RFC 9461 §3, RFC 9460 §2.2 and §7.

use std::net::{IpAddr, SocketAddr};

use super::{Labels, Made, NAME_OCTETS_MAX, ResponseCode, TYPE_A, TYPE_AAAA};

/// QTYPE of a service binding.
pub const TYPE_SVCB: u16 = 64;
/// The name that a client asks for if it knows only the address of a resolver.
const OF_THE_ADDRESS: &[u8] = b"\x04_dns\x08resolver\x04arpa\x00";
/// The prefix before a resolver's own name.
const ATTRIBUTE: &[u8] = b"\x04_dns";
/// 5 min: clients ask again soon after a certificate or a listener has changed.
const TTL_SECONDS: u32 = 300;
/// Most addresses of one answer: those of one machine.
const ADDRESSES_MAX: usize = 8;

/// The name, the addresses and the ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Designation {
    /// Wire format, lower case.
    target: Box<[u8]>,
    /// Addresses that the certificate is valid for.
    covered: Box<[IpAddr]>,
    /// Listeners of DNS over TLS.
    listeners: Box<[SocketAddr]>,
}

impl Designation {
    /// For a certificate that is valid for `name` and these addresses. `None`: it is not a domain name.
    #[must_use]
    pub fn new(name: &str, covered: &[IpAddr], listeners: &[SocketAddr]) -> Option<Self> {
        let target = Labels::parse(name.trim_end_matches('.').as_bytes(), None).ok()?;
        let is_sound = target.count() > 0 && target.octets().len() + ATTRIBUTE.len() <= NAME_OCTETS_MAX;
        let covered = covered.iter().map(IpAddr::to_canonical).collect();
        is_sound.then(|| Self { target: target.octets().into(), covered, listeners: listeners.into() })
    }

    /// Whether the question whose name is `name` (in lower case) is about the resolver's own name.
    #[must_use]
    pub fn is_own_name(&self, name: &[u8]) -> bool {
        name.strip_prefix(ATTRIBUTE) == Some(&*self.target)
    }

    /// The address and port at which dotd listens for TLS, for this address.
    fn port_at(&self, address: IpAddr) -> Option<u16> {
        let is_at = |listener: &&SocketAddr| {
            let own = listener.ip().to_canonical();
            own == address || own.is_unspecified() && (own.is_ipv6() || address.is_ipv4())
        };
        self.listeners.iter().find(is_at).map(SocketAddr::port)
    }

    /// Writes the answer to the question in `front`, which came to the address `asked`: SVCB and addresses, or NODATA.
    pub fn write(&self, front: &[u8], asked: IpAddr, dnssec_ok: bool, out: &mut Vec<u8>) {
        let asked = asked.to_canonical();
        let name = Labels::read(front, super::HEADER_OCTETS);
        let name = name.as_ref().map_or(&[][..], Labels::octets);
        let is_asked = super::qtype_of(front, front.len()) == TYPE_SVCB;
        let covers = self.covered.contains(&asked);
        let port = match name == OF_THE_ADDRESS {
            true => self.port_at(asked).filter(|_| covers),
            // The client verifies the name.
            false if self.is_own_name(name) => self.port_at(asked),
            false => None,
        };
        let mut made = Made::begin(front, 0, out);
        if let Some(port) = port.filter(|_| is_asked) {
            let here = |address: &IpAddr| *address != asked && self.port_at(*address) == Some(port);
            let others = self.covered.iter().copied().filter(here);
            let addresses: Vec<IpAddr> = std::iter::once(asked).chain(others).take(ADDRESSES_MAX).collect();
            made.answer(None, TYPE_SVCB, TTL_SECONDS, &self.service(port, &addresses));
            for address in addresses {
                match address {
                    IpAddr::V4(v4) => made.additional(Some(&self.target), TYPE_A, TTL_SECONDS, &v4.octets()),
                    IpAddr::V6(v6) => {
                        made.additional(Some(&self.target), TYPE_AAAA, TTL_SECONDS, &v6.octets())
                    }
                }
            }
        }
        made.finish(ResponseCode::NoError, None, dnssec_ok);
    }

    /// RDATA of the record: priority 1, the name, and parameters in the order of their keys.
    fn service(&self, port: u16, addresses: &[IpAddr]) -> Vec<u8> {
        [&[0, 1][..], &self.target, &parameters(port, addresses)].concat()
    }
}

/// Service parameters (RFC 9460 §2.2): alpn, port, and addresses by family.
#[must_use]
pub fn parameters(port: u16, addresses: &[IpAddr]) -> Vec<u8> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        match address {
            IpAddr::V4(address) => v4.extend(address.octets()),
            IpAddr::V6(address) => v6.extend(address.octets()),
        }
    }
    let mut octets = Vec::new();
    for (key, value) in [(1_u16, &b"\x03dot"[..]), (3, &port.to_be_bytes()), (4, &v4), (6, &v6)] {
        if !value.is_empty() {
            octets.extend(key.to_be_bytes());
            octets.extend(u16::try_from(value.len()).unwrap_or_default().to_be_bytes());
            octets.extend(value);
        }
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(designation: &Designation, name: &str, qtype: u16, at: &str) -> (u16, Vec<u8>) {
        let name = super::super::wire_name(name).unwrap();
        let front = [&[0; 12][..], &name, &qtype.to_be_bytes(), &[0, 1]].concat();
        let mut out = Vec::new();
        designation.write(&front, at.parse().unwrap(), false, &mut out);
        (u16::from_be_bytes([out[6], out[7]]), out.split_off(front.len()))
    }

    /// Goal: an address is designated, with its port, name and addresses, if the certificate covers it and dotd
    /// listens there; other addresses are not; a resolver's own name is designated at every address. Covers: C-510,
    /// C-511
    #[test]
    fn only_what_the_certificate_covers_is_designated() {
        let covered = ["192.0.2.1", "2001:db8::1", "198.51.100.1"].map(|text| text.parse().unwrap());
        let listeners =
            ["192.0.2.1:8853", "[2001:db8::1]:8853", "203.0.113.1:853"].map(|text| text.parse().unwrap());
        let designation = Designation::new("DNS.example", &covered, &listeners).unwrap();
        let (count, octets) = asked(&designation, "_dns.resolver.arpa", TYPE_SVCB, "::ffff:192.0.2.1");
        let svcb = b"\x00\x01\x03dns\x07example\x00\x00\x01\x00\x04\x03dot\x00\x03\x00\x02\x22\x95\x00\x04\x00\x04\xc0\x00\x02\x01";
        assert_eq!((count, &octets[12..12 + svcb.len()]), (1, &svcb[..]));
        let of = |name, qtype, at| asked(&designation, name, qtype, at).0;
        assert_eq!(of("_dns.resolver.arpa", TYPE_SVCB, "2001:db8::1"), 1);
        assert_eq!(of("_DNS.dns.EXAMPLE", TYPE_SVCB, "203.0.113.1"), 1);
        // Not covered; covered, but without a listener; another type; another name.
        assert_eq!(of("_dns.resolver.arpa", TYPE_SVCB, "203.0.113.1"), 0);
        assert_eq!(of("_dns.resolver.arpa", TYPE_SVCB, "198.51.100.1"), 0);
        assert_eq!(of("_dns.resolver.arpa", TYPE_A, "192.0.2.1"), 0);
        assert_eq!(of("resolver.arpa", TYPE_SVCB, "192.0.2.1"), 0);
        let any = Designation::new("dns.example", &covered, &["0.0.0.0:853".parse().unwrap()]).unwrap();
        assert_eq!(asked(&any, "_dns.resolver.arpa", TYPE_SVCB, "198.51.100.1").0, 1);
        assert_eq!(asked(&any, "_dns.resolver.arpa", TYPE_SVCB, "2001:db8::1").0, 0);
        assert!(Designation::new(".", &[], &[]).is_none());
    }
}

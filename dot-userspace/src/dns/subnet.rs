//! The client subnet (ECS) of a query on its way to a backend: taken out, or put in, where the operator wants that.
//!
//! Before: `forward` wrote the query, its OPT last. After: a backend knows what it shall know of where the client is.
//! Never: runs while the option is to pass; adds to a query that has one (also /0, which asks for none); touches a
//! signed query.
//!
//! Source: RFC 7871 §6 (format), §7.1.2 (what a client asked for holds), §11.1 (prefix lengths).

use std::net::IpAddr;

use super::{
    edns::{SUBNET_OPTION, options},
    forward::write_at,
    records::u16_at,
    respond::EMPTY_OPT,
};

/// Octets of an IPv4 address that leave: /24.
const IPV4_OCTETS: u8 = 3;
/// Octets of an IPv6 address that leave: /56.
const IPV6_OCTETS: u8 = 7;
/// FAMILY, SOURCE and SCOPE PREFIX-LENGTH.
const FIXED_OCTETS: u8 = 4;

/// Takes the client subnet out of `query`, whose OPT stands last with its options at `opt_rdata`.
pub fn strip_subnet(query: &mut Vec<u8>, opt_rdata: usize) {
    let mut offset = opt_rdata;
    while let (Some(code), Some(octets)) = (u16_at(query, offset), u16_at(query, offset + 2)) {
        let end = (offset + 4 + usize::from(octets)).min(query.len());
        if code == SUBNET_OPTION {
            query.drain(offset..end);
        } else {
            offset = end;
        }
    }
    write_rdata_length(query, opt_rdata);
}

/// Puts the subnet of `client` into `query`, which has none. `opt_rdata`: where the options of its OPT begin, which
/// stands last; `None`: it has no OPT, and gets one. Returns where its options begin.
pub fn add_subnet(query: &mut Vec<u8>, opt_rdata: Option<usize>, client: IpAddr) -> usize {
    let opt_rdata = opt_rdata.unwrap_or_else(|| {
        let additional = u16_at(query, 10).unwrap_or_default().saturating_add(1);
        write_at(query, 10, additional);
        query.extend_from_slice(&EMPTY_OPT);
        query.len()
    });
    let (v4, v6);
    let (family, octets, address): (u8, u8, &[u8]) = match client.to_canonical() {
        IpAddr::V4(address) => {
            v4 = address.octets();
            (1, IPV4_OCTETS, &v4)
        }
        IpAddr::V6(address) => {
            v6 = address.octets();
            (2, IPV6_OCTETS, &v6)
        }
    };
    query.extend_from_slice(&SUBNET_OPTION.to_be_bytes());
    query.extend_from_slice(&[0, FIXED_OCTETS + octets, 0, family, octets * 8, 0]);
    query.extend_from_slice(address.get(..usize::from(octets)).unwrap_or_default());
    write_rdata_length(query, opt_rdata);
    opt_rdata
}

fn write_rdata_length(query: &mut [u8], opt_rdata: usize) {
    let octets = u16::try_from(query.len().saturating_sub(opt_rdata)).unwrap_or_default();
    write_at(query, opt_rdata.saturating_sub(2), octets);
}

/// Whether there is a client subnet among these options.
pub(super) fn has_subnet(rdata: &[u8]) -> bool {
    options(rdata).flatten().any(|(code, _)| code == SUBNET_OPTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query for the root with an OPT of these options, and where they begin.
    fn query(options: Option<&[u8]>) -> (Vec<u8>, Option<usize>) {
        let mut octets = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(options.is_some())];
        octets.extend([0, 0, 1, 0, 1]);
        let Some(options) = options else { return (octets, None) };
        octets.extend([0, 0, 41, 5, 120, 0, 0, 0, 0, 0, u8::try_from(options.len()).unwrap()]);
        let rdata = octets.len();
        octets.extend(options);
        (octets, Some(rdata))
    }

    const COOKIE: &[u8] = &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    const SUBNET: &[u8] = &[0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2];

    /// Goal: the subnet goes, wherever it stands and however often, and all else stays.
    #[test]
    fn strips_the_subnet_alone() {
        for options in
            [[SUBNET, COOKIE].concat(), [COOKIE, SUBNET].concat(), [SUBNET, COOKIE, SUBNET].concat()]
        {
            let (mut octets, rdata) = query(Some(&options));
            strip_subnet(&mut octets, rdata.unwrap());
            assert_eq!((octets, rdata), query(Some(COOKIE)));
        }
        let (mut octets, rdata) = query(Some(&[]));
        strip_subnet(&mut octets, rdata.unwrap());
        assert_eq!((octets, rdata), query(Some(&[])));
    }

    /// Goal: /24 and /56 and no bit more, into the OPT that is there or a new one.
    #[test]
    fn adds_a_prefix_and_no_address() {
        for (client, option) in [
            ("192.0.2.77", SUBNET),
            ("::ffff:192.0.2.77", SUBNET),
            ("2001:db8:1:2ff::9", &[0, 8, 0, 11, 0, 2, 56, 0, 0x20, 1, 0x0d, 0xb8, 0, 1, 2][..]),
        ] {
            for before in [Some(COOKIE), Some(&[][..]), None] {
                let (mut octets, rdata) = query(before);
                let at = add_subnet(&mut octets, rdata, client.parse().unwrap());
                let expected = [before.unwrap_or_default(), option].concat();
                assert_eq!((octets, Some(at)), query(Some(&expected)), "{client}");
            }
        }
    }
}

//! The client subnet (ECS) of a query to a backend, if the operator wants it added.
//!
//! Before: `forward` wrote the query. After: the backend learns as much of the client's network as configured.
//! Never: adds to a query that has one (including /0, which asks for none); changes a signed query.
//!
//! Source: RFC 7871 §6 (format), §7.1.2 (a client's own option has priority), §11.1 (prefix lengths).

use std::net::IpAddr;

use super::{
    edns::{SUBNET_OPTION, copy_end_to_end, take_in},
    records::{Counts, Record, u16_at, walk_tail, write_at},
    respond::EMPTY_OPT,
};

/// Octets of an IPv4 address that are sent: /24.
const IPV4_OCTETS: u8 = 3;
/// Octets of an IPv6 address that are sent: /56.
const IPV6_OCTETS: u8 = 7;
/// FAMILY, SOURCE and SCOPE PREFIX-LENGTH.
const FIXED_OCTETS: u8 = 4;
/// OPTION-CODE and OPTION-LENGTH.
const HEADER_OCTETS: usize = 4;
/// Offset of SOURCE PREFIX-LENGTH in an option with its header; SCOPE PREFIX-LENGTH follows.
const SOURCE_AT: usize = HEADER_OCTETS + 2;
const SCOPE_AT: usize = SOURCE_AT + 1;

/// What a backend learns of a client's subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The option of the client's query.
    AsItCame,
    /// No option.
    Stripped,
    /// The subnet of this address.
    Added(IpAddr),
}

/// A client subnet option, its header included.
pub struct SubnetOption {
    octets: [u8; HEADER_OCTETS + FIXED_OCTETS as usize + IPV6_OCTETS as usize],
    length: usize,
}

impl SubnetOption {
    /// The option for `client`: the first bits of its address.
    #[must_use]
    pub fn of(client: IpAddr) -> Self {
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
        let [high, low] = SUBNET_OPTION.to_be_bytes();
        let head = [high, low, 0, FIXED_OCTETS + octets, 0, family, octets * 8, 0];
        let mut option = Self { octets: Default::default(), length: head.len() + usize::from(octets) };
        let written = head.iter().chain(address.iter().take(usize::from(octets)));
        option.octets.iter_mut().zip(written).for_each(|(place, octet)| *place = *octet);
        option
    }

    /// Its octets.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }
}

/// The clients for which a response to a query with a client subnet is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// It has no scope: its server does not support subnets, and every client gets the same answer.
    Unsaid,
    /// All clients of the address family: SCOPE PREFIX-LENGTH 0.
    All,
    /// Some clients.
    Some,
}

/// The scope of the option `answered` for the query option `asked`. `None`: it is about another subnet (RFC 7871 §7.3).
pub(super) fn scope_of(answered: &[u8], asked: &[u8]) -> Option<Scope> {
    let (head, rest) = answered.split_at_checked(SCOPE_AT)?;
    let (asked_head, asked_rest) = asked.split_at_checked(SCOPE_AT)?;
    let ((scope, address), (_, asked_address)) = (rest.split_first()?, asked_rest.split_first()?);
    let is_same = head == asked_head && address == asked_address;
    is_same.then_some(if *scope == 0 { Scope::All } else { Scope::Some })
}

/// Whether the answer to a query with this option may be valid for all clients. It is not if the query asks for no
/// subnet (SOURCE 0), whose scope is 0 whatever others get, or if the option is invalid.
#[must_use]
pub fn may_be_for_all(option: &[u8]) -> bool {
    option.len() > SCOPE_AT && option.get(SOURCE_AT) != Some(&0) && option.get(SCOPE_AT) == Some(&0)
}

/// FAMILY of an option, its header included.
#[must_use]
pub fn family_of(option: &[u8]) -> [u8; 2] {
    option.get(HEADER_OCTETS..HEADER_OCTETS + 2).and_then(|pair| pair.try_into().ok()).unwrap_or_default()
}

/// Writes `response`, whose question ends at `question_end`, into `out` without its client subnet. `None`: its OPT is
/// not the last record.
pub fn without_subnet(response: &[u8], question_end: usize, out: &mut Vec<u8>) -> Option<()> {
    let opt = opt_of(response, question_end).filter(|opt| opt.end == response.len())?;
    out.clear();
    out.extend_from_slice(response.get(..opt.rdata)?);
    copy_end_to_end(response.get(opt.rdata..opt.end)?, false, out);
    let octets = u16::try_from(out.len() - opt.rdata).ok()?;
    write_at(out, opt.rdata - 2, octets);
    Some(())
}

/// Adds the client's own subnet `option` to `message`, which is valid for every client: as the client sent it, with scope
/// 0 (RFC 7871 §7.2.1).
pub fn tell_subnet(message: &mut Vec<u8>, question_end: usize, option: &[u8]) {
    let Some(opt) = opt_of(message, question_end) else { return };
    message.extend_from_slice(option);
    take_in(message, opt.rdata, option.len());
}

fn opt_of(message: &[u8], question_end: usize) -> Option<Record> {
    walk_tail(message, question_end, Counts::read(message)?).ok()?.opt
}

/// Adds the subnet of `client` to `query`, which has none. `opt_rdata`: where the options of its OPT begin, which may
/// grow; `None`: it has no OPT, and gets one. Returns where its options begin.
pub fn add_subnet(query: &mut Vec<u8>, opt_rdata: Option<usize>, client: IpAddr) -> usize {
    let opt_rdata = opt_rdata.unwrap_or_else(|| {
        let additional = u16_at(query, 10).unwrap_or_default().saturating_add(1);
        write_at(query, 10, additional);
        query.extend_from_slice(&EMPTY_OPT);
        query.len()
    });
    let option = SubnetOption::of(client);
    query.extend_from_slice(option.octets());
    let octets = option.octets().len();
    take_in(query, opt_rdata, octets);
    opt_rdata
}

/// Removes the OPT that [`add_subnet`] appended to `query`; its options begin at `opt_rdata`.
pub fn take_opt_off(query: &mut Vec<u8>, opt_rdata: usize) {
    let additional = u16_at(query, 10).unwrap_or_default().saturating_sub(1);
    write_at(query, 10, additional);
    query.truncate(opt_rdata.saturating_sub(EMPTY_OPT.len()));
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Query, forward, pad_query},
        *,
    };

    /// An address record, its owner name pointing to the question.
    const BEHIND: &[u8] = &[2, b'n', b's', 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 77];

    /// A query for the root with an OPT of these options, and these records behind it.
    fn query(options: Option<&[u8]>, behind: &[&[u8]]) -> Vec<u8> {
        let records = u8::from(options.is_some()) + u8::try_from(behind.len()).unwrap();
        let mut octets = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, records];
        octets.extend([0, 0, 1, 0, 1]);
        if let Some(options) = options {
            octets.extend([0, 0, 41, 5, 120, 0, 0, 0, 0, 0, u8::try_from(options.len()).unwrap()]);
            octets.extend(options);
        }
        [octets, behind.concat()].concat()
    }

    fn forwarded(message: &[u8], passes_subnet: bool) -> (Vec<u8>, Option<usize>) {
        let mut out = Vec::new();
        let query = Query::parse(message).unwrap();
        let opt_rdata = forward(message, &query, 1, passes_subnet, &mut out);
        (out, opt_rdata)
    }

    const COOKIE: &[u8] = &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    const SUBNET: &[u8] = &[0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2];

    /// Goal: the subnet is removed, at any place and any number of times, and everything else stays.
    #[test]
    fn strips_the_subnet_alone() {
        for behind in [&[][..], &[BEHIND]] {
            for options in [vec![SUBNET, COOKIE], vec![COOKIE, SUBNET], vec![SUBNET, COOKIE, SUBNET]] {
                let message = query(Some(&options.concat()), behind);
                assert_eq!(forwarded(&message, false).0, query(Some(COOKIE), behind));
                assert_eq!(forwarded(&message, true).0, message);
            }
            let message = query(Some(&[]), behind);
            assert_eq!(forwarded(&message, false).0, message);
        }
    }

    /// Goal: exactly /24 and /56 are added, to the OPT that is there, at any place, or to a new one; padding works with
    /// it.
    #[test]
    fn adds_a_prefix_and_no_address() {
        for (client, option) in [
            ("192.0.2.77", SUBNET),
            ("::ffff:192.0.2.77", SUBNET),
            ("2001:db8:1:2ff::9", &[0, 8, 0, 11, 0, 2, 56, 0, 0x20, 1, 0x0d, 0xb8, 0, 1, 2][..]),
        ] {
            for (before, behind) in
                [(Some(COOKIE), &[][..]), (Some(COOKIE), &[BEHIND]), (Some(&[]), &[BEHIND]), (None, &[])]
            {
                let (mut octets, opt_rdata) = forwarded(&query(before, behind), true);
                let opt_rdata = add_subnet(&mut octets, opt_rdata, client.parse().unwrap());
                let expected = [before.unwrap_or_default(), option].concat();
                assert_eq!(octets, query(Some(&expected), behind), "{client}");
                if before.is_none() {
                    let mut without = octets.clone();
                    take_opt_off(&mut without, opt_rdata);
                    assert_eq!(without, forwarded(&query(None, &[]), true).0);
                }
                let mut padded = Vec::new();
                pad_query(&octets, opt_rdata, &mut padded);
                let fill = 128 - octets.len() - 4;
                let padding = [&[0, 12, 0, u8::try_from(fill).unwrap()][..], &vec![0; fill]].concat();
                assert_eq!(padded, query(Some(&[expected, padding].concat()), behind));
            }
        }
    }
}

//! A question as a DNS message, by hickory-proto.
//!
//! Before: `plan` has checked the options. After: `exchange` sends the octets.
//! Never: sends, or chooses an ID that a question in flight has.
//!
//! Source: RFC 1035 §4.1, RFC 6891 §6.1, RFC 7830 and RFC 8467 §4.1 (padding), RFC 7828, RFC 7871 §6, RFC 7873 §4.

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::rdata::opt::EdnsOption,
};
use ipnet::IpNet;

use super::{
    arguments::{self, MessageArguments},
    words::Question,
};

/// The options of every query beside its question.
pub(super) struct Manner {
    dnssec: bool,
    checking_disabled: bool,
    authentic_data: bool,
    recursion: bool,
    /// Whether there is an OPT record, and its payload size.
    edns: Option<u16>,
    /// Multiple of octets; 0: no padding.
    padding_block: usize,
    options: Vec<(u16, Vec<u8>)>,
    /// The client's half of the cookie, to compare it with the answer's.
    pub(super) cookie: Option<[u8; 8]>,
}

/// Options by number.
pub(super) const SUBNET: u16 = 8;
pub(super) const COOKIE: u16 = 10;
pub(super) const KEEPALIVE: u16 = 11;
pub(super) const PADDING: u16 = 12;
pub(super) const NSID: u16 = 3;
/// RFC 8467 §4.1, for clients.
const PADDING_BLOCK: u16 = 128;
/// Code and length of an option.
const OPTION_HEAD_OCTETS: usize = 4;

impl Manner {
    pub(super) fn new(arguments: &MessageArguments, is_tls: bool) -> Result<Self, String> {
        let block = arguments.padding.unwrap_or(if is_tls { PADDING_BLOCK } else { 0 });
        let mut options = Vec::new();
        if arguments.nsid {
            options.push((NSID, Vec::new()));
        }
        options.extend(arguments.subnet.map(|prefix| (SUBNET, subnet(prefix))));
        let cookie = arguments.cookie.as_deref().map(arguments::cookie).transpose()?;
        options.extend(cookie.clone().map(|octets| (COOKIE, octets)));
        if arguments.keepalive {
            options.push((KEEPALIVE, Vec::new()));
        }
        options.extend(arguments.edns_options.iter().cloned());
        Ok(Self {
            dnssec: arguments.dnssec,
            checking_disabled: arguments.cd,
            authentic_data: arguments.ad,
            recursion: !arguments.no_recurse,
            edns: (!arguments.no_edns).then_some(arguments.bufsize),
            padding_block: if arguments.no_edns { 0 } else { block.into() },
            options,
            cookie: cookie.and_then(|octets| octets.first_chunk().copied()),
        })
    }

    /// The octets of `question` with this ID.
    ///
    /// # Errors
    /// One line: options that do not fit into a message.
    pub(super) fn octets(&self, question: &Question, id: u16) -> Result<Vec<u8>, String> {
        let octets = self.encoded(question, id, None)?;
        if self.padding_block == 0 {
            return Ok(octets);
        }
        let fill = (octets.len() + OPTION_HEAD_OCTETS).next_multiple_of(self.padding_block);
        self.encoded(question, id, Some(fill - octets.len() - OPTION_HEAD_OCTETS))
    }

    fn encoded(&self, question: &Question, id: u16, padding: Option<usize>) -> Result<Vec<u8>, String> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = self.recursion;
        message.metadata.checking_disabled = self.checking_disabled;
        message.metadata.authentic_data = self.authentic_data;
        let mut asked = Query::query(question.name.clone(), question.kind);
        asked.set_query_class(question.class);
        message.add_query(asked);
        if let Some(payload) = self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(payload).set_dnssec_ok(self.dnssec);
            let options = edns.options_mut();
            for (code, octets) in &self.options {
                options.insert(EdnsOption::Unknown(*code, octets.clone()));
            }
            if let Some(octets) = padding {
                options.insert(EdnsOption::Unknown(PADDING, vec![0; octets]));
            }
            message.set_edns(edns);
        }
        message.to_vec().map_err(|error| format!("this does not fit into a message: {error}"))
    }
}

/// Family, source and scope length, and as many octets of the address as the prefix needs.
fn subnet(prefix: IpNet) -> Vec<u8> {
    let octets = match prefix.network() {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    let family = if octets.len() == 4 { 1 } else { 2 };
    let needed = usize::from(prefix.prefix_len()).div_ceil(8);
    let head = [0, family, prefix.prefix_len(), 0];
    head.into_iter().chain(octets.into_iter().take(needed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a prefix has as many octets as its length needs, and no bit after it.
    #[test]
    fn a_subnet_is_cut_to_its_length() {
        let octets = |text: &str| subnet(text.parse().unwrap());
        assert_eq!(octets("192.0.2.129/24"), [0, 1, 24, 0, 192, 0, 2]);
        assert_eq!(octets("192.0.2.255/25"), [0, 1, 25, 0, 192, 0, 2, 128]);
        assert_eq!(octets("0.0.0.0/0"), [0, 1, 0, 0]);
        assert_eq!(octets("2001:db8::/56"), [0, 2, 56, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0]);
    }
}

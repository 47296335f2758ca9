//! dotd's own questions for addresses: the query, and what an answer says.
//!
//! Before: `start` knows a backend by a name. After: addresses, and for how long they hold.
//! Never: sends or waits; follows an alias that the same message does not resolve.
//!
//! Source: RFC 1034 §3.6.2 (aliases), RFC 1035 §4.1, RFC 2308 §5 (how long a negative answer holds).

use std::net::IpAddr;

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};

/// Aliases that are followed: as many as BIND follows.
const ALIASES_MAX: usize = 16;
/// How long it holds that there is no address, where the answer does not say.
const NEGATIVE_TTL: u32 = 60;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Addresses of one family; none where the name has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// In their order by number, each once.
    pub addresses: Vec<IpAddr>,
    /// Seconds for which they hold.
    pub ttl: u32,
}

/// A recursive query for the addresses of `name`. `None`: it is no domain name.
#[must_use]
pub fn address_query(name: &str, family: Family, id: u16) -> Option<Vec<u8>> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    let kind = match family {
        Family::V4 => RecordType::A,
        Family::V6 => RecordType::AAAA,
    };
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    message.to_vec().ok()
}

/// A query for the texts of `name`. `None`: it is no domain name.
#[must_use]
pub fn text_query(name: &str, id: u16) -> Option<Vec<u8>> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name, RecordType::TXT));
    message.to_vec().ok()
}

/// The texts in a whole response to it.
///
/// # Errors
/// Its rcode, or that it cannot be read.
pub fn texts_in(message: &[u8]) -> Result<Vec<String>, String> {
    let message = Message::from_vec(message).map_err(|error| format!("no DNS message: {error}"))?;
    if message.metadata.response_code != ResponseCode::NoError {
        return Err(format!("rcode {}", u16::from(message.metadata.response_code)));
    }
    let text = |record: &Record| match &record.data {
        RData::TXT(text) => Some(text.txt_data.iter().map(|part| String::from_utf8_lossy(part)).collect()),
        _ => None,
    };
    Ok(message.answers.iter().filter_map(text).collect())
}

/// What a whole response to such a query says.
///
/// # Errors
/// A word for why it says nothing of use: its rcode, or that it cannot be read.
pub fn addresses_in(message: &[u8]) -> Result<Addresses, String> {
    let message = Message::from_vec(message).map_err(|error| format!("no DNS message: {error}"))?;
    match message.metadata.response_code {
        ResponseCode::NoError => {}
        rcode => return Err(format!("rcode {}", u16::from(rcode))),
    }
    let question = message.queries.first().ok_or("no question")?;
    let (mut owner, mut ttl) = (question.name().clone(), u32::MAX);
    for _ in 0..ALIASES_MAX {
        let alias = message.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == owner => Some((target.0.clone(), record.ttl)),
            _ => None,
        });
        let Some((target, alias_ttl)) = alias else { break };
        (owner, ttl) = (target, ttl.min(alias_ttl));
    }
    let mut addresses = Vec::new();
    for record in message.answers.iter().filter(|record| record.name == owner) {
        match &record.data {
            RData::A(address) => addresses.push(IpAddr::V4(address.0)),
            RData::AAAA(address) => addresses.push(IpAddr::V6(address.0)),
            _ => continue,
        }
        ttl = ttl.min(record.ttl);
    }
    if addresses.is_empty() {
        let soa = message.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
            _ => None,
        });
        ttl = ttl.min(soa.unwrap_or(NEGATIVE_TTL));
    }
    addresses.sort_unstable();
    addresses.dedup();
    Ok(Addresses { addresses, ttl })
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{
        Record,
        rdata::{A, CNAME},
    };

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    /// Goal: addresses behind aliases hold for the shortest TTL on the way, strangers' addresses and errors do not count, and that
    /// there is none holds for a while too. Method: messages as servers write them. Covers: C-594
    #[test]
    fn addresses_are_read() {
        let query = address_query("ns.example", Family::V4, 7).unwrap();
        let mut message = Message::from_vec(&query).unwrap();
        assert!(message.metadata.recursion_desired);
        message.metadata.message_type = MessageType::Response;
        let alias = RData::CNAME(CNAME(name("real.example.")));
        message.add_answer(Record::from_rdata(name("ns.example."), 300, alias));
        for (owner, last, ttl) in
            [("real.example.", 2, 60), ("real.example.", 1, 90), ("stranger.example.", 9, 5)]
        {
            let data = RData::A(A::new(192, 0, 2, last));
            message.add_answer(Record::from_rdata(name(owner), ttl, data));
        }
        let addresses = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(addresses_in(&message.to_vec().unwrap()), Ok(Addresses { addresses, ttl: 60 }));
        message.answers.clear();
        let none = Addresses { addresses: Vec::new(), ttl: NEGATIVE_TTL };
        assert_eq!(addresses_in(&message.to_vec().unwrap()), Ok(none));
        message.metadata.response_code = ResponseCode::NXDomain;
        assert_eq!(addresses_in(&message.to_vec().unwrap()), Err("rcode 3".to_owned()));
        assert!(addresses_in(&query[..9]).is_err());
        assert_eq!(address_query("a..b", Family::V6, 7), None);
    }

    /// Goal: a loop of aliases ends. Method: two that lead to each other.
    #[test]
    fn a_loop_of_aliases_ends() {
        let mut message = Message::from_vec(&address_query("a.example", Family::V6, 7).unwrap()).unwrap();
        message.metadata.message_type = MessageType::Response;
        for (from, to) in [("a.example.", "b.example."), ("b.example.", "a.example.")] {
            message.add_answer(Record::from_rdata(name(from), 30, RData::CNAME(CNAME(name(to)))));
        }
        let none = Addresses { addresses: Vec::new(), ttl: 30 };
        assert_eq!(addresses_in(&message.to_vec().unwrap()), Ok(none));
    }
}

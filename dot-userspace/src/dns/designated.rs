//! dotd's own question for the TLS servers that a resolver designates: the query, and what an answer says.
//!
//! Before: `start` has a backend in clear. After: TLS servers by priority, and for how long the answer holds.
//! Never: sends or waits; believes what it reads: the certificate proves it.
//!
//! Source: RFC 9462 §4.1, RFC 9460 §2.4 and §7, RFC 9461 §4 (alpn `dot`) and §5 (port 853).

use std::net::IpAddr;

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, RecordType,
        rdata::svcb::{SVCB, SvcParamKey, SvcParamValue},
    },
};

/// The name under which a resolver is asked about itself.
const OF_THE_ADDRESS: &str = "_dns.resolver.arpa.";
/// The port of DNS over TLS.
const PORT: u16 = 853;
/// Records of one answer.
const RECORDS_MAX: usize = 16;
/// How long it holds that there is none, where the answer does not say.
const NEGATIVE_TTL: u32 = 3600;

/// A TLS server that a resolver designates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Designated {
    /// The lowest is preferred.
    pub priority: u16,
    /// Its name; `None`: the resolver itself.
    pub target: Option<String>,
    /// Its port.
    pub port: u16,
    /// Its addresses, where the answer says them.
    pub hints: Vec<IpAddr>,
}

/// The query; its ID is 0.
#[must_use]
pub fn designation_query() -> Option<Vec<u8>> {
    let name = Name::from_ascii(OF_THE_ADDRESS).ok()?;
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, RecordType::SVCB));
    message.to_vec().ok()
}

/// The servers over TLS in a whole response to it, the preferred one first, and the seconds for which they hold.
///
/// # Errors
/// Why it says nothing of use.
pub fn designations_in(message: &[u8]) -> Result<(Vec<Designated>, u32), String> {
    let message = Message::from_vec(message).map_err(|error| format!("no DNS message: {error}"))?;
    match message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        rcode => return Err(format!("rcode {}", u16::from(rcode))),
    }
    let owner = Name::from_ascii(OF_THE_ADDRESS).map_err(|error| error.to_string())?;
    let mut ttl = NEGATIVE_TTL;
    let mut found = Vec::new();
    for record in message.answers.iter().filter(|record| record.name == owner).take(RECORDS_MAX) {
        let RData::SVCB(svcb) = &record.data else { continue };
        if let Some(designated) = over_tls(svcb) {
            ttl = ttl.min(record.ttl);
            found.push(designated);
        }
    }
    found.sort_by_key(|one| one.priority);
    Ok((found, ttl))
}

/// `None`: an alias, or a server that does not speak DNS over TLS.
fn over_tls(svcb: &SVCB) -> Option<Designated> {
    let is_root = svcb.target_name.is_root();
    let target = (!is_root).then(|| svcb.target_name.to_ascii());
    let (mut is_dot, mut port, mut hints) = (false, PORT, Vec::new());
    for (_, value) in &svcb.svc_params {
        match value {
            SvcParamValue::Alpn(names) => is_dot = names.0.iter().any(|name| name == "dot"),
            SvcParamValue::Port(number) => port = *number,
            SvcParamValue::Ipv4Hint(addresses) => {
                hints.extend(addresses.0.iter().map(|address| IpAddr::V4(address.0)));
            }
            SvcParamValue::Ipv6Hint(addresses) => {
                hints.extend(addresses.0.iter().map(|address| IpAddr::V6(address.0)));
            }
            // A key that must be understood, and is not (RFC 9460 §8).
            SvcParamValue::Mandatory(keys) if !keys.0.iter().all(is_known) => return None,
            _ => {}
        }
    }
    (svcb.svc_priority > 0 && is_dot && port != 0).then_some(Designated {
        priority: svcb.svc_priority,
        target,
        port,
        hints,
    })
}

fn is_known(key: &SvcParamKey) -> bool {
    matches!(key, SvcParamKey::Alpn | SvcParamKey::Port | SvcParamKey::Ipv4Hint | SvcParamKey::Ipv6Hint)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{Record, rdata::NULL};

    use super::*;

    /// Goal: servers over TLS are read with their port and addresses, the preferred one first; aliases, other protocols and other
    /// names are not. Method: an answer with one of each. Covers: C-660
    #[test]
    fn designations_are_read() {
        let mut message = Message::from_vec(&designation_query().unwrap()).unwrap();
        message.metadata.message_type = MessageType::Response;
        let own = Name::from_ascii(OF_THE_ADDRESS).unwrap();
        let add = |message: &mut Message, owner: &Name, ttl, rdata: &[u8]| {
            let data = RData::Unknown { code: RecordType::SVCB, rdata: NULL::with(rdata.to_vec()) };
            message.add_answer(Record::from_rdata(owner.clone(), ttl, data));
        };
        let parameters = super::super::parameters(8853, &["192.0.2.9".parse().unwrap()]);
        let dot = [&[0, 2, 0][..], &parameters].concat();
        let named = [&[0, 1, 2, b'n', b's', 0][..], &[0, 1, 0, 4, 3, b'd', b'o', b't']].concat();
        let h2 = [0, 1, 0, 0, 1, 0, 3, 2, b'h', b'2'];
        add(&mut message, &own, 60, &dot);
        add(&mut message, &own, 90, &named);
        add(&mut message, &own, 5, &h2);
        add(&mut message, &own, 5, &[0, 0, 0]);
        // Mandatory alpn and port, which are known; then alpn and dohpath, of which the second is not.
        let mandatory = |second: u8| {
            let keys = [0, 3, 0, 0, 0, 0, 4, 0, 1, 0, second, 0, 1, 0, 4, 3, b'd', b'o', b't'];
            let value: &[u8] = if second == 3 { &[0, 3, 0, 2, 3, 85] } else { &[0, 7, 0, 1, b'/'] };
            [&keys[..], value].concat()
        };
        add(&mut message, &own, 70, &mandatory(3));
        add(&mut message, &own, 5, &mandatory(7));
        add(&mut message, &Name::from_ascii("else.arpa.").unwrap(), 5, &dot);
        let (found, ttl) = designations_in(&message.to_vec().unwrap()).unwrap();
        let first = Designated { priority: 1, target: Some("ns.".into()), port: 853, hints: vec![] };
        let second =
            Designated { priority: 2, target: None, port: 8853, hints: vec!["192.0.2.9".parse().unwrap()] };
        let third = Designated { priority: 3, target: None, port: 853, hints: vec![] };
        assert_eq!((found, ttl), (vec![first, second, third], 60));
        message.answers.clear();
        assert_eq!(designations_in(&message.to_vec().unwrap()), Ok((vec![], NEGATIVE_TTL)));
        message.metadata.response_code = ResponseCode::Refused;
        assert_eq!(designations_in(&message.to_vec().unwrap()), Err("rcode 5".to_owned()));
    }
}

//! Adds a TXT record to a zone of another server, and takes it away (UPDATE). Pure.
//!
//! Before: the ACME process has a proof. After: a message for the zone's server; what its response says.
//! Never: replaces or removes a record that it has not added: others may have proofs below the same name.
//!
//! Source: RFC 2136 §2.5.1 (add), §2.5.4 (delete one record), §2.2 (RCODEs).

use super::{HEADER_OCTETS, records::u16_at, wire_name};

/// Opcode 5 in the flags.
const OPCODE: u8 = 5 << 3;
const TYPE_SOA: u16 = 6;
const TYPE_TXT: u16 = 16;
const CLASS_IN: u16 = 1;
const CLASS_NONE: u16 = 254;
/// Of a record that is added.
const TTL_SECONDS: u32 = 60;

/// What happens to the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// They are added.
    Add,
    /// They are taken away.
    Delete,
}

/// The message; its ID is `id`. `records`: names and texts of at most 255 octets.
///
/// # Errors
/// A name is not a domain name.
pub fn update(zone: &str, records: &[(String, String)], change: Change, id: u16) -> Result<Vec<u8>, String> {
    let count = u16::try_from(records.len()).map_err(|_| "too many records")?;
    let mut message = Vec::new();
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(&[OPCODE, 0]);
    for number in [1, 0, count, 0] {
        message.extend_from_slice(&number.to_be_bytes());
    }
    message.extend_from_slice(&wire_name(zone)?);
    message.extend_from_slice(&[TYPE_SOA.to_be_bytes(), CLASS_IN.to_be_bytes()].concat());
    for (name, text) in records {
        let (class, ttl) = match change {
            Change::Add => (CLASS_IN, TTL_SECONDS),
            Change::Delete => (CLASS_NONE, 0),
        };
        let octets = u8::try_from(text.len()).map_err(|_| "a record is too long")?;
        message.extend_from_slice(&wire_name(name)?);
        message.extend_from_slice(&[TYPE_TXT.to_be_bytes(), class.to_be_bytes()].concat());
        message.extend_from_slice(&ttl.to_be_bytes());
        message.extend_from_slice(&(u16::from(octets) + 1).to_be_bytes());
        message.push(octets);
        message.extend_from_slice(text.as_bytes());
    }
    Ok(message)
}

/// What the response to the update with this ID says.
///
/// # Errors
/// It is refused, or no response to it; with the remedy.
pub fn is_updated(response: &[u8], id: u16) -> Result<(), String> {
    let (Some(own), Some([flags, lower])) = (u16_at(response, 0), response.get(2..4)) else {
        return Err("no DNS message".to_owned());
    };
    if own != id || flags & 0xf8 != 0x80 | OPCODE || response.len() < HEADER_OCTETS {
        return Err("no response to the update".to_owned());
    }
    Err(match lower & 0x0f {
        0 => return Ok(()),
        1 => "FORMERR: the server cannot read the update".to_owned(),
        2 => "SERVFAIL: the server failed; its log says why".to_owned(),
        4 => "NOTIMP: the server takes no updates".to_owned(),
        5 => "REFUSED: the server does not permit it; permit the key of acme.update_tsig to update the zone".to_owned(),
        9 => "NOTAUTH: the server is not the zone's primary, or does not know the key; see acme.update_zone and acme.update_tsig".to_owned(),
        10 => "NOTZONE: a name is not in acme.update_zone".to_owned(),
        other => format!("rcode {other}"),
    })
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, OpCode},
        rr::{DNSClass, RecordType},
    };

    use super::*;

    /// Goal: an update is what RFC 2136 says, as another library reads it; each refusal has words. Method: add and delete; responses with
    /// rcodes, another ID, and octets that are none. Covers: C-756
    #[test]
    fn an_update_is_read_by_others() {
        let records = [("_acme-challenge.dot.example".to_owned(), "text".to_owned())];
        for (change, class, ttl) in [(Change::Add, DNSClass::IN, 60), (Change::Delete, DNSClass::NONE, 0)] {
            let octets = update("example", &records, change, 7).unwrap();
            let message = Message::from_vec(&octets).unwrap();
            assert_eq!((message.metadata.op_code, message.metadata.id), (OpCode::Update, 7));
            let zone = &message.queries[0];
            assert_eq!((zone.name().to_ascii(), zone.query_type()), ("example.".into(), RecordType::SOA));
            let record = &message.authorities[0];
            assert_eq!((record.dns_class, record.ttl, record.record_type()), (class, ttl, RecordType::TXT));
            assert_eq!(record.name.to_ascii(), "_acme-challenge.dot.example.");
        }
        assert!(update("a..b", &records, Change::Add, 7).is_err());
        let response = |rcode: u8| [&[0, 7, 0xa8, rcode][..], &[0; 8]].concat();
        assert_eq!(is_updated(&response(0), 7), Ok(()));
        assert!(is_updated(&response(5), 7).unwrap_err().starts_with("REFUSED"));
        assert!(is_updated(&response(0), 8).is_err() && is_updated(&[0, 7], 7).is_err());
    }
}

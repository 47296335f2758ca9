//! The parts of an exchange that streams and datagrams share: unpredictable IDs, and whether a message answers a question.
//!
//! Before: a question, or the octets of one message. After: an ID, or the message. Never: waits.
//!
//! Source: RFC 5452 §3 and §4.

use std::io;

use hickory_proto::op::{Message, MessageType};

use super::plan::Plan;

/// Octets read at a time.
pub(super) const READ_OCTETS: usize = 16 * 1024;

/// Whether a read ended because of its timeout.
pub(super) fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// An unpredictable ID.
pub(super) fn random_id() -> Result<u16, String> {
    let mut octets = [0; 2];
    getrandom::fill(&mut octets).map_err(|error| format!("no random numbers: {error}"))?;
    Ok(u16::from_ne_bytes(octets))
}

/// The message, if it is an answer to this question.
pub(super) fn read(octets: &[u8], plan: &Plan, question: usize) -> Result<Message, String> {
    let message = Message::from_vec(octets).map_err(|error| format!("not a DNS message: {error}"))?;
    if message.metadata.message_type != MessageType::Response {
        return Err("a query came back, not a response".to_owned());
    }
    // An error, and every message of a transfer except the first, may lack the question.
    let Some(asked) = plan.questions.get(question) else { return Ok(message) };
    let is_other = message.queries.iter().any(|query| {
        query.query_type() != asked.kind || query.query_class() != asked.class || *query.name() != asked.name
    });
    match is_other {
        true => Err(format!("an answer to another question: {}", message.queries[0])),
        false => Ok(message),
    }
}

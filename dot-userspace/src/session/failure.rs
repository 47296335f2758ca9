//! The response for a client whose query has no answer.
//!
//! Before: a backend failed, or there is no room for an answer. After: a reply that `inbox` or `do53` writes.
//! Never: waits, or stays silent.

use crate::{
    backend::Failure,
    dns::{Asked, Ede, Rcode, Reply},
};

/// A response up to its question's end.
pub(super) fn question_of(asked: Asked, response: &[u8]) -> &[u8] {
    response.get(..usize::from(asked.question_end)).unwrap_or(response)
}

/// SERVFAIL, never silence (RFC 5625 §6.3), with an extended error that says why; and the message that it answers:
/// `query`, which may have had another ID at the backend, with the client's ID.
pub(super) fn failure_reply(asked: Asked, query: &[u8], failure: Failure) -> (Vec<u8>, Reply) {
    let ede = match failure {
        Failure::Silent => Ede::BACKEND_SILENT,
        Failure::Unreachable => Ede::BACKEND_UNREACHABLE,
        Failure::NotSecure => Ede::BACKEND_NOT_SECURE,
        Failure::Full => Ede::BACKEND_BUSY,
        Failure::Harmful => Ede::OTHER_HARMFUL,
    };
    let mut message = query.to_vec();
    if let Some(id) = message.first_chunk_mut::<2>() {
        *id = asked.id.to_be_bytes();
    }
    (message, Reply { rcode: Rcode::SERV_FAIL, ede: Some(ede), asked })
}

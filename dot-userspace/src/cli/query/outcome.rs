//! The outcome of a question or a connection, and its exit status.
//!
//! Before: `wire` and `exchange` have tried. After: `text` and `json` print it. Never: waits or prints.

use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};

use super::{failure::Failure, wire::Opening};

/// Questions and answers of one connection, or of datagrams.
pub(super) struct Round {
    /// `None`: datagrams.
    pub(super) opening: Option<Opening>,
    /// From sending the first question to the first octet of an answer.
    pub(super) first_octet: Option<Duration>,
    /// In the order of the questions.
    pub(super) replies: Vec<Reply>,
    /// Why no question could be sent.
    pub(super) failure: Option<Failure>,
}

/// One question and its outcome.
pub(super) struct Reply {
    /// Its place among the questions.
    pub(super) question: usize,
    /// Its place among the answers that came, from 1; 0: none came.
    pub(super) place: usize,
    pub(super) query_octets: usize,
    pub(super) octets: usize,
    pub(super) elapsed: Duration,
    /// It was asked over TCP because its datagram was truncated.
    pub(super) was_truncated: bool,
    /// Why its truncated answer could not be had over TCP.
    pub(super) kept_truncated: Option<String>,
    pub(super) outcome: Outcome,
}

/// The result of a question.
pub(super) enum Outcome {
    /// A message that fits the question; of a zone transfer all of them.
    Answered(Vec<Message>),
    /// No answer in time.
    Silent,
    /// A message that is not an answer to it.
    Malformed(String),
    /// The connection ended first.
    Cut(String),
}

/// All questions were answered, each NOERROR or NXDOMAIN.
const ANSWERED: u8 = 0;
/// An answer with another response code.
const REFUSED: u8 = 3;
/// No answer in time.
const SILENT: u8 = 4;
/// No connection, or it ended before an answer.
const UNCONNECTED: u8 = 5;
/// No TLS, or a server that could not prove its identity.
const NOT_SECURE: u8 = 6;
/// A message that is not a valid answer.
const MALFORMED: u8 = 7;

impl Round {
    /// The worst of its outcomes.
    pub(super) fn status(&self) -> u8 {
        let failure = self.failure.as_ref().map(|failure| match failure {
            Failure::Unconnected(_) => UNCONNECTED,
            Failure::NotSecure(_) | Failure::NotAuthentic => NOT_SECURE,
        });
        let replies = self.replies.iter().map(Reply::status);
        failure.into_iter().chain(replies).max().unwrap_or(ANSWERED)
    }
}

impl Reply {
    fn status(&self) -> u8 {
        match &self.outcome {
            Outcome::Answered(messages) => {
                let is_fine = |message: &Message| {
                    matches!(message.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
                };
                if messages.iter().all(is_fine) { ANSWERED } else { REFUSED }
            }
            Outcome::Silent => SILENT,
            Outcome::Cut(_) => UNCONNECTED,
            Outcome::Malformed(_) => MALFORMED,
        }
    }
}

//! Writes a backend's response for the client: with its ID, and the EDNS options of its own hop.
//!
//! Before: `backend` matched a response to a query. After: `session::writer` seals the octets.
//! Never: re-encodes a record, changes a signed message except its ID, moves a record to which another one points, pads
//! cleartext.
//!
//! Source: RFC 6891 §6.1.1 and §7, RFC 7828 §3.3, RFC 7830 §4, RFC 8467 §4.1.

use thiserror::Error;

use super::{
    Query, ResponseCode, Screening,
    edns::{copy_end_to_end, read_hop_options, write_keepalive, write_padding},
    forward::BACKEND_PAYLOAD_OCTETS,
    pointers_past_opt::is_entangled,
    rcode_of,
    records::{Counts, Record, Tail, u16_at, walk_tail, write_at},
};
use crate::moment::Moment;

/// Root, OPT, payload size of [`BACKEND_PAYLOAD_OCTETS`], RCODE and version 0, no flags, no options.
pub(super) const EMPTY_OPT: [u8; 11] = {
    let [high, low] = BACKEND_PAYLOAD_OCTETS.to_be_bytes();
    [0, 0, 41, high, low, 0, 0, 0, 0, 0, 0]
};

/// What the client asked of its hop; kept while the query is at the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The client's message ID.
    pub id: u16,
    /// One past the question.
    pub question_end: u16,
    /// The query had an OPT record.
    pub has_opt: bool,
    /// The client padded its query.
    pub padding: bool,
    /// The client asked for edns-tcp-keepalive.
    pub keepalive: bool,
    /// The query had DO set.
    pub dnssec_ok: bool,
    /// dotd sent the backend a client subnet that the client did not send.
    pub subnet_is_ours: bool,
    /// When it was read. `None`: it is not measured.
    pub since: Option<Moment>,
    /// Whether policy zones check the answer.
    pub screening: Screening,
}

impl Asked {
    /// The options of `query` for this hop.
    #[must_use]
    pub fn by(query: &Query) -> Self {
        Self {
            id: query.id,
            question_end: u16::try_from(query.question_end).unwrap_or(u16::MAX),
            has_opt: query.opt.is_some(),
            padding: query.opt.is_some_and(|opt| opt.padding),
            keepalive: query.opt.is_some_and(|opt| opt.keepalive),
            dnssec_ok: query.opt.is_some_and(|opt| opt.dnssec_ok),
            subnet_is_ours: false,
            since: None,
            screening: query.screening,
        }
    }

    /// The same for a message that could not be parsed: nothing but its ID and, with `has_opt`, EDNS.
    pub(super) fn plain(message: &[u8], question_end: usize, has_opt: bool) -> Self {
        Self {
            id: u16_at(message, 0).unwrap_or_default(),
            question_end: u16::try_from(question_end).unwrap_or(u16::MAX),
            has_opt,
            padding: false,
            keepalive: false,
            dnssec_ok: false,
            subnet_is_ours: false,
            since: None,
            screening: Screening::Done,
        }
    }
}

/// The options that this hop may send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Pad responses to padded queries.
    pub padding: bool,
    /// TIMEOUT of edns-tcp-keepalive in 100 ms; `None`: the option is off.
    pub keepalive_100ms: Option<u16>,
}

/// Why a response from a backend cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ResponseError {
    /// Its records do not fit into it.
    #[error("broken records in a response")]
    Broken,
}

/// How the EDNS of a response was edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// It has this hop's options.
    Made,
    /// The response is signed: only the ID changed (RFC 8945 §5.3).
    Signed,
    /// Its OPT is unchanged: records behind it point to each other, and the pointers would become wrong.
    Entangled,
}

/// Appends `response` to `out` for the client that `asked`.
///
/// # Errors
/// [`ResponseError::Broken`]; `out` is then as it was.
pub fn respond(response: &[u8], asked: Asked, hop: Hop, out: &mut Vec<u8>) -> Result<Edit, ResponseError> {
    let start = out.len();
    let counts = Counts::read(response).ok_or(ResponseError::Broken)?;
    let tail =
        walk_tail(response, usize::from(asked.question_end), counts).map_err(|_| ResponseError::Broken)?;
    let body = response.get(..tail.end).ok_or(ResponseError::Broken)?;
    let edit = write_body(body, tail, counts.additional, asked, hop, out)?;
    if let Some(message) = out.get_mut(start..) {
        write_at(message, 0, asked.id);
    }
    Ok(edit)
}

/// Appends the records, `additional` of which are in the last section.
fn write_body(
    body: &[u8],
    tail: Tail,
    additional: u16,
    asked: Asked,
    hop: Hop,
    out: &mut Vec<u8>,
) -> Result<Edit, ResponseError> {
    let start = out.len();
    match tail.opt {
        _ if tail.is_signed => {
            out.extend_from_slice(body);
            return Ok(Edit::Signed);
        }
        Some(opt) if asked.has_opt => write_edited(body, opt, asked, hop, out)?,
        Some(opt) => {
            let behind = body.get(opt.end..).ok_or(ResponseError::Broken)?;
            out.extend_from_slice(body.get(..opt.start).ok_or(ResponseError::Broken)?);
            out.extend_from_slice(behind);
            write_additional(out, start, additional.wrapping_sub(1));
        }
        // Its server does not support EDNS, and shows that by leaving the OPT out (RFC 6891 §7): the client asks
        // again without one.
        None if refuses_edns(body) => out.extend_from_slice(body),
        None if asked.has_opt && additional < u16::MAX => {
            out.extend_from_slice(body);
            write_additional(out, start, additional + 1);
            write_opt(out, start, asked, hop);
        }
        None => out.extend_from_slice(body),
    }
    let has_moved = |opt: Record| opt.end < body.len() && out.len() - start != body.len();
    if tail.opt.is_some_and(|opt| has_moved(opt) && is_entangled(body, opt)) {
        out.truncate(start);
        out.extend_from_slice(body);
        return Ok(Edit::Entangled);
    }
    Ok(Edit::Made)
}

/// Whether a response without an OPT may mean that its server does not support EDNS: FORMERR (RFC 6891 §7), or NOTIMP
/// from older servers (RFC 2671 §5.3).
#[must_use]
pub fn refuses_edns(response: &[u8]) -> bool {
    matches!(rcode_of(response), ResponseCode::FormErr | ResponseCode::NotImp)
}

/// Appends an OPT of dotd's own, when the client supports EDNS and the backend does not (RFC 6891 §7).
fn write_opt(out: &mut Vec<u8>, message_start: usize, asked: Asked, hop: Hop) {
    out.extend_from_slice(&EMPTY_OPT);
    let rdata = out.len();
    write_hop(asked, hop, message_start, 0, out);
    let octets = u16::try_from(out.len() - rdata).unwrap_or(u16::MAX);
    write_at(out, rdata - 2, octets);
}

/// Sets ARCOUNT of the message that begins at `message_start`.
fn write_additional(out: &mut [u8], message_start: usize, count: u16) {
    write_at(out, message_start + 10, count);
}

/// Appends the message with its OPT edited in place: the backend's hop options are removed, and ours added.
fn write_edited(
    body: &[u8],
    opt: Record,
    asked: Asked,
    hop: Hop,
    out: &mut Vec<u8>,
) -> Result<(), ResponseError> {
    let head = body.get(..opt.rdata).ok_or(ResponseError::Broken)?;
    let rdata = body.get(opt.rdata..opt.end).ok_or(ResponseError::Broken)?;
    let behind = body.get(opt.end..).ok_or(ResponseError::Broken)?;
    let theirs = read_hop_options(rdata).ok_or(ResponseError::Broken)?;
    let start = out.len();
    out.extend_from_slice(head);
    if theirs.keepalive || theirs.padding || asked.subnet_is_ours {
        copy_end_to_end(rdata, !asked.subnet_is_ours, out);
    } else {
        out.extend_from_slice(rdata);
    }
    write_hop(asked, hop, start, behind.len(), out);
    let rdata_octets = u16::try_from(out.len() - start - opt.rdata).unwrap_or(u16::MAX);
    out.extend_from_slice(behind);
    if let Some(message) = out.get_mut(start..) {
        write_at(message, opt.rdata - 2, rdata_octets);
    }
    Ok(())
}

/// Appends the options of this hop: keepalive, then padding as the last one (RFC 7830 §3), for a message with this many
/// octets behind its OPT.
pub(super) fn write_hop(
    asked: Asked,
    hop: Hop,
    message_start: usize,
    behind_octets: usize,
    out: &mut Vec<u8>,
) {
    if let (true, Some(timeout)) = (asked.keepalive, hop.keepalive_100ms) {
        write_keepalive(out, timeout);
    }
    if asked.padding && hop.padding {
        write_padding(out, message_start, behind_octets);
    }
}

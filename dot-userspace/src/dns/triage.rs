//! Decides about a message: forward, respond, drop, or close. Step 7b of 9 on the query path.
//!
//! Before: [`Query::parse`] read it. After: `session::serve` acts on the disposition and counts it.
//! Holds: every rule for messages that a front end answers alone.
//! Never: has a side effect; the same octets get the same disposition.
//!
//! Source: RFC 8906 §8, RFC 9619, RFC 6891 §6.1.3 and §7, RFC 8490 §5.1.1, RFC 5936, RFC 8914, RFC 9462 §6.

use super::{Asked, Ede, HEADER_OCTETS, Opt, Query, QueryError, Rcode, resolver_arpa};

/// QTYPE of an incremental zone transfer (RFC 1995).
pub(super) const TYPE_IXFR: u16 = 251;
/// QTYPE of a zone transfer (RFC 5936).
const TYPE_AXFR: u16 = 252;
/// Opcode NOTIFY (RFC 1996).
const OPCODE_NOTIFY: u8 = 4;
/// Opcode UPDATE (RFC 2136).
const OPCODE_UPDATE: u8 = 5;

/// Messages besides queries that an operator allows. None by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// AXFR and IXFR.
    pub transfers: bool,
    /// NOTIFY.
    pub notify: bool,
    /// UPDATE.
    pub update: bool,
    /// NOTIFY about zones that dotd itself has transferred.
    pub takes_notify: bool,
    /// The client subnet is removed.
    pub strips_subnet: bool,
}

impl Allowed {
    /// Whether messages with this opcode are parsed.
    fn has(self, opcode: u8) -> bool {
        match opcode {
            OPCODE_NOTIFY => self.notify || self.takes_notify,
            OPCODE_UPDATE => self.update,
            _ => false,
        }
    }
}

/// The decision about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// To a backend.
    Forward(Query),
    /// To a backend, over a connection of its own, because many messages will come back.
    Transfer(Query),
    /// A question about `resolver.arpa`: dotd answers with its designation.
    Describe(Query),
    /// A NOTIFY that may be about a policy zone of dotd.
    Notified(Query),
    /// dotd answers.
    Respond(Reply),
    /// No answer; the session continues.
    Drop(DropReason),
    /// No answer, and the session ends: framing cannot be trusted any more.
    Close(DropReason),
}

impl Disposition {
    /// Whether the message is a query that no server could answer (FORMERR), or a response. A valid query that is
    /// refused is neither.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        match self {
            Self::Respond(reply) => reply.rcode == Rcode::FORM_ERR,
            Self::Drop(_) | Self::Close(_) => true,
            Self::Forward(_) | Self::Transfer(_) | Self::Describe(_) | Self::Notified(_) => false,
        }
    }
}

/// Why a message gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// QR=1: answering responses makes loops.
    IsResponse,
    /// Shorter than a header: there is no ID to answer to.
    Short,
}

/// A response of dotd's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Response code.
    pub rcode: Rcode,
    /// The reason, if the client supports EDNS.
    pub ede: Option<Ede>,
    /// What the client asked of this hop. Its question ends at the header's end if there is none to repeat.
    pub asked: Asked,
}

impl Reply {
    /// A reply to a query that could be parsed.
    #[must_use]
    pub fn to(query: &Query, rcode: Rcode, ede: Option<Ede>) -> Self {
        Self { rcode, ede, asked: Asked::by(query) }
    }

    /// A reply to a message that could not be parsed: the question is repeated as far as it is valid.
    fn plain(message: &[u8], rcode: Rcode, ede: Option<Ede>, question_end: usize, has_opt: bool) -> Self {
        Self { rcode, ede, asked: Asked::plain(message, question_end, has_opt) }
    }
}

/// Decides about one message. Pure: no clock, no socket, no state.
#[must_use]
pub fn triage(message: &[u8], allowed: Allowed) -> Disposition {
    match Query::parse_with(message, |opcode| allowed.has(opcode)) {
        Ok(query) => triage_query(message, query, allowed),
        Err(error) => triage_error(message, error),
    }
}

fn triage_query(message: &[u8], query: Query, allowed: Allowed) -> Disposition {
    if query.opt.is_some_and(|opt| opt.version > 0) {
        return Disposition::Respond(Reply::to(&query, Rcode::BAD_VERS, Some(Ede::NOT_SUPPORTED_VERSION)));
    }
    if query.opcode == 0 && resolver_arpa::is_asked(message, query.question_end) {
        return Disposition::Describe(query);
    }
    if query.opcode == OPCODE_NOTIFY && allowed.takes_notify {
        return Disposition::Notified(query);
    }
    let is_transfer = matches!(query.qtype, TYPE_AXFR | TYPE_IXFR) && query.opcode == 0;
    if is_transfer && !allowed.transfers {
        let ede = Some(Ede::NOT_SUPPORTED_TRANSFER);
        return Disposition::Respond(Reply::to(&query, Rcode::REFUSED, ede));
    }
    let has_ours = |opt: Opt| opt.keepalive || opt.padding || (opt.subnet && allowed.strips_subnet);
    let needs_edit = query.opt.is_some_and(|opt| !opt.may_resize && has_ours(opt));
    if needs_edit && !query.is_signed {
        // A name behind the OPT points to another one there, which would move; and this hop's options must not pass.
        return Disposition::Respond(Reply::to(&query, Rcode::FORM_ERR, Some(Ede::OTHER_ENTANGLED)));
    }
    if is_transfer { Disposition::Transfer(query) } else { Disposition::Forward(query) }
}

fn triage_error(message: &[u8], error: QueryError) -> Disposition {
    let (rcode, ede, question_end, has_opt) = match error {
        QueryError::Short(_) => return Disposition::Close(DropReason::Short),
        QueryError::IsResponse => return Disposition::Drop(DropReason::IsResponse),
        QueryError::Opcode { opcode: OPCODE_NOTIFY | OPCODE_UPDATE, has_opt } => {
            (Rcode::REFUSED, Some(Ede::BLOCKED_OPCODE), HEADER_OCTETS, has_opt)
        }
        // Header only: the format of an unknown opcode's message is unknown (RFC 8906 §8.1.4).
        QueryError::Opcode { .. } => (Rcode::NOT_IMP, None, HEADER_OCTETS, false),
        // The client supports EDNS, so it gets an OPT, whatever else is wrong (RFC 6891 §6.1.1).
        QueryError::QuestionCount { has_opt, .. } => {
            (Rcode::FORM_ERR, Some(Ede::OTHER_QUESTION_COUNT), HEADER_OCTETS, has_opt)
        }
        QueryError::BrokenQuestion => (Rcode::FORM_ERR, None, HEADER_OCTETS, false),
        QueryError::BrokenRecords { question_end } => (Rcode::FORM_ERR, None, question_end, false),
        // There was an OPT, so the client supports EDNS and gets one back (RFC 6891 §7).
        QueryError::MisplacedOpt { question_end } => {
            (Rcode::FORM_ERR, Some(Ede::OTHER_OPT_PLACE), question_end, true)
        }
        QueryError::BrokenOpt { question_end } => {
            (Rcode::FORM_ERR, Some(Ede::OTHER_OPTION_LENGTH), question_end, true)
        }
    };
    Disposition::Respond(Reply::plain(message, rcode, ede, question_end, has_opt))
}

//! Parses a client's message as far as a front end must. Step 7a of 9 on the query path.
//!
//! Before: `dns::framing` cut one message. After: `triage` decides about the [`Query`].
//! Holds: offsets into the message, never copies of it.
//! Never: allocates, follows compression pointers, or judges.
//!
//! Source: RFC 1035 §4.1, RFC 6891 §6.1, RFC 9619.

use thiserror::Error;

use super::{
    edns::{CLIENT_COOKIE_OCTETS, HopOptions, read_hop_options},
    pointers_past_opt::is_entangled,
    records::{
        Counts, HEADER_OCTETS, Record, TailError, question_name_end, questions_end, u16_at, walk_tail,
    },
};

/// The parts of a query that a front end needs. Offsets are octets from the start of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The client's message ID.
    pub id: u16,
    /// OPCODE: 0, or one that the caller allowed in [`Query::parse_with`].
    pub opcode: u8,
    /// One past the question section.
    pub question_end: usize,
    /// One past the last record. Octets behind it are no part of the query, and are not forwarded.
    pub end: usize,
    /// QTYPE.
    pub qtype: u16,
    /// QCLASS.
    pub qclass: u16,
    /// The OPT record.
    pub opt: Option<Opt>,
    /// TSIG or SIG(0): the octets must pass unchanged (RFC 5625 §4.5).
    pub is_signed: bool,
    /// Whether policy zones check its answer.
    pub screening: Screening,
}

/// Whether policy zones check the answer to a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Screening {
    /// They check the names and addresses in it.
    #[default]
    Answer,
    /// They have already decided.
    Done,
    /// They check the qname too, unless the answer is signed and the client asks for that (DO).
    Whole,
}

/// The OPT record of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt {
    /// Its first octet (the root label).
    pub start: usize,
    /// First octet of its options.
    pub rdata: usize,
    /// One past its last octet.
    pub end: usize,
    /// EDNS version.
    pub version: u8,
    /// DO is set: the client wants DNSSEC records (RFC 3225).
    pub dnssec_ok: bool,
    /// It may grow and shrink: it is the last record, or no name behind it points to another one there.
    pub may_resize: bool,
    /// The client sent edns-tcp-keepalive.
    pub keepalive: bool,
    /// The client padded its query.
    pub padding: bool,
    /// The client sent its subnet, or the request not to send one.
    pub subnet: bool,
    /// Offset of the client part of its cookie (RFC 7873 §4.1).
    pub cookie: Option<usize>,
}

/// Why a message is not a query that dotd can forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QueryError {
    /// Shorter than a header.
    #[error("message of {0} octets is shorter than a DNS header")]
    Short(usize),
    /// QR is set.
    #[error("message is a response")]
    IsResponse,
    /// An opcode other than QUERY.
    #[error("opcode {opcode}")]
    Opcode {
        /// OPCODE.
        opcode: u8,
        /// The message is sound enough to have an OPT record: its sender supports EDNS.
        has_opt: bool,
    },
    /// RFC 9619: exactly one question.
    #[error("{count} questions")]
    QuestionCount {
        /// QDCOUNT.
        count: u16,
        /// As in [`QueryError::Opcode`].
        has_opt: bool,
    },
    /// The question does not fit, or its name is invalid.
    #[error("broken question")]
    BrokenQuestion,
    /// A record does not fit.
    #[error("broken records")]
    BrokenRecords {
        /// One past the question, which is sound.
        question_end: usize,
    },
    /// Two OPT records, or one at a wrong place (RFC 6891 §6.1.1).
    #[error("misplaced OPT record")]
    MisplacedOpt {
        /// One past the question, which is sound.
        question_end: usize,
    },
    /// An option runs past its OPT record.
    #[error("broken OPT record")]
    BrokenOpt {
        /// One past the question, which is sound.
        question_end: usize,
    },
}

impl Query {
    /// Reads `message`.
    ///
    /// # Errors
    /// [`QueryError`], in the order in which a front end must answer: the header first.
    pub fn parse(message: &[u8]) -> Result<Self, QueryError> {
        Self::parse_with(message, |_| false)
    }

    /// Parses `message` even with another opcode, if `may` allows it: NOTIFY and UPDATE have a question, or a zone, at
    /// the place of a query's question (RFC 1996 §3.7, RFC 2136 §2.3).
    ///
    /// # Errors
    /// As [`Query::parse`].
    pub fn parse_with(message: &[u8], may: impl Fn(u8) -> bool) -> Result<Self, QueryError> {
        let (Some(id), Some(counts)) = (u16_at(message, 0), Counts::read(message)) else {
            return Err(QueryError::Short(message.len()));
        };
        let flags = message.get(2).copied().unwrap_or_default();
        if flags & 0x80 != 0 {
            return Err(QueryError::IsResponse);
        }
        let opcode = (flags >> 3) & 0x0f;
        if opcode != 0 && !may(opcode) {
            return Err(QueryError::Opcode { opcode, has_opt: has_opt(message) });
        }
        if counts.question != 1 {
            let has_opt = has_opt(message);
            return Err(QueryError::QuestionCount { count: counts.question, has_opt });
        }
        let name_end = question_name_end(message, HEADER_OCTETS).ok_or(QueryError::BrokenQuestion)?;
        let qtype = u16_at(message, name_end).ok_or(QueryError::BrokenQuestion)?;
        let qclass = u16_at(message, name_end + 2).ok_or(QueryError::BrokenQuestion)?;
        let question_end = name_end + 4;
        let tail = walk_tail(message, question_end, counts).map_err(|error| match error {
            TailError::Broken => QueryError::BrokenRecords { question_end },
            TailError::MisplacedOpt => QueryError::MisplacedOpt { question_end },
        })?;
        let message = message.get(..tail.end).unwrap_or(message);
        let opt = tail.opt.map(|record| read_opt(message, record)).transpose();
        let opt = opt.map_err(|()| QueryError::BrokenOpt { question_end })?;
        Ok(Self {
            id,
            opcode,
            question_end,
            end: tail.end,
            qtype,
            qclass,
            opt,
            is_signed: tail.is_signed,
            screening: Screening::Answer,
        })
    }
}

impl Query {
    /// The client part of the cookie in `message`, which this describes. It is the same for all queries of a client to
    /// one server, so it distinguishes clients that share an address.
    #[must_use]
    pub fn client_cookie<'a>(&self, message: &'a [u8]) -> Option<&'a [u8]> {
        let start = self.opt?.cookie?;
        message.get(start..start + CLIENT_COOKIE_OCTETS)
    }
}

/// Whether any message has an OPT record at a valid place.
#[must_use]
pub fn has_opt(message: &[u8]) -> bool {
    let Some(counts) = Counts::read(message) else { return false };
    let end = questions_end(message, counts.question);
    end.and_then(|end| walk_tail(message, end, counts).ok()).is_some_and(|tail| tail.opt.is_some())
}

fn read_opt(message: &[u8], record: Record) -> Result<Opt, ()> {
    let rdata = message.get(record.rdata..record.end).ok_or(())?;
    let HopOptions { keepalive, padding, subnet, cookie } = read_hop_options(rdata).ok_or(())?;
    Ok(Opt {
        start: record.start,
        rdata: record.rdata,
        end: record.end,
        version: message.get(record.fixed + 5).copied().ok_or(())?,
        dnssec_ok: message.get(record.fixed + 6).copied().ok_or(())? & 0x80 != 0,
        may_resize: !is_entangled(message, record),
        keepalive,
        padding,
        subnet,
        cookie: cookie.map(|start| record.rdata + start),
    })
}

//! DNS messages as octets, built by hand: a test must be able to send what no library would.
//!
//! Before: a test describes a query. After: octets without a length prefix; [`framed`] adds it.
//! Holds: queries, options, and replies for scripted backends. Never: shares code with dotd.
//!
//! Source: RFC 1035 §4.1, RFC 6891 §6.1.

/// A.
pub const A: u16 = 1;
/// NS.
pub const NS: u16 = 2;
/// SOA.
pub const SOA: u16 = 6;
/// TXT.
pub const TXT: u16 = 16;
/// AAAA.
pub const AAAA: u16 = 28;
/// SVCB (RFC 9460).
pub const SVCB: u16 = 64;
/// Response code: format error.
pub const FORMERR: u16 = 1;
/// Response code: refused.
pub const REFUSED: u16 = 5;
/// Response code: server failure.
pub const SERVFAIL: u16 = 2;
/// EDE 23, network error (RFC 8914 §4.24), as the first octets of its option.
pub const NETWORK_ERROR: [u8; 2] = [0, 23];
/// EDNS option: edns-tcp-keepalive (RFC 7828).
pub const OPTION_KEEPALIVE: u16 = 11;
/// EDNS option: padding (RFC 7830).
pub const OPTION_PADDING: u16 = 12;
/// EDNS option: extended DNS error (RFC 8914).
pub const OPTION_EDE: u16 = 15;

/// An OPT record to be sent.
#[derive(Clone, Debug)]
pub struct Opt {
    /// UDP payload size.
    pub payload_octets: u16,
    /// EDNS version.
    pub version: u8,
    /// DO and the unknown bits.
    pub flags: u16,
    /// Code and value of each option.
    pub options: Vec<(u16, Vec<u8>)>,
}

impl Default for Opt {
    fn default() -> Self {
        Self { payload_octets: 1232, version: 0, flags: 0, options: Vec::new() }
    }
}

impl Opt {
    /// An OPT record with one option.
    #[must_use]
    pub fn with(code: u16, value: &[u8]) -> Self {
        Self { options: vec![(code, value.to_vec())], ..Self::default() }
    }

    fn octets(&self) -> Vec<u8> {
        let mut record = vec![0];
        record.extend(41_u16.to_be_bytes());
        record.extend(self.payload_octets.to_be_bytes());
        record.extend([0, self.version]);
        record.extend(self.flags.to_be_bytes());
        let options: Vec<u8> = self.options.iter().flat_map(|(code, value)| option(*code, value)).collect();
        record.extend(u16::try_from(options.len()).expect("fits").to_be_bytes());
        record.extend(options);
        record
    }
}

/// A query to be sent.
#[derive(Clone, Debug)]
pub struct Query {
    /// Transaction ID.
    pub id: u16,
    /// Flags and opcode; RD alone unless changed.
    pub flags: u16,
    /// Name as written, case kept.
    pub qname: String,
    /// Type.
    pub qtype: u16,
    /// OPT records: none, one, or two for a malformed query.
    pub opts: Vec<Opt>,
}

impl Query {
    /// A plain query with RD.
    #[must_use]
    pub fn new(id: u16, qname: &str, qtype: u16) -> Self {
        Self { id, flags: 0x0100, qname: qname.to_owned(), qtype, opts: Vec::new() }
    }

    /// The same with an OPT record.
    #[must_use]
    pub fn opt(mut self, opt: Opt) -> Self {
        self.opts.push(opt);
        self
    }

    /// The same with these flags.
    #[must_use]
    pub const fn flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    /// The message.
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        let additional = u16::try_from(self.opts.len()).expect("fits");
        let mut message = header(self.id, self.flags, [1, 0, 0, additional]);
        message.extend(question(&self.qname, self.qtype));
        for opt in &self.opts {
            message.extend(opt.octets());
        }
        message
    }
}

/// A query for an address of `www.dotd.test`, without an OPT record.
#[must_use]
pub fn www(id: u16) -> Vec<u8> {
    Query::new(id, "www.dotd.test", A).octets()
}

/// A query for an address of a name that is unique to this ID, without an OPT record.
#[must_use]
pub fn host(id: u16) -> Vec<u8> {
    Query::new(id, &format!("host-{id}.dotd.test"), A).octets()
}

/// Twelve octets: ID, flags, and the counts of question, answer, authority and additional.
#[must_use]
pub fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    [id, flags].into_iter().chain(counts).flat_map(u16::to_be_bytes).collect()
}

/// A question of class IN.
#[must_use]
pub fn question(qname: &str, qtype: u16) -> Vec<u8> {
    let mut octets = name(qname);
    octets.extend(qtype.to_be_bytes());
    octets.extend(1_u16.to_be_bytes());
    octets
}

/// A name, uncompressed, case kept.
#[must_use]
pub fn name(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        octets.push(u8::try_from(label.len()).expect("a label of at most 63"));
        octets.extend(label.as_bytes());
    }
    octets.push(0);
    octets
}

/// The length prefix and the message.
#[must_use]
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = u16::try_from(message.len()).expect("at most 65535").to_be_bytes().to_vec();
    frame.extend(message);
    frame
}

/// A reply to `query`, as an honest backend makes it: the ID and question of the query, and one record for each value
/// of `rdata`.
///
/// # Panics
/// When `query` has no question.
#[must_use]
pub fn reply_to(query: &[u8], qtype: u16, rdata: &[Vec<u8>]) -> Vec<u8> {
    let asked = super::response::Message::parse(query).expect("dotd sends whole messages");
    let answers = u16::try_from(rdata.len()).expect("fits");
    let mut reply = header(asked.id, 0x8180, [1, answers, 0, 0]);
    reply.extend(&asked.question);
    for value in rdata {
        reply.extend([0xc0, 12]);
        reply.extend(qtype.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 60]);
        reply.extend(u16::try_from(value.len()).expect("fits").to_be_bytes());
        reply.extend(value);
    }
    reply
}

/// An error for `query` from a server that does not read the question: the ID and RD of the query, the rcode, no
/// question.
#[must_use]
pub fn bare_error(query: &[u8], rcode: u16) -> Vec<u8> {
    let id = u16::from_be_bytes([query[0], query[1]]);
    header(id, 0x8000 | u16::from(query[2] & 0x01) << 8 | rcode, [0; 4])
}

/// Appends an OPT record to a message that has none.
pub fn append_opt(message: &mut Vec<u8>, opt: &Opt) {
    message[11] += 1;
    message.extend(opt.octets());
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("fits");
    [code.to_be_bytes(), length.to_be_bytes()].concat().into_iter().chain(value.iter().copied()).collect()
}

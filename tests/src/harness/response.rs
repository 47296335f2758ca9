//! Parses DNS messages strictly: what dotd wrote must parse to its last octet.
//!
//! Before: octets without a length prefix. After: a [`Message`] that a test asserts on.
//! Never: repairs or guesses; shares code with dotd.
//!
//! Source: RFC 1035 §4.1, RFC 6891 §6.1.2.

/// One resource record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Type.
    pub rtype: u16,
    /// Class; payload size in OPT.
    pub class: u16,
    /// TTL; extended rcode, version and flags in OPT.
    pub ttl: u32,
    /// Value as on the wire.
    pub rdata: Vec<u8>,
}

/// A parsed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Transaction ID.
    pub id: u16,
    /// The second word of the header.
    pub flags: u16,
    /// The four counts.
    pub counts: [u16; 4],
    /// The question section's octets, exactly.
    pub question: Vec<u8>,
    /// All records of all sections in order.
    pub records: Vec<Record>,
    /// Length of the message.
    pub octets: usize,
}

impl Message {
    /// Reads a message whole; `None` when a field is cut or octets are left over.
    #[must_use]
    pub fn parse(octets: &[u8]) -> Option<Self> {
        let mut rest = Cursor { all: octets, at: 0 };
        let (id, flags) = (rest.word()?, rest.word()?);
        let counts = [rest.word()?, rest.word()?, rest.word()?, rest.word()?];
        let start = rest.at;
        for _ in 0..counts[0] {
            rest.skip_name()?;
            rest.take(4)?;
        }
        let question = octets[start..rest.at].to_vec();
        let total: u32 = counts[1..].iter().map(|count| u32::from(*count)).sum();
        let mut records = Vec::new();
        for _ in 0..total {
            records.push(rest.record()?);
        }
        let is_whole = rest.at == octets.len();
        is_whole.then_some(Self { id, flags, counts, question, records, octets: octets.len() })
    }

    /// Twelve bits: the header's four and the OPT record's eight above them.
    #[must_use]
    pub fn rcode(&self) -> u16 {
        let high = self.opt().map_or(0, |opt| (opt.ttl >> 24) << 4);
        u16::try_from(high).expect("twelve bits") | (self.flags & 0xf)
    }

    /// QR.
    #[must_use]
    pub const fn is_response(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// TC.
    #[must_use]
    pub const fn is_truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    /// The question's name, dotted, case as on the wire.
    #[must_use]
    pub fn qname(&self) -> String {
        let mut rest = Cursor { all: &self.question, at: 0 };
        let mut labels = Vec::new();
        while let Some(length) = rest.take(1).map(|octet| usize::from(octet[0])).filter(|length| *length > 0)
        {
            labels.push(String::from_utf8_lossy(rest.take(length).unwrap_or_default()).into_owned());
        }
        labels.join(".")
    }

    /// The values of the records of one type.
    #[must_use]
    pub fn rdata(&self, rtype: u16) -> Vec<&[u8]> {
        self.records.iter().filter(|record| record.rtype == rtype).map(|record| &*record.rdata).collect()
    }

    /// The OPT record; [`Message::opt_count`] shows whether there is a second one, which is a fault of the sender.
    #[must_use]
    pub fn opt(&self) -> Option<&Record> {
        self.records.iter().find(|record| record.rtype == 41)
    }

    /// Number of OPT records.
    #[must_use]
    pub fn opt_count(&self) -> usize {
        self.records.iter().filter(|record| record.rtype == 41).count()
    }

    /// Code and value of each EDNS option in order.
    #[must_use]
    pub fn options(&self) -> Vec<(u16, Vec<u8>)> {
        let mut rest = Cursor { all: self.opt().map_or(&[], |opt| &*opt.rdata), at: 0 };
        let mut options = Vec::new();
        while let Some(code) = rest.word() {
            let length = usize::from(rest.word().expect("an option has a length"));
            options.push((code, rest.take(length).expect("an option is whole").to_vec()));
        }
        options
    }

    /// The value of the first EDNS option with this code.
    #[must_use]
    pub fn option(&self, code: u16) -> Option<Vec<u8>> {
        self.options().into_iter().find(|(found, _)| *found == code).map(|(_, value)| value)
    }
}

struct Cursor<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.all.get(self.at..self.at + count)?;
        self.at += count;
        Some(taken)
    }

    fn word(&mut self) -> Option<u16> {
        self.take(2).map(|two| u16::from_be_bytes([two[0], two[1]]))
    }

    fn skip_name(&mut self) -> Option<()> {
        loop {
            match self.take(1)?[0] {
                0 => return Some(()),
                pointer @ 0xc0.. => {
                    return self.take(1).map(|low| {
                        assert!(usize::from(pointer & 0x3f) << 8 | usize::from(low[0]) < self.at)
                    });
                }
                length => self.take(usize::from(length))?,
            };
        }
    }

    fn record(&mut self) -> Option<Record> {
        self.skip_name()?;
        let (rtype, class) = (self.word()?, self.word()?);
        let ttl = u32::from(self.word()?) << 16 | u32::from(self.word()?);
        let length = usize::from(self.word()?);
        Some(Record { rtype, class, ttl, rdata: self.take(length)?.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::Message;
    use crate::harness::message::{A, OPTION_PADDING, Opt, Query, reply_to};

    /// Goal: the reader returns what the builder wrote, and refuses a message that is cut or lengthened. Method: one
    /// query with an option, there and back.
    #[test]
    fn builder_and_reader_agree() {
        let query = Query::new(0x1234, "wWw.Dotd.test", A).opt(Opt::with(OPTION_PADDING, &[0; 3])).octets();
        let read = Message::parse(&query).expect("whole");
        assert_eq!((read.id, read.qname().as_str()), (0x1234, "wWw.Dotd.test"));
        assert_eq!(read.option(OPTION_PADDING), Some(vec![0; 3]));
        assert_eq!(Message::parse(&query[..query.len() - 1]), None);
        assert_eq!(Message::parse(&[&*query, &[0]].concat()), None);
        let reply = Message::parse(&reply_to(&query, A, &[vec![192, 0, 2, 1]])).expect("whole");
        assert_eq!((reply.id, reply.rdata(A)), (0x1234, vec![&[192, 0, 2, 1][..]]));
        assert_eq!(reply.question, read.question);
    }
}

//! The queries to send, encoded once, and the check that a response answers one of them.
//!
//! Before: names and types. After: messages that need only their ID written in front.
//! Never: parses beyond the question: only whether a server answers matters here, not its data.
//!
//! Source: RFC 1035 §4.1 (header, question), RFC 6891 §6.1 (OPT), RFC 7830 (padding).

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::options::Options;

const HEADER_OCTETS: usize = 12;
/// Block of RFC 8467 §4.1 for queries.
const PADDING_BLOCK_OCTETS: usize = 128;
/// The UDP payload size in OPT; over TLS it has no meaning, and stub resolvers send 1232.
const OPT_PAYLOAD_OCTETS: u16 = 1232;

const TYPES: &[(&str, u16)] = &[
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("DS", 43),
    ("DNSKEY", 48),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("ANY", 255),
];
const RCODES: &[&str] = &["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

/// One encoded query, ID zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    message: Vec<u8>,
    question_octets: usize,
}

/// The reason why a message is no answer to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Shorter than a header, QR=0, or not one question.
    Malformed,
    /// The question is not the one we asked.
    Question,
    /// TC=1, over TLS.
    Truncated,
}

impl Query {
    /// Encodes a query with RD=1 and an OPT record.
    ///
    /// # Errors
    /// A name that is not a domain name, or an unknown type.
    pub fn new(name: &str, qtype: &str, pad: bool) -> Result<Self> {
        let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
            let octets = u8::try_from(label.len()).ok().filter(|octets| *octets <= 63);
            let octets =
                octets.with_context(|| format!("label of {} octets in {name}, limit 63", label.len()))?;
            message.push(octets);
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        if message.len() - HEADER_OCTETS > 255 {
            bail!("name of {} octets, limit 255: {name}", message.len() - HEADER_OCTETS);
        }
        message.extend_from_slice(&type_of(qtype)?.to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        let question_octets = message.len() - HEADER_OCTETS;
        message.extend_from_slice(&[0, 0, 41]);
        message.extend_from_slice(&OPT_PAYLOAD_OCTETS.to_be_bytes());
        message.extend_from_slice(&[0; 4]);
        let padding = if pad { padding(message.len() + 2) } else { Vec::new() };
        message.extend_from_slice(&u16::try_from(padding.len())?.to_be_bytes());
        message.extend_from_slice(&padding);
        Ok(Self { message, question_octets })
    }

    /// Appends `[length: u16][message]` with this ID.
    pub fn write(&self, id: u16, octets: &mut Vec<u8>) {
        // A query has at most 12 + 259 + 128 octets.
        let length = u16::try_from(self.message.len()).unwrap_or(u16::MAX);
        octets.extend_from_slice(&length.to_be_bytes());
        octets.extend_from_slice(&id.to_be_bytes());
        octets.extend_from_slice(&self.message[2..]);
    }

    /// Checks that `response` answers this query and returns its rcode. The ID chose the query already.
    ///
    /// # Errors
    /// [`Wrong`] has the reason.
    pub fn check(&self, response: &[u8]) -> Result<u8, Wrong> {
        let header = response.get(..HEADER_OCTETS).ok_or(Wrong::Malformed)?;
        if header[2] & 0x80 == 0 || header[4..6] != [0, 1] {
            return Err(Wrong::Malformed);
        }
        let end = HEADER_OCTETS + self.question_octets;
        let question = response.get(HEADER_OCTETS..end).ok_or(Wrong::Question)?;
        // Names compare without case (RFC 4343); no octet of type and class is a letter of ours.
        if !question.eq_ignore_ascii_case(&self.message[HEADER_OCTETS..end]) {
            return Err(Wrong::Question);
        }
        if header[2] & 0x02 != 0 {
            return Err(Wrong::Truncated);
        }
        Ok(header[3] & 0x0f)
    }
}

/// The padding option that brings a message of `octets` to a whole block.
fn padding(octets: usize) -> Vec<u8> {
    const OPTION_HEADER_OCTETS: usize = 4;
    let used = octets + OPTION_HEADER_OCTETS;
    let fill = used.next_multiple_of(PADDING_BLOCK_OCTETS) - used;
    // Option code 12; fill is below 128.
    let mut option = vec![0, 12, 0, u8::try_from(fill).unwrap_or(0)];
    option.resize(OPTION_HEADER_OCTETS + fill, 0);
    option
}

fn type_of(text: &str) -> Result<u16> {
    let upper = text.to_ascii_uppercase();
    let known = TYPES.iter().find(|(name, _)| *name == upper).map(|(_, number)| *number);
    let numbered = || upper.strip_prefix("TYPE").and_then(|number| number.parse().ok());
    known.or_else(numbered).with_context(|| format!("type {text} is not known; write it as TYPE12345"))
}

/// The number of an rcode, by name or number.
///
/// # Errors
/// Neither.
pub fn rcode_of(text: &str) -> Result<u8> {
    let upper = text.to_ascii_uppercase();
    let named = RCODES.iter().position(|name| *name == upper).and_then(|number| u8::try_from(number).ok());
    let numbered = || text.parse().ok().filter(|number| *number < 16);
    named
        .or_else(numbered)
        .with_context(|| format!("response code {text} is not known; 0 to 15, or its name"))
}

/// The name of an rcode for people.
#[must_use]
pub fn rcode_name(rcode: u8) -> String {
    RCODES.get(usize::from(rcode)).map_or_else(|| format!("RCODE{rcode}"), |name| (*name).to_owned())
}

/// Encodes everything to ask: the lines of the file, or the one name.
///
/// # Errors
/// A file that cannot be read or holds nothing, or a line that is no query; with its number.
pub fn load(options: &Options) -> Result<Vec<Query>> {
    let Some(path) = &options.file else {
        return Ok(vec![Query::new(&options.name, &options.qtype, options.pad)?]);
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let queries = parse(path, &text, options.pad)?;
    if queries.is_empty() {
        bail!("{} holds no query: a line is `name type`", path.display());
    }
    Ok(queries)
}

fn parse(path: &Path, text: &str, pad: bool) -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { continue };
        let query = Query::new(name, words.next().unwrap_or("A"), pad);
        queries.push(query.with_context(|| format!("{}:{}", path.display(), number + 1))?);
    }
    Ok(queries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> Query {
        Query::new("www.Dotd.test.", "a", false).expect("a query")
    }

    /// A right answer to `query()`: its own message with QR set.
    fn response() -> Vec<u8> {
        let mut framed = Vec::new();
        query().write(0x1234, &mut framed);
        framed[4] |= 0x80;
        framed.split_off(2)
    }

    /// Goal: the octets on the wire are those of RFC 1035. Method: compare with hand-written ones.
    #[test]
    fn encodes_a_query() {
        let mut framed = Vec::new();
        query().write(0x1234, &mut framed);
        let expected = b"\x00\x2a\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\
            \x03www\x04Dotd\x04test\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
        assert_eq!(framed, expected);
    }

    /// Goal: padded queries fill whole blocks, whatever the name's length. Method: names of 1 to 60 octets.
    #[test]
    fn pads_to_whole_blocks() {
        for octets in 1..=60 {
            let query = Query::new(&"x".repeat(octets), "TXT", true).expect("a query");
            assert_eq!(query.message.len() % PADDING_BLOCK_OCTETS, 0, "name of {octets}");
        }
    }

    /// Goal: every way a response can be none of ours is told apart. Method: damage a right one.
    #[test]
    fn rejects_wrong_responses() {
        assert_eq!(query().check(&response()), Ok(0));
        let damaged = |at: usize, octet: u8| {
            let mut response = response();
            response[at] = octet;
            query().check(&response)
        };
        assert_eq!(damaged(3, 3), Ok(3));
        assert_eq!(damaged(2, 0x01), Err(Wrong::Malformed));
        assert_eq!(damaged(5, 2), Err(Wrong::Malformed));
        assert_eq!(damaged(2, 0x82), Err(Wrong::Truncated));
        assert_eq!(damaged(13, b'x'), Err(Wrong::Question));
        assert_eq!(damaged(13, b'W'), Ok(0), "names compare without case");
        assert_eq!(query().check(&response()[..20]), Err(Wrong::Question));
        assert_eq!(query().check(&[]), Err(Wrong::Malformed));
    }

    /// Goal: a mistake in a query file is reported with its line; comments and blank lines are no mistakes.
    #[test]
    fn reads_a_query_file() {
        let path = Path::new("names.txt");
        let parsed = parse(path, "# names\n\ndotd.test A\nwww.dotd.test\nx TYPE65 ; svcb\n", false);
        assert_eq!(parsed.expect("three queries").len(), 3);
        let error = parse(path, "a A\nb NOSUCH\n", false).expect_err("NOSUCH is no type");
        assert!(format!("{error:#}").starts_with("names.txt:2: type NOSUCH"), "{error:#}");
        assert!(parse(path, &format!("{} A\n", "y".repeat(64)), false).is_err());
    }
}

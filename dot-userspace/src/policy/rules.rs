//! The rules of one policy zone: found by a name, by a client's address, or by an address in an answer.
//!
//! Before: `builder` has every rule of a file. After: `zone` has the action of a rule.
//! Holds: the names, two maps of prefixes, 8 octets for each rule, and the records of rules, each list in one piece. The
//! number of a rule has its plain action too, so that a query for a blocked name does not wait for the list of rules.
//! Never: changes after it was built; allocates at a lookup.

use std::net::IpAddr;

use super::{Index, PrefixMap};
use crate::dns::{Labels, TYPE_CNAME};

/// The action of a rule.
#[derive(Clone, Copy, Debug)]
pub enum Action<'r> {
    /// NXDOMAIN.
    NxDomain,
    /// NODATA.
    NoData,
    /// The answer unchanged.
    Passthru,
    /// No answer.
    Drop,
    /// TC=1 over UDP; over connections the answer unchanged.
    TcpOnly,
    /// An alias for this name, in wire format; a name with `*` in front is completed with the qname.
    Alias(&'r [u8], u32),
    /// Records of its own.
    Records(Records<'r>),
}

impl Action<'_> {
    /// The text in `dotd policy test`.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::NxDomain => "nxdomain".to_owned(),
            Self::NoData => "nodata".to_owned(),
            Self::Passthru => "passthru".to_owned(),
            Self::Drop => "drop".to_owned(),
            Self::TcpOnly => "tcp-only".to_owned(),
            Self::Alias(target, _) => format!("cname {}", crate::dns::text_of(target)),
            Self::Records(records) => format!("local data, {} records", records.all().count()),
        }
    }
}

/// A rule as it is stored: its line in the file, and its action: a plain one, or its first record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) line: u32,
    pub(super) does: u32,
}

/// Actions without records, by their numbers.
pub(super) const PLAIN: [Action<'static>; 5] =
    [Action::NxDomain, Action::NoData, Action::Passthru, Action::Drop, Action::TcpOnly];
pub(super) const NXDOMAIN: u32 = 0;
pub(super) const NODATA: u32 = 1;
pub(super) const PASSTHRU: u32 = 2;
pub(super) const DROP: u32 = 3;
pub(super) const TCP_ONLY: u32 = 4;
/// The number of the first record, in a rule that has records.
pub(super) const FIRST_RECORD: u32 = 5;
/// Bits of a rule's number that are its place among all rules; above them is its plain action, or [`FIRST_RECORD`].
const PLACE_BITS: u32 = 24;

/// The number of the rule at `place`. `None`: there is no room for so many.
pub(super) fn number_of(place: usize, does: u32) -> Option<u32> {
    let place = u32::try_from(place).ok().filter(|place| place >> PLACE_BITS == 0)?;
    Some(does.min(FIRST_RECORD) << PLACE_BITS | place)
}

/// The place of a rule among all.
pub(super) fn place_of(number: u32) -> usize {
    (number & ((1 << PLACE_BITS) - 1)) as usize
}

/// A record of a rule, and the next one of that rule; 0: there is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) rtype: u16,
    pub(super) octets: u16,
    pub(super) ttl: u32,
    pub(super) start: u32,
    pub(super) next: u32,
}

/// The records of a rule.
#[derive(Clone, Copy, Debug)]
pub struct Records<'r> {
    rules: &'r Rules,
    first: u32,
}

impl<'r> Records<'r> {
    /// Type, TTL and RDATA of each.
    pub fn all(self) -> impl Iterator<Item = (u16, u32, &'r [u8])> {
        let mut at = self.first;
        std::iter::from_fn(move || {
            let record = self.rules.records.get(usize::try_from(at).ok()?.checked_sub(1)?)?;
            at = record.next;
            Some((record.rtype, record.ttl, self.rules.rdata_of(*record)))
        })
    }
}

/// Facts about a file beside its rules.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// TTL and RDATA of its SOA record.
    pub soa: Option<(u32, Box<[u8]>)>,
    /// The serial number there.
    pub serial: Option<u32>,
    /// Lines that a front end cannot apply, and the first of them with its reason.
    pub left_out: u32,
    /// Why the first was left out, with its line.
    pub first_left_out: Option<String>,
}

/// The rules of one zone.
#[derive(Debug, Default)]
pub struct Rules {
    pub(super) names: Index,
    pub(super) clients: PrefixMap,
    pub(super) addresses: PrefixMap,
    /// Number 0 is no rule.
    pub(super) rules: Vec<Rule>,
    pub(super) records: Vec<Record>,
    pub(super) rdata: Vec<u8>,
    pub(super) start: Start,
}

impl Rules {
    /// The number of the rule for a name, its own or its wildcard's; never 0.
    #[must_use]
    pub fn by_name(&self, name: &Labels) -> Option<u32> {
        self.names.find(name).map(|found| found.rule)
    }

    /// The number of the rule for a client.
    #[must_use]
    pub fn by_client(&self, client: IpAddr) -> Option<u32> {
        if self.clients.is_empty() { None } else { self.clients.find(client) }
    }

    /// The number of the rule for an address in an answer.
    #[must_use]
    pub fn by_address(&self, address: IpAddr) -> Option<u32> {
        self.addresses.find(address)
    }

    /// Whether any rule is about addresses of answers.
    #[must_use]
    pub fn has_addresses(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// The action of a rule.
    #[must_use]
    pub fn action(&self, number: u32) -> Action<'_> {
        if let Some(plain) = PLAIN.get((number >> PLACE_BITS) as usize) {
            return *plain;
        }
        let rule = self.rules.get(place_of(number)).filter(|rule| rule.does >= FIRST_RECORD);
        rule.map_or(Action::Passthru, |rule| self.with_records(rule.does - FIRST_RECORD + 1))
    }

    /// The line of a rule in its file.
    #[must_use]
    pub fn line(&self, number: u32) -> u32 {
        self.rules.get(place_of(number)).map_or(0, |rule| rule.line)
    }

    fn with_records(&self, first: u32) -> Action<'_> {
        let records = Records { rules: self, first };
        match records.all().next() {
            Some((TYPE_CNAME, ttl, target)) => Action::Alias(target, ttl),
            _ => Action::Records(records),
        }
    }

    fn rdata_of(&self, record: Record) -> &[u8] {
        let start = record.start as usize;
        self.rdata.get(start..start + usize::from(record.octets)).unwrap_or_default()
    }

    /// The number of rules.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rules.len().saturating_sub(1)
    }

    /// Octets of memory.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.names.octets()
            + self.rules.capacity() * size_of::<Rule>()
            + self.records.capacity() * size_of::<Record>()
            + self.rdata.capacity()
            + self.clients.octets()
            + self.addresses.octets()
    }

    /// The facts about the file.
    #[must_use]
    pub fn start(&self) -> &Start {
        &self.start
    }
}

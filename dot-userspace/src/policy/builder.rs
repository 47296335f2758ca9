//! Builds the lookup tables of a zone from its rules.
//!
//! Before: `rpz` or `lists` has read a line. After: [`Rules`], which no longer change.
//! Holds: all rules so far, at most [`RULES_MAX`].
//! Never: has two rules for one trigger, except records of one name.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;

use super::{
    Index, Names, PrefixMap,
    names::NodeId,
    rules::{FIRST_RECORD, Record, Rule, Rules, Start, number_of, place_of},
};
use crate::dns::TYPE_CNAME;

/// Most rules of a zone. 16 million: two hundred times the longest public lists, and 1.5 GB.
const RULES_MAX: usize = 16_000_000;
/// Most records of one rule.
const RECORDS_OF_RULE_MAX: usize = 256;
/// Most octets of these in an answer. 60,000: with the question, an SOA record and the zone's name they fit into a
/// message.
const RULE_OCTETS_MAX: usize = 60_000;
/// Octets of a record whose owner is the question's name, without its data.
const RECORD_HEAD_OCTETS: usize = 12;

/// The trigger of a rule.
pub(super) enum Trigger {
    /// A name, or all names below it.
    Name(NodeId, bool),
    /// The addresses of clients.
    Client(IpNet),
    /// Addresses in answers.
    Address(IpNet),
}

/// The action of a line.
pub(super) enum Says<'a> {
    /// A plain action, by its number.
    Plain(u32),
    /// A record for the answer.
    Record { rtype: u16, ttl: u32, rdata: &'a [u8] },
}

/// A zone that is being read.
pub(super) struct Builder {
    pub(super) names: Names,
    clients: HashMap<IpNet, u32>,
    addresses: HashMap<IpNet, u32>,
    rules: Vec<Rule>,
    records: Vec<Record>,
    rdata: Vec<u8>,
    pub(super) start: Start,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            names: Names::default(),
            clients: HashMap::new(),
            addresses: HashMap::new(),
            // Number 0 is no rule.
            rules: vec![Rule { line: 0, does: 0 }],
            records: Vec::new(),
            rdata: Vec::new(),
            start: Start::default(),
        }
    }
}

impl Builder {
    /// Adds the rule of a line. A line that repeats a rule adds nothing.
    ///
    /// # Errors
    /// The trigger has another rule, or there is no room.
    pub(super) fn add(&mut self, trigger: Trigger, line: u32, says: &Says<'_>) -> Result<(), String> {
        let place = match trigger {
            Trigger::Name(node, is_wildcard) => self.names.rule(node, is_wildcard),
            Trigger::Client(prefix) => Some(self.clients.entry(prefix.trunc()).or_default()),
            Trigger::Address(prefix) => Some(self.addresses.entry(prefix.trunc()).or_default()),
        };
        let place = place.ok_or("more names than can be counted")?;
        let known = *place;
        if known != 0 {
            return self.add_to(known, says);
        }
        let does = match says {
            Says::Plain(action) => *action,
            Says::Record { .. } => FIRST_RECORD,
        };
        let number = number_of(self.rules.len(), does).filter(|_| self.rules.len() < RULES_MAX);
        *place = number.ok_or_else(|| format!("more than {RULES_MAX} rules, which is the limit"))?;
        let does = match says {
            Says::Plain(action) => *action,
            Says::Record { .. } => FIRST_RECORD - 1 + self.keep(says)?,
        };
        self.rules.push(Rule { line, does });
        Ok(())
    }

    /// Adds to an existing rule: another record of its name, or the same line again.
    fn add_to(&mut self, number: u32, says: &Says<'_>) -> Result<(), String> {
        let Some(rule) = self.rules.get(place_of(number)).copied() else { return Ok(()) };
        let other = || format!("another rule for the same trigger is at line {}", rule.line);
        let (rtype, rdata) = match says {
            Says::Plain(action) if *action == rule.does => return Ok(()),
            Says::Plain(_) => return Err(other()),
            Says::Record { .. } if rule.does < FIRST_RECORD => return Err(other()),
            Says::Record { rtype, rdata, .. } => (*rtype, *rdata),
        };
        let (mut at, mut octets) = ((rule.does - FIRST_RECORD) as usize, RECORD_HEAD_OCTETS + rdata.len());
        for _ in 0..RECORDS_OF_RULE_MAX {
            let Some(record) = self.records.get(at).copied() else { return Ok(()) };
            let start = record.start as usize;
            let is_same = self.rdata.get(start..start + usize::from(record.octets)) == Some(rdata);
            if record.rtype == rtype && is_same {
                return Ok(());
            }
            if (record.rtype == TYPE_CNAME) || (rtype == TYPE_CNAME) {
                return Err(other());
            }
            octets += RECORD_HEAD_OCTETS + usize::from(record.octets);
            if octets > RULE_OCTETS_MAX {
                return Err(too_long());
            }
            if record.next == 0 {
                let next = self.keep(says)?;
                if let Some(last) = self.records.get_mut(at) {
                    last.next = next;
                }
                return Ok(());
            }
            at = record.next as usize - 1;
        }
        Err(format!("more than {RECORDS_OF_RULE_MAX} records of one rule, which is the limit"))
    }

    /// Stores a record; returns its number, counted from 1.
    fn keep(&mut self, says: &Says<'_>) -> Result<u32, String> {
        let Says::Record { rtype, ttl, rdata } = says else { return Ok(0) };
        let octets = u16::try_from(rdata.len()).ok().filter(|octets| usize::from(*octets) <= RULE_OCTETS_MAX);
        let octets = octets.ok_or_else(too_long)?;
        let start = u32::try_from(self.rdata.len()).map_err(|_| "records have more than 4 GiB")?;
        self.rdata.extend_from_slice(rdata);
        self.records.push(Record { rtype: *rtype, octets, ttl: *ttl, start, next: 0 });
        u32::try_from(self.records.len()).map_err(|_| "more records than can be counted".to_owned())
    }

    /// Counts a line that a front end cannot apply.
    pub(super) fn leave_out(&mut self, line: u32, why: &str) {
        self.start.left_out = self.start.left_out.saturating_add(1);
        self.start.first_left_out.get_or_insert_with(|| format!("line {line}: {why}"));
    }

    /// The finished rules, without reserved memory.
    pub(super) fn build(mut self) -> Rules {
        self.rules.shrink_to_fit();
        self.records.shrink_to_fit();
        self.rdata.shrink_to_fit();
        Rules {
            names: Index::new(&self.names),
            clients: PrefixMap::new(self.clients),
            addresses: PrefixMap::new(self.addresses),
            rules: self.rules,
            records: self.records,
            rdata: self.rdata,
            start: self.start,
        }
    }
}

fn too_long() -> String {
    format!("records of one rule have more than {RULE_OCTETS_MAX} octets, which is the limit")
}

/// The prefix in the labels of an address trigger, from the last to the first: `24.0.2.0.192`, or `48.zz.db8.2001`.
///
/// # Errors
/// The mistake in it.
pub(super) fn prefix_of(labels: &[&[u8]]) -> Result<IpNet, String> {
    let words: Vec<&str> = labels
        .iter()
        .map(|label| label.get(1..).and_then(|word| str::from_utf8(word).ok()).unwrap_or("?"))
        .collect();
    let Some((length, words)) = words.split_last().filter(|(_, rest)| !rest.is_empty()) else {
        return Err("not a prefix; write one such as 24.0.2.0.192".to_owned());
    };
    let no_prefix =
        || format!("{length}.{} is not a prefix", words.iter().rev().copied().collect::<Vec<_>>().join("."));
    let is_v4 = words.len() == 4 && words.iter().all(|word| word.bytes().all(|octet| octet.is_ascii_digit()));
    let address: IpAddr = match is_v4 {
        true => words.join(".").parse().map_err(|_| no_prefix())?,
        false => {
            let text =
                words.iter().map(|word| if *word == "zz" { "" } else { word }).collect::<Vec<_>>().join(":");
            // At either end the two colons need one more.
            let (begins, ends) = (words.first() == Some(&"zz"), words.last() == Some(&"zz"));
            let front = if begins { ":" } else { "" };
            let back = if ends { ":" } else { "" };
            format!("{front}{text}{back}").parse().map_err(|_| no_prefix())?
        }
    };
    let length = length.parse().map_err(|_| no_prefix())?;
    let prefix = IpNet::new(address, length).map_err(|_| no_prefix())?;
    if prefix.trunc() != prefix || length == 0 {
        return Err(format!("{prefix} has length 0, or bits after its length: write {}", prefix.trunc()));
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: address triggers give the prefixes of the draft's examples; anything else is an error. Covers: C-446
    #[test]
    fn prefixes_are_read_backwards() {
        let of = |text: &str| {
            let wire: Vec<Vec<u8>> = text
                .split('.')
                .rev()
                .map(|word| [&[u8::try_from(word.len()).unwrap()], word.as_bytes()].concat())
                .collect();
            prefix_of(&wire.iter().map(Vec::as_slice).collect::<Vec<_>>()).map(|prefix| prefix.to_string())
        };
        for (text, prefix) in [
            ("32.1.2.0.192", "192.0.2.1/32"),
            ("24.0.2.0.192", "192.0.2.0/24"),
            ("128.57.zz.101.db8.2001", "2001:db8:101::57/128"),
            ("48.zz.101.db8.2001", "2001:db8:101::/48"),
            ("128.1.zz", "::1/128"),
            ("128.8.7.6.5.4.3.2.1", "1:2:3:4:5:6:7:8/128"),
        ] {
            assert_eq!(of(text).as_deref(), Ok(prefix), "{text}");
        }
        for text in
            ["24", "24.1.2.0.192", "33.1.2.0.192", "x.1.2.0.192", "129.1.zz", "32.2.0.192", "0.0.0.0.0"]
        {
            assert!(of(text).is_err(), "{text}");
        }
    }
}

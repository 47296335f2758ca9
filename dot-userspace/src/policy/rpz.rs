//! Reads a response policy zone from a master file.
//!
//! Before: an open file and the zone's name. After: `builder` has each rule; lines that a front end cannot apply are
//! counted.
//! Holds: origin, TTL and owner of the previous record.
//! Never: skips a record of unknown meaning: that is an error with its line.
//!
//! Source: draft-vixie-dnsop-dns-rpz-00 §3 and §4, RFC 1035 §5.1, RFC 2308 §4 ($TTL).

use std::io::BufRead;

use super::{
    builder::{Builder, Says, Trigger, prefix_of},
    names::NodeId,
    rules::{DROP, NODATA, NXDOMAIN, PASSTHRU, TCP_ONLY},
    words::{Lines, Words, shown},
};
use crate::dns::{self, Labels};

const TYPE_NS: u16 = 2;
const TYPE_SOA: u16 = 6;
const TYPE_PTR: u16 = 12;
const TYPE_MX: u16 = 15;
const TYPE_TXT: u16 = 16;
const TYPE_SRV: u16 = 33;
/// DS, RRSIG, NSEC, DNSKEY, NSEC3, NSEC3PARAM, CDS, CDNSKEY, ZONEMD: of the zone itself.
const OF_THE_ZONE: [u16; 9] = [43, 46, 47, 48, 50, 51, 59, 60, 63];
/// The TTL if no $TTL and no record gives one.
const TTL_SECONDS: u32 = 300;

/// The state after the lines so far.
struct Reader<'b> {
    builder: &'b mut Builder,
    zone: Labels,
    zone_labels: usize,
    origin: Labels,
    owner: Option<Labels>,
    ttl: Option<u32>,
    rdata: Vec<u8>,
}

/// Reads all records of the zone `name`.
///
/// # Errors
/// The line, and the mistake in it.
pub(super) fn read<R: BufRead>(
    lines: &mut Lines<R>,
    name: &Labels,
    builder: &mut Builder,
) -> Result<(), (u32, String)> {
    let zone_labels = name.labels().count();
    let mut reader = Reader {
        builder,
        zone: name.clone(),
        zone_labels,
        origin: name.clone(),
        owner: None,
        ttl: None,
        rdata: Vec::new(),
    };
    let mut words = Words::default();
    loop {
        let outcome = match words.read(lines) {
            Ok(true) => reader.record(&words),
            Ok(false) => break,
            Err(error) => Err(error),
        };
        outcome.map_err(|error| (words.line, error))?;
    }
    if reader.builder.start.soa.is_none() {
        return Err((words.line, "the SOA record is missing: the zone is not complete".to_owned()));
    }
    Ok(())
}

impl Reader<'_> {
    fn record(&mut self, words: &Words) -> Result<(), String> {
        if words.get(0).is_some_and(|word| word.starts_with(b"$")) {
            return self.directive(words);
        }
        let mut at = 0;
        if !words.has_no_owner {
            let text = words.get(0).unwrap_or_default();
            let owner = Labels::parse(text, Some(&self.origin));
            self.owner = Some(owner.map_err(|error| format!("{}: {error}", words.text(0)))?);
            at = 1;
        }
        let mut ttl = None;
        loop {
            match words.get(at) {
                Some(word) if word.first().is_some_and(u8::is_ascii_digit) && ttl.is_none() => {
                    ttl = Some(seconds(word).ok_or_else(|| format!("{} is not a TTL", words.text(at)))?);
                }
                Some(word) if word.eq_ignore_ascii_case(b"IN") => {}
                Some(_) => break,
                None => return Err("the record has no type".to_owned()),
            }
            at += 1;
        }
        let rtype = match words.get(at).unwrap_or_default() {
            // Nearly all of them.
            b"CNAME" => dns::TYPE_CNAME,
            _ => dns::record_type(&words.text(at))?,
        };
        let ttl = ttl.or(self.ttl).unwrap_or(TTL_SECONDS);
        let mut rdata = std::mem::take(&mut self.rdata);
        rdata.clear();
        let outcome = self.take(words, at + 1, rtype, ttl, &mut rdata);
        self.rdata = rdata;
        outcome
    }

    fn directive(&mut self, words: &Words) -> Result<(), String> {
        let value = words.get(1).unwrap_or_default();
        match words.get(0).unwrap_or_default().to_ascii_uppercase().as_slice() {
            b"$ORIGIN" => {
                let origin = Labels::parse(value, Some(&self.origin));
                self.origin = origin.map_err(|error| format!("{}: {error}", words.text(1)))?;
            }
            b"$TTL" => {
                self.ttl = Some(seconds(value).ok_or_else(|| format!("{} is not a TTL", words.text(1)))?)
            }
            _ => return Err(format!("{} is not supported: write out its records", words.text(0))),
        }
        Ok(())
    }

    /// Reads one record of the present owner, whose data begins at the word `at`.
    fn take(
        &mut self,
        words: &Words,
        at: usize,
        rtype: u16,
        ttl: u32,
        rdata: &mut Vec<u8>,
    ) -> Result<(), String> {
        let Some(owner) = self.owner.clone() else { return Err("the first record has no owner".to_owned()) };
        let is_below = owner.labels().take(self.zone_labels).eq(self.zone.labels());
        if !is_below {
            let (owner, zone) = (owner.text(), self.zone.text());
            return Err(format!("{owner} is not in the zone {zone}: is the name of the zone correct?"));
        }
        if owner.labels().count() == self.zone_labels {
            return self.take_apex(words, at, rtype, ttl, rdata);
        }
        if rtype == TYPE_NS || OF_THE_ZONE.contains(&rtype) {
            return Ok(());
        }
        let Some(trigger) = self.trigger(&owner, words.line)? else { return Ok(()) };
        if rtype == dns::TYPE_CNAME {
            let target = self.name(words, at)?;
            let says = self.meaning(&owner, &target)?;
            let says = says.map_or(Says::Record { rtype, ttl, rdata: target.octets() }, Says::Plain);
            return self.builder.add(trigger, words.line, &says);
        }
        self.write_rdata(words, at, rtype, rdata)?;
        self.builder.add(trigger, words.line, &Says::Record { rtype, ttl, rdata })
    }

    /// The trigger in an owner name. `None`: a front end cannot apply it.
    fn trigger(&mut self, owner: &Labels, line: u32) -> Result<Option<Trigger>, String> {
        let mut labels = owner.labels().skip(self.zone_labels);
        let first = owner.labels().nth(self.zone_labels).unwrap_or_default();
        let address = |labels: &mut dyn Iterator<Item = &[u8]>| {
            let labels: Vec<&[u8]> = labels.skip(1).take(10).collect();
            prefix_of(&labels)
        };
        match first {
            b"\x0drpz-client-ip" => Ok(Some(Trigger::Client(address(&mut labels)?))),
            b"\x06rpz-ip" => Ok(Some(Trigger::Address(address(&mut labels)?))),
            b"\x0brpz-nsdname" | b"\x08rpz-nsip" => {
                let kind = String::from_utf8_lossy(first.get(1..).unwrap_or_default());
                let why = format!("{kind}: only a resolver sees the name servers of a name");
                self.builder.leave_out(line, &why);
                Ok(None)
            }
            _ => {
                let front = owner.octets().len() - self.zone.octets().len();
                let front = owner.octets().get(..front).unwrap_or_default();
                let (front, is_wildcard) = match front.strip_prefix(b"\x01*") {
                    Some(below) => (below, true),
                    None => (front, false),
                };
                let node: Option<NodeId> = self.builder.names.insert(front);
                Ok(Some(Trigger::Name(node.ok_or("more names than can be counted")?, is_wildcard)))
            }
        }
    }

    /// The plain action of a CNAME to `target`. `None`: it is an alias.
    fn meaning(&self, owner: &Labels, target: &Labels) -> Result<Option<u32>, String> {
        let plain = match target.octets() {
            b"\x00" => NXDOMAIN,
            b"\x01*\x00" => NODATA,
            b"\x0crpz-passthru\x00" => PASSTHRU,
            b"\x08rpz-drop\x00" => DROP,
            b"\x0crpz-tcp-only\x00" => TCP_ONLY,
            _ => {
                let top = target.labels().next().unwrap_or_default();
                if top.get(1..).is_some_and(|label| label.starts_with(b"rpz-")) {
                    return Err(format!("{} is not a known action", target.text()));
                }
                // The old form of PASSTHRU: an alias for itself (draft §4.3).
                let own = owner.labels().skip(self.zone_labels);
                return Ok(own.eq(target.labels()).then_some(PASSTHRU));
            }
        };
        Ok(Some(plain))
    }

    /// Reads the zone's own records.
    fn take_apex(
        &mut self,
        words: &Words,
        at: usize,
        rtype: u16,
        ttl: u32,
        rdata: &mut Vec<u8>,
    ) -> Result<(), String> {
        if rtype != TYPE_SOA {
            return Ok(());
        }
        if words.count() != at + 7 {
            return Err("an SOA record needs two names and five numbers".to_owned());
        }
        for place in at..at + 2 {
            rdata.extend_from_slice(self.name(words, place)?.octets());
        }
        for place in at + 2..at + 7 {
            let number = seconds(words.get(place).unwrap_or_default());
            let number = number.ok_or_else(|| format!("{} is not a number", words.text(place)))?;
            rdata.extend_from_slice(&number.to_be_bytes());
        }
        self.builder.start.serial = words.get(at + 2).and_then(seconds);
        self.builder.start.soa = Some((ttl, rdata.as_slice().into()));
        Ok(())
    }

    fn name(&self, words: &Words, place: usize) -> Result<Labels, String> {
        let word = words.get(place).ok_or("a name is missing")?;
        Labels::parse(word, Some(&self.origin)).map_err(|error| format!("{}: {error}", words.text(place)))
    }

    fn write_rdata(&self, words: &Words, at: usize, rtype: u16, rdata: &mut Vec<u8>) -> Result<(), String> {
        let number = |place: usize| {
            let number = std::str::from_utf8(words.get(place)?).ok()?.parse::<u16>().ok()?;
            Some(number.to_be_bytes())
        };
        match rtype {
            _ if words.get(at) == Some(b"\\#") => write_octets(words, at + 1, rtype, rdata)?,
            TYPE_PTR => rdata.extend_from_slice(self.name(words, at)?.octets()),
            TYPE_MX | TYPE_SRV => {
                let numbers = if rtype == TYPE_MX { 1 } else { 3 };
                for place in at..at + numbers {
                    let number =
                        number(place).ok_or_else(|| format!("{} is not a number", words.text(place)))?;
                    rdata.extend_from_slice(&number);
                }
                rdata.extend_from_slice(self.name(words, at + numbers)?.octets());
            }
            TYPE_TXT => {
                for place in at..words.count() {
                    write_string(words.get(place).unwrap_or_default(), rdata)?;
                }
                if rdata.is_empty() {
                    return Err("the TXT record has no string".to_owned());
                }
            }
            _ => {
                let text = words.rest(at);
                *rdata = dns::rdata_of(rtype, &text)
                    .map_err(|error| shown(format!("{text}: {error}").as_bytes()))?;
            }
        }
        Ok(())
    }
}

/// Appends the octets of a record in the generic form: their number, and their digits (RFC 3597 §5).
fn write_octets(words: &Words, at: usize, rtype: u16, rdata: &mut Vec<u8>) -> Result<(), String> {
    let no_octets =
        || format!("{} does not have the number of octets in hexadecimal that \\# gives", words.rest(at));
    let count: u16 = words.text(at).parse().map_err(|_| no_octets())?;
    let digits = (at + 1..words.count()).flat_map(|place| words.get(place).unwrap_or_default());
    let mut high = None;
    for digit in digits {
        let digit = char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let digit = digit.ok_or_else(no_octets)?;
        match high.take() {
            None => high = Some(digit),
            Some(high) => rdata.push(high << 4 | digit),
        }
    }
    if high.is_some() || rdata.len() != usize::from(count) || !dns::is_rdata(rtype, rdata) {
        return Err(no_octets());
    }
    Ok(())
}

/// Appends a character string (RFC 1035 §3.3) with its escapes read.
fn write_string(mut word: &[u8], rdata: &mut Vec<u8>) -> Result<(), String> {
    let start = rdata.len();
    rdata.push(0);
    while let Some((octet, rest)) = word.split_first() {
        let (octet, rest) = match (octet, rest) {
            (b'\\', [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..]) => {
                let number = [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0'));
                (u8::try_from(number).map_err(|_| "\\DDD is more than 255")?, rest)
            }
            (b'\\', [octet, rest @ ..]) => (*octet, rest),
            (octet, rest) => (*octet, rest),
        };
        rdata.push(octet);
        word = rest;
    }
    let octets = u8::try_from(rdata.len() - start - 1).map_err(|_| "a string of more than 255 octets")?;
    if let Some(length) = rdata.get_mut(start) {
        *length = octets;
    }
    Ok(())
}

/// Seconds: a number, or numbers with the units of BIND, `1h30m`.
fn seconds(word: &[u8]) -> Option<u32> {
    let (mut sum, mut number, mut has_digit) = (0_u32, 0_u32, false);
    for octet in word {
        let unit = match octet.to_ascii_lowercase() {
            digit @ b'0'..=b'9' => {
                number = number.checked_mul(10)?.checked_add(u32::from(digit - b'0'))?;
                has_digit = true;
                continue;
            }
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        if !has_digit {
            return None;
        }
        sum = sum.checked_add(number.checked_mul(unit)?)?;
        (number, has_digit) = (0, false);
    }
    (has_digit || sum > 0).then_some(sum.checked_add(number)?)
}

//! Records as zone files have them.
//!
//! Before: hickory-proto has parsed a message. After: `text` and `json` print lines that dig prints too.
//! Holds: the types for which hickory-proto's text is not valid in a zone file: it decodes IDNA in names, joins
//! strings without quotes, and writes signature times as numbers and unknown types as Base64. It writes all others.
//! Never: prints a control character of a server's data.
//!
//! Source: RFC 1035 §5.1, RFC 3597 §5, RFC 4034 §3.2, RFC 5155 §3.3, RFC 9460 §2.1 and Appendix A.

use std::{fmt::Write as _, time::Duration};

use hickory_proto::{
    dnssec::rdata::DNSSECRData,
    rr::{
        Name, RData, Record, RecordType,
        rdata::svcb::{SVCB, SvcParamKey, SvcParamValue},
    },
    serialize::binary::{BinDecodable as _, BinDecoder, BinEncodable as _},
};

use super::words::type_name;

/// A type by its name, or by its number (RFC 3597 §5).
pub(super) fn kind(kind: RecordType) -> String {
    match kind {
        RecordType::Unknown(number) => type_name(number).map_or(format!("TYPE{number}"), str::to_owned),
        known => known.to_string(),
    }
}

/// Owner, TTL, class, type and data, with tabs.
pub(super) fn line(record: &Record) -> String {
    let (owner, class) = (record.name.to_ascii(), record.dns_class);
    let (kind, data) = (kind(record.record_type()), data(&record.data));
    format!("{owner}\t{}\t{class}\t{kind}\t{data}", record.ttl)
}

/// The data of a record.
pub(super) fn data(data: &RData) -> String {
    match data {
        RData::CNAME(name) => name.0.to_ascii(),
        RData::NS(name) => name.0.to_ascii(),
        RData::PTR(name) => name.0.to_ascii(),
        RData::MX(mx) => format!("{} {}", mx.preference, mx.exchange.to_ascii()),
        RData::SRV(srv) => {
            format!("{} {} {} {}", srv.priority, srv.weight, srv.port, srv.target.to_ascii())
        }
        RData::SOA(soa) => {
            let (mname, rname) = (soa.mname.to_ascii(), soa.rname.to_ascii());
            let times = [soa.refresh, soa.retry, soa.expire];
            let [refresh, retry, expire] = times;
            format!("{mname} {rname} {} {refresh} {retry} {expire} {}", soa.serial, soa.minimum)
        }
        RData::TXT(txt) => strings(txt.txt_data.iter().map(AsRef::as_ref)),
        RData::HINFO(hinfo) => strings([&*hinfo.cpu, &*hinfo.os].into_iter()),
        RData::CAA(caa) => format!("{} {} {}", caa.flags(), escaped(caa.tag.as_bytes()), quoted(&caa.value)),
        RData::NAPTR(naptr) => {
            let texts = strings([&*naptr.flags, &*naptr.services, &*naptr.regexp].into_iter());
            format!("{} {} {texts} {}", naptr.order, naptr.preference, naptr.replacement.to_ascii())
        }
        RData::TLSA(tlsa) => tlsa.to_string().to_ascii_uppercase(),
        RData::SMIMEA(smimea) => smimea.to_string().to_ascii_uppercase(),
        RData::SSHFP(sshfp) => sshfp.to_string().to_ascii_uppercase(),
        RData::CERT(cert) => {
            let base64 = cert.cert_base64();
            format!("{} {} {} {base64}", u16::from(cert.cert_type), cert.key_tag, u8::from(cert.algorithm))
        }
        RData::SVCB(svcb) => service(svcb),
        RData::HTTPS(https) => service(&https.0),
        RData::DNSSEC(DNSSECRData::RRSIG(rrsig)) => signature(rrsig, &rrsig.to_string()),
        RData::DNSSEC(DNSSECRData::SIG(sig)) => signature(sig, &sig.to_string()),
        RData::DNSSEC(DNSSECRData::NSEC(nsec)) => {
            let types = nsec.type_bit_maps().map(|one| format!(" {}", kind(one))).collect::<String>();
            nsec.next_domain_name().to_ascii() + &types
        }
        RData::DNSSEC(DNSSECRData::NSEC3(nsec3)) => upper_case_hash(&nsec3.to_string()),
        RData::DNSSEC(DNSSECRData::Unknown { rdata, .. }) => unknown(&rdata.anything),
        // A name that no message compresses.
        RData::Unknown { code: RecordType::DNAME, rdata } => {
            Name::read(&mut BinDecoder::new(&rdata.anything))
                .map_or_else(|_| unknown(&rdata.anything), |n| n.to_ascii())
        }
        RData::Unknown { rdata, .. } => unknown(&rdata.anything),
        RData::NULL(null) => unknown(&null.anything),
        RData::CSYNC(_) => data.to_bytes().map_or_else(|_| data.to_string(), |octets| unknown(&octets)),
        RData::OPT(_) | RData::Update0(_) => String::new(),
        known => known.to_string(),
    }
}

/// RFC 3597: a length and hexadecimal octets.
fn unknown(octets: &[u8]) -> String {
    let separator = if octets.is_empty() { "" } else { " " };
    format!("\\# {}{separator}{}", octets.len(), hexadecimal(octets))
}

/// Octets as digits.
pub(super) fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02X}");
        text
    })
}

/// Each string in quotes.
fn strings<'a>(all: impl Iterator<Item = &'a [u8]>) -> String {
    all.map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(octets: &[u8]) -> String {
    format!("\"{}\"", escaped(octets))
}

/// Quotes and backslashes with a backslash, octets that are not printable ASCII by their decimal number.
pub(super) fn escaped(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        match octet {
            b'"' | b'\\' => text.extend(['\\', char::from(*octet)]),
            b' '..=b'~' => text.push(char::from(*octet)),
            _ => {
                let _ = write!(text, "\\{octet:03}");
            }
        }
        text
    })
}

/// A signature with its times as dates; hickory writes the rest.
fn signature(sig: &hickory_proto::dnssec::rdata::sig::SIG, text: &str) -> String {
    let input = sig.input();
    let blob = text.rsplit(' ').next().unwrap_or_default();
    let date = |time: u32| {
        let time = std::time::UNIX_EPOCH + Duration::from_secs(time.into());
        let date = humantime::format_rfc3339_seconds(time).to_string();
        date.chars().filter(char::is_ascii_digit).collect::<String>()
    };
    format!(
        "{} {} {} {} {} {} {} {} {blob}",
        kind(input.type_covered),
        u8::from(input.algorithm),
        input.num_labels,
        input.original_ttl,
        date(input.sig_expiration.get()),
        date(input.sig_inception.get()),
        input.key_tag,
        input.signer_name.to_ascii(),
    )
}

/// Hash names are written in capitals, as dig and the zone signers do.
fn upper_case_hash(text: &str) -> String {
    let words = text.split(' ').enumerate();
    let words = words
        .map(|(place, word)| if place == HASH_PLACE { word.to_ascii_uppercase() } else { word.to_owned() });
    words.collect::<Vec<_>>().join(" ")
}

/// The position after algorithm, flags, iterations and salt.
const HASH_PLACE: usize = 4;

/// Priority, target and parameters, without the commas that hickory leaves after lists.
fn service(svcb: &SVCB) -> String {
    let mut text = format!("{} {}", svcb.svc_priority, svcb.target_name.to_ascii());
    for (key, value) in &svcb.svc_params {
        let name = match key {
            SvcParamKey::Unknown(number) => format!("key{number}"),
            known => known.to_string(),
        };
        let _ = match value {
            SvcParamValue::NoDefaultAlpn => write!(text, " {name}"),
            SvcParamValue::Mandatory(keys) => {
                write!(
                    text,
                    " {name}={}",
                    keys.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
                )
            }
            SvcParamValue::Alpn(names) => {
                let names = names.0.iter().map(|name| escaped(name.as_bytes())).collect::<Vec<_>>();
                write!(text, " {name}=\"{}\"", names.join(","))
            }
            SvcParamValue::Unknown(octets) => write!(text, " {name}={}", quoted(&octets.0)),
            SvcParamValue::EchConfigList(_) => {
                write!(text, " {name}={}", value.to_string().trim_matches('"'))
            }
            known => write!(text, " {name}={}", known.to_string().trim_end_matches(',')),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::{NULL, TXT};

    use super::*;

    /// Goal: no octet of a record reaches a terminal unescaped, and the output can be parsed back (RFC 1035 §5.1, RFC
    /// 3597 §5). Covers: A-460
    #[test]
    fn octets_of_records_are_escaped() {
        let txt = RData::TXT(TXT::from_bytes(vec![b"\x1b[2J\"\\", b"a b"]));
        assert_eq!(data(&txt), r#""\027[2J\"\\" "a b""#);
        let other = RData::Unknown { code: RecordType::Unknown(65_280), rdata: NULL::with(vec![0x1b, 0xff]) };
        assert_eq!(data(&other), r"\# 2 1BFF");
        assert_eq!(kind(RecordType::Unknown(65_280)), "TYPE65280");
    }
}

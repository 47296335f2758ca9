//! Everything as JSON, for programs. Times are in microseconds.
//!
//! Before: `exchange` has rounds. After: one object. Never: leaves out what `text` prints.

use std::{fmt::Write as _, time::Duration};

use hickory_proto::{op::Message, rr::Record};
use serde_json::{Value, json};

use super::{
    options,
    outcome::{Outcome, Reply, Round},
    plan::Plan,
    traced::Traced,
    wire::Opening,
    zone_form,
};
use crate::tls::{CertificateFacts, Shown};

/// One object with all rounds.
pub(super) fn full(plan: &Plan, rounds: &[Round], traced: Option<&Traced>, status: u8) -> String {
    let rounds: Vec<Value> = rounds.iter().map(|round| self::round(plan, round)).collect();
    let whole = json!({
        "server": plan.server,
        "address": plan.address.to_string(),
        "transport": plan.transport.label(),
        "profile": plan.tls.is_some().then_some(if plan.is_strict { "strict" } else { "opportunistic" }),
        "rounds": rounds,
        "trace": traced.map(|traced| json!({ "events": traced.events, "lost": traced.lost })),
        "exit_status": status,
    });
    ascii(&format!("{whole:#}\n"))
}

/// Characters outside ASCII occur only in strings, and are escaped there, because some of them reverse a terminal's
/// text.
pub(in crate::cli) fn ascii(text: &str) -> String {
    let mut units = [0; 2];
    text.chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        match c.is_ascii() && c != '\u{7f}' {
            true => safe.push(c),
            false => c.encode_utf16(&mut units).iter().for_each(|unit| {
                let _ = write!(safe, "\\u{unit:04x}");
            }),
        }
        safe
    })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn round(plan: &Plan, round: &Round) -> Value {
    json!({
        "connection": round.opening.as_ref().map(connection),
        "failure": round.failure.as_ref().map(ToString::to_string),
        "first_octet_us": round.first_octet.map(micros),
        "replies": round.replies.iter().map(|reply| self::reply(plan, reply)).collect::<Vec<_>>(),
    })
}

fn connection(opening: &Opening) -> Value {
    json!({
        "address": opening.server.to_string(),
        "transport": opening.transport.label(),
        "connected_us": opening.connected.map(micros),
        "secured_us": opening.secured.map(micros),
        "fast_open": opening.fast_open,
        "fell_back": opening.fell_back,
        "tls": opening.shown.as_ref().map(handshake),
    })
}

fn handshake(shown: &Shown) -> Value {
    let verdict = |verdict: &Option<Result<(), String>>| match verdict {
        None => Value::Null,
        Some(Ok(())) => json!({ "fits": true }),
        Some(Err(reason)) => json!({ "fits": false, "reason": reason }),
    };
    json!({
        "version": shown.version,
        "suite": shown.suite,
        "group": shown.group,
        "alpn": shown.alpn,
        "handshake": shown.handshake,
        "is_authentic": shown.is_authentic(),
        "name": verdict(&shown.by_name),
        "pin": verdict(&shown.by_pin),
        "certificates": shown.chain.iter().map(certificate).collect::<Vec<_>>(),
    })
}

fn certificate(facts: &CertificateFacts) -> Value {
    json!({
        "subject": facts.subject,
        "issuer": facts.issuer,
        "names": facts.names,
        "pin_sha256": facts.pin,
        "not_before": humantime::format_rfc3339_seconds(facts.not_before).to_string(),
        "not_after": humantime::format_rfc3339_seconds(facts.not_after).to_string(),
        "ends_in_seconds": facts.ends_in_seconds,
    })
}

fn reply(plan: &Plan, reply: &Reply) -> Value {
    let question = plan.questions.get(reply.question);
    let (outcome, reason) = match &reply.outcome {
        Outcome::Answered(_) => ("answered", None),
        Outcome::Silent => ("silent", None),
        Outcome::Malformed(reason) => ("malformed", Some(reason)),
        Outcome::Cut(reason) => ("cut", Some(reason)),
    };
    let messages = match &reply.outcome {
        Outcome::Answered(messages) => messages.as_slice(),
        _ => &[],
    };
    json!({
        "name": question.map(|one| one.name.to_ascii()),
        "type": question.map(|one| zone_form::kind(one.kind)),
        "class": question.map(|one| one.class.to_string()),
        "outcome": outcome,
        "reason": reason,
        "asked_as": reply.question + 1,
        "answered_as": Some(reply.place).filter(|place| *place > 0),
        "elapsed_us": micros(reply.elapsed),
        "query_octets": reply.query_octets,
        "response_octets": reply.octets,
        "was_truncated": reply.was_truncated,
        "kept_truncated": reply.kept_truncated,
        "messages": messages.iter().map(|one| message(plan, one)).collect::<Vec<_>>(),
    })
}

fn message(plan: &Plan, message: &Message) -> Value {
    let edns = message.edns.as_ref().map(|edns| {
        let options = options::lines(edns, plan.manner.cookie);
        let options = options.into_iter().map(|(name, value)| json!({ "name": name, "value": value }));
        json!({
            "version": edns.version(),
            "do": edns.flags().dnssec_ok,
            "udp": edns.max_payload(),
            "options": options.collect::<Vec<_>>(),
        })
    });
    json!({
        "id": message.metadata.id,
        "opcode": options::opcode(message.metadata.op_code),
        "status": options::status(message.metadata.response_code),
        "flags": options::flags(message),
        "edns": edns,
        "answer": records(&message.answers),
        "authority": records(&message.authorities),
        "additional": records(&message.additionals),
    })
}

fn records(records: &[Record]) -> Vec<Value> {
    let record = |record: &Record| {
        json!({
            "name": record.name.to_ascii(),
            "ttl": record.ttl,
            "class": record.dns_class.to_string(),
            "type": zone_form::kind(record.record_type()),
            "data": zone_form::data(&record.data),
        })
    };
    records.iter().map(record).collect()
}

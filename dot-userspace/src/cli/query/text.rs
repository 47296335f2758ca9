//! Prints answers as dig does, with the details of the connection; or only their data.
//!
//! Before: `exchange` has rounds. After: text for standard output. Never: prints a control character of a server's
//! data to a terminal.

use std::{fmt::Write as _, time::Duration};

use hickory_proto::op::{Edns, Message};

use super::{
    options,
    outcome::{Outcome, Reply, Round},
    plan::Plan,
    traced::Traced,
    wire::Opening,
    words::Question,
    zone_form,
};
use crate::{
    cli::{pin, show, trace},
    tls::Shown,
};

/// The data of answers, a line each, in the order of the questions. Failures are for standard error.
pub(super) fn short(rounds: &[Round]) -> String {
    let mut text = String::new();
    for reply in rounds.iter().flat_map(|round| &round.replies) {
        let Outcome::Answered(messages) = &reply.outcome else { continue };
        for record in messages.iter().flat_map(|message| &message.answers) {
            let _ = writeln!(text, "{}", zone_form::data(&record.data));
        }
    }
    text
}

/// The reason why a question has no answer, a line each.
pub(super) fn complaints(plan: &Plan, rounds: &[Round]) -> String {
    let mut text = String::new();
    for round in rounds {
        if let Some(failure) = &round.failure {
            let _ = writeln!(text, "dotd: {}: {failure}", plan.address);
        }
        for reply in &round.replies {
            if let Some(reason) = missing(&reply.outcome) {
                let _ = writeln!(text, "dotd: {}: {reason}", question(plan, reply));
            }
            if let Some(reason) = &reply.kept_truncated {
                let _ =
                    writeln!(text, "dotd: {}: truncated, and not over TCP: {reason}", question(plan, reply));
            }
        }
    }
    harmless(&text)
}

/// The whole output.
pub(super) fn full(plan: &Plan, rounds: &[Round], traced: Option<&Traced>) -> String {
    let mut text = String::new();
    for (number, round) in (1..).zip(rounds) {
        if rounds.len() > 1 {
            let _ = writeln!(text, ";; round {number} of {}", rounds.len());
        }
        if let Some(opening) = &round.opening {
            connection(&mut text, plan, opening);
        }
        if let Some(failure) = &round.failure {
            let _ = writeln!(text, ";; {}: {failure}", plan.address);
        }
        for reply in &round.replies {
            text.push('\n');
            self::reply(&mut text, plan, reply, round.replies.len());
        }
        if let Some(first) = round.first_octet {
            let _ = writeln!(text, "\n;; first octet of an answer: {}", time(first));
        }
        if rounds.len() > 1 {
            text.push('\n');
        }
    }
    if let Some(traced) = traced {
        trace(&mut text, traced);
        text.push('\n');
    }
    let _ = writeln!(text, ";; server: {} ({}, {})", plan.address, plan.server, plan.transport.label());
    harmless(&text)
}

/// Replaces control characters, and those that reverse text, by their numbers.
pub(super) fn harmless(text: &str) -> String {
    let is_harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match is_harmless(c) && !turns(c) {
            true => safe.push(c),
            false => safe.extend(c.escape_unicode()),
        }
    }
    safe
}

/// The events in dotd, by the time since the first one.
fn trace(text: &mut String, traced: &Traced) {
    let Some(first) = traced.events.first() else {
        let _ = writeln!(
            text,
            "\n;; the dotd that was asked for a trace saw nothing of this query: another server, or another address of ours?"
        );
        return;
    };
    let mut last = None;
    for event in &traced.events {
        if last != Some(&event.client) {
            let _ = writeln!(text, "\n;; trace of {}", event.client);
            last = Some(&event.client);
        }
        let since = Duration::from_micros(event.at_us.saturating_sub(first.at_us));
        let session = event.session.as_ref().map(|session| format!(" [{session}]")).unwrap_or_default();
        if let Some(sentence) = trace::sentence(&event.what) {
            let _ = writeln!(text, ";;   {:>9}{session} {sentence}", time(since));
        }
    }
    if traced.lost > 0 {
        let _ = writeln!(text, ";;   {} events found no room and are not here", traced.lost);
    }
}

fn connection(text: &mut String, plan: &Plan, opening: &Opening) {
    if let Some(reason) = &opening.fell_back {
        let at = opening.server;
        let _ = writeln!(text, ";; IN CLEAR at {at} over TCP, as --fallback asks: {reason}");
    }
    let mut times: Vec<String> = Vec::new();
    times.extend(opening.connected.map(|at| format!("connected {}", time(at))));
    times.extend(opening.secured.map(|at| format!("secured {}", time(at))));
    if !times.is_empty() {
        let _ = writeln!(text, ";; {}", times.join(", "));
    }
    if let Some(was_taken) = opening.fast_open {
        let said = if was_taken { "octets of the SYN were taken" } else { "no octet of the SYN was taken" };
        let _ = writeln!(text, ";; Fast Open: {said}");
    }
    if let Some(shown) = &opening.shown {
        handshake(text, plan, shown);
    }
}

fn handshake(text: &mut String, plan: &Plan, shown: &Shown) {
    let Shown { version, suite, handshake, .. } = shown;
    let group = shown.group.as_ref().map(|group| format!(", {group}")).unwrap_or_default();
    let alpn = shown.alpn.as_ref().map_or("no ALPN".to_owned(), |name| format!("ALPN {name}"));
    let _ = writeln!(text, ";; {version}, {suite}{group}, {alpn}, handshake: {handshake}");
    for (number, facts) in (1..).zip(&shown.chain) {
        let ends = humantime::format_rfc3339_seconds(facts.not_after);
        let _ = writeln!(
            text,
            ";; certificate {number}: {}, issued by {}, until {ends} ({})",
            facts.subject,
            facts.issuer,
            show::ends(facts.ends_in_seconds)
        );
        if !facts.names.is_empty() {
            let _ = writeln!(text, ";;   for {}", facts.names.join(", "));
        }
        let _ = write!(text, ";;   {}", pin::line(&facts.pin));
    }
    let profile = if plan.is_strict { "strict" } else { "opportunistic" };
    let verdict = |what: &str, verdict: &Option<Result<(), String>>| match verdict {
        None => None,
        Some(Ok(())) => Some(format!("{what} fits")),
        Some(Err(reason)) => Some(format!("{what} does not: {reason}")),
    };
    let verdicts: Vec<String> =
        verdict("name", &shown.by_name).into_iter().chain(verdict("pin", &shown.by_pin)).collect();
    let said = match verdicts.is_empty() {
        true => "not verified: neither a name nor a pin was given".to_owned(),
        false => verdicts.join(", "),
    };
    let _ = writeln!(text, ";; {profile} profile, {said}");
}

fn question(plan: &Plan, reply: &Reply) -> String {
    plan.questions.get(reply.question).map(written).unwrap_or_default()
}

fn written(question: &Question) -> String {
    format!("{}\t{}\t{}", question.name.to_ascii(), question.class, zone_form::kind(question.kind))
}

fn missing(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Answered(_) => None,
        Outcome::Silent => Some("no answer in time".to_owned()),
        Outcome::Malformed(reason) | Outcome::Cut(reason) => Some(reason.clone()),
    }
}

fn reply(text: &mut String, plan: &Plan, reply: &Reply, of: usize) {
    if let Some(reason) = missing(&reply.outcome) {
        let _ = writeln!(text, ";{}\n;; {reason}", question(plan, reply));
    }
    if let Outcome::Answered(messages) = &reply.outcome {
        match messages.as_slice() {
            [only] => message(text, plan, only),
            all => zone(text, all),
        }
    }
    let order = match (of, reply.place) {
        (1, _) => String::new(),
        (_, 0) => format!("; asked as {} of {of}", reply.question + 1),
        (_, place) => format!("; asked as {} of {of}, answered as {place}", reply.question + 1),
    };
    let again = if reply.was_truncated { "; over TCP, because its datagram was truncated" } else { "" };
    let again = match &reply.kept_truncated {
        Some(reason) => format!("; TRUNCATED, and not over TCP: {reason}"),
        None => again.to_owned(),
    };
    let (sent, got) = (reply.query_octets, reply.octets);
    let _ = writeln!(text, ";; {}; sent {sent} octets, got {got}{order}{again}", time(reply.elapsed));
}

/// A zone transfer: its records, and how many messages they came in.
fn zone(text: &mut String, messages: &[Message]) {
    let records = messages.iter().flat_map(|message| &message.answers);
    let mut count = 0;
    for record in records {
        count += 1;
        let _ = writeln!(text, "{}", zone_form::line(record));
    }
    let _ = writeln!(text, ";; zone of {count} records in {} messages", messages.len());
}

fn message(text: &mut String, plan: &Plan, message: &Message) {
    let head = &message.metadata;
    let (opcode, status) = (options::opcode(head.op_code), options::status(head.response_code));
    let _ = writeln!(text, ";; ->>HEADER<<- opcode: {opcode}, status: {status}, id: {}", head.id);
    let counts = [message.queries.len(), message.answers.len(), message.authorities.len()];
    let [queries, answers, authorities] = counts;
    let additionals = message.additionals.len() + usize::from(message.edns.is_some());
    let _ = writeln!(
        text,
        ";; flags: {}; QUERY: {queries}, ANSWER: {answers}, AUTHORITY: {authorities}, ADDITIONAL: {additionals}",
        options::flags(message).join(" ")
    );
    if let Some(edns) = &message.edns {
        pseudosection(text, plan, edns);
    }
    if !message.queries.is_empty() {
        let _ = writeln!(text, "\n;; QUESTION SECTION:");
        for query in &message.queries {
            let (name, class) = (query.name().to_ascii(), query.query_class());
            let _ = writeln!(text, ";{name}\t{class}\t{}", zone_form::kind(query.query_type()));
        }
    }
    let sections = [
        ("ANSWER", &message.answers),
        ("AUTHORITY", &message.authorities),
        ("ADDITIONAL", &message.additionals),
    ];
    for (name, records) in sections.into_iter().filter(|(_, records)| !records.is_empty()) {
        let _ = writeln!(text, "\n;; {name} SECTION:");
        for record in records {
            let _ = writeln!(text, "{}", zone_form::line(record));
        }
    }
    text.push('\n');
}

fn pseudosection(text: &mut String, plan: &Plan, edns: &Edns) {
    let flags = if edns.flags().dnssec_ok { " do" } else { "" };
    let (version, payload) = (edns.version(), edns.max_payload());
    let _ = writeln!(text, "\n;; OPT PSEUDOSECTION:");
    let _ = writeln!(text, "; EDNS: version: {version}, flags:{flags}; udp: {payload}");
    for (name, value) in options::lines(edns, plan.manner.cookie) {
        let _ = writeln!(text, "; {name}: {value}");
    }
}

/// A time with as many digits as are significant.
fn time(time: Duration) -> String {
    let micros = time.as_micros();
    if micros < 10_000 {
        format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
    } else {
        format!("{} ms", micros / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a name in a certificate cannot control a terminal.
    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        assert_eq!(harmless("CN=\u{1b}[2J\u{202e}x\n\ty"), "CN=\\u{1b}[2J\\u{202e}x\n\ty");
    }

    #[test]
    fn times_have_few_digits() {
        let said = [0, 1_234, 9_999, 12_345].map(|micros| time(Duration::from_micros(micros)));
        assert_eq!(said, ["0.00 ms", "1.23 ms", "9.99 ms", "12 ms"]);
    }
}

//! `dotd status` and `dotd xdp show` for people.
//!
//! Before: the running dotd's answer. After: aligned lines on standard output. Never: asks or decides.

use std::{fmt::Write as _, time::SystemTime};

use crate::{
    control::{BackendStatus, CertificateStatus, DnstapStatus, OtlpStatus, State, Status, UnmatchedStatus},
    xdp::{BanCounts, CostCounts, NoticeCounts, ProxyCounts, Report, WorkerReport},
};

/// The process at a glance.
pub(super) fn status(status: &Status) -> String {
    let state = match status.state {
        State::Serving => "serving",
        State::Draining => "draining",
    };
    let mut text = String::new();
    let Status { version, pid, workers, .. } = status;
    let uptime = duration(i64::try_from(status.uptime_seconds).unwrap_or(i64::MAX));
    row(
        &mut text,
        "dotd",
        &format!("{version}, {state} for {uptime}, process {pid}, {}", of(*workers, "worker")),
    );
    if let Some(drain) = status.drain {
        let left = drain.seconds_left.map(|left| duration(i64::try_from(left).unwrap_or(i64::MAX)));
        let left = left.map_or_else(|| "until `dotd undrain`".to_owned(), |left| format!("for {left}"));
        row(&mut text, "drain", &format!("load balancers get 503 {left}"));
    }
    if let Some(off) = status.off {
        let until = if off.persists { "also after a restart" } else { "or a restart" };
        row(&mut text, "OFF", &format!("DNS over TLS is switched off until `dotd enable`, {until}"));
    }
    for listener in &status.listeners {
        let fast_open = listener.fast_open.iter().map(|state| format!(", fast open {state}"));
        let fast_open = fast_open.collect::<String>();
        row(&mut text, "listener", &format!("{} ({}){fast_open}", listener.address, listener.transport));
    }
    status.backends.iter().for_each(|one| backend(&mut text, one));
    if let Some(percent) = status.servfail_percent.filter(|percent| *percent > 0) {
        row(&mut text, "clients", &format!("get SERVFAIL for {percent} of 100 queries, in the last 10 s"));
    }
    for certificate in &status.certificates {
        self::certificate(&mut text, certificate);
    }
    if let Some(standing) = &status.acme {
        row(&mut text, "acme", &super::acme::row(standing));
    }
    let demanded = if status.is_strict { "; tls.strict is set, so /health fails" } else { "" };
    for unusable in &status.unusable_certificates {
        row(&mut text, "UNUSABLE", &format!("{}{demanded}", unusable.reason));
    }
    if let Some(access) = &status.access {
        row(&mut text, "access", access);
    }
    for tenant in &status.tenants {
        let own = if tenant.backends.is_empty() {
            String::new()
        } else {
            format!(", asks {}", tenant.backends.join(", "))
        };
        row(&mut text, "tenant", &format!("{}: {} queries{own}", tenant.name, tenant.queries));
    }
    text += &super::policy::rows(&status.policy);
    if let Some(DnstapStatus { reader, is_connected, written, lost }) = &status.dnstap {
        let state = if *is_connected { "connected" } else { "NOT CONNECTED" };
        row(&mut text, "dnstap", &format!("{reader}: {state}, {written} messages written, {lost} lost"));
    }
    if let Some(OtlpStatus { collector, written, lost }) = &status.otlp {
        row(&mut text, "otlp", &format!("{collector}: {written} spans written, {lost} lost"));
    }
    text + &xdp(&status.xdp)
}

/// One backend, and what an operator should know of it.
fn backend(text: &mut String, backend: &BackendStatus) {
    let how = if backend.transport == backend.address { "" } else { &format!(" ({})", backend.transport) };
    let why = backend.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let is_named = !backend.name.is_empty() && backend.name != backend.address;
    let name = if !is_named { "" } else { &format!("{}: ", backend.name) };
    row(text, "backend", &format!("{name}{}{how}, {}{why}", backend.address, backend.state));
    if backend.is_drained {
        row(text, "", "drained; to use it again: `dotd backend enable`");
    }
    if let Some(weight) = backend.weight {
        row(text, "", &format!("weight {weight}, set by an operator"));
    }
    if let Some(percent) = backend.servfail_percent.filter(|percent| *percent > 0) {
        row(text, "", &format!("SERVFAIL {percent} of 100 answers, in the last 10 s"));
    }
    if let Some(percent) = backend.answered_percent {
        row(text, "", &format!("answers {percent} of 100 queries"));
    }
    if let Some(UnmatchedStatus { count, last }) = &backend.unmatched {
        row(text, "", &format!("unmatched: {count}, last: {last}"));
    }
    for line in backend.tls.iter().flat_map(super::upstream::warnings) {
        row(text, "", &line);
    }
}

/// "1 worker", "2 workers".
pub(super) fn of(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The kernel half.
pub(super) fn xdp(report: &Report) -> String {
    let mut text = String::new();
    row(&mut text, "xdp", &because(&report.state, report.reason.as_deref()));
    if let Some(degraded) = &report.degraded {
        let demanded = if report.required { "; the config demands it, so /health fails" } else { "" };
        row(&mut text, "", &format!("DEGRADED: {degraded}{demanded}"));
    }
    if report.repairs > 0 {
        row(&mut text, "", &format!("re-attached {} times after a loss", report.repairs));
    }
    if !report.interfaces.is_empty() {
        row(&mut text, "paths", &report.paths.words());
    }
    if report.paths.tc > 0 {
        let cookies = if report.syn_cookies == "proxy" { "" } else { ", and sends no SYN cookies" };
        let line = format!("at tc ingress dotd drops packets instead of sending RST or TC=1{cookies}");
        row(&mut text, "", &line);
    }
    for interface in &report.interfaces {
        let state = because(&interface.mode, interface.reason.as_deref());
        row(&mut text, "interface", &format!("{}: {state}, learner {}", interface.name, interface.learner));
    }
    if !report.steering.is_empty() {
        row(&mut text, "steering", &because(&report.steering, report.steering_reason.as_deref()));
    }
    for (number, WorkerReport { open, share, backlog, accepting }) in report.workers.iter().enumerate() {
        let state = if *accepting { "" } else { ", takes none now" };
        let line = format!("{number}: {open} connections of {share}, {backlog} handshakes wait{state}");
        row(&mut text, "worker", &line);
    }
    if report.state != "off" {
        row(&mut text, "bans", &bans(&report.bans));
        let CostCounts { spent, spent_total } = report.costs;
        row(&mut text, "costs", &format!("{spent} clients refused now, budgets spent so far: {spent_total}"));
        if !report.syn_cookies.is_empty() {
            row(&mut text, "cookies", &because(&report.syn_cookies, report.syn_cookies_reason.as_deref()));
            if report.syn_cookies == "proxy" {
                let ProxyCounts { answered, completed, refused } = report.proxied;
                let line =
                    format!("{answered} SYN answered at tc ingress, {completed} connections came of them");
                row(&mut text, "", &format!("{line}, {refused} refused"));
            }
        }
        if !report.syn_over.is_empty() {
            let over = because(&report.syn_over, report.syn_over_reason.as_deref());
            row(&mut text, "over rate", &over);
        }
        let NoticeCounts { sent, held_back, lost } = report.notices;
        let line = format!("{sent} of refused clients, {held_back} held back, {lost} lost");
        row(&mut text, "notices", &line);
    }
    for program in &report.programs {
        let (name, id) = (&program.name, program.id);
        let verified = program.verified_instructions;
        let octets = program.translated_octets;
        let line = format!("{name}: id {id}, {verified} instructions verified, {octets} octets");
        row(&mut text, "program", &line);
    }
    text
}

/// How many bans there are, and what made them.
fn bans(counts: &BanCounts) -> String {
    let made = counts.made.iter().map(|(cause, count)| format!("{count} by {cause}"));
    let made: Vec<_> = made.collect();
    let made = if made.is_empty() { "none".to_owned() } else { made.join(", ") };
    let displaced = match counts.displaced {
        0 => String::new(),
        displaced => format!(", {displaced} lifted early because the table was full"),
    };
    format!("{} now, made so far: {made}{displaced}", counts.current)
}

/// The remaining lifetime of a certificate, in words.
pub(super) fn ends(seconds: i64) -> String {
    if seconds < 0 {
        format!("EXPIRED {} ago", duration(seconds.saturating_neg()))
    } else {
        format!("ends in {}", duration(seconds))
    }
}

fn certificate(text: &mut String, certificate: &CertificateStatus) {
    let ends = ends(certificate.expires_in_seconds(SystemTime::now()));
    let names = names(&certificate.dns_names);
    let stapled = if certificate.is_stapled { ", stapled" } else { "" };
    row(text, "certificate", &format!("{}: {ends}, {names}{stapled}", certificate.name));
    row(text, "", &format!("pin-sha256=\"{}\"", certificate.spki_pin));
    for warning in &certificate.warnings {
        row(text, "", &format!("warning: {warning}"));
    }
}

/// DNS names in a line.
pub(super) fn names(dns_names: &[String]) -> String {
    if dns_names.is_empty() { "no DNS names".to_owned() } else { format!("for {}", dns_names.join(", ")) }
}

/// A state with its reason.
fn because(state: &str, reason: Option<&str>) -> String {
    reason.map_or_else(|| state.to_owned(), |reason| format!("{state} ({reason})"))
}

/// The two largest units: an operator plans in days and waits in seconds.
pub(super) fn duration(seconds: i64) -> String {
    let units = [("days", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let largest = units.iter().position(|(_, length)| seconds >= *length).unwrap_or(units.len() - 1);
    let mut rest = seconds;
    let mut words = Vec::new();
    for (name, length) in units.iter().skip(largest).take(2) {
        let count = rest / length;
        rest %= length;
        if count > 0 || words.is_empty() {
            let name = if *name == "days" && count == 1 { "day" } else { name };
            words.push(format!("{count} {name}"));
        }
    }
    words.join(" ")
}

pub(super) fn row(text: &mut String, label: &str, value: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{label:<LABEL_WIDTH$}{value}");
}

/// One wider than "certificate".
const LABEL_WIDTH: usize = 13;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::{BackendStatus, ListenerStatus, OffStatus, TlsRow, UnusableCertificate},
        xdp::{InterfaceReport, Paths, ProgramReport},
    };

    /// Goal: durations read well at each unit's edge.
    #[test]
    fn durations_have_two_units() {
        for (seconds, words) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3661, "1 h 1 min"),
            (86_400, "1 day"),
            (90_000, "1 day 1 h"),
            (825 * 86_400, "825 days"),
        ] {
            assert_eq!(duration(seconds), words);
        }
        assert_eq!(ends(-7200), "EXPIRED 2 h ago");
    }

    fn listener() -> ListenerStatus {
        let address = "127.0.0.1:853".parse().unwrap();
        ListenerStatus { address, transport: "dot".into(), fast_open: Some("on".into()) }
    }

    fn backend() -> BackendStatus {
        BackendStatus {
            name: "zone".into(),
            address: "embedded".into(),
            transport: "embedded".into(),
            state: "down".into(),
            reason: Some("TLS: another key".into()),
            is_drained: true,
            weight: Some(3),
            answered_percent: Some(37),
            servfail_percent: Some(93),
            unmatched: Some(UnmatchedStatus { count: 3, last: "another question".into() }),
            tls: Some(TlsRow { is_in_clear: true, ..TlsRow::default() }),
        }
    }

    fn reader() -> DnstapStatus {
        DnstapStatus { reader: "/run/tap.sock".into(), is_connected: false, written: 8, lost: 9 }
    }

    fn over_rate() -> Report {
        let paths = Paths { xdp: 1, tc: 2, not_covered: 3 };
        let (syn_over, syn_over_reason) = ("drop".into(), Some("no cookies".into()));
        let (syn_cookies, syn_cookies_reason) = ("off".into(), Some("no right".into()));
        Report { paths, syn_over, syn_over_reason, syn_cookies, syn_cookies_reason, ..Report::default() }
    }

    fn kernel_half() -> Report {
        Report {
            state: "generic".into(),
            degraded: Some("eth1: no such interface".into()),
            required: true,
            repairs: 3,
            interfaces: vec![InterfaceReport {
                name: "eth0".into(),
                mode: "generic".into(),
                reason: Some("driver has no native mode".into()),
                learner: "tcx".into(),
                degraded: false,
            }],
            steering: "kernel-hash".into(),
            steering_reason: Some("no right".into()),
            programs: vec![ProgramReport {
                name: "dotd_xdp".into(),
                id: 7,
                verified_instructions: 900,
                translated_octets: 4000,
            }],
            bans: BanCounts { current: 2, made: [("operator".to_owned(), 3)].into(), displaced: 1 },
            costs: CostCounts { spent: 3, spent_total: 4 },
            workers: vec![WorkerReport { open: 5, share: 9, backlog: 2, accepting: false }],
            notices: NoticeCounts { sent: 5, held_back: 6, lost: 7 },
            ..over_rate()
        }
    }

    /// Goal: an operator sees every part of a status, and an expired certificate in capitals.
    #[test]
    fn status_shows_every_part() {
        let answer = Status {
            version: "0.1.0".into(),
            pid: 42,
            engine_pid: 8,
            state: State::Draining,
            drain: None,
            off: Some(OffStatus { persists: true }),
            uptime_seconds: 61,
            workers: 2,
            listeners: vec![listener()],
            backends: vec![backend()],
            servfail_percent: Some(41),
            certificates: vec![CertificateStatus {
                name: "self-signed".into(),
                spki_pin: "PIN=".into(),
                not_after_unix: 1,
                is_stapled: true,
                dns_names: vec!["localhost".into()],
                warnings: vec!["old".into()],
            }],
            unusable_certificates: vec![UnusableCertificate {
                name: "b.crt".into(),
                reason: "b.crt: no such file; it is not served".into(),
                is_served: false,
            }],
            is_strict: true,
            acme: None,
            access: Some("1 prefix denied; its clients hear nothing".into()),
            tenants: vec![],
            policy: Vec::new(),
            dnstap: Some(reader()),
            otlp: Some(OtlpStatus { collector: "http://[::1]:1/".into(), written: 3, lost: 4 }),
            xdp: kernel_half(),
        };
        let text = status(&answer);
        for line in [
            "dotd         0.1.0, draining for 1 min 1 s, process 42, 2 workers\n",
            "OFF          DNS over TLS is switched off until `dotd enable`, also after a restart\n",
            "listener     127.0.0.1:853 (dot), fast open on\n",
            "backend      zone: embedded, down (TLS: another key)\n             drained; to use it again: `dotd backend enable`\n             weight 3, set by an operator\n             SERVFAIL 93 of 100 answers, in the last 10 s\n             answers 37 of 100 queries\n             unmatched: 3, last: another question\n             queries go to it IN CLEAR, because its TLS fails and the config permits that\n",
            "clients      get SERVFAIL for 41 of 100 queries, in the last 10 s\n",
            "certificate  self-signed: EXPIRED ",
            " ago, for localhost, stapled\n             pin-sha256=\"PIN=\"\n             warning: old\n",
            "UNUSABLE     b.crt: no such file; it is not served; tls.strict is set, so /health fails\n",
            "access       1 prefix denied; its clients hear nothing\ndnstap       /run/tap.sock: NOT CONNECTED, 8 messages written, 9 lost\notlp         http://[::1]:1/: 3 spans written, 4 lost\nxdp          generic\n             DEGRADED: eth1: no such interface; the config demands it, so /health fails\n",
            "             re-attached 3 times after a loss\npaths        1 covered by XDP, 2 by tc ingress, 3 not covered\n             at tc ingress dotd drops packets instead of sending RST or TC=1, and sends no SYN cookies\ninterface    eth0: generic (driver has no native mode), learner tcx\n",
            "steering     kernel-hash (no right)\nworker       0: 5 connections of 9, 2 handshakes wait, takes none now\n",
            "bans         2 now, made so far: 3 by operator, 1 lifted early because the table was full\ncosts        3 clients refused now, budgets spent so far: 4\n",
            "cookies      off (no right)\nover rate    drop (no cookies)\nnotices      5 of refused clients, 6 held back, 7 lost\n",
            "program      dotd_xdp: id 7, 900 instructions verified, 4000 octets\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
    }
}

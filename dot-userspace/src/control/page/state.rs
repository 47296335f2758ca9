//! The state of dotd, as its page shows it.
//!
//! Before: the page asks. After: one JSON object: status, totals, refusals with their keys, clients, bans,
//! encryption, config.
//! Holds: nothing; the page computes rates from two answers. Never: contains a qname of a client.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::{
    config::ConfigRow,
    control::{RefusedTotal, Source, Status, Top, TopRequest, refused},
    ledger::{Counter, Snapshot},
    xdp::BanRow,
};

/// The answer of `/api/state`.
#[derive(Serialize)]
pub(super) struct PageState {
    at_ms: u64,
    /// The token was right: the page shows the actions.
    can_change: bool,
    status: Status,
    totals: BTreeMap<&'static str, u64>,
    drops: Vec<RefusedTotal>,
    backends: BTreeMap<String, BTreeMap<String, u64>>,
    top: Top,
    bans: Vec<BanRow>,
    encryption: Encryption,
    config: Vec<ConfigRow>,
}

/// Counts of encrypted and of unencrypted traffic.
#[derive(Serialize)]
struct Encryption {
    /// A summary in a sentence or two.
    says: String,
    is_well: bool,
    /// The kernel half counts packets.
    kernel: bool,
    counts: BTreeMap<&'static str, u64>,
    /// The counts with their descriptions.
    rows: Vec<(&'static str, &'static str)>,
}

pub(super) async fn state(source: &dyn Source, can_change: bool) -> PageState {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (status, stats) = (source.status(), source.snapshot());
    let top = source.top(TopRequest { names: false }).wait().await;
    PageState {
        at_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        can_change,
        totals: totals(&stats),
        drops: refused(&stats),
        encryption: encryption(&status, &stats),
        backends: stats.backends,
        top,
        bans: source.bans(),
        config: source.config_rows(),
        status,
    }
}

fn totals(stats: &Snapshot) -> BTreeMap<&'static str, u64> {
    BTreeMap::from([
        ("open", stats.count(Counter::Open)),
        ("connections", stats.count(Counter::Accepted)),
        ("queries", stats.count(Counter::Received)),
        ("handshakes_full", stats.prefix_total("handshakes", "full_")),
        ("handshakes_resumed", stats.prefix_total("handshakes", "resumed_")),
        ("handshakes_failed", stats.prefix_total("handshakes", "failed_")),
    ])
}

fn encryption(status: &Status, stats: &Snapshot) -> Encryption {
    let packets = |verdict: &str, reasons: &[&str]| -> u64 {
        let is_meant = |row: &&crate::ledger::PacketCount| {
            row.verdict == verdict && reasons.contains(&row.reason.as_str())
        };
        stats.packets.iter().filter(is_meant).map(|row| row.count).sum()
    };
    let versions = [
        (Counter::HandshakeFull13, Counter::HandshakeResumed13),
        (Counter::HandshakeFull12, Counter::HandshakeResumed12),
    ];
    let [records13, records12] =
        [Counter::RecordsRead13, Counter::RecordsRead12].map(|counter| stats.count(counter));
    let [tls13, tls12] = versions.map(|(full, resumed)| stats.count(full) + stats.count(resumed));
    let (dropped, passed) =
        (packets("drop", &["cleartext_on_dot"]), packets("would_drop", &["cleartext_on_dot"]));
    let in_clear = stats.count(Counter::ReceivedDatagram) + stats.count(Counter::ReceivedPlain);
    let not_tls = stats.count(Counter::HandshakeNotTls);
    let kernel = status.xdp.state != "off";
    let counts = BTreeMap::from([
        ("tls13", tls13),
        ("tls12", tls12),
        ("records13", records13),
        ("records12", records12),
        ("not_tls", not_tls),
        ("hellos", packets("pass", &["client_hello"])),
        ("dropped", dropped),
        ("passed", passed),
        ("udp", packets("drop", &["udp_on_dot"])),
        ("unjudged", packets("pass", &["unknown_flow", "flow_expired", "ungated"])),
        ("in_clear", in_clear),
    ]);
    let mut says = format!(
        "On DNS-over-TLS listeners dotd answers nothing but TLS: {tls13} sessions in TLS 1.3, {tls12} in TLS 1.2; {not_tls} connections \
         began with something else, got an alert and were closed."
    );
    if kernel {
        says += &format!(" The kernel half dropped {dropped} packets of cleartext before that.");
    } else {
        says += " The kernel half is off, so nothing is dropped before dotd reads it.";
    }
    let has_do53 = status.listeners.iter().any(|listener| listener.transport == "do53");
    if has_do53 {
        says += &format!(" listen.do53 is set: {in_clear} queries came in clear on its port.");
    }
    let rows = [
        ("tls13", "Sessions in TLS 1.3", true),
        ("tls12", "Sessions in TLS 1.2", true),
        ("records13", "Records that these sessions read, TLS 1.3", true),
        ("records12", "The same, TLS 1.2", true),
        ("not_tls", "Connections that began with something else than TLS: closed with an alert", true),
        ("in_clear", "Queries in clear on listen.do53", has_do53),
        ("hellos", "ClientHellos that the kernel half let through", kernel),
        ("dropped", "Packets of cleartext on a DNS-over-TLS port, dropped by the kernel half", kernel),
        ("passed", "The same, only counted (xdp.cleartext_853)", kernel),
        ("udp", "Datagrams to a DNS-over-TLS port, dropped by the kernel half", kernel),
        ("unjudged", "Packets of connections that the kernel half did not look into", kernel),
    ];
    let rows =
        rows.into_iter().filter(|(_, _, is_there)| *is_there).map(|(key, what, _)| (key, what)).collect();
    Encryption { says, is_well: in_clear == 0 && passed == 0, kernel, counts, rows }
}

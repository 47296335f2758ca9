//! The report for people who were not there: peers.md.
//!
//! Before: a report. After: a file that says where, how and with what noise it was measured.
//! Never: a figure without its unit, or a ratio without what it is to.

use super::{
    record::{FLOOR, Pick, Report},
    summary::{Spread, short, spread},
    text::{costs, none, ratios, weights},
    workloads::Work,
};

/// Above this share of the front end's core in others' hands, a run says little.
const NOISE_SHARE: f64 = 0.05;

/// The whole file.
pub(super) fn report(report: &Report) -> String {
    let mut text = head(report);
    text += "\n## CPU\n\nµs of the front end (user and system) for each answered query, or for each handshake with its query; \
             median (min–max).\n\n";
    text += &table(&costs(report));
    text += "\nAs a ratio to the best peer of the column; dotd and the floor are no peers.\n\n";
    text += &table(&ratios(report));
    if !report.idle.is_empty() {
        text += "\n## Memory\n\nGrowth of the front end's own memory for each idle connection, in KiB, on a process that had served \
                 no load. Sockets' memory in the kernel is not in it.\n\n";
        text += &table(&weights(report));
    }
    for work in report.works() {
        text += &format!("\n## {}\n\n{}.\n\n", work.name, capital(work.about));
        text += &table(&details(report, work));
    }
    text
}

fn head(report: &Report) -> String {
    let machine = &report.machine;
    let others = report.others().unwrap_or(Spread { median: 0.0, min: 0.0, max: 0.0 });
    let mut text = format!(
        "# dotd beside its peers\n\n\
         Made by `cargo xtask bench peers`; do not edit. Every figure is of one run on one machine: compare ratios, and \
         only within this file.\n\n\
         | | |\n|---|---|\n\
         | machine | {} × {}, {} MiB, Linux {}, {} |\n\
         | begun | {} |\n\
         | rounds | {} of {} s for each kind of work and each peer, interleaved |\n\
         | cores | front end on CPU {}, load and backend (NSD) on CPU {} |\n\
         | load average | {} before, {} after |\n\
         | front end's core in others' hands | median {}, worst run {} |\n",
        machine.cpus,
        machine.cpu,
        machine.memory_mib,
        machine.kernel,
        machine.system,
        date(machine.begun),
        report.pace.rounds,
        report.pace.seconds,
        machine.cores.front,
        machine.cores.load,
        machine.load[0],
        machine.load[1],
        percent(others.median),
        percent(others.max),
    );
    if others.median > NOISE_SHARE {
        text += "\n**The machine was not calm**: other programs had more than a twentieth of the front end's core. CPU \
                 figures suffer by colder caches and more context switches, latencies by waiting; take them as a rough guide.\n";
    }
    text += "\nAll speak TLS 1.3 with the same ECDSA P-256 certificate, one worker each, logs off. *relay*: asks the backend for \
             each query. *answers itself*: from the zone or from a cache, so no backend's cost is in it. *floor*: a TLS echo and a \
             TLS-to-UDP relay of ours that do nothing but what everybody must.\n\n\
             | front end | version | kind | to the backend |\n|---|---|---|---|\n";
    for peer in &report.peers {
        let entry = peer.entry;
        text +=
            &format!("| {} | {} | {} | {} |\n", entry.name, peer.version, entry.kind.name(), entry.transport);
    }
    for (name, why) in &report.left_out {
        text += &format!("\nLeft out: {name} ({why}).\n");
    }
    for fault in report.faults() {
        text += &format!("\nFault: {fault}.\n");
    }
    text
}

/// One kind of work: everything about every peer.
fn details(report: &Report, work: &Work) -> Vec<Vec<String>> {
    let latency = if work.is_handshake { "handshake" } else { "latency" };
    let head = [
        "front end".to_owned(),
        "CPU µs".to_owned(),
        "× best peer".to_owned(),
        "× best relay".to_owned(),
        format!("× {FLOOR}"),
        "user".to_owned(),
        "switches voluntary".to_owned(),
        "involuntary".to_owned(),
        format!("{latency} p50 ms"),
        "p99 ms".to_owned(),
        "p99.9 ms".to_owned(),
        "queries/s".to_owned(),
        "resumed".to_owned(),
        "load's CPU µs".to_owned(),
    ];
    let mut rows = vec![head.to_vec()];
    for peer in &report.peers {
        let name = peer.entry.name;
        let median = |pick: Pick| report.spread(name, work, pick).map(|spread| spread.median);
        let ratio = |ratio: Option<f64>| ratio.map_or_else(none, short);
        let milliseconds = |pick: Pick| median(pick).map_or_else(none, |us| short(us / 1e3));
        rows.push(vec![
            name.to_owned(),
            spread(report.spread(name, work, |figures| figures.cpu_us)),
            ratio(report.to_best_peer(name, work)),
            ratio(report.to_best_relay(name, work)),
            ratio(report.to_floor(name, work)),
            median(|figures| figures.user_share).map_or_else(none, percent),
            median(|figures| figures.voluntary).map_or_else(none, short),
            median(|figures| figures.involuntary).map_or_else(none, short),
            milliseconds(|figures| figures.p50_us),
            milliseconds(|figures| figures.p99_us),
            milliseconds(|figures| figures.p999_us),
            median(|figures| figures.queries_per_second).map_or_else(none, |rate| format!("{rate:.0}")),
            if work.is_handshake {
                median(|figures| figures.resumed_share).map_or_else(none, percent)
            } else {
                none()
            },
            median(|figures| figures.own_cpu_us).map_or_else(none, short),
        ]);
    }
    rows
}

/// `2026-11-23 16:05 UTC`, from seconds since 1970.
///
/// Source: H. Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
fn date(unix_seconds: u64) -> String {
    let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Days since 1 March of year 0: leap days come last in their year, eras of 400 years are alike.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600, seconds % 3600 / 60)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The first row is the head.
fn table(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        text += &format!("| {} |\n", row.join(" | "));
        if number == 0 {
            text += &format!("|{}\n", "---|".repeat(row.len()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::record;

    /// Goal: days are those of the calendar, leap years included. Method: dates that `date -u` knows.
    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_709_251_200, "2024-03-01 00:00 UTC"),
            (1_795_449_212, "2026-11-23 15:53 UTC"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }

    /// Goal: every row of every table has as many cells as its head. Method: a made-up report.
    #[test]
    fn tables_are_whole() {
        let text = report(&record::tests::report());
        let mut cells = None;
        for line in text.lines() {
            let count = line.starts_with('|').then(|| line.matches('|').count());
            if let (Some(before), Some(count)) = (cells, count) {
                assert_eq!(before, count, "{line}");
            }
            cells = count;
        }
        assert!(text.contains("| dotd | 6.00 | 1.20 | 0.60 | 1.50 |"), "{text}");
        assert!(text.contains("Left out: named (named is not installed)."), "{text}");
    }
}

//! The report as Markdown: peers.md.
//!
//! Before: a report. After: a file that names the machine, the method and the noise of the measurement.
//! Never: shows a figure without its unit, or a ratio without its reference.

use super::{
    goals,
    machine::Machine,
    pictures,
    record::{Pick, Report, floor_of},
    summary::{Spread, short, spread},
    text::{calls, costs, none, ratios, weights},
    workloads::Work,
};

/// Above this share of the front end's core in others' hands, a run says little.
const NOISE_SHARE: f64 = 0.05;

/// The whole file.
pub(crate) fn report(report: &Report) -> String {
    let mut text = head(report);
    text += "\n## Goals\n\nOurs is the better of the transports to the backend where two are measured; *best peer* the best of the relays, or of \
             those that answer from zone or cache where it says cached; *floor* the one that does the same work. *not judged*: the \
             offered rate was not reached, or there is nothing to compare with.\n\n";
    text += &table(&goals::rows(report));
    for (file, about) in pictures::FILES {
        text += &format!("\n![{about}]({file})\n");
    }
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
    if !report.calls.is_empty() {
        text += "\n## System calls\n\nOf the front end for each answered query, counted by the kernel's tracepoint in loads of their own.\n\n";
        text += &table(&calls(report));
    }
    for work in report.works() {
        text += &format!("\n## {}\n\n{}.\n\n", work.name, capital(work.about));
        if work.is_at_rate {
            text += &format!(
                "Offered: {} queries a second. A latency where less was reached is that of a queue that grows.\n\n",
                report.pace.rate
            );
        }
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
         only within this file.\n\n{}\
         | rounds | {} of {} s for each kind of work and each peer, interleaved |\n\
         | front end's core in others' hands | median {}, worst run {} |\n",
        described(machine),
        report.pace.rounds,
        report.pace.duration.as_secs_f64(),
        percent(others.median),
        percent(others.max),
    );
    if others.median > NOISE_SHARE {
        text += "\n**The machine was not calm**: other programs had more than a twentieth of the front end's core. CPU \
                 figures suffer by colder caches and more context switches, latencies by waiting; take them as a rough guide.\n";
    }
    text += "\nAll speak TLS 1.3 with the same ECDSA P-256 certificate, one worker each, logs off. *relay*: asks the backend for \
             each query. *answers itself*: from the zone or from a cache, so no backend's cost is in it. *floor*: a TLS echo and \
             relays of ours to UDP and TCP that do only what every front end must do.\n\n\
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

/// The first rows of a report's first table: where and when.
pub(crate) fn described(machine: &Machine) -> String {
    format!(
        "| | |\n|---|---|\n\
         | machine | {} × {}, {} MiB, Linux {}, {} |\n\
         | begun | {} |\n\
         | cores | front end on CPU {}, load and backends (NSD; ours where it says coalescing) on CPU {} |\n\
         | load average | {} before, {} after |\n",
        machine.cpus,
        machine.cpu,
        machine.memory_mib,
        machine.kernel,
        machine.system,
        date(machine.begun),
        machine.cores.front,
        machine.cores.load,
        machine.load[0],
        machine.load[1],
    )
}

/// A column of a table: its head, and what stands in it for a peer.
type Column<'r> = (String, Box<dyn Fn(&str) -> String + 'r>);

/// One kind of work: everything about every peer that did it.
fn details(report: &Report, work: &Work) -> Vec<Vec<String>> {
    let columns = columns(report, work);
    let mut head = vec!["front end".to_owned()];
    head.extend(columns.iter().map(|(head, _)| head.clone()));
    let mut rows = vec![head];
    let is_there = |name: &str| report.runs.iter().any(|run| run.peer == name && run.work == work);
    for name in report.peers.iter().map(|peer| peer.entry.name).filter(|name| is_there(name)) {
        let mut row = vec![name.to_owned()];
        row.extend(columns.iter().map(|(_, cell)| cell(name)));
        rows.push(row);
    }
    rows
}

fn columns<'r>(report: &'r Report, work: &'r Work) -> Vec<Column<'r>> {
    let figure = |head: &str, pick: Pick, tell: fn(f64) -> String| -> Column<'r> {
        let median = move |name: &str| report.spread(name, work, pick).map(|spread| spread.median);
        (head.to_owned(), Box::new(move |name: &str| median(name).map_or_else(none, tell)))
    };
    let ratio = |head: String, of: fn(&Report, &str, &Work) -> Option<f64>| -> Column<'r> {
        (head, Box::new(move |name: &str| of(report, name, work).map_or_else(none, short)))
    };
    let latency = if work.is_handshake { "handshake" } else { "latency" };
    let cpu = move |name: &str| spread(report.spread(name, work, |figures| figures.cpu_us));
    let mut columns: Vec<Column<'r>> = vec![
        ("CPU µs".to_owned(), Box::new(cpu)),
        ratio("× best peer".to_owned(), Report::to_best_peer),
        ratio("× best relay".to_owned(), Report::to_best_relay),
        ratio(format!("× {}", floor_of(work)), Report::to_floor),
        figure("user", |figures| figures.user_share, percent),
        figure("switches voluntary", |figures| figures.voluntary, short),
        figure("involuntary", |figures| figures.involuntary, short),
    ];
    if work.counts_calls {
        columns.push(ratio("system calls".to_owned(), Report::calls));
    }
    columns.extend([
        figure(&format!("{latency} p50 ms"), |figures| figures.p50_us, milliseconds),
        figure("p99 ms", |figures| figures.p99_us, milliseconds),
        figure("p99.9 ms", |figures| figures.p999_us, milliseconds),
        figure("queries/s", |figures| figures.queries_per_second, |rate| format!("{rate:.0}")),
    ]);
    if work.is_handshake {
        columns.push(figure("resumed", |figures| figures.resumed_share, percent));
    }
    if work.is_at_rate {
        columns.push(figure("of the offered rate", |figures| figures.reached, percent));
        columns.push(figure("load's lag p99 ms", |figures| figures.lag_p99_us, milliseconds));
    }
    columns.push(figure("load's CPU µs", |figures| figures.own_cpu_us, short));
    columns
}

fn milliseconds(us: f64) -> String {
    short(us / 1e3)
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
pub(crate) fn table(rows: &[Vec<String>]) -> String {
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

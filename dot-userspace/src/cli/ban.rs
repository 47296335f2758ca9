//! `dotd ban list|add|del`.
//!
//! Before: the words of an operator. After: the running dotd has changed its bans, and a line or table shows them.
//! Never: checks a client or a duration: the running dotd knows its config.

use std::{fmt::Write as _, path::Path};

use hyper::Method;

use super::{arguments::BanVerb, ask, error::CliError, print, show, show_answer, socket};
use crate::{
    control::{BanRequest, Banned, UnbanRequest},
    xdp::BanRow,
};

const PATH: &str = "/bans";

/// Runs one of the verbs.
pub(super) fn run(verb: BanVerb, config: Option<&Path>) -> Result<(), CliError> {
    let (control, body, said) = match verb {
        BanVerb::List { control } => return show_answer::<Vec<BanRow>>(&control, config, PATH, table),
        BanVerb::Add { client, length, reason, control } => {
            // A part of a second counts as a second: 0 would mean no ban.
            let seconds =
                length.map(|length| length.as_secs().saturating_add((length.subsec_nanos() > 0).into()));
            let request = BanRequest { client, seconds, reason };
            let (body, banned) =
                ask::tell::<Banned>(&socket(&control, config), Method::POST, PATH, &request)?;
            let said = format!("{}; {}", about(&banned.ban, "banned"), ended(&banned));
            (control, body, said)
        }
        BanVerb::Del { client, control } => {
            let request = UnbanRequest { client };
            let (body, row) = ask::tell::<BanRow>(&socket(&control, config), Method::DELETE, PATH, &request)?;
            let said = about(&row, "no longer banned, would have been");
            (control, body, said)
        }
    };
    if control.json {
        return print(&format!("{body}\n"));
    }
    print(&format!("{said}\n"))
}

fn about(row: &BanRow, done: &str) -> String {
    format!("{} {done} for {}, {} hits", row.prefix, time_left(row), row.hits)
}

/// The number of sessions that ended with a ban.
pub(super) fn ended(banned: &Banned) -> String {
    let mut text = match banned.sessions_ended {
        1 => "1 session ended".to_owned(),
        count => format!("{count} sessions ended"),
    };
    if banned.workers_silent > 0 {
        // Writing to a String does not fail.
        let _ = write!(text, ", and {} workers end theirs later", banned.workers_silent);
    }
    text
}

/// One line for each ban.
#[expect(clippy::ptr_arg, reason = "show_answer gives what it deserialized")]
fn table(rows: &Vec<BanRow>) -> String {
    if rows.is_empty() {
        return "no bans\n".to_owned();
    }
    let columns = ["PREFIX", "CAUSE", "HITS", "LEFT", "REASON"].map(str::to_owned);
    let lines = rows.iter().map(|row| {
        [row.prefix.clone(), row.cause.clone(), row.hits.to_string(), time_left(row), row.reason.clone()]
    });
    let lines: Vec<[String; 5]> = std::iter::once(columns).chain(lines).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2), width(3)];
    let mut text = String::new();
    for [prefix, cause, hits, left, reason] in &lines {
        let [a, b, c, d] = widths;
        let line = format!("{prefix:<a$}  {cause:<b$}  {hits:>c$}  {left:<d$}  {reason}");
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn time_left(row: &BanRow) -> String {
    show::duration(i64::try_from(row.seconds_left).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the number of sessions that ended is a sentence, and workers that did not answer are mentioned. Covers:
    ///
    #[test]
    fn ended_sessions_are_told() {
        let said = |sessions_ended, workers_silent| {
            ended(&Banned { sessions_ended, workers_silent, ..Banned::default() })
        };
        assert_eq!(said(0, 0), "0 sessions ended");
        assert_eq!(said(1, 0), "1 session ended");
        assert_eq!(said(3, 2), "3 sessions ended, and 2 workers end theirs later");
    }

    /// Goal: columns are aligned, numbers to the right, and no line ends in blanks.
    #[test]
    fn bans_are_a_table() {
        let row = |prefix: &str, hits, reason: &str| BanRow {
            prefix: prefix.into(),
            cause: "operator".into(),
            reason: reason.into(),
            hits,
            seconds_left: 61,
        };
        let rows = vec![row("192.0.2.7/32", 5, ""), row("2001:db8:17::/56", 12_345, "ticket 4711")];
        let wanted = "\
PREFIX            CAUSE      HITS  LEFT       REASON
192.0.2.7/32      operator      5  1 min 1 s
2001:db8:17::/56  operator  12345  1 min 1 s  ticket 4711
";
        assert_eq!(table(&rows), wanted);
        assert_eq!(table(&vec![]), "no bans\n");
    }
}

//! `dotd misuse`: the misuses that the running dotd finds now.
//!
//! Before: an operator types the verb. After: a line for each misuse.
//! Never: judges by itself.

use std::path::Path;

use super::{arguments::ControlArguments, error::CliError, show, show_answer};
use crate::{control::Misuses, session::MisuseRow};

const PATH: &str = "/misuse";

/// Runs the verb.
pub(super) fn run(control: &ControlArguments, config: Option<&Path>) -> Result<(), CliError> {
    show_answer::<Misuses>(control, config, PATH, text)
}

fn text(found: &Misuses) -> String {
    let mut text: String = found.rows.iter().map(line).collect();
    if found.rows.is_empty() {
        text += match found.is_on {
            true => "no misuse\n",
            false => "nothing is looked for; [misuse] in the config says what is to be\n",
        };
    }
    if found.workers_silent > 0 {
        text += &format!("{} workers did not answer: what they find is missing\n", found.workers_silent);
    }
    text
}

/// One misuse.
pub(super) fn line(row: &MisuseRow) -> String {
    let duration = |seconds: u64| show::duration(i64::try_from(seconds).unwrap_or(i64::MAX));
    let MisuseRow { kind, action, client, domain, worker, hits, .. } = row;
    let whose = client.as_deref().unwrap_or("many clients");
    let below = domain.as_ref().map(|domain| format!(" below {domain}")).unwrap_or_default();
    let (found, left) = (duration(row.found_seconds), duration(row.seconds_left));
    format!(
        "{kind:<14} {whose}{below}: {action}, {hits} queries, found {found} ago by worker {worker}, {left} left\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each misuse is a line that says whose it is and what is done; where nothing is looked for, that is said. Covers: C-720
    #[test]
    fn each_misuse_is_a_line() {
        let row = MisuseRow {
            kind: "random_names".into(),
            action: "refuse".into(),
            domain: Some("victim.example".into()),
            found_seconds: 61,
            seconds_left: 9,
            hits: 4711,
            ..MisuseRow::default()
        };
        let tunnel = MisuseRow { kind: "tunnel".into(), client: Some("192.0.2.7/32".into()), ..row.clone() };
        let found = Misuses { is_on: true, rows: vec![row, tunnel], workers_silent: 1 };
        let wanted = "\
random_names   many clients below victim.example: refuse, 4711 queries, found 1 min 1 s ago by worker 0, 9 s left
tunnel         192.0.2.7/32 below victim.example: refuse, 4711 queries, found 1 min 1 s ago by worker 0, 9 s left
1 workers did not answer: what they find is missing
";
        assert_eq!(text(&found), wanted);
        assert!(text(&Misuses::default()).starts_with("nothing is looked for"));
        assert_eq!(text(&Misuses { is_on: true, ..Misuses::default() }), "no misuse\n");
    }
}

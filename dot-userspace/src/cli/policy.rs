//! `dotd policy`: the zones of the running dotd, and the rule that decides about a name.
//!
//! Before: the words of an operator. After: the running dotd's answer about its zones.
//! Never: reads a zone: the running dotd has read them.

use std::{fmt::Write as _, net::IpAddr, path::Path};

use clap::Subcommand;
use hyper::Method;

use super::{
    arguments::ControlArguments,
    ask,
    error::CliError,
    examples::{POLICY_LIST_EXAMPLES, POLICY_REFRESH_EXAMPLES, POLICY_TEST_EXAMPLES},
    print, show, show_answer, socket,
};
use crate::{
    control::{PolicyStatus, RefreshRequest, Refreshed, TransferStatus},
    policy::{Explained, Question, RuleSeen},
};

const PATH: &str = "/policy";
const REFRESH_PATH: &str = "/policy/refresh";

/// The verbs for policy zones.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyVerb {
    /// Show each zone: rules, serial number, age, and the reason why a newer file is not used
    #[command(after_help = POLICY_LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Ask the primary servers of a transferred zone at once for a newer version
    ///
    /// Returns without waiting for the servers: `dotd policy` shows the result.
    #[command(after_help = POLICY_REFRESH_EXAMPLES)]
    Refresh {
        /// The zone [default: every transferred zone]
        zone: Option<String>,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Show the rule that decides about a name, with its file and line
    ///
    /// Asks the running dotd, and no backend. Rules about addresses and aliases in an answer need the answer: give it
    /// with --answer.
    #[command(after_help = POLICY_TEST_EXAMPLES)]
    Test {
        /// The name
        name: String,
        /// The type [default: A], and the address of the client
        #[arg(value_name = "TYPE|CLIENT", num_args = 0..=2)]
        about: Vec<String>,
        /// Address of the client
        #[arg(long, value_name = "ADDRESS")]
        client: Option<IpAddr>,
        /// Name of the client's tenant [default: a client of no tenant]
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        /// The answer of a backend: an address, or the name of an alias; may be repeated, in the order of the answer
        #[arg(long, value_name = "ADDRESS|NAME")]
        answer: Vec<String>,
        #[command(flatten)]
        control: ControlArguments,
    },
}

/// Runs one of the verbs; without a verb, lists the zones.
pub(super) fn run(
    verb: Option<PolicyVerb>,
    control: &ControlArguments,
    config: Option<&Path>,
) -> Result<(), CliError> {
    match verb {
        None => list(control, config),
        Some(PolicyVerb::List { control }) => list(&control, config),
        Some(PolicyVerb::Refresh { zone, control }) => {
            let request = RefreshRequest { zone };
            let place = socket(&control, config);
            let (body, done) = ask::tell::<Refreshed>(&place, Method::POST, REFRESH_PATH, &request)?;
            let text = format!("asked for: {}\n", done.zones.join(", "));
            print(&if control.json { format!("{body}\n") } else { text })
        }
        Some(PolicyVerb::Test { name, about, client, tenant, answer, control }) => {
            let (qtype, client) = typed(about, client)?;
            let question = Question { name, qtype, client, tenant, answer };
            let (body, found) =
                ask::tell::<Explained>(&socket(&control, config), Method::POST, PATH, &question)?;
            print(&if control.json { format!("{body}\n") } else { explained(&found) })
        }
    }
}

/// The type and the client among these words.
fn typed(words: Vec<String>, client: Option<IpAddr>) -> Result<(Option<String>, Option<IpAddr>), CliError> {
    let (mut qtype, mut found) = (None, client);
    for word in words {
        let is_second = match word.parse() {
            Ok(address) => found.replace(address).is_some(),
            Err(_) => qtype.replace(word.clone()).is_some(),
        };
        if is_second {
            return Err(CliError::Refused(format!(
                "{word}: give one type and one client, and the client once"
            )));
        }
    }
    Ok((qtype, found))
}

fn list(control: &ControlArguments, config: Option<&Path>) -> Result<(), CliError> {
    show_answer::<Vec<PolicyStatus>>(control, config, PATH, |zones| match zones.is_empty() {
        true => "no policy zone; [[policy.zone]] in the config names one\n".to_owned(),
        false => rows(zones),
    })
}

/// A few lines for each zone.
pub(super) fn rows(zones: &[PolicyStatus]) -> String {
    let mut text = String::new();
    for zone in zones {
        let PolicyStatus { name, file, format, rules, hits, .. } = zone;
        let action = if zone.action == "given" { String::new() } else { format!(", all {}", zone.action) };
        let mode = if zone.mode == "count" { ", only counted" } else { "" };
        show::row(&mut text, "policy", &format!("{name}: {rules} rules{action}{mode}, {file} ({format})"));
        let serial = zone.serial.map(|serial| format!("serial {serial}, ")).unwrap_or_default();
        let age = show::duration(i64::try_from(zone.age_seconds).unwrap_or(i64::MAX));
        let octets = zone.octets.div_ceil(1024);
        show::row(
            &mut text,
            "",
            &format!("{hits} hits; {serial}read {age} ago in {} ms, {octets} KiB", zone.read_milliseconds),
        );
        if let Some(first) = &zone.first_left_out {
            show::row(&mut text, "", &format!("{} lines left out, the first: {first}", zone.left_out));
        }
        if let Some(transfer) = &zone.transfer {
            transferred(&mut text, transfer);
        }
        if let Some(error) = &zone.error {
            show::row(&mut text, "", &format!("NOT READ AGAIN: {error}"));
        }
    }
    text
}

/// The state of a zone's transfers.
fn transferred(text: &mut String, transfer: &TransferStatus) {
    let duration = |seconds: u64| show::duration(i64::try_from(seconds).unwrap_or(i64::MAX));
    let mut line = match (transfer.state.as_str(), transfer.confirmed_seconds) {
        ("expired", _) => "EXPIRED: no rule applies until it is transferred".to_owned(),
        (_, None) => "no version yet, so no rule applies".to_owned(),
        (_, Some(seconds)) => format!("confirmed {} ago", duration(seconds)),
    };
    if let Some(seconds) = transfer.next_seconds {
        let _ = write!(line, ", asked again in {}", duration(seconds));
    }
    let _ = write!(line, "; {} transfers, {} failures", transfer.transfers, transfer.failures);
    if let (Some(method), Some(server), Some(records)) =
        (&transfer.method, &transfer.server, transfer.records)
    {
        let _ = write!(line, ", the last by {method} from {server}, {records} records");
    }
    show::row(text, "", &line);
    if let Some(error) = &transfer.error {
        show::row(text, "", &format!("NOT TRANSFERRED: {error}"));
    }
}

/// The rule that decides, in lines.
fn explained(found: &Explained) -> String {
    let asked = &found.asked;
    let qtype = asked.qtype.as_deref().unwrap_or("A");
    let mut text = format!("{} {qtype}", asked.name);
    if let Some(client) = asked.client {
        let _ = write!(text, " of {client}");
    }
    if let Some(tenant) = &asked.tenant {
        let _ = write!(text, " for tenant {tenant}");
    }
    text += ": ";
    match &found.decides {
        Some(rule) => text += &seen(rule),
        None if asked.answer.is_empty() => text += "no rule about the question; a backend is asked\n",
        None => text += "no rule; the answer is unchanged\n",
    }
    for rule in &found.counted {
        let _ = write!(text, "only counted: {}", seen(rule));
    }
    text
}

fn seen(rule: &RuleSeen) -> String {
    let RuleSeen { zone, file, line, found, action, records } = rule;
    let mut text = format!("{action}\n  zone {zone}, {file}:{line}, by {found}\n");
    for record in records {
        let _ = writeln!(text, "  {record}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the client and the type are told apart in any order, and neither may come twice. Method: words as operators type them.
    #[test]
    fn a_client_may_stand_behind_the_name() {
        let of = |words: &[&str], client: Option<IpAddr>| {
            typed(words.iter().map(|word| (*word).to_owned()).collect(), client).ok()
        };
        let client: IpAddr = "192.0.2.7".parse().unwrap();
        let aaaa = || Some("AAAA".to_owned());
        assert_eq!(of(&[], None), Some((None, None)));
        assert_eq!(of(&["192.0.2.7"], None), Some((None, Some(client))));
        assert_eq!(of(&["AAAA", "192.0.2.7"], None), Some((aaaa(), Some(client))));
        assert_eq!(of(&["192.0.2.7", "AAAA"], None), Some((aaaa(), Some(client))));
        assert_eq!(of(&["AAAA"], Some(client)), Some((aaaa(), Some(client))));
        assert_eq!(of(&["192.0.2.7"], Some(client)), None);
        assert_eq!(of(&["AAAA", "TXT"], None), None);
    }
}

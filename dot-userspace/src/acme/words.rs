//! Why an attempt failed, in words for an operator: what happened, where, and what to do.
//!
//! Before: an error of the library, or a problem document of the authority. After: one line.
//! Never: shows control characters of the other side, or more than [`TEXT_OCTETS_MAX`] of its text.
//!
//! Source: RFC 8555 §6.7 (problem documents).

use std::time::Duration;

use instant_acme::{Error, Problem};

/// Octets of a text of the authority that are shown.
const TEXT_OCTETS_MAX: usize = 600;
/// What problem types begin with.
const TYPE: &str = "urn:ietf:params:acme:error:";

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The line.
    pub text: String,
    /// How long the authority asked to wait.
    pub wait: Option<Duration>,
    /// The authority has answered nothing, so that no limit of it counts the attempt.
    pub is_unreached: bool,
}

impl Failure {
    /// With this line.
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), wait: None, is_unreached: false }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// The line for an error during `step`.
pub(super) fn failure(step: &str, error: &Error) -> Failure {
    failure_with(step, error, &[])
}

/// The same, with remedies for this step: for each type of problem the one that takes the place of the usual one.
pub(super) fn failure_with(step: &str, error: &Error, remedies: &[(&str, String)]) -> Failure {
    Failure::new(match error {
        Error::Api(problem) => format!("{step}: {}", of_problem(problem, remedies)),
        Error::Json(error) => {
            format!(
                "{step}: the server's answer is not ACME ({error}); is acme.directory the URL of a directory?"
            )
        }
        Error::Timeout(_) => format!("{step}: the authority did not finish in time"),
        Error::Unsupported(what) => format!("{step}: the authority has no {what}"),
        other => format!("{step}: {}", clean(&other.to_string())),
    })
}

/// The text of a problem document with the remedy for its type.
fn of_problem(problem: &Problem, remedies: &[(&str, String)]) -> String {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let kind = kind.strip_prefix(TYPE).unwrap_or(kind);
    let mut text = match &problem.detail {
        Some(detail) => clean(detail),
        None => "the authority refuses it".to_owned(),
    };
    for sub in problem.subproblems.iter().take(4) {
        text += &format!("; {}", clean(&sub.to_string()));
    }
    if !kind.is_empty() {
        text += &format!(" ({})", clean(kind));
    }
    let here = remedies.iter().find(|(named, _)| *named == kind).map(|(_, remedy)| remedy.as_str());
    if let Some(remedy) = here.or_else(|| remedy(kind)) {
        text += &format!("; {remedy}");
    }
    text
}

/// What an operator can do about it.
fn remedy(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "connection" => {
            "the authority must reach port 80 of the name: look at firewall, NAT and the addresses of the name"
        }
        "dns" => "the authority must find the name in DNS: look at its records and at those above it",
        "unauthorized" => {
            "the authority reached another server than this one, or another record: look at the addresses of the name"
        }
        "incorrectResponse" => "another program answers at port 80 of the name, or the record is an old one",
        "rateLimited" => "dotd waits; use \"letsencrypt-staging\" while you try things out",
        "rejectedIdentifier" | "unsupportedIdentifier" => {
            "this authority issues no certificate for such a name"
        }
        "caa" => "a CAA record of the name forbids this authority",
        "invalidContact" | "unsupportedContact" => "mend acme.contact",
        "externalAccountRequired" => {
            "this authority binds accounts to those of its site: set acme.eab_kid and acme.eab_key to what it gives you there"
        }
        "userActionRequired" => "the terms have changed: read them on the authority's site",
        "invalidProfile" => "mend acme.profile; the authority's documentation lists them",
        "serverInternal" => "the fault is the authority's",
        _ => return None,
    })
}

/// A text of the other side in one line, cut off.
pub(super) fn clean(text: &str) -> String {
    let mut cut = TEXT_OCTETS_MAX.min(text.len());
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    let text = text.get(..cut).unwrap_or_default();
    text.replace(|letter: char| letter.is_control(), " ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a problem document becomes one line with the remedy, whatever its text has. Method: a document with control characters and
    /// subproblems, a long one, one without a type. Covers: A-743, C-754
    #[test]
    fn problems_are_said_in_words() {
        let problem = |text: &str| serde_json::from_str::<Problem>(text).unwrap();
        let refused = problem(
            r#"{"type":"urn:ietf:params:acme:error:connection","detail":"Fetching\nhttp://x: \u001b[31mrefused","subproblems":[{"detail":"one"}]}"#,
        );
        let said = of_problem(&refused, &[]);
        assert_eq!(
            said,
            "Fetching http://x:  [31mrefused; : one (connection); the authority must reach port 80 of the name: look at firewall, NAT and the addresses of the name"
        );
        let here = of_problem(&refused, &[("dns", "no".into()), ("connection", "mend this".into())]);
        assert!(here.ends_with("(connection); mend this"), "{here}");
        let long = format!(r#"{{"detail":"{}"}}"#, "ä".repeat(2000));
        assert!(of_problem(&problem(&long), &[]).len() <= TEXT_OCTETS_MAX);
        assert_eq!(of_problem(&problem("{}"), &[]), "the authority refuses it");
    }
}

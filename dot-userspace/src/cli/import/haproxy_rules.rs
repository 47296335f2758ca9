//! The rules of HAProxy by which a front end takes clients: `tcp-request` with a condition on the client's address.
//!
//! Before: the lines of a front end. After: rules in order, for the lists of `[access]`. Holds: which conditions are understood: one
//! `acl` with `src`, or `{ src … }`, and its opposite.
//! Never: guesses: a rule that it does not understand becomes a remark, and so do those behind it.
//!
//! Source: HAProxy's configuration manual, section 7 (ACLs) and "tcp-request".

use std::collections::HashMap;

use super::{
    draft::Draft,
    haproxy::Line,
    lists::{self, Of, Rule},
};

/// The prefixes of a condition. `None`: they are not known.
type Prefixes = Option<Vec<Of>>;

/// What a line of `tcp-request` does.
enum Meaning {
    /// Takes clients, or refuses them.
    Some(bool, Vec<Of>),
    /// Refuses all others.
    Only(Vec<Of>),
    /// Takes every client, or refuses it: no line behind it counts.
    All(bool),
}

/// Takes the rules of a front end.
pub(super) fn take(lines: &[Line<'_>], draft: &mut Draft) {
    let mut known: HashMap<&str, Prefixes> = HashMap::new();
    let (mut rules, mut only): (Vec<Rule>, Option<Vec<Rule>>) = (Vec::new(), None);
    for (words, place) in lines {
        let of = |may: bool, of: Of| Rule { may, of, place: place.clone() };
        match words.as_slice() {
            ["acl", name, rest @ ..] => learn(&mut known, name, prefixes(rest), place, draft),
            ["tcp-request", "inspect-delay", ..] => {
                draft.remark(place, "`tcp-request inspect-delay`: dotd judges a client when it connects, and waits for no content");
            }
            ["tcp-request", "connection" | "content", action, rest @ ..] => {
                match meaning(action, rest, &known) {
                    Some(Meaning::All(may)) => {
                        rules.extend(only.take().filter(|_| may).unwrap_or_else(|| vec![of(may, Of::All)]));
                        break;
                    }
                    Some(Meaning::Some(may, found)) if only.is_none() || !may => {
                        rules.extend(found.into_iter().map(|found| of(may, found)));
                    }
                    Some(Meaning::Only(found)) if only.is_none() => {
                        let taken = found.into_iter().map(|found| of(true, found));
                        only = Some(taken.chain([of(false, Of::All)]).collect());
                    }
                    _ => {
                        let line = words.join(" ");
                        let why = format!(
                            "`{line}`: not taken over; access.allow and access.deny list clients, xdp.limit has rates"
                        );
                        draft.remark(place, why);
                    }
                }
            }
            ["tcp-request", ..] => {
                draft.remark(place, "`tcp-request`: xdp.limit has rates for each client prefix")
            }
            _ => {}
        }
    }
    rules.extend(only.into_iter().flatten());
    draft.take_rules(&rules);
}

/// Lines of one name are alternatives.
fn learn<'a>(
    known: &mut HashMap<&'a str, Prefixes>,
    name: &'a str,
    found: Prefixes,
    place: &str,
    draft: &mut Draft,
) {
    if found.is_none() {
        let why = format!("`acl {name}`: dotd knows clients by prefix: access.allow, access.deny, xdp.limit");
        draft.remark(place, why);
    }
    let before = known.remove(name).unwrap_or_else(|| Some(Vec::new()));
    known.insert(name, before.zip(found).map(|(before, found)| [before, found].concat()));
}

/// `None`: it is not understood.
fn meaning(action: &str, rest: &[&str], known: &HashMap<&str, Prefixes>) -> Option<Meaning> {
    let may = match action {
        "accept" => true,
        "reject" => false,
        _ => return None,
    };
    let (is_opposite, condition) = match rest {
        [] => return Some(Meaning::All(may)),
        ["if", condition @ ..] => (false, condition),
        ["unless", condition @ ..] => (true, condition),
        _ => return None,
    };
    let (has_mark, found) = match condition {
        ["!{", inner @ .., "}"] | ["!", "{", inner @ .., "}"] => (true, prefixes(inner)?),
        ["{", inner @ .., "}"] => (false, prefixes(inner)?),
        [name] => (name.starts_with('!'), known.get(name.trim_start_matches('!'))?.clone()?),
        _ => return None,
    };
    match (may, is_opposite != has_mark) {
        (_, false) => Some(Meaning::Some(may, found)),
        (false, true) => Some(Meaning::Only(found)),
        (true, true) => None,
    }
}

/// The prefixes of `src A B`.
fn prefixes(words: &[&str]) -> Prefixes {
    match words {
        ["src", rest @ ..] if !rest.is_empty() => {
            rest.iter().map(|word| lists::prefix(word).map(Of::Prefix)).collect()
        }
        _ => None,
    }
}

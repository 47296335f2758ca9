//! Translates messages of serde and toml for operators: the key, the mistake, the nearest valid word.
//!
//! Before: `config::source` has a message and a path. After: a line that says what to change.
//! Never: loses a message: one that is not known here is passed on unchanged.

/// A syntax error of TOML, in one line.
pub(super) fn grammar(message: &str) -> String {
    format!("not TOML: {}", one_line(message))
}

/// A key or value that is not valid, with `path` as written so far.
pub(super) fn shape(message: &str, path: &str) -> String {
    let message = one_line(message);
    if let Some((name, expected)) = after(&message, "unknown field `") {
        let parent = path.strip_suffix(name).unwrap_or("");
        return format!("unknown key `{parent}{name}`: {}", suggestion(name, &quoted(expected), parent));
    }
    if let Some((name, expected)) = after(&message, "unknown variant `") {
        let choices = quoted(expected);
        let all = choices.iter().map(|choice| format!("\"{choice}\"")).collect::<Vec<_>>().join(", ");
        let hint = nearest(name, &choices).map(|near| format!("; nearest is \"{near}\"")).unwrap_or_default();
        return format!("{path}: \"{name}\" is not valid: use one of {all}{hint}");
    }
    if let Some(name) = missing(&message) {
        return format!("{path}: lacks `{name}`, which has no default");
    }
    let message = PLAIN
        .iter()
        .find(|(theirs, _)| *theirs == message)
        .map_or(message.clone(), |(_, ours)| (*ours).to_owned());
    let message = WORDS.iter().fold(message, |message, (name, words)| {
        match message.strip_suffix(&format!("expected {name}")) {
            Some(head) => format!("{head}expected {words}"),
            None => message,
        }
    });
    let message = match message.split_once("expected struct ") {
        Some((head, _)) => format!("{head}expected a table"),
        None => message,
    };
    if path.is_empty() { message } else { format!("{path}: {message}") }
}

/// The key that is missing according to a message.
pub(super) fn missing(message: &str) -> Option<&str> {
    after(message, "missing field `").map(|(name, _)| name)
}

/// A suggestion for an unknown key.
fn suggestion(name: &str, expected: &[&str], parent: &str) -> String {
    match nearest(name, expected) {
        Some(near) => format!("did you mean `{parent}{near}`?"),
        None => format!("the keys here are: {}", expected.join(", ")),
    }
}

/// The choice most similar to `name`. `None`: none is similar.
pub(super) fn nearest<'a>(name: &str, choices: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase();
    if choices.iter().all(|choice| choice.parse::<f64>().is_ok()) {
        return None; // No number is nearly another.
    }
    choices
        .iter()
        .map(|choice| (likeness(&name, choice), *choice))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, choice)| choice)
}

/// Similarity from 0 to 1. Jaro-Winkler rewards a common start; in a short word it punishes two swapped letters too
/// much, so that a single typing mistake has a fixed value here.
fn likeness(one: &str, other: &str) -> f64 {
    let slips = strsim::osa_distance(one, other);
    let is_slip = slips <= 1 && other.chars().count() >= SHORT_WORD;
    strsim::jaro_winkler(one, other).max(if is_slip { SLIP_LIKENESS } else { 0.0 })
}

/// `` head`name`rest ``: name and rest.
fn after<'a>(message: &'a str, head: &str) -> Option<(&'a str, &'a str)> {
    message.strip_prefix(head)?.split_once('`')
}

/// Everything between backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

/// Jaro-Winkler gives typing mistakes of one or two letters more than 0.8, and other words less.
const LIKENESS_MIN: f64 = 0.75;
/// In a word of two letters, no typing mistake is nearer to one word than to another.
const SHORT_WORD: usize = 3;
/// Above other words, below the word itself.
const SLIP_LIKENESS: f64 = 0.95;
/// Messages of the standard library and of `ipnet` that lack a remedy.
const PLAIN: &[(&str, &str)] = &[
    (
        "invalid socket address syntax",
        "not an address:port; write one such as \"0.0.0.0:853\" or \"[::]:853\"",
    ),
    ("invalid IP address syntax", "not a prefix; write one such as \"192.0.2.0/24\" or \"2001:db8::/32\""),
];
/// Names of types in serde's messages, and the words for an operator.
const WORDS: &[(&str, &str)] = &[
    ("u8", "a whole number from 0 to 255"),
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("u64", "a whole number"),
    ("a boolean", "true or false"),
    ("a sequence", "a list in [ ]"),
    ("a string", "text in quotes"),
    ("socket address", "an address:port in quotes"),
];

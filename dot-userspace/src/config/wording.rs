//! Serde's and toml's messages in the words of an operator: the key, what is wrong, the nearest right one.
//!
//! Before: `config::text` has a message and a path. After: a line that says what to change.
//! Never: loses what the message said: one that is not known here passes as it is.

/// A breach of TOML's grammar, in one line.
pub(super) fn grammar(message: &str) -> String {
    format!("not TOML: {}", one_line(message))
}

/// A key or value that does not fit, with `path` as written so far.
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
        return format!("{path}: \"{name}\" is not known: it takes {all}{hint}");
    }
    if let Some((name, _)) = after(&message, "missing field `") {
        return format!("{path}: lacks `{name}`, which has no default");
    }
    let message = NUMBERS.iter().fold(message, |message, (name, words)| {
        match message.strip_suffix(&format!("expected {name}")) {
            Some(head) => format!("{head}expected {words}"),
            None => message,
        }
    });
    if path.is_empty() { message } else { format!("{path}: {message}") }
}

/// What to write in the place of an unknown key.
fn suggestion(name: &str, expected: &[&str], parent: &str) -> String {
    match nearest(name, expected) {
        Some(near) => format!("did you mean `{parent}{near}`?"),
        None => format!("here are: {}", expected.join(", ")),
    }
}

/// The choice most like `name`, if one is like it at all.
pub(super) fn nearest<'a>(name: &str, choices: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase();
    choices
        .iter()
        .map(|choice| (strsim::jaro_winkler(&name, choice), *choice))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, choice)| choice)
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

/// Jaro-Winkler: typing mistakes of one or two letters are above 0.8, other words below.
const LIKENESS_MIN: f64 = 0.75;
/// What serde calls a number.
const NUMBERS: &[(&str, &str)] = &[
    ("u8", "a whole number from 0 to 255"),
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("u64", "a whole number"),
    ("a boolean", "true or false"),
];

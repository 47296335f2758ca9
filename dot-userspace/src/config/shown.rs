//! The config for an operator: every key, its value, and whether that comes from the file or is the default.
//!
//! Before: the text of the file that is served. After: a row for each key.
//! Holds: the defaults, as in docs/config.md: a test compares that page with the code.
//! Never: shows more than the file contains: a secret is a path there.

use std::collections::BTreeMap;

use serde::Serialize;
use toml::{Table, Value};

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigRow {
    /// The key with its section, such as "session.idle_timeout"; a backend's key has its number.
    pub key: String,
    /// The value in TOML.
    pub value: String,
    /// "file" or "default".
    pub from: &'static str,
    /// Whether it takes effect only when dotd is restarted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
}

/// Every key, by the text of the file (`None`: there is no file) and the keys that wait for a restart.
#[must_use]
pub fn rows(text: Option<&str>, waiting: &[&str]) -> Vec<ConfigRow> {
    let mut found = BTreeMap::new();
    let defaults = MANUAL.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    for (text, from) in [(defaults, "default"), (text, "file")] {
        let table = text.and_then(|text| text.parse::<Table>().ok()).unwrap_or_default();
        flatten(String::new(), table, &mut |key, value| {
            found.insert(key, (value, from));
        });
    }
    // A list of tables in the file has a row for each key, in place of the default's.
    let lists: Vec<_> = found
        .keys()
        .flat_map(|key| key.match_indices('.').map(|(at, _)| key.split_at(at).0.to_owned()))
        .collect();
    lists.iter().for_each(|list| drop(found.remove(list)));
    let row = |(key, (value, from)): (String, (String, &'static str))| {
        let waits = waiting.contains(&key.as_str());
        ConfigRow { key, value, from, waits }
    };
    found.into_iter().map(row).collect()
}

fn flatten(before: String, table: Table, each: &mut impl FnMut(String, String)) {
    for (name, value) in table {
        let key = if before.is_empty() { name } else { format!("{before}.{name}") };
        match value {
            Value::Table(table) => flatten(key, table, each),
            Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_table) => {
                for (number, value) in list.into_iter().enumerate() {
                    if let Value::Table(table) = value {
                        flatten(format!("{key}.{number}"), table, each);
                    }
                }
            }
            value => each(key, value.to_string()),
        }
    }
}

const MANUAL: &str = include_str!("../../../docs/config.md");

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each key has its value and the source of that, backends and certificates too, and keys that wait for a
    /// restart are marked. Method: no file; a file with a key of each form. Covers: C-583
    #[test]
    fn each_key_has_its_source() {
        let plain = rows(None, &[]);
        assert!(plain.len() > 80 && plain.iter().all(|row| row.from == "default"), "{}", plain.len());
        let text = "[session]\nidle_timeout = \"9s\"\n[[backend]]\naddress = \"127.0.0.1:53\"\n[tls]\ncertificates = [{ cert = \"c\", key = \"k\" }]\n";
        let rows = rows(Some(text), &["session.idle_timeout"]);
        let of = |key: &str| {
            rows.iter().find(|row| row.key == key).map(|row| (row.value.as_str(), row.from, row.waits))
        };
        assert_eq!(of("session.idle_timeout"), Some(("\"9s\"", "file", true)));
        assert_eq!(of("session.queries_max"), Some(("100000", "default", false)));
        assert_eq!(of("backend.0.address"), Some(("\"127.0.0.1:53\"", "file", false)));
        assert_eq!(of("tls.certificates.0.cert"), Some(("\"c\"", "file", false)));
        assert_eq!(of("tls.certificates"), None, "the default is not in effect");
        assert!(plain.iter().any(|row| row.key == "tls.certificates" && row.value == "[]"));
        assert_eq!(of("xdp.limit.syn_burst"), Some(("100", "default", false)));
    }
}

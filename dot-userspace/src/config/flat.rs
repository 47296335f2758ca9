//! A config as the lines of a file: each key with its value, in the order of the sections.
//!
//! Before: a config, in effect or from a file. After: `dotd config show` prints it, `dotd config diff` compares it.
//! Never: omits a key: a key that is absent from the file has its default value here.

use serde_json::Value;

use super::Config;

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The table that it is in, as a header: `[xdp.limit]`, `[[backend]]`.
    pub header: String,
    /// Its path. An element of an array has its index: `backend.0.address`.
    pub path: String,
    /// Its value, as TOML.
    pub value: String,
}

impl Key {
    /// The last part of its path.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }
}

/// Every key of a config. An array of tables that is empty has no keys.
#[must_use]
pub fn keys(config: &Config) -> Vec<Key> {
    let mut keys = Vec::new();
    // All values of a config can be JSON: they are strings, numbers, lists and tables.
    if let Ok(value) = serde_json::to_value(config) {
        walk("", "", &value, &mut keys);
    }
    keys
}

/// Adds the keys of a table, and then the keys of the tables in it.
fn walk(path: &str, header: &str, value: &Value, keys: &mut Vec<Key>) {
    let Value::Object(table) = value else { return };
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let is_table = |name: &str, value: &Value| value.is_object() || ARRAYS_OF_TABLES.contains(&&*below(name));
    for (name, value) in table.iter().filter(|(name, value)| !is_table(name, value)) {
        keys.push(Key { header: header.to_owned(), path: below(name), value: toml_of(value) });
    }
    for (name, value) in table.iter().filter(|(name, value)| is_table(name, value)) {
        let path = below(name);
        match value.as_array() {
            Some(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    walk(&format!("{path}.{index}"), &format!("[[{path}]]"), element, keys);
                }
            }
            None => walk(&path, &format!("[{path}]"), value, keys),
        }
    }
}

/// A value as it is written in a config file.
fn toml_of(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let pairs: Vec<_> =
                table.iter().map(|(name, value)| format!("{name} = {}", toml_of(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        Value::Array(elements) => {
            format!("[{}]", elements.iter().map(toml_of).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        other => other.to_string(),
    }
}

/// Arrays whose elements are written as sections.
const ARRAYS_OF_TABLES: [&str; 3] = ["access.listener", "backend", "policy.zone"];

/// The text of a file with every key.
#[must_use]
pub fn file(keys: &[Key], note: impl Fn(&Key) -> Option<String>) -> String {
    let mut text = String::new();
    let mut before = (String::new(), String::new());
    for key in keys {
        let table = key.path.strip_suffix(key.name()).unwrap_or_default().to_owned();
        let at = (key.header.clone(), table);
        if at != before {
            text += if text.is_empty() { "" } else { "\n" };
            text += &format!("{}\n", key.header);
            before = at;
        }
        let note = note(key).map(|note| format!(" # {note}")).unwrap_or_default();
        text += &format!("{} = {}{note}\n", key.name(), key.value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    /// Goal: the text that is shown is a file with the same meaning. Method: print the defaults and a file with every
    /// kind of table, and read both again.
    #[test]
    fn what_is_shown_means_the_same() {
        let full = "[server]\nworkers = 3\nuser = \"no\\\"body\"\n[listen]\ndot = [\"127.0.0.1:853\"]\n\
            [tls]\ncertificates = [{ cert = \"/a.pem\", key = \"/a.key\" }, { cert = \"/b\", key = \"/b\", ocsp = \"/o\" }]\n\
            [[access.listener]]\naddress = \"127.0.0.1:853\"\nallow = [\"192.0.2.0/24\"]\n\
            [[policy.zone]]\nname = \"rpz.test\"\nfile = \"/z\"\naction = \"cname a.test\"\n\
            [[policy.zone]]\nname = \"from.test\"\n[[policy.zone.primary]]\naddress = \"192.0.2.1:53\"\ntsig = \"/t\"\n\
            [session]\nidle_timeout = \"7s 250ms\"\n[[backend]]\naddress = \"embedded\"\n\
            [[backend]]\naddress = \"127.0.0.1:53\"\nname = \"one\"\n[xdp.limit]\nban_seconds = 7\n\
            [control]\nhttp = \"127.0.0.1:1\"\n";
        for text in ["", full] {
            let config = parse(text, "/etc/dotd/dotd.toml").unwrap();
            let shown = file(&keys(&config), |_| Some("a note".into()));
            assert_eq!(
                parse(&shown, "/etc/dotd/dotd.toml").unwrap_or_else(|error| panic!("{error}\n{shown}")),
                config
            );
        }
        let keys = keys(&parse(full, "f").unwrap());
        let value = |path: &str| keys.iter().find(|key| key.path == path).map(|key| key.value.as_str());
        assert_eq!(value("backend.1.name"), Some("\"one\""));
        assert_eq!(value("xdp.limit.ban_seconds"), Some("7"));
    }
}

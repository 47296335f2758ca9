//! The config as a page shows it: every key, the value in effect, and whether it comes from the file or is the
//! default.
//!
//! Before: the config in effect, and the text that dotd read it from. After: a row for each key of `config::flat`.
//! Never: shows more than the file has: for a secret that is a path.

use serde::Serialize;

use super::{Config, Read, flat, source::Source};

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigRow {
    /// The key with its section, such as "session.idle_timeout"; a backend's key has its number.
    pub key: String,
    /// The value in TOML.
    pub value: String,
    /// "file" or "default".
    pub from: &'static str,
    /// The file has another value, which takes effect when dotd is restarted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
}

/// Every key of the config in effect, with the file that it was read from (`None`: there is no file) and the keys of
/// that file that need a restart.
#[must_use]
pub fn rows(runs: &Config, read: Option<&Read>, waiting: &[&str]) -> Vec<ConfigRow> {
    let source = read.map(|read| Source::parse(&read.text, &read.file).0);
    let row = |flat::Key { path: key, value, .. }: flat::Key| {
        let is_said = source.as_ref().is_some_and(|source| source.says(&key));
        let waits = waiting.contains(&key.as_str());
        ConfigRow { key, value, from: if is_said { "file" } else { "default" }, waits }
    };
    flat::keys(runs).into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::parse, *};

    /// Goal: each key has the value in effect and where it comes from, also for backends and certificates, and keys
    /// that need a restart are marked. Method: no file; a file with a key of each form. Covers: C-583
    #[test]
    fn each_key_has_its_source() {
        let plain = rows(&Config::default(), None, &[]);
        assert!(plain.len() > 80 && plain.iter().all(|row| row.from == "default"), "{}", plain.len());
        let text = "[session]\nidle_timeout = \"9s\"\n[[backend]]\naddress = \"127.0.0.1:53\"\n[tls]\ncertificates = [{ cert = \"/c\", key = \"/k\" }]\n";
        let read = Read { text: text.to_owned(), file: "/etc/dotd/dotd.toml".to_owned() };
        let config = parse(&read.text, &read.file).unwrap();
        let rows = rows(&config, Some(&read), &["session.idle_timeout"]);
        let of = |key: &str| {
            rows.iter().find(|row| row.key == key).map(|row| (row.value.as_str(), row.from, row.waits))
        };
        assert_eq!(of("session.idle_timeout"), Some(("\"9s\"", "file", true)));
        assert_eq!(of("session.queries_max"), Some(("100000", "default", false)));
        assert_eq!(of("backend.0.address"), Some(("\"127.0.0.1:53\"", "file", false)));
        assert_eq!(of("backend.0.weight").map(|(_, from, _)| from), Some("default"));
        let (value, from, _) = of("tls.certificates").unwrap();
        assert!(
            value.contains("cert = \"/c\"") && value.contains("key = \"/k\"") && from == "file",
            "{value}"
        );
        assert!(plain.iter().any(|row| row.key == "tls.certificates" && row.value == "[]"));
        assert_eq!(of("xdp.limit.syn_burst"), Some(("100", "default", false)));
    }
}

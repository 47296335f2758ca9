//! The packaged config as a template, with XDP as it ships and with XDP off.
//!
//! Before: packaging/dotd.toml. After: two entries as `peers::stage` starts them.
//! Holds: the lines that a laboratory needs otherwise: folders, user, certificate, port. Never: changes another line.

use crate::peers::catalog::{DOTD, Entry};

const PACKAGED: &str = include_str!("../../../packaging/dotd.toml");

/// XDP off first: the other one is compared with it.
pub(super) const NAMES: [&str; 2] = ["XDP off", "as shipped"];

/// The laboratory's lines, in place of those that begin like this. An empty one is left out.
const LINES: [(&str, &str); 6] = [
    ("user = ", ""),
    ("state_dir = ", "state_dir = \"@DIR@\""),
    ("run_dir = ", "run_dir = \"@DIR@\""),
    ("dot = ", "dot = [\"0.0.0.0:@PORT@\", \"[::]:@PORT@\"]"),
    ("certificates = ", ""),
    ("[tls]", "[tls]\ncertificates = [{ cert = \"@CERT@\", key = \"@KEY@\" }]"),
];

/// Both entries; they live as long as the program, as all entries do.
pub(super) fn both() -> [&'static Entry; 2] {
    NAMES.map(|name| {
        let config = config(name == "XDP off").leak();
        let entry = Entry { name, transport: "udp", config, ..DOTD };
        &*Box::leak(Box::new(entry))
    })
}

fn config(is_off: bool) -> String {
    let mut text = String::with_capacity(PACKAGED.len() + 256);
    for line in PACKAGED.lines() {
        let own = LINES.iter().find(|(begin, _)| line.starts_with(begin)).map_or(line, |(_, own)| own);
        let own = if is_off && own.starts_with("mode = \"auto\"") { "mode = \"off\"" } else { own };
        text.push_str(own);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: both are the packaged file but for the lines of the table, and differ in one line. Method: the lines.
    #[test]
    fn only_the_table_differs() {
        let (off, shipped) = (config(true), config(false));
        let differing: Vec<_> = off.lines().zip(shipped.lines()).filter(|(a, b)| a != b).collect();
        assert_eq!(differing.len(), 1, "{differing:?}");
        assert_eq!(differing[0].0, "mode = \"off\"");
        assert!(shipped.contains("address = \"127.0.0.1:53\""), "its backend is the packaged one");
        let kept = |line: &&str| LINES.iter().all(|(begin, _)| !line.starts_with(begin));
        assert!(PACKAGED.lines().filter(kept).all(|line| shipped.lines().any(|own| own == line)));
        for (begin, _) in LINES.iter().filter(|(begin, _)| *begin != "certificates = ") {
            assert!(PACKAGED.lines().any(|line| line.starts_with(begin)), "{begin}: nothing to replace");
        }
    }
}

//! Names of backends: each belongs to one backend, and fits a log line, a metric's label and a command line.
//!
//! Before: types and ranges are checked. After: `dotd backend`, status, metrics and log lines identify a backend by
//! its name.
//! Never: gives a backend a name that the file does not contain; without one its address is its name.

use std::collections::HashSet;

use super::{BackendAddress, Config, Mistake, limit, source::Source};

/// Notes each name that another backend has, or that is not valid.
pub(super) fn check(config: &Config, source: &Source<'_>, mistakes: &mut Vec<Mistake>) {
    let mut taken: HashSet<_> = config
        .backend
        .iter()
        .filter(|backend| backend.name.is_empty() && backend.address == BackendAddress::Embedded)
        .map(|backend| backend.called())
        .collect();
    for (index, backend) in config.backend.iter().enumerate() {
        let name = &backend.name;
        if name.is_empty() {
            continue;
        }
        let path = format!("backend.{index}.name");
        if !is_name(name) {
            let max = limit::BACKEND_NAME_OCTETS_MAX;
            let message = format!(
                "\"{}\" is not a valid name: use 1 to {max} characters of a to z, A to Z, 0 to 9, - _ .",
                name.escape_debug()
            );
            mistakes.push(source.at(&path, &message));
        } else if !taken.insert(name.clone()) {
            mistakes.push(
                source.at(&path, &format!("\"{name}\" is another backend's name; choose one for each")),
            );
        }
    }
}

/// Without a colon a name cannot equal an address, which is the name of a backend without one.
pub(super) fn is_name(name: &str) -> bool {
    let is_sign = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    name.len() <= limit::BACKEND_NAME_OCTETS_MAX && name.bytes().all(is_sign)
}

//! The front ends that are attacked: the peers and the floor as in the comparison, those that have limits with limits,
//! and dotd three times.
//!
//! Before: names. After: entries as `peers::stage` starts them. Holds: the order of the table.

use anyhow::Result;

use crate::peers::{
    catalog::{CATALOG, DNSDIST, DOTD, Entry, STREAMS},
    choose::choose,
};

/// Entries of the comparison's catalogue that are attacked unchanged.
const AS_COMPARED: [&str; 8] =
    ["stunnel", "haproxy", "nginx", "dnsdist", "unbound", "named", "knot", "floor-relay"];

/// With limits.
const LIMITED: [Entry; 5] = [
    Entry {
        name: "haproxy-limit",
        program: crate::peers::catalog::Program::Installed("haproxy"),
        arguments: &["-db", "-f", "@CONFIG@"],
        version: &["-v"],
        config: include_str!("../../attack/haproxy-limit.conf"),
        ..STREAMS
    },
    Entry { name: "dnsdist-limit", config: include_str!("../../attack/dnsdist-limit.conf"), ..DNSDIST },
    Entry { name: "dotd", transport: "udp", config: include_str!("../../attack/dotd.toml"), ..DOTD },
    Entry { name: "dotd-xdp", transport: "udp", config: include_str!("../../attack/dotd-xdp.toml"), ..DOTD },
    Entry {
        name: "dotd-cost",
        transport: "udp",
        config: include_str!("../../attack/dotd-cost.toml"),
        ..DOTD
    },
];

static LIMITED_FRONTS: &[Entry] = &LIMITED;

/// All of them, in the order of the table.
fn all() -> Vec<&'static Entry> {
    let compared = CATALOG.iter().filter(|entry| AS_COMPARED.contains(&entry.name));
    compared.chain(LIMITED_FRONTS).collect()
}

/// The chosen ones: all when none was named.
///
/// # Errors
/// A name that no front end has.
pub(super) fn wanted(only: &[String]) -> Result<Vec<&'static Entry>> {
    choose(only, all(), |entry| entry.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a family or a single front end can be chosen, and a wrong name is an error. Method: each kind of name.
    #[test]
    fn chooses_fronts() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            wanted(&only).map(|entries| entries.iter().map(|entry| entry.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).expect("all").len(), AS_COMPARED.len() + LIMITED.len());
        assert_eq!(names(&["dotd"]).expect("three"), ["dotd", "dotd-xdp", "dotd-cost"]);
        assert!(names(&["dotd-x"]).is_err());
    }
}

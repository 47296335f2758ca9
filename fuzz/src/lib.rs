//! Fuzz targets: all code that reads octets from strangers, and assertions that must hold for any octets.
//!
//! Before: any octets, from an engine (`src/main.rs`) or from the seeds (`tests/seeds.rs`). After: nothing, or a panic.
//! Holds: the table of targets. Each target asks more than "no panic": it has an oracle that shares no code with dotd
//! (`wire.rs`), or compares two ways to the same result.
//! Never: opens a socket, keeps state between two runs, or reads the clock.

pub mod targets;
mod wire;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, which its file and its folder of seeds have too, and which selects it.
    pub name: &'static str,
    /// Runs it once.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "config", run: targets::config::run },
    Target { name: "framing", run: targets::framing::run },
    Target { name: "hello", run: targets::hello::run },
    Target { name: "lifetime", run: targets::lifetime::run },
    Target { name: "options", run: targets::options::run },
    Target { name: "packet", run: targets::packet::run },
    Target { name: "proxy", run: targets::proxy::run },
    Target { name: "query", run: targets::query::run },
    Target { name: "record", run: targets::record::run },
    Target { name: "response", run: targets::response::run },
    Target { name: "twins", run: targets::twins::run },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

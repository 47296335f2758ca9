//! `server.sandbox`: how strictly the kernel confines the engine.
//!
//! Before: the file's text. After: `confine` applies it. Never: knows how.

use serde::{Deserialize, Serialize};

/// `server.sandbox`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sandbox {
    /// Refuse every system call and every path that dotd does not need.
    Enforce,
    /// Refuse nothing; the kernel logs the calls that it would refuse.
    Log,
    /// Refuse nothing.
    Off,
}

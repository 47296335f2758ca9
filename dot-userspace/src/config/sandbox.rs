//! `server.sandbox`: how strict the kernel is with the process that serves.
//!
//! Before: the file's text. After: `confine` does it. Never: knows how.

use serde::Deserialize;

/// `server.sandbox`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sandbox {
    /// Every system call and every path that dotd does not need.
    Enforce,
    /// Nothing; the kernel logs the calls that it would refuse.
    Log,
    /// Nothing.
    Off,
}

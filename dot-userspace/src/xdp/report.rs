//! What the kernel half says of itself: where it is attached, why not, and what it counted.
//!
//! Before: `xdp::start` attached what it could. After: `control` shows it, `cli` prints it.
//! Never: names a foreign crate's type: this is the form that crosses the control socket.

use serde::{Deserialize, Serialize};

/// The kernel half as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// "native", "generic", "mixed" or "off".
    pub state: String,
    /// Why it is off.
    pub reason: Option<String>,
    /// Each interface that was asked for.
    pub interfaces: Vec<InterfaceReport>,
    /// "reuseport-ebpf", "reuseport-cbpf", "incoming-cpu" or "kernel-hash".
    pub steering: String,
    /// Why steering is less than was asked for.
    pub steering_reason: Option<String>,
    /// Programs that are loaded.
    pub programs: Vec<ProgramReport>,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// Its name.
    pub name: String,
    /// "native", "generic" or "off".
    pub mode: String,
    /// Why it is not native.
    pub reason: Option<String>,
    /// "tcx", "clsact" or "off".
    pub learner: String,
}

/// One loaded program.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProgramReport {
    /// Its name.
    pub name: String,
    /// Its kernel identifier.
    pub id: u32,
    /// Instructions the verifier walked.
    pub verified_instructions: u32,
    /// Octets of its BPF code.
    pub translated_octets: u32,
}

/// How many packets got one verdict for one reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PacketCount {
    /// "pass", "drop" or "would_drop".
    pub verdict: String,
    /// Why, in snake_case.
    pub reason: String,
    /// How many.
    pub count: u64,
}

//! Errors of the kernel half, each in one line that says what to do.
//!
//! Before: a part of `xdp` failed. After: `start` ends with the line, or the report has it as the reason.
//! Never: has two lines.

use std::error::Error;

use thiserror::Error;

/// The reason why XDP is off, or not as the config requires.
#[derive(Debug, Error)]
pub enum XdpError {
    /// `xdp.mode = "off"`.
    #[error("xdp.mode is \"off\"")]
    NotWanted,
    /// The config contradicts itself.
    #[error("xdp.required = true and xdp.mode = \"off\" contradict each other: change one")]
    RequiredButOff,
    /// More ports than the kernel half knows.
    #[error(
        "listen.dot has {found} different ports, XDP knows {}: use fewer, or xdp.mode = \"off\"",
        dot_common::settings::DOT_PORTS_MAX
    )]
    TooManyPorts {
        /// Their number.
        found: usize,
    },
    /// A ban cannot be made, or lifted.
    #[error("{reason}")]
    Ban {
        /// The fault of the request.
        reason: String,
    },
    /// The interfaces cannot be listed.
    #[error("network interfaces cannot be listed: {reason}")]
    Interfaces {
        /// The error of the system.
        reason: String,
    },
    /// The kernel refused a map or a program.
    #[error("{what} was refused: {reason}{}", advice(.reason))]
    Load {
        /// The map or program.
        what: String,
        /// The error of the kernel.
        reason: String,
    },
    /// An interface that must have XDP does not have it.
    #[error("XDP on {name}: {reason}")]
    Interface {
        /// The interface.
        name: String,
        /// Each mode that was tried, with the kernel's error.
        reason: String,
    },
    /// No interface has XDP.
    #[error("XDP on no interface: {reasons}")]
    Nowhere {
        /// Each interface with its reason.
        reasons: String,
    },
    /// Less than the config requires, which a running dotd would report as degraded.
    #[error("xdp.required, or xdp.mode native or generic, demands more of XDP than it can do here: {reason}")]
    Less {
        /// What is missing.
        reason: String,
    },
    /// Another dotd runs here.
    #[error(
        "{folder} is in use: another dotd runs XDP in this network namespace; stop it, or set xdp.mode = \"off\" here"
    )]
    Locked {
        /// The folder of pins.
        folder: String,
    },
    /// Another dotd may run here.
    #[error(
        "{name} is named like the socket of a running dotd, its queue of connections stays full, and its owner cannot be \
         determined; if no dotd runs in this network namespace (`ss -xlp` shows the process), add --force"
    )]
    Unanswered {
        /// The socket.
        name: String,
    },
    /// The pins cannot be made.
    #[error("{path}: {reason}{}", advice(.reason))]
    Pins {
        /// The file or folder.
        path: String,
        /// The error of the system.
        reason: String,
    },
    /// A prefix cannot be put on a list.
    #[error("{key}: the kernel refused {prefix}: {reason}")]
    List {
        /// The key of the list.
        key: &'static str,
        /// The prefix.
        prefix: String,
        /// The error of the kernel.
        reason: String,
    },
    /// The settings cannot be written.
    #[error("the kernel refused new settings: {reason}")]
    Settings {
        /// The error of the kernel.
        reason: String,
    },
}

/// Advice for an error of the kernel.
fn advice(reason: &str) -> &'static str {
    if reason.contains("not permitted") || reason.contains("ermission denied") {
        "; run as root, or grant CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    } else {
        ""
    }
}

/// The text of the innermost error, which is the kernel's, in one line.
pub(super) fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    let words = error.to_string();
    words.lines().next().unwrap_or_default().trim().to_owned()
}

//! Why a verb failed: each `Display` line goes to standard error after `dotd: `.
//!
//! Before: a verb failed. After: `cli::main` prints the line and exits with [`CliError::status`]. Never: has more than a line for one
//! reason.

use std::{io, path::PathBuf, time::Duration};

use crate::{
    config::ConfigErrors,
    keeper::{INCOMPATIBLE, KeeperError},
    start::in_a_line,
    tls::certificate::CertificateError,
    xdp::XdpError,
};

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("{}", .0.join("\n"))]
    Check(Vec<String>),
    #[error("{}", .0.join("\n"))]
    Certificates(Vec<String>),
    #[error("no self-signed certificate in {} yet: `dotd run` makes it, or name a file: `dotd pin CERT`", .0.display())]
    NoPin(PathBuf),
    #[error("dotd is not running ({} does not exist): start it with `dotd run` or name its socket with --socket", .0.display())]
    NotRunning(PathBuf),
    #[error("dotd is not running (no process listens on {}): start it with `dotd run` or name its socket with --socket", .0.display())]
    NobodyListens(PathBuf),
    #[error("{}: permission denied: run this as root or as the user that dotd runs as", .0.display())]
    NotPermitted(PathBuf),
    #[error("{0}")]
    Refused(String),
    #[error("top: standard input and output are not a terminal: use --once or --json")]
    NoTerminal,
    #[error(
        "a dotd runs here and would attach again: stop it, or use --force: it then serves on without XDP until it is \
         restarted"
    )]
    Running,
    #[error(transparent)]
    Xdp(#[from] XdpError),
    #[error(transparent)]
    Upgrade(#[from] KeeperError),
    #[error("{}: {reason}: is it the control socket of a dotd of this version?", socket.display())]
    NoAnswer { socket: PathBuf, reason: String },
    #[error("{}: no answer within {} s: another engine of dotd is starting, or dotd is busy: try again, and see its log", socket.display(), limit.as_secs())]
    Late { socket: PathBuf, limit: Duration },
    #[error("{}: the connection has ended: dotd has stopped, or another dotd has replaced it; see `dotd status`", .0.display())]
    CutOff(PathBuf),
    #[error("cannot start a runtime or log thread ({0}): free memory or raise the limit of threads")]
    System(io::Error),
    #[error("the state of the previous program cannot be taken over: {0}")]
    Inherited(io::Error),
    #[error("{0}")]
    Import(String),
    #[error("{0}")]
    Query(String),
    #[error("verify: {0}")]
    Verify(String),
    #[error("there is no verb {0}: `dotd --help` lists them")]
    NoSuchVerb(String),
    #[error("cannot write to {}: {error}", folder.display())]
    Write { folder: PathBuf, error: io::Error },
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("{}", in_a_line(.0))]
    Start(anyhow::Error),
}

/// Exit status where there is no dotd to upgrade: start it.
const NOT_RUNNING: u8 = 3;

impl CliError {
    /// The exit status. 1, except where a script decides by it what to do next.
    pub(super) fn status(&self) -> u8 {
        match self {
            Self::Upgrade(KeeperError::Absent(_)) => NOT_RUNNING,
            Self::Upgrade(KeeperError::Incompatible(_)) => INCOMPATIBLE,
            Self::Inherited(error) if error.kind() == io::ErrorKind::Unsupported => INCOMPATIBLE,
            _ => 1,
        }
    }
}

//! `dotd upgrade`: replaces the program of the running dotd, and keeps its clients connected.
//!
//! Before: an operator or a package has installed a new program. After: the new program serves, and the old one has
//! ended; or the old one continues to serve, the reason is printed and the exit status says whether a restart helps.
//! Never: sends the request to the engine, which must not be able to choose a program.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{arguments::ControlArguments, ask, error::CliError, print, socket};
use crate::{
    control::Status,
    keeper::{KEEPER_SOCKET, ask_for_upgrade},
};

/// The arguments of the verb.
#[derive(Debug, Args)]
pub(super) struct UpgradeArguments {
    /// Run this program instead of the one that was started; root must own it, and no other user may have write
    /// permission
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    #[command(flatten)]
    control: ControlArguments,
}

/// Runs the verb.
pub(super) fn run(
    UpgradeArguments { binary, control }: &UpgradeArguments,
    config: Option<&Path>,
) -> Result<(), CliError> {
    let socket = socket(control, config);
    let binary = binary.as_deref().map(std::path::absolute).transpose().map_err(CliError::Output)?;
    let keeper: PathBuf = socket.with_file_name(KEEPER_SOCKET);
    ask_for_upgrade(&keeper, binary.as_deref())?;
    let (body, status) = ask::ask::<Status>(&socket, "/status")?;
    if control.json {
        return print(&format!("{body}\n"));
    }
    print(&format!("upgraded: dotd {} serves, process {}\n", status.version, status.engine_pid))
}

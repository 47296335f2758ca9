//! Takes the sessions of the engine before, and gives each to a worker.
//!
//! Before: at an upgrade the keeper gave this engine one end of a passage. After: each session is with the worker whose number it
//! had, until the engine before has ended.
//! Never: believes a number that comes by the passage; holds more sessions than one: where no worker has room, the others wait
//! where they are served.

use std::{io, os::fd::OwnedFd, thread};

use anyhow::Context as _;

use crate::worker::{
    Line,
    passage::{self, Room},
    worker_of,
};

/// Starts a thread that gives sessions to these workers, where any can come.
///
/// # Errors
/// There can be no further thread.
pub(super) fn take(passage: Option<OwnedFd>, workers: &[Line]) -> anyhow::Result<()> {
    let Some(passage) = passage else { return Ok(()) };
    let (thread, workers) = (thread::Builder::new().name("arrivals".into()), workers.to_vec());
    thread.spawn(move || serve(&passage, &workers)).context("the thread for sessions cannot start")?;
    Ok(())
}

fn serve(passage: &OwnedFd, workers: &[Line]) {
    if let Err(error) = passage::accept(passage) {
        // Where it ends without a word, it has moved nothing, by its config or because it was killed.
        return tracing::warn!("the engine before moves no sessions: {error}");
    }
    let (mut room, mut taken) = (Room::default(), 0_u64);
    loop {
        match passage::receive(passage, &mut room) {
            Ok(Some(arrived)) => {
                let number = worker_of(&arrived.octets).map_or(0, usize::from);
                let Some(worker) = workers.get(number % workers.len().max(1)) else { return };
                if !worker.adopt(arrived) {
                    // The passage closes with this thread: the engine before keeps its other sessions, and ends them.
                    return tracing::info!(sessions = taken, "this engine stops, and takes no more sessions");
                }
                taken += 1;
            }
            Ok(None) => tracing::warn!("the engine before has sent what is no session"),
            Err(error) => {
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    tracing::error!(%error, "sessions of the engine before cannot be received");
                }
                return tracing::info!(sessions = taken, "sessions of the engine before go on here");
            }
        }
    }
}

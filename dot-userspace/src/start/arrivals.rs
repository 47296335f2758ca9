//! Receives the sessions of the previous engine, and gives each to a worker; and the counts of that engine.
//!
//! Before: at an upgrade the keeper gave this engine one end of a passage. After: each session is with the worker of
//! the same number, until the previous engine has ended.
//! Never: trusts a number from the passage; holds more than one session: while no worker has room, the others wait in
//! the previous engine.

use std::{io, os::fd::OwnedFd, thread};

use anyhow::Context as _;

use crate::{
    ledger::Past,
    worker::{
        Line,
        passage::{self, Parcel, Room},
        worker_of,
    },
};

/// Starts a thread that gives sessions to these workers, if any can come, and counts to `hear`.
///
/// # Errors
/// The thread cannot be started.
pub(super) fn take(
    passage: Option<OwnedFd>,
    workers: &[Line],
    hear: impl Fn(Past) + Send + 'static,
) -> anyhow::Result<()> {
    let Some(passage) = passage else { return Ok(()) };
    let (thread, workers) = (thread::Builder::new().name("arrivals".into()), workers.to_vec());
    thread.spawn(move || serve(&passage, &workers, hear)).context("the thread for sessions cannot start")?;
    Ok(())
}

fn serve(passage: &OwnedFd, workers: &[Line], hear: impl Fn(Past)) {
    if let Err(error) = passage::accept(passage) {
        // If the previous engine ends without sending anything, it has moved nothing, because of its config or
        // because it was killed.
        return tracing::warn!("the previous engine moves no sessions: {error}");
    }
    let (mut room, mut taken) = (Room::default(), 0_u64);
    loop {
        match passage::receive(passage, &mut room) {
            Ok(Some(Parcel::Counts(counts))) => match serde_json::from_slice(&counts) {
                Ok(past) => hear(past),
                Err(error) => tracing::warn!(%error, "the counts of the previous engine cannot be read"),
            },
            Ok(Some(Parcel::Session(arrived))) => {
                let number = worker_of(&arrived.octets).map_or(0, usize::from);
                let Some(worker) = workers.get(number % workers.len().max(1)) else { return };
                if !worker.adopt(arrived) {
                    // The passage closes with this thread: the previous engine keeps its other sessions, and ends
                    // them.
                    return tracing::info!(
                        sessions = taken,
                        "this engine stops, and accepts no more sessions"
                    );
                }
                taken += 1;
            }
            Ok(None) => tracing::warn!("the previous engine sent a packet that is not a session"),
            Err(error) => {
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    tracing::error!(%error, "sessions of the previous engine cannot be received");
                }
                return tracing::info!(
                    sessions = taken,
                    "this engine has taken over the sessions of the previous one"
                );
            }
        }
    }
}

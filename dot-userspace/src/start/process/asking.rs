//! The channels by which operators and workers reach the control thread.
//!
//! Before: a start. After: the control socket and the workers hold one end of each channel, the control loop the
//! other.
//! Never: lets more than [`WAITING_MAX`] requests wait.

use tokio::sync::{mpsc, oneshot};

use super::super::{tls_history::TlsHistory, transfers::Standings};
use crate::{
    cache::Forget,
    control::Reloaded,
    events::{EventSink, tap::TapCounts},
    keeper::Keeper,
};

/// Requests of operators to the control thread.
pub(in crate::start) struct Asked {
    /// Requests to remove cached answers.
    pub flushes: mpsc::Receiver<Flush>,
    /// Requests for a reload.
    pub reloads: mpsc::Receiver<Reload>,
    /// Receives a message when backends have been switched.
    pub weighings: mpsc::Receiver<()>,
}

/// The senders to the control thread, and to the keeper.
pub(in crate::start) struct Askers {
    /// Requests to remove cached answers.
    pub flushes: mpsc::Sender<Flush>,
    /// Requests for a reload.
    pub reloads: mpsc::Sender<Reload>,
    /// Sends a message when backends have been switched.
    pub weigher: mpsc::Sender<()>,
    /// The sink of the workers' events about clients.
    pub events: EventSink,
    /// Counts of message copies.
    pub taps: TapCounts,
    /// It gets signals for the main process, and ticket keys.
    pub keeper: Keeper,
    /// The history of backends' TLS.
    pub history: TlsHistory,
    /// The state of transferred zones.
    pub standings: Standings,
}

/// The answers that caches must remove. `None`: all.
pub(in crate::start) type Flush = Option<Forget>;

/// The channel for the result of a reload.
pub(in crate::start) type Reload = oneshot::Sender<Result<Reloaded, String>>;

/// How many requests to remove cached answers, and how many requests for a reload, wait for the control thread at
/// most.
const WAITING_MAX: usize = 16;

/// Creates the channels to the control thread.
pub(in crate::start) fn ask(
    events: EventSink,
    taps: TapCounts,
    keeper: Keeper,
    history: TlsHistory,
    standings: Standings,
) -> (Askers, Asked) {
    let (flusher, flushes) = mpsc::channel(WAITING_MAX);
    let (reloader, reloads) = mpsc::channel(WAITING_MAX);
    let (weigher, weighings) = mpsc::channel(1);
    let askers =
        Askers { flushes: flusher, reloads: reloader, weigher, events, taps, keeper, history, standings };
    (askers, Asked { flushes, reloads, weighings })
}

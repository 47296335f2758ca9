//! Asks every worker which clients do most, for `dotd top`.
//!
//! Before: an operator runs `dotd top`. After: each worker counts for a while longer, and says what it has.
//! Never: waits: `control` does.

use tokio::sync::mpsc;

use super::process::Process;
use crate::{
    control::{Counting, Source as _, TopRequest},
    ledger::Sparse,
};

impl Process {
    /// The workers have been asked; nothing where none runs yet.
    pub(super) fn count_clients(&self, request: TopRequest) -> Counting {
        let config = self.config();
        let bits = (config.xdp.limit.prefix_v4, config.xdp.limit.prefix_v6);
        let lines = self.engine().map(|engine| engine.workers.as_slice()).unwrap_or_default();
        let (tell, answers) = mpsc::channel(lines.len().max(1));
        for line in lines {
            let tell = tell.clone();
            line.look(Box::new(move |shared| {
                // The operator may have gone away.
                let _ = tell.try_send(shared.events.heavy.watch(bits, request.names));
            }));
        }
        let durations =
            self.measured().iter().map(Sparse::from).filter(|sparse| sparse.count() > 0).collect();
        Counting { answers, workers: lines.len(), bits, durations }
    }
}

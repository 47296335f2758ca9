//! Asks every worker for the clients with the highest counts, for `dotd top`.
//!
//! Before: an operator runs `dotd top`. After: each worker continues to count for a while, and reports its counts.
//! Never: waits: `control` does.

use tokio::sync::mpsc;

use super::process::Process;
use crate::{
    control::{Counting, Source as _, TopRequest},
    ledger::Sparse,
};

impl Process {
    /// Asks the workers; the answer is empty if none runs yet.
    pub(super) fn count_clients(&self, request: TopRequest) -> Counting {
        let config = self.config();
        let bits = (config.xdp.limit.prefix_v4, config.xdp.limit.prefix_v6);
        let lines = self.engine().map(|engine| engine.workers.as_slice()).unwrap_or_default();
        let (tell, answers) = mpsc::channel(lines.len().max(1));
        for line in lines {
            let tell = tell.clone();
            line.look(Box::new(move |shared| {
                // The operator may have closed the connection.
                let _ = tell.try_send(shared.events.heavy.watch(bits, request.names));
            }));
        }
        let durations =
            self.measured().iter().map(Sparse::from).filter(|sparse| sparse.count() > 0).collect();
        Counting { answers, workers: lines.len(), bits, durations }
    }
}

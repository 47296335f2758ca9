//! Asks every worker for the misuses that it has found, for `dotd misuse`.
//!
//! Before: an operator runs `dotd misuse`. After: each worker says what it has found.
//! Never: waits: `control` does.

use tokio::sync::mpsc;

use super::process::Process;
use crate::{config::MisuseAction, control::Misusing};

impl Process {
    /// Asks the workers. The result is empty while none runs.
    pub(super) fn ask_for_misuse(&self) -> Misusing {
        let actions = self.config().misuse.actions();
        let is_on = actions.into_iter().any(|(_, action)| action != MisuseAction::Off);
        let lines = self.engine().map(|engine| engine.workers.as_slice()).unwrap_or_default();
        let (tell, answers) = mpsc::channel(lines.len().max(1));
        for (worker, line) in lines.iter().enumerate() {
            let tell = tell.clone();
            line.look(Box::new(move |shared| {
                // The operator may have gone away.
                let _ = tell.try_send(shared.misuses(worker, None));
            }));
        }
        Misusing { is_on, answers, workers: lines.len() }
    }
}

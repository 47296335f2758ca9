//! Takes new certificates, keys and what belongs to them without a new config: a renewal needs no signal.
//!
//! Before: `files` saw that some have changed, or a stapled response is at its end. After: new handshakes use them.
//! Never: reads the config again, or replaces anything when one part is wrong: the old ones stay, one line says why.

use std::time::SystemTime;

use super::{
    in_a_line,
    process::{Process, Running},
    serve,
};
use crate::{
    tls::{
        self,
        certificate::{self, Identity},
    },
    worker::Command,
};

/// Loads what the config that is being served names; on any error the old ones stay.
pub(super) fn renew(process: &Process, running: &mut Running) {
    match load(running) {
        Ok(identities) => {
            process.renewed(&identities);
            tracing::info!("certificates and keys are loaded again");
            for warning in identities.iter().flat_map(|identity| &identity.warnings) {
                tracing::warn!("{warning}");
            }
        }
        Err(error) => {
            process.reload_failed();
            // Its end was dealt with: the old ones are served until the next change.
            running.staples_until = None;
            let error = in_a_line(&error).replace('\n', "; ");
            tracing::error!("certificates or keys cannot be used, the old ones stay: {error}");
        }
    }
}

/// Everything is loaded and fits before the first worker hears of it.
fn load(running: &mut Running) -> anyhow::Result<Vec<Identity>> {
    let tls = &running.config.tls;
    let identities = certificate::load_all(tls, &running.config.server.state_dir)?;
    let tickets = serve::tickets(running, tls)?;
    let serving = tls::serving(&identities, tls, &tickets)?;
    for worker in &running.workers {
        worker.tell(Command::Serve(serving.clone()));
    }
    running.tickets = tickets;
    running.staples_until = staples_until(&identities);
    Ok(identities)
}

/// When the first of the stapled responses is no longer true.
pub(super) fn staples_until(identities: &[Identity]) -> Option<SystemTime> {
    identities.iter().filter_map(|identity| identity.staple.as_ref()?.until).min()
}

//! What the engine answers for the names of `dns-01`: the names of the config, with the records that the ACME process wants to be seen.
//!
//! Before: a start, a reload, or another file of the ACME process. After: every worker has the records.
//! Never: believes the file more than a record of the config's own names.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use super::{files::Files, process::Running};
use crate::{
    acme,
    config::{Acme, Config},
    dns::Proofs,
    worker::{Command, Worker},
};

/// The file of the ACME process.
pub(super) fn of_proofs(config: &Config) -> BTreeSet<PathBuf> {
    let folder = Acme::folder(&config.server.state_dir);
    config.acme.answers_dns().then(|| acme::shown_file(&folder)).into_iter().collect()
}

/// Gives the workers the present records.
pub(super) fn tell(config: &Config, workers: &[Worker]) {
    let proofs = proofs(config).map(Arc::new);
    workers.iter().for_each(|worker| worker.tell(Command::Prove(proofs.clone())));
}

/// The same after a change of the file.
pub(super) fn tell_again(file: &mut Files, running: &Running) {
    // Before it is read: a change during the read counts as another change.
    file.note(&running.config);
    tell(&running.config, &running.workers);
}

fn proofs(config: &Config) -> Option<Proofs> {
    if !config.acme.answers_dns() {
        return None;
    }
    let mut proofs = Proofs::of(config.acme.names.iter().map(String::as_str))?;
    let shown = acme::shown_in(&Acme::folder(&config.server.state_dir));
    let all = shown.iter().flat_map(|(name, records)| records.iter().map(move |record| (name, record)));
    // A line for all of them: the file may be large.
    let left_out = all.filter(|(name, record)| !proofs.add(name, record)).count();
    if left_out > 0 {
        tracing::warn!(
            left_out,
            "acme: records are not answered: they are of names that acme.names does not have, or too many"
        );
    }
    Some(proofs)
}

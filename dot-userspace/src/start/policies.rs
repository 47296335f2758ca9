//! Policy zones: read at the start and at a reload, and again when their files change or another version of a
//! transferred one has come, without a pause of other work.
//!
//! Before: a config that names files and servers. After: every worker has the zones, and `control` reports their
//! state.
//! Holds: the zones that a separate thread reads now, and the reasons why newer files cannot be used.
//! Never: replaces a zone by one with a mistake: the old one stays, and a log line names the file and the line in it.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    files::Files,
    process::{Process, Running},
    transfers::{Arrival, placed, unexpired},
};
use crate::{
    config::{Config, PolicyZone},
    policy::{Screen, Zone, ZoneError},
    worker::Command,
};

/// The zones of `config`; the copies of transferred ones are in `state_dir`. A zone of `known` whose file has not
/// changed is not read again.
///
/// # Errors
/// The first zone that cannot be used, with file and line.
pub(super) fn load(config: &Config, state_dir: &Path, known: &[Zone]) -> Result<Vec<Zone>, ZoneError> {
    let zones = placed(config, state_dir);
    zones.iter().map(|zone| kept(zone, known).map_or_else(|| read(zone, known), Ok)).collect()
}

/// The same for a reload, in a separate thread: a large file takes seconds, in which operators still get answers.
///
/// # Errors
/// As for [`load`].
pub(super) async fn load_aside(config: &Config, running: &Running) -> anyhow::Result<Vec<Zone>> {
    let (config, known) = (config.clone(), known(running).to_vec());
    let state_dir = running.config.server.state_dir.clone();
    let zones = spawn_blocking(move || load(&config, &state_dir, &known)).await;
    Ok(zones.context("policy zones: the thread that read them panicked")??)
}

/// A zone whose file has not changed.
fn kept(config: &PolicyZone, known: &[Zone]) -> Option<Zone> {
    known.iter().find_map(|zone| zone.again(config)).filter(Zone::is_as_read)
}

fn read(config: &PolicyZone, known: &[Zone]) -> Result<Zone, ZoneError> {
    let mut zone = if config.is_transferred() { copy(config)? } else { Zone::load(config)? };
    if let Some(before) = known.iter().find(|before| before.config().name == config.name) {
        zone = zone.in_place_of(before);
    }
    let (start, name) = (zone.rules().start(), &config.name);
    if let Some(first) = &start.first_left_out {
        let file = config.file.display();
        tracing::warn!("policy zone {name}: {} lines are left out; {file}, {first}", start.left_out);
    }
    if config.is_transferred() && start.serial.is_none() {
        return Ok(zone);
    }
    let rules = zone.rules().count();
    tracing::info!(zone = %name, rules, serial = start.serial, milliseconds = zone.loaded().milliseconds, "policy zone read");
    Ok(zone)
}

/// The copy of a transferred zone; without a usable one, a zone without rules: a start does not wait for servers.
fn copy(config: &PolicyZone) -> Result<Zone, ZoneError> {
    let name = &config.name;
    match Zone::load_copy(config, &config.file) {
        Ok(Some(zone)) => match unexpired(zone) {
            Some(zone) => return Ok(zone),
            None => tracing::warn!(
                "policy zone {name}: its copy has expired; none of its rules applies until it is transferred"
            ),
        },
        Ok(None) => {
            tracing::info!(
                "policy zone {name} has no copy yet; none of its rules applies until it is transferred"
            )
        }
        Err(error) => {
            tracing::warn!(
                "{error}; the copy is not used, and none of the zone's rules applies until it is transferred"
            )
        }
    }
    Zone::empty(config)
}

/// The zones in the form for workers.
pub(super) fn screen(zones: Vec<Zone>) -> Option<Arc<Screen>> {
    Screen::new(zones).map(Arc::new)
}

/// The zones that are in use.
pub(super) fn known(running: &Running) -> &[Zone] {
    running.screen.as_deref().map_or(&[], Screen::zones)
}

/// Zones that were read again, and the errors of the others.
type Read = (Vec<Zone>, Vec<ZoneError>);

/// Zones that a separate thread reads now.
#[derive(Default)]
pub(super) struct Reading(Option<JoinHandle<Read>>);

impl Reading {
    /// Whether a thread is reading.
    pub(super) fn is_busy(&self) -> bool {
        self.0.is_some()
    }

    /// Reads the zones if one of their files has changed.
    pub(super) fn look(&mut self, files: &mut Files, running: &Running) {
        if files.have_changed() {
            files.note(&running.config);
            self.begin(running);
        }
    }

    /// Reads the zones whose files have changed.
    pub(super) fn begin(&mut self, running: &Running) {
        let known = known(running).to_vec();
        self.0 = Some(spawn_blocking(move || {
            let mut errors = Vec::new();
            let zones = known.into_iter().map(|zone| match zone.is_as_read() {
                true => zone,
                false => read(zone.config(), std::slice::from_ref(&zone)).unwrap_or_else(|error| {
                    errors.push(error);
                    zone
                }),
            });
            (zones.collect(), errors)
        }));
    }

    /// Waits until the zones are read; forever if none is being read.
    ///
    /// # Cancel safety
    /// The thread continues to read.
    pub(super) async fn done(&mut self) -> Option<Read> {
        let Some(reading) = &mut self.0 else { return std::future::pending().await };
        let read = reading.await.ok();
        self.0 = None;
        read
    }
}

/// Gives the workers the zones that were read.
pub(super) fn take(process: &Process, running: &mut Running, read: Option<Read>) {
    let Some((zones, errors)) = read else {
        tracing::error!("policy zones could not be read: the thread that read them panicked");
        return;
    };
    for error in &errors {
        tracing::error!("policy zone not read, and the old one stays: {error}");
    }
    // Another version of a transferred zone may have come meanwhile.
    let present = |zone: Zone| {
        let name = &zone.config().name;
        let now =
            known(running).iter().find(|now| zone.config().is_transferred() && now.config().name == *name);
        now.cloned().unwrap_or(zone)
    };
    let zones = zones.into_iter().map(present).collect();
    give(process, running, zones, &errors);
}

/// Gives workers a zone that was transferred, if the config still has it.
pub(super) fn arrive(process: &Process, running: &mut Running, Arrival(zone): &Arrival) {
    let put = |present: &Zone| match zone.again(present.config()) {
        Some(zone) => zone.in_place_of(present),
        None => present.clone(),
    };
    let zones = known(running).iter().map(put).collect();
    let errors = process.policy_errors();
    give(process, running, zones, &errors);
}

fn give(process: &Process, running: &mut Running, zones: Vec<Zone>, errors: &[ZoneError]) {
    running.screen = screen(zones);
    for worker in &running.workers {
        worker.tell(Command::Screen(running.screen.clone()));
    }
    process.screen_by(running.screen.clone(), errors);
}

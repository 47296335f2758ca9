//! The policy zones for the control socket.
//!
//! Before: `policies` read them. After: `dotd policy` shows the state of each. Never: reads a file.

use std::{sync::Arc, time::SystemTime};

use super::transfers::Standings;
use crate::{
    config::LimitMode,
    control::PolicyStatus,
    policy::{Screen, Zone, ZoneError},
};

/// The state of zones for the control socket.
#[derive(Default)]
pub(super) struct KnownZones {
    screen: Option<Arc<Screen>>,
    errors: Vec<ZoneError>,
}

impl KnownZones {
    /// The zones, and the reasons why newer files of some cannot be used.
    pub(super) fn new(screen: Option<Arc<Screen>>, errors: Vec<ZoneError>) -> Self {
        Self { screen, errors }
    }

    /// The zones in the form for workers.
    pub(super) fn screen(&self) -> Option<Arc<Screen>> {
        self.screen.clone()
    }

    /// The reasons why newer files of some zones cannot be used.
    pub(super) fn errors(&self) -> Vec<ZoneError> {
        self.errors.clone()
    }

    /// The state of each zone; `standings` adds the transfers.
    pub(super) fn statuses(&self, standings: &Standings) -> Vec<PolicyStatus> {
        let now = SystemTime::now();
        let zones = self.screen.as_deref().map_or(&[][..], Screen::zones).iter();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let status = |zone: &Zone| {
            let (config, loaded, rules) = (zone.config(), zone.loaded(), zone.rules());
            let start = rules.start();
            PolicyStatus {
                name: config.name.clone(),
                file: config.file.display().to_string(),
                format: config.format.label().to_owned(),
                action: config.action.label(),
                mode: if config.mode == LimitMode::Count { "count" } else { "enforce" }.to_owned(),
                rules: count(rules.count()),
                hits: zone.hits(),
                left_out: start.left_out,
                first_left_out: start.first_left_out.clone(),
                serial: start.serial,
                age_seconds: now.duration_since(loaded.at).unwrap_or_default().as_secs(),
                read_milliseconds: loaded.milliseconds,
                octets: count(rules.octets()),
                transfer: config.is_transferred().then(|| standings.status(&config.name)).flatten(),
                error: self.errors.iter().find(|error| error.zone == config.name).map(ToString::to_string),
            }
        };
        zones.map(status).collect()
    }
}

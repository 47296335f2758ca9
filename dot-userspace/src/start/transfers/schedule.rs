//! Decides when a zone is asked for: by the times of its SOA record, at a NOTIFY, and at an operator's request.
//!
//! Before: a zone, its servers, and the version in use. After: newer versions go to the control thread.
//! Holds: the SOA record of that version, and when a server confirmed it.
//! Never: asks twice within [`PAUSE`], whatever requests it; uses a zone that no server has confirmed for its expire
//! time.
//!
//! Source: RFC 1034 §4.3.5, RFC 1035 §3.3.13, RFC 1996 §4.7.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Arrival, Standings, Transferred,
    exchange::{Fetched, Held, fetch},
};
use crate::{
    dns::Soa,
    policy::{Draft, Zone},
};

/// Shortest time between two questions.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest time between two questions, whatever the SOA record says: a day.
const WAIT_MAX: Duration = Duration::from_secs(86_400);
/// Longest time between two questions while there is no version.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(300);

/// One zone with everything that its task needs.
pub(super) struct Kept {
    zone: Transferred,
    held: Option<Held>,
    confirmed: SystemTime,
    failures: u32,
    standings: Standings,
}

impl Kept {
    /// `known`: the version in use.
    pub(super) fn new(zone: Transferred, known: Option<&Zone>, standings: Standings) -> Self {
        let soa = known.and_then(|known| known.rules().start().soa.as_ref());
        let held = soa.and_then(|(_, rdata)| Some(Held { soa: Soa::read(rdata)?, rdata: rdata.clone() }));
        let on_disk = || fs::metadata(&zone.config.file).and_then(|found| found.modified()).ok();
        let confirmed = standings.confirmed(&zone.config.name).or_else(on_disk);
        let known = confirmed.filter(|_| held.is_some());
        standings.note(&zone.config.name, |standing| standing.confirmed = known);
        Self { zone, held, confirmed: confirmed.unwrap_or(SystemTime::UNIX_EPOCH), failures: 0, standings }
    }

    /// Keeps the zone up to date until the task is aborted.
    pub(super) async fn keep(mut self, arrivals: mpsc::Sender<Arrival>) {
        loop {
            let outcome = self.ask(&arrivals).await;
            self.note(outcome);
            self.expire(&arrivals).await;
            let until = Instant::now() + self.wait();
            let next = until.into_std();
            self.standings.note(&self.zone.config.name, |standing| standing.next = Some(next));
            sleep(PAUSE).await;
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.zone.bell.notified() => {}
            }
        }
    }

    /// Asks each server in turn until one has the present version, or a newer one.
    async fn ask(&mut self, arrivals: &mpsc::Sender<Arrival>) -> Result<(), String> {
        let mut errors = Vec::new();
        for index in 0..self.zone.primaries.len() {
            let Some(primary) = self.zone.primaries.get(index) else { break };
            let address = primary.address;
            let copy = &self.zone.config.file;
            // Without the copy, differences cannot be applied.
            let held = self.held.as_ref().filter(|_| copy.exists());
            let fetched = fetch(primary, &self.zone.wire, held, copy).await;
            let outcome = match fetched {
                Ok(Fetched::Current) => self.confirm(),
                Ok(Fetched::Newer(draft, method)) => {
                    self.take(draft, method, &address.to_string(), arrivals).await
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => return Ok(()),
                Err(error) => errors.push(format!("{address}: {error}")),
            }
        }
        Err(errors.join("; "))
    }

    /// A server has confirmed the present version.
    fn confirm(&mut self) -> Result<(), String> {
        let now = SystemTime::now();
        let touched = fs::File::options()
            .append(true)
            .open(&self.zone.config.file)
            .and_then(|file| file.set_modified(now));
        touched.map_err(|error| format!("the copy cannot be touched: {error}"))?;
        self.confirmed = now;
        Ok(())
    }

    /// Reads a draft, and uses it.
    async fn take(
        &mut self,
        draft: Draft,
        method: &'static str,
        server: &str,
        arrivals: &mpsc::Sender<Arrival>,
    ) -> Result<(), String> {
        let read = Zone::load_copy(&self.zone.config, draft.path());
        let zone = read.map_err(|error| format!("the zone cannot be used: {}", error.what))?;
        let zone = zone.ok_or("the draft is gone")?;
        let soa = zone.rules().start().soa.clone().ok_or("the zone has no SOA record")?;
        let (records, octets) = draft.size();
        draft.keep().map_err(|error| format!("the copy cannot be replaced: {error}"))?;
        let soa_read = Soa::read(&soa.1).ok_or("the SOA record is broken")?;
        let (name, serial, rules) = (&self.zone.config.name, soa_read.serial, zone.rules().count());
        tracing::info!(zone = %name, serial, rules, method, server, "policy zone transferred");
        if let Some(first) = &zone.rules().start().first_left_out {
            let count = zone.rules().start().left_out;
            tracing::warn!("policy zone {name}: {count} rules are left out; the first: {first}");
        }
        self.held = Some(Held { soa: soa_read, rdata: soa.1 });
        self.confirmed = SystemTime::now();
        self.standings.note(name, |standing| {
            standing.transfers += 1;
            standing.last = Some((server.to_owned(), method, records, octets));
        });
        // The control thread ends only with the process.
        let _ = arrivals.send(Arrival(zone)).await;
        Ok(())
    }

    fn note(&mut self, outcome: Result<(), String>) {
        let name = &self.zone.config.name;
        match outcome {
            Ok(()) => {
                self.failures = 0;
                let confirmed = self.confirmed;
                self.standings.note(name, |standing| {
                    (standing.confirmed, standing.error, standing.is_expired) =
                        (Some(confirmed), None, false);
                });
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                // The first failure in a row is logged; `dotd policy` shows the others.
                if self.failures == 1 {
                    tracing::error!(
                        "policy zone {name} cannot be transferred, and the present version stays: {error}"
                    );
                }
                self.standings.note(name, |standing| {
                    standing.failures += 1;
                    standing.error = Some(error);
                });
            }
        }
    }

    /// Stops using the zone if no server has confirmed it for too long.
    async fn expire(&mut self, arrivals: &mpsc::Sender<Arrival>) {
        let Some(held) = self.held.take_if(|held| is_expired(&held.soa, self.confirmed)) else { return };
        let (name, expire) = (&self.zone.config.name, expire_of(&held.soa).as_secs());
        tracing::error!(
            "policy zone {name} has expired: no primary server has confirmed it for {expire} s; its rules do not apply any more"
        );
        self.standings.note(name, |standing| standing.is_expired = true);
        if let Ok(empty) = Zone::empty(&self.zone.config) {
            let _ = arrivals.send(Arrival(empty)).await;
        }
    }

    /// How long to wait before a server is asked again.
    fn wait(&self) -> Duration {
        let Some(Held { soa, .. }) = &self.held else {
            return Duration::from_secs(1 << self.failures.min(9)).min(FIRST_WAIT_MAX);
        };
        let seconds = if self.failures > 0 { soa.retry } else { soa.refresh };
        let wait = Duration::from_secs(seconds.into()).clamp(PAUSE, WAIT_MAX);
        // Up to a quarter earlier, so that zones and servers do not all ask at once.
        let early = getrandom::u32().unwrap_or_default() % 256;
        let left = expire_of(soa)
            .saturating_sub(SystemTime::now().duration_since(self.confirmed).unwrap_or_default());
        (wait - wait * early / 1024).min(left + PAUSE)
    }
}

/// Whether a version that was confirmed at this time may not be used any more.
fn is_expired(soa: &Soa, confirmed: SystemTime) -> bool {
    let age = SystemTime::now().duration_since(confirmed).unwrap_or_default();
    age >= expire_of(soa)
}

/// The expire time, but at least a refresh and a retry, as in BIND.
fn expire_of(soa: &Soa) -> Duration {
    let least = u64::from(soa.refresh) + u64::from(soa.retry);
    Duration::from_secs(u64::from(soa.expire).max(least).max(1))
}

/// The copy of a zone from an earlier process, unless it has expired.
pub(in crate::start) fn unexpired(zone: Zone) -> Option<Zone> {
    let soa = zone.rules().start().soa.as_ref().and_then(|(_, rdata)| Soa::read(rdata))?;
    let confirmed = fs::metadata(&zone.config().file).and_then(|found| found.modified()).ok()?;
    (!is_expired(&soa, confirmed)).then_some(zone)
}

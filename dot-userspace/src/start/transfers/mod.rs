//! Policy zones that are transferred from primary servers: one thread asks for all of them.
//!
//! Before: a config with `[[policy.zone.primary]]`, and the copies in `state_dir`. After: the control thread gets
//! each newer version, ready for use; operators see the state of each zone.
//! Holds: one task for each zone, with its timers; keys and authorities, which were read with rights.
//! Never: runs on a worker's thread or the control thread; replaces a zone by one that cannot be read.
//!
//! Source: RFC 1034 §4.3.5 (refresh, retry, expire), RFC 1995, RFC 5936, RFC 8945, RFC 9103.

mod exchange;
mod schedule;
mod standings;

use std::{net::SocketAddr, path::Path, sync::Arc, thread};

use anyhow::Context as _;
use tokio::{
    runtime::Builder,
    sync::{Notify, mpsc},
    task::{JoinSet, LocalSet},
};

use super::plan::Policies;
use crate::{
    config::{Config, PolicyZone},
    dns::{TsigKey, wire_name},
    policy::{Notified, Screen, Sender, Zone, copy_of, key_of, remove_drafts},
    tls::BackendTls,
};
use schedule::Kept;
pub(super) use schedule::unexpired;
pub(super) use standings::Standings;

/// Most newer versions that wait for the control thread.
const ARRIVALS_MAX: usize = 8;

/// A zone, and the servers that have it.
#[derive(Clone)]
pub(super) struct Transferred {
    /// Its config; the file is the copy.
    config: PolicyZone,
    /// Its name in wire format.
    wire: Box<[u8]>,
    primaries: Vec<Primary>,
    /// Notified when the zone must be asked for at once.
    bell: Arc<Notify>,
}

/// A primary server, and how dotd recognises it.
#[derive(Clone)]
struct Primary {
    address: SocketAddr,
    tls: Option<BackendTls>,
    key: Option<TsigKey>,
}

/// A zone that has just been transferred, or an empty one in place of an expired zone.
pub(super) struct Arrival(pub(super) Zone);

/// The zones of `config`, each transferred one with its copy in `state_dir` as its file.
pub(super) fn placed(config: &Config, state_dir: &Path) -> Vec<PolicyZone> {
    let place = |zone: &PolicyZone| match zone.is_transferred() {
        true => PolicyZone { file: copy_of(state_dir, &zone.name), ..zone.clone() },
        false => zone.clone(),
    };
    config.policy.zone.iter().map(place).collect()
}

/// The transferred zones of `config`, with keys and authorities read.
///
/// # Errors
/// The line for the operator.
pub(super) fn prepare(config: &Config, state_dir: &Path) -> anyhow::Result<Vec<Transferred>> {
    let zones = placed(config, state_dir);
    zones
        .into_iter()
        .filter(PolicyZone::is_transferred)
        .map(|zone| prepare_one(zone).map_err(anyhow::Error::msg))
        .collect()
}

fn prepare_one(config: PolicyZone) -> Result<Transferred, String> {
    let explain = |what: String| format!("policy zone {}: {what}", config.name);
    let primaries = config.primary.iter().map(|primary| {
        let key = if primary.tsig.as_os_str().is_empty() { None } else { Some(key_of(&primary.tsig)?) };
        Ok(Primary { address: primary.address, tls: BackendTls::of_primary(primary)?, key })
    });
    let primaries = primaries.collect::<Result<_, String>>().map_err(explain)?;
    Ok(Transferred { wire: wire_name(&config.name)?, primaries, bell: Arc::default(), config })
}

/// The workers' part. `None`: no zone is transferred.
fn notified(zones: &[Transferred]) -> Option<Arc<Notified>> {
    let mut notified = Notified::default();
    for zone in zones {
        let sender = |primary: &Primary| Sender { address: primary.address.ip(), key: primary.key.clone() };
        notified.add(&zone.wire, zone.primaries.iter().map(sender).collect(), Arc::clone(&zone.bell));
    }
    notified.shared()
}

/// The thread, as the control thread sees it.
pub(super) struct Transfers {
    plans: mpsc::UnboundedSender<Vec<Kept>>,
    arrivals: mpsc::Receiver<Arrival>,
    standings: Standings,
}

impl Transfers {
    /// Starts the thread; copies are in `state_dir`.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(state_dir: &Path, standings: Standings) -> anyhow::Result<Self> {
        let (plans, receiver) = mpsc::unbounded_channel();
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("the thread of zone transfers has no runtime")?;
        let folder = state_dir.to_owned();
        let run = move || {
            remove_drafts(&folder);
            LocalSet::new().block_on(&runtime, keep_all(receiver, sender));
        };
        let started = thread::Builder::new().name("zone-transfers".into()).spawn(run);
        started.context("the thread of zone transfers cannot start")?;
        Ok(Self { plans, arrivals, standings })
    }

    /// Asks for these zones from now on, and for no others. `known`: the versions in use.
    pub(super) fn follow(&self, zones: &[Transferred], known: &[Zone]) {
        self.standings.follow(zones.iter().map(|zone| (zone.config.name.clone(), Arc::clone(&zone.bell))));
        let kept = zones.iter().map(|zone| {
            let known = known.iter().find(|known| known.config().name == zone.config.name);
            Kept::new(zone.clone(), known, self.standings.clone())
        });
        // The thread ends with this process.
        let _ = self.plans.send(kept.collect());
    }

    /// Asks for these zones from now on, and for no others. Returns the part for workers; they use `zones`.
    pub(super) fn policies(&self, transferred: &[Transferred], zones: Vec<Zone>) -> Policies {
        self.follow(transferred, &zones);
        Policies {
            screen: Screen::new(zones).map(Arc::new),
            notified: notified(transferred),
            tenants: Default::default(),
        }
    }

    /// The next zone that was transferred.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn arrived(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }
}

async fn keep_all(mut plans: mpsc::UnboundedReceiver<Vec<Kept>>, arrivals: mpsc::Sender<Arrival>) {
    let mut tasks = JoinSet::new();
    while let Some(zones) = plans.recv().await {
        // Running exchanges end at their next wait; their drafts are removed.
        tasks.shutdown().await;
        for zone in zones {
            tasks.spawn_local(zone.keep(arrivals.clone()));
        }
    }
}

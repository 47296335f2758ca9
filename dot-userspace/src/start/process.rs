//! The running process for `control`: counters, certificates, the kernel half.
//!
//! Before: `start::run` has set everything up. After: every answer of the control socket is made here.
//! Never: changes anything except by [`Process::reloaded`] and its counters.

mod asking;
mod banned_before;
mod certificates;
mod config_text;
pub(super) mod explain;
mod readiness;
mod reloads;
mod source;
mod switched;
pub(super) mod trace;

pub(super) use asking::{Asked, Askers, Flush, Reload, ask};
pub(super) use switched::{begin_anew, weigh_as_switched};

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Instant, SystemTime},
};

use anyhow::Context;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    fast_open,
    kept_tickets::KeptTickets,
    known_backends::{KnownBackends, Recent},
    known_zones::KnownZones,
    plan,
    recent_refusals::RecentRefusals,
    sought::Sought,
    tap::Tapping,
    tenants,
    tls_history::TlsHistory,
    transfers::{Standings, Transfers},
};
use crate::{
    backend::BackendConfig,
    config::{self, Config, Read},
    control::{CertificateStatus, ListenerStatus},
    events::{EventSink, Refused, tap::TapCounts},
    keeper::{Keeper, Successor},
    ledger::{Counter, Past, WorkerCounters},
    policy::{Notified, Screen, ZoneError},
    tls::{Tickets, certificate::Loaded},
    worker::{Admission, ChargesSink, Worker},
    xdp::{BanRow, Charges, ClientReport, StatusWriter, Xdp, XdpError},
};

/// The state that only the control thread uses.
pub(super) struct Running {
    /// The config file, which the keeper reads again at HUP.
    pub path: Option<PathBuf>,
    /// Reads and opens files for which the engine has no rights.
    pub keeper: Keeper,
    /// The config that is served: with an address for each backend whose name has one, and the TLS servers that were discovered.
    pub config: Config,
    /// The config as it is written, and what is looked for to serve it.
    pub sought: Sought,
    /// The ticket keys, which outlive every reload.
    pub tickets: Tickets,
    /// When the first of the stapled OCSP responses expires.
    pub staples_until: Option<SystemTime>,
    /// The backends, as the workers have them.
    pub backends: Vec<BackendConfig>,
    /// Caps of all workers.
    pub admission: Arc<Admission>,
    /// The limit of open files.
    pub descriptors: u64,
    /// The worker threads.
    pub workers: Vec<Worker>,
    /// Policy zones, as the workers have them.
    pub screen: Option<Arc<Screen>>,
    /// Writes copies of messages for a dnstap reader.
    pub tapping: Option<Tapping>,
    /// The zones about which a NOTIFY may come.
    pub notified: Option<Arc<Notified>>,
    /// Groups of clients.
    pub tenants: tenants::Running,
    /// The thread that transfers zones.
    pub transfers: Transfers,
    /// One task for each backend, which checks its health.
    pub checks: JoinSet<()>,
    /// The workers' charges of clients.
    pub charges: mpsc::Receiver<Charges>,
    /// The workers' refusals of clients.
    pub refused: mpsc::Receiver<Vec<Refused>>,
    /// Requests of operators.
    pub asked: Asked,
    /// The engine that serves in place of this one.
    pub successor: Option<Successor>,
}

impl Running {
    /// The workers' part of policy zones.
    pub(super) fn policies(&self) -> plan::Policies {
        let (screen, notified) = (self.screen.clone(), self.notified.clone());
        plan::Policies { screen, notified, tenants: self.tenants.clone() }
    }
}

/// The state behind the control socket.
pub(super) struct Process {
    started: Instant,
    counters: Vec<WorkerCounters>,
    listeners: Vec<ListenerStatus>,
    backends: Mutex<KnownBackends>,
    /// Responses to clients, and the SERVFAILs among them.
    responses: Mutex<Recent>,
    certificates: Mutex<Vec<CertificateStatus>>,
    /// The loaded identities, and the faults of the others.
    loaded: Mutex<Loaded>,
    kernel: Mutex<Kernel>,
    sink: ChargesSink,
    events: EventSink,
    taps: TapCounts,
    is_draining: AtomicBool,
    drained: Mutex<readiness::Drained>,
    switched: Mutex<switched::Switched>,
    weigher: mpsc::Sender<()>,
    reloads_ok: AtomicU64,
    reloads_failed: AtomicU64,
    ban_seconds: AtomicU32,
    cache_entries: AtomicU32,
    access: Mutex<Option<String>>,
    policy: Mutex<KnownZones>,
    tenants: Mutex<tenants::Running>,
    standings: Standings,
    config: Mutex<Arc<Config>>,
    /// The token for actions from the page. Empty: there is no page.
    pub(super) page_token: OnceLock<Arc<str>>,
    runs: Mutex<config_text::Runs>,
    recent: Mutex<RecentRefusals>,
    /// The counts of previous engines.
    past: Arc<Mutex<Past>>,
    /// Whether bans survive a restart.
    keeps_bans: AtomicBool,
    /// Empty until workers run.
    engine: OnceLock<explain::Engine>,
    traces: trace::Traces,
    flushes: mpsc::Sender<Flush>,
    reloads: mpsc::Sender<Reload>,
    keeper: Keeper,
    history: TlsHistory,
    pub(super) tickets: KeptTickets,
}

/// Length of a ban if neither the operator nor the config gives one.
const BAN_SECONDS: u64 = 60;

/// The kernel half, detached when this is dropped: also if the start fails after it was attached.
/// (`Xdp` itself stays attached after a crash on purpose, for a successor to take over.)
pub(super) struct Kernel(pub Option<Xdp>);

impl Drop for Kernel {
    fn drop(&mut self) {
        if let Some(xdp) = self.0.take() {
            xdp.detach();
        }
    }
}

/// A poisoned lock means that another answer panicked; the content is always replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    pub(super) fn new(
        config: &Config,
        backends: &[BackendConfig],
        workers: usize,
        loaded: Loaded,
        kernel: Kernel,
        sink: ChargesSink,
        Askers { flushes, reloads, weigher, events, taps, keeper, history, standings }: Askers,
    ) -> Self {
        sink.want(kernel.0.as_ref().is_some_and(|xdp| xdp.wants_charges(&config.xdp)));
        let listeners = |addresses: &[SocketAddr], transport: &str| {
            let status = |address: &SocketAddr| ListenerStatus {
                address: *address,
                transport: transport.into(),
                fast_open: fast_open::state(config.listen.fast_open),
            };
            addresses.iter().map(status).collect::<Vec<_>>()
        };
        let (dot, do53) = (listeners(&config.listen.dot, "dot"), listeners(&config.listen.do53, "do53"));
        Self {
            started: Instant::now(),
            counters: (0..workers).map(|_| WorkerCounters::default()).collect(),
            listeners: [dot, do53].concat(),
            backends: Mutex::new(KnownBackends::of(config, backends)),
            responses: Mutex::default(),
            certificates: Mutex::new(loaded.identities.iter().map(CertificateStatus::from).collect()),
            loaded: Mutex::new(loaded),
            kernel: Mutex::new(kernel),
            sink,
            events,
            taps,
            is_draining: AtomicBool::new(false),
            drained: Mutex::default(),
            switched: Mutex::new(switched::Switched::of(config)),
            weigher,
            reloads_ok: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
            ban_seconds: AtomicU32::new(config.xdp.limit.ban_seconds),
            cache_entries: AtomicU32::new(config.dns.cache_entries),
            access: Mutex::new(plan::access_in_words(config)),
            policy: Mutex::default(),
            tenants: Mutex::default(),
            standings,
            config: Mutex::new(Arc::new(config.clone())),
            page_token: OnceLock::new(),
            runs: Mutex::default(),
            recent: Mutex::default(),
            past: Arc::default(),
            keeps_bans: AtomicBool::new(false),
            engine: OnceLock::new(),
            traces: trace::Traces::default(),
            flushes,
            reloads,
            tickets: KeptTickets::with(keeper.clone()),
            keeper,
            history,
        }
    }

    /// Before workers run: logs what is wrong with certificates, and switches the kernel to the last state. `keeps_bans`: bans survive
    /// a restart. The config that was `sought` is in effect, as it was `read`; the next engine finds its addresses of names.
    pub(super) fn begin(&self, keeps_bans: bool, sought: &Sought, read: Option<Read>) {
        self.serve_file(sought.written(), read, &[]);
        if keeps_bans {
            self.restore_bans();
        }
        self.keep_addresses(&sought.addresses());
        self.say_unusable_certificates();
        self.resume_switch();
    }

    /// The workers run now.
    pub(super) fn serve_by(&self, engine: explain::Engine) {
        let _ = self.engine.set(engine);
        self.resume_switch();
    }

    /// The workers, once they run.
    pub(super) fn engine(&self) -> Option<&explain::Engine> {
        self.engine.get()
    }

    /// The config that is served.
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&lock(&self.config))
    }

    /// Counts of message copies.
    pub(super) fn taps(&self) -> &TapCounts {
        &self.taps
    }

    /// The history of backends' TLS.
    pub(super) fn history(&self) -> &TlsHistory {
        &self.history
    }

    /// Takes the counts of the previous engine.
    pub(super) fn hear_past(&self) -> impl Fn(Past) + Send + use<> {
        let known = Arc::clone(&self.past);
        move |past| *lock(&known) = past
    }

    /// The running traces.
    pub(super) fn traces(&self) -> &trace::Traces {
        &self.traces
    }

    /// The kernel half.
    pub(super) fn kernel_half(&self) -> MutexGuard<'_, Kernel> {
        lock(&self.kernel)
    }

    /// The last refusals.
    pub(super) fn recent(&self) -> MutexGuard<'_, RecentRefusals> {
        lock(&self.recent)
    }

    /// The kernel half's state of a client.
    pub(super) fn client_of_xdp(&self, client: IpAddr) -> Option<ClientReport> {
        lock(&self.kernel).0.as_ref()?.client(client)
    }

    /// The writer of one worker's status for the kernel half.
    ///
    /// # Errors
    /// The kernel half was detached.
    pub fn status_writer(&self, worker: usize) -> anyhow::Result<StatusWriter> {
        lock(&self.kernel)
            .0
            .as_ref()
            .map(|xdp| xdp.status_writer(worker))
            .context("the kernel half was detached")
    }

    /// The counters of worker `index`.
    pub(super) fn counters(&self, index: usize) -> WorkerCounters {
        self.counters.get(index).cloned().unwrap_or_default()
    }

    /// The policy zones that the workers have from now on, and the errors of newer files.
    pub(super) fn screen_by(&self, screen: Option<Arc<Screen>>, errors: &[ZoneError]) {
        *lock(&self.policy) = KnownZones::new(screen, errors.to_vec());
    }

    /// The reasons why newer files of policy zones cannot be used.
    pub(super) fn policy_errors(&self) -> Vec<ZoneError> {
        lock(&self.policy).errors()
    }

    /// Applies a new config to the kernel half.
    pub(super) fn apply_xdp(&self, config: &config::Xdp) -> Result<(), XdpError> {
        lock(&self.kernel).0.as_mut().map_or(Ok(()), |xdp| {
            self.sink.want(xdp.wants_charges(config));
            xdp.apply(config)
        })
    }

    /// Removes expired state. Call it every second or so.
    pub(super) fn sweep(&self) {
        lock(&self.backends).note_second();
        let count = |counter: Counter| {
            self.counters.iter().fold(0, |sum: u64, worker| sum.wrapping_add(worker.get(counter)))
        };
        let all = Counter::ALL.iter().filter(|counter| counter.family() == "responses");
        let all = all.fold(0, |sum: u64, counter| sum.wrapping_add(count(*counter)));
        lock(&self.responses).note(all, count(Counter::RcodeServFail));
        if let Some(xdp) = &mut lock(&self.kernel).0 {
            xdp.sweep();
        }
    }

    /// Charges clients with the costs and offences that workers report.
    pub(super) fn charge(&self, charges: &Charges) {
        if let Some(xdp) = &mut lock(&self.kernel).0 {
            xdp.charge(charges);
        }
    }

    fn with_xdp(&self, act: impl FnOnce(&mut Xdp) -> Result<BanRow, XdpError>) -> Result<BanRow, XdpError> {
        match &mut lock(&self.kernel).0 {
            Some(xdp) => act(xdp),
            None => Err(XdpError::Ban { reason: "dotd is stopping".into() }),
        }
    }

    /// Checks whether the kernel half is still attached, and repairs it.
    pub(super) fn look_after_xdp(&self, has_news: bool) {
        if let Some(xdp) = lock(&self.kernel).0.as_mut() {
            xdp.look_after(has_news);
        }
    }

    /// dotd accepts no new connections from now on.
    pub(super) fn draining(&self) {
        self.is_draining.store(true, Relaxed);
    }

    /// Whether nothing was attached, and nothing will be.
    pub(super) fn has_no_xdp(&self) -> bool {
        lock(&self.kernel).0.as_ref().is_none_or(|xdp| !xdp.is_loaded())
    }

    /// Leaves the kernel half attached: another engine uses it.
    pub(super) fn pass_xdp_on(&self) {
        drop(lock(&self.kernel).0.take());
    }

    /// Detaches the kernel half: links and pins are removed when this returns.
    pub(super) fn detach_xdp(&self) {
        drop(lock(&self.kernel).0.take().map(|xdp| Kernel(Some(xdp))));
    }
}

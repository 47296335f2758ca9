//! The running process as `control` sees it: counters, certificates, the kernel half.
//!
//! Before: `start::run` has everything in place. After: every answer of the control socket is made here.
//! Never: changes anything but by [`Process::reloaded`] and its counters.

mod certificates;
mod readiness;
mod source;

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
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    explain::Engine,
    fast_open,
    kept_tickets::KeptTickets,
    known_backends::{KnownBackends, Recent},
    plan,
    policies::KnownZones,
    recent_refusals::RecentRefusals,
    tap::Tapping,
    tls_history::TlsHistory,
    trace::Traces,
    transfers::{Standings, Transfers},
};
use crate::{
    backend::BackendConfig,
    cache::Forget,
    config::{self, Config, ConfigRow},
    control::{CertificateStatus, ListenerStatus, Reloaded},
    events::{EventSink, Refused, tap::TapCounts},
    keeper::{Keeper, Successor},
    ledger::{Counter, WorkerCounters},
    policy::{Notified, Screen, ZoneError},
    tls::{Tickets, certificate::Loaded},
    worker::{Admission, ChargesSink, Worker},
    xdp::{BanRow, Charges, ClientReport, StatusWriter, Xdp, XdpError},
};

/// The state that only the control thread uses.
pub(super) struct Running {
    /// Read again at HUP, by the keeper.
    pub path: Option<PathBuf>,
    /// Reads and opens what the engine may not.
    pub keeper: Keeper,
    /// As it is being served.
    pub config: Config,
    /// Outlive every reload.
    pub tickets: Tickets,
    /// When the first of the stapled OCSP responses is no longer true.
    pub staples_until: Option<SystemTime>,
    /// As the workers know them.
    pub backends: Vec<BackendConfig>,
    /// Caps of all workers.
    pub admission: Arc<Admission>,
    /// Open files we may have.
    pub descriptors: u64,
    /// The worker threads.
    pub workers: Vec<Worker>,
    /// Policy zones, as the workers know them.
    pub screen: Option<Arc<Screen>>,
    /// Writes copies of messages for a dnstap reader.
    pub tapping: Option<Tapping>,
    /// Those about which a NOTIFY may come.
    pub notified: Option<Arc<Notified>>,
    /// The thread that transfers them.
    pub transfers: Transfers,
    /// One task a backend, which asks whether it is there.
    pub checks: JoinSet<()>,
    /// What workers say that clients cost.
    pub charges: mpsc::Receiver<Charges>,
    /// What workers refuse to clients.
    pub refused: mpsc::Receiver<Vec<Refused>>,
    /// What an operator wants forgotten.
    pub flushes: mpsc::Receiver<Flush>,
    /// Operators who wait for a reload.
    pub reloads: mpsc::Receiver<Reload>,
    /// The engine that serves in this one's place.
    pub successor: Option<Successor>,
}

impl Running {
    /// What workers know of policy zones.
    pub(super) fn policies(&self) -> plan::Policies {
        plan::Policies { screen: self.screen.clone(), notified: self.notified.clone() }
    }
}

/// Channels to the control thread, and the process that handles signals.
pub(super) struct Askers {
    /// What is to be forgotten.
    pub flushes: mpsc::Sender<Flush>,
    /// Requests for a reload.
    pub reloads: mpsc::Sender<Reload>,
    /// Where workers tell what they do to clients.
    pub events: EventSink,
    /// What became of copies of messages.
    pub taps: TapCounts,
    /// Signals are for it, and ticket keys.
    pub keeper: Keeper,
    /// What is remembered of backends' TLS.
    pub history: TlsHistory,
    /// How transferred zones stand.
    pub standings: Standings,
}

/// What the control socket tells.
pub(super) struct Process {
    started: Instant,
    counters: Vec<WorkerCounters>,
    listeners: Vec<ListenerStatus>,
    backends: Mutex<KnownBackends>,
    /// Responses to clients, and SERVFAIL among them.
    responses: Mutex<Recent>,
    certificates: Mutex<Vec<CertificateStatus>>,
    /// What the certificates were made of, and which could not be made.
    loaded: Mutex<Loaded>,
    kernel: Mutex<Kernel>,
    sink: ChargesSink,
    events: EventSink,
    taps: TapCounts,
    is_draining: AtomicBool,
    drained: Mutex<readiness::Drained>,
    reloads_ok: AtomicU64,
    reloads_failed: AtomicU64,
    ban_seconds: AtomicU32,
    cache_entries: AtomicU32,
    access: Mutex<Option<String>>,
    policy: Mutex<KnownZones>,
    standings: Standings,
    config: Mutex<Arc<Config>>,
    /// Every key of the config that runs.
    config_rows: Mutex<Vec<ConfigRow>>,
    /// By which an operator acts from the page; nothing where there is no page.
    pub(super) page_token: OnceLock<Arc<str>>,
    recent: Mutex<RecentRefusals>,
    /// Nothing until workers run.
    engine: OnceLock<Engine>,
    traces: Traces,
    flushes: mpsc::Sender<Flush>,
    reloads: mpsc::Sender<Reload>,
    keeper: Keeper,
    history: TlsHistory,
    pub(super) tickets: KeptTickets,
}

/// What caches are to forget; none: everything.
pub(super) type Flush = Option<Forget>;

/// Gets the result of a reload.
pub(super) type Reload = oneshot::Sender<Result<Reloaded, String>>;

/// Length of an operator's ban where neither the operator nor the config says one.
const BAN_SECONDS: u64 = 60;

/// The kernel half, taken away when this is dropped: also when the start fails after it was attached.
/// (`Xdp` itself stays behind a crash on purpose, for a successor to take over.)
pub(super) struct Kernel(pub Option<Xdp>);

impl Drop for Kernel {
    fn drop(&mut self) {
        if let Some(xdp) = self.0.take() {
            xdp.detach();
        }
    }
}

/// A poisoned lock means that another answer panicked; what it guards is replaced whole, never half.
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
        Askers { flushes, reloads, events, taps, keeper, history, standings }: Askers,
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
            reloads_ok: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
            ban_seconds: AtomicU32::new(config.xdp.limit.ban_seconds),
            cache_entries: AtomicU32::new(config.dns.cache_entries),
            access: Mutex::new(plan::access_in_words(config)),
            policy: Mutex::default(),
            standings,
            config: Mutex::new(Arc::new(config.clone())),
            config_rows: Mutex::default(),
            page_token: OnceLock::new(),
            recent: Mutex::default(),
            engine: OnceLock::new(),
            traces: Traces::default(),
            flushes,
            reloads,
            tickets: KeptTickets::with(keeper.clone()),
            keeper,
            history,
        }
    }

    /// Workers run.
    pub(super) fn serve_by(&self, engine: Engine) {
        let _ = self.engine.set(engine);
    }

    /// The workers, once they run.
    pub(super) fn engine(&self) -> Option<&Engine> {
        self.engine.get()
    }

    /// The config that is served.
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&lock(&self.config))
    }

    /// What became of copies of messages.
    pub(super) fn taps(&self) -> &TapCounts {
        &self.taps
    }

    /// What is remembered of backends' TLS.
    pub(super) fn history(&self) -> &TlsHistory {
        &self.history
    }

    /// This text of the config file runs, but for these keys.
    pub(super) fn serve_file(&self, text: Option<&str>, waiting: &[&str]) {
        *lock(&self.config_rows) = config::rows(text, waiting);
    }

    /// Who traces whom.
    pub(super) fn traces(&self) -> &Traces {
        &self.traces
    }

    /// The kernel half.
    pub(super) fn kernel_half(&self) -> MutexGuard<'_, Kernel> {
        lock(&self.kernel)
    }

    /// What was refused lately.
    pub(super) fn recent(&self) -> MutexGuard<'_, RecentRefusals> {
        lock(&self.recent)
    }

    /// What the kernel half knows of a client.
    pub(super) fn client_of_xdp(&self, client: IpAddr) -> Option<ClientReport> {
        lock(&self.kernel).0.as_ref()?.client(client)
    }

    /// A worker's line to the kernel half, for that worker alone.
    ///
    /// # Errors
    /// The kernel half was taken away.
    pub fn status_writer(&self, worker: usize) -> anyhow::Result<StatusWriter> {
        lock(&self.kernel).0.as_ref().map(|xdp| xdp.status_writer(worker)).context("the kernel half is gone")
    }

    /// The line of worker `index`.
    pub(super) fn counters(&self, index: usize) -> WorkerCounters {
        self.counters.get(index).cloned().unwrap_or_default()
    }

    /// A reload took effect; one that met certificates that cannot be used counts as failed.
    pub(super) fn reloaded(&self, config: &Config, backends: &[BackendConfig], loaded: Loaded) {
        lock(&self.backends).reload(config, backends);
        let is_whole = loaded.faults.is_empty();
        self.certify(loaded);
        self.ban_seconds.store(config.xdp.limit.ban_seconds, Relaxed);
        self.cache_entries.store(config.dns.cache_entries, Relaxed);
        *lock(&self.access) = plan::access_in_words(config);
        *lock(&self.config) = Arc::new(config.clone());
        self.events.log_connections(config.log.connections);
        let reloads = if is_whole { &self.reloads_ok } else { &self.reloads_failed };
        reloads.fetch_add(1, Relaxed);
    }

    /// Policy zones as the workers have them from now on; of some of them a newer file cannot be used.
    pub(super) fn screen_by(&self, screen: Option<Arc<Screen>>, errors: &[ZoneError]) {
        *lock(&self.policy) = KnownZones::new(screen, errors.to_vec());
    }

    /// Why newer files of policy zones cannot be used.
    pub(super) fn policy_errors(&self) -> Vec<ZoneError> {
        lock(&self.policy).errors()
    }

    /// A reload changed nothing.
    pub(super) fn reload_failed(&self) {
        self.reloads_failed.fetch_add(1, Relaxed);
    }

    /// New gates for the kernel half.
    pub(super) fn apply_xdp(&self, config: &config::Xdp) -> Result<(), XdpError> {
        lock(&self.kernel).0.as_mut().map_or(Ok(()), |xdp| {
            self.sink.want(xdp.wants_charges(config));
            xdp.apply(config)
        })
    }

    /// Forgets what is over; to be called every second or so.
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

    /// Charges clients with what workers saw of them.
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

    /// Looks whether the kernel half is still attached, and mends it.
    pub(super) fn look_after_xdp(&self, has_news: bool) {
        if let Some(xdp) = lock(&self.kernel).0.as_mut() {
            xdp.look_after(has_news);
        }
    }

    /// No more new connections.
    pub(super) fn draining(&self) {
        self.is_draining.store(true, Relaxed);
    }

    /// Nothing was attached, and nothing will be.
    pub(super) fn has_no_xdp(&self) -> bool {
        lock(&self.kernel).0.as_ref().is_none_or(|xdp| !xdp.is_loaded())
    }

    /// Leaves the kernel half where it is: another engine has it.
    pub(super) fn pass_xdp_on(&self) {
        drop(lock(&self.kernel).0.take());
    }

    /// Takes the kernel half away: links and pins are gone when this returns.
    pub(super) fn detach_xdp(&self) {
        drop(lock(&self.kernel).0.take().map(|xdp| Kernel(Some(xdp))));
    }
}

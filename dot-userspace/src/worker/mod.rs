//! Module `worker`: one pinned thread with its own listeners, sessions, backend sockets and counters.
//!
//! Before: `start` bound the listeners and chose the CPU. After: connections are served until the drain.
//! Holds: everything of one thread (`Rc`, `Cell`); the control thread speaks to it through a channel.
//! Never: shares a session, a socket or a counter with another worker; blocks while there is something to do.

mod accept;
mod acceptor;
mod access;
mod admission;
mod charges;
mod connection_log;
mod connection_octets;
mod designated;
mod entry;
mod eviction;
mod leave;
mod line;
mod moderation;
mod moved;
mod mover;
mod open;
pub mod passage;
pub mod redacted_address;
mod sessions;
mod settings;
mod tenancy;
pub mod tenants;

use std::{
    io,
    net::{TcpListener, UdpSocket},
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
};

use crossbeam::channel::{Receiver, bounded, unbounded};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_setaffinity},
    sys::prctl::set_timerslack,
    unistd::Pid,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Notify,
    task::{AbortHandle, LocalSet, spawn_local},
};

use acceptor::Acceptor;
pub use admission::{Admission, Caps, Place, Refused};
use charges::Accounts;
pub use charges::ChargesSink;
pub use connection_octets::worker_of;
use designated::designation;
use entry::{Entry, Transport};
pub use leave::Drain;
pub use line::Line;
use passage::Arrived;
use sessions::ARRIVED_MAX;
pub use settings::Settings;
use settings::{are_answers_same, of_backends};

use crate::{
    backend::{BackendConfig, Backends},
    cache::Forget,
    dns::Proofs,
    events::{EventSink, Events, tap},
    ledger::WorkerCounters,
    policy::Screen,
    session::{self, Rates, WorkerShared},
    supervise::supervise,
    tls::Serving,
    xdp::StatusWriter,
};

/// How late the kernel may end a worker's pause, in nanoseconds.
const TIMER_SLACK_NS: u64 = 1_000;

/// Commands of the control thread to a worker.
pub enum Command {
    /// Use these settings from now on.
    Reload(Box<Settings>),
    /// Use new certificates and keys.
    Serve(Serving),
    /// Use these backends, or the same ones with these weights; all other settings stay.
    Backends(Vec<BackendConfig>, Vec<tenants::Own>),
    /// Use these policy zones; all other settings stay.
    Screen(Option<Arc<Screen>>),
    /// Answer with these records of `dns-01`; all other settings stay.
    Prove(Option<Arc<Proofs>>),
    /// The connections are near their cap, or no longer: check their number.
    NoteFill,
    /// Switch DNS over TLS on or off. Off: accept no connections for it, and end each session when all its queries
    /// are answered.
    Switch(bool),
    /// Call this with the state that the sessions of the worker share.
    Look(Look),
    /// Forget these cached answers, or all of them.
    Flush(Option<Forget>),
    /// Accept nothing new; move sessions to the next engine or end them; then end.
    Drain(Drain),
}

/// A function that reads a worker's shared state, or changes it, for the control thread.
pub type Look = Box<dyn FnOnce(&Rc<WorkerShared>) + Send>;

/// The sockets of one worker; each list has one for each listen address.
#[derive(Default)]
pub struct Listeners {
    /// DNS over TLS.
    pub dot: Vec<TcpListener>,
    /// DNS in clear by TCP.
    pub do53: Vec<TcpListener>,
    /// DNS in clear by UDP.
    pub datagrams: Vec<UdpSocket>,
}

/// Everything a worker starts with.
pub struct Plan {
    /// Its index, from 0.
    pub index: usize,
    /// Its CPU. `None`: the kernel chooses.
    pub cpu: Option<usize>,
    /// Its own sockets.
    pub listeners: Listeners,
    /// Its settings.
    pub settings: Settings,
    /// Its counters in the ledger.
    pub counters: WorkerCounters,
    /// Caps that all workers share.
    pub admission: Arc<Admission>,
    /// The clients' rates, over all workers.
    pub rates: Arc<Rates>,
    /// Takes the charges of clients.
    pub charges: ChargesSink,
    /// Takes the refusals of clients.
    pub events: EventSink,
    /// Takes the worker's status.
    pub status: StatusWriter,
}

/// A running worker, as the control thread sees it.
pub struct Worker {
    line: Line,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The runtime, the listeners or the thread cannot be made.
    pub fn spawn(plan: Plan) -> io::Result<Self> {
        let (commands, receiver) = unbounded();
        let (arrivals, arrived) = bounded(ARRIVED_MAX);
        let bell = Arc::new(Notify::new());
        let thread_bell = Arc::clone(&bell);
        let (ready, is_ready) = crossbeam::channel::bounded(1);
        let thread = thread::Builder::new().name(format!("worker-{}", plan.index)).spawn(move || {
            match runtime(plan.counters.clone()) {
                Ok(runtime) => {
                    pin_to(plan.cpu);
                    let _ = ready.send(Ok(()));
                    LocalSet::new().block_on(&runtime, work(plan, (receiver, arrived), &thread_bell));
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
        is_ready.recv().map_err(io::Error::other)??;
        Ok(Self { line: Line::new(commands, arrivals, bell), thread })
    }

    /// Sends the worker a command, which it executes in its next turn.
    pub fn tell(&self, command: Command) {
        self.line.tell(command);
    }

    /// The channel to it, for other owners.
    #[must_use]
    pub fn line(&self) -> Line {
        self.line.clone()
    }

    /// Waits for the thread to end. `false`: it panicked.
    #[must_use]
    pub fn join(self) -> bool {
        self.thread.join().is_ok()
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

fn runtime(counters: WorkerCounters) -> io::Result<Runtime> {
    // The kernel's default of 50 µs is as long as a pause.
    if let Err(error) = set_timerslack(TIMER_SLACK_NS) {
        tracing::debug!(%error, "pauses of a worker may be longer than they should");
    }
    let rest = move || {
        session::note_idle();
        moderation::pause(&counters);
    };
    Builder::new_current_thread().enable_all().on_thread_park(rest).build()
}

fn pin_to(cpu: Option<usize>) {
    let Some(cpu) = cpu else { return };
    let mut set = CpuSet::new();
    if let Err(error) = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)) {
        tracing::warn!(cpu, %error, "a worker cannot stay on its CPU");
    }
}

/// The life of a worker: start its listeners, execute commands, drain.
async fn work(plan: Plan, (commands, arrived): (Receiver<Command>, Receiver<Arrived>), bell: &Notify) {
    sessions::look_back();
    let Plan { index, settings, counters, admission, rates, listeners, charges, events, status, .. } = plan;
    let backends = start_backends(&settings, &counters);
    let mut shared = WorkerShared::new(settings.limits, backends, counters, rates);
    shared.events = Events::to(events);
    let shared = Rc::new(shared);
    shared.renew_cache(settings.keeping);
    shared.admit_by(settings.access.clone());
    tenancy::serve(&shared, &settings);
    shared.watch_misuse(&settings.misuse);
    shared.hear_of(settings.notified.clone());
    shared.describe_by(designation(&settings.discovery, &settings.serving));
    tap::send_to(settings.tap.clone());
    let taking_turns = Rc::clone(&shared);
    spawn_local(supervise("turns", move || Rc::clone(&taking_turns).take_turns()));
    let giving_back = Rc::clone(&shared);
    spawn_local(supervise("freed memory", move || Rc::clone(&giving_back).give_back()));
    let accounts = Accounts::new(charges);
    let acceptor = Rc::new(Acceptor::new(Rc::clone(&shared), admission, accounts, status, &settings));
    let accepting = open(listeners, &acceptor);
    // A worker without connections also reports how many it may have.
    acceptor.note_fill();
    let mut current = settings;
    let drain = loop {
        bell.notified().await;
        acceptor.adopt_some(&arrived, bell).await;
        let mut drain = None;
        for command in commands.try_iter() {
            match command {
                Command::Reload(settings) => {
                    reload(&shared, &acceptor, &current, &settings);
                    current = *settings;
                }
                Command::Serve(serving) => {
                    shared.describe_by(designation(&current.discovery, &serving));
                    acceptor.serve(serving);
                }
                Command::Backends(backends, own) => current = moved::to(&shared, &current, (backends, own)),
                Command::Screen(screen) => shared.screen_each(screen.as_deref()),
                Command::Prove(proofs) => shared.prove_by(proofs),
                Command::NoteFill => acceptor.note_pressure(),
                Command::Switch(is_on) => shared.switch(is_on),
                Command::Look(look) => look(&shared),
                Command::Flush(forget) => {
                    shared.forget_of_tenants(forget.as_ref(), current.keeping);
                    match forget {
                        Some(forget) => shared.forget(forget),
                        None => shared.renew_cache(current.keeping),
                    }
                }
                Command::Drain(moments) => drain = Some(moments),
            }
        }
        if let Some(drain) = drain {
            break drain;
        }
    };
    // Sessions that have already arrived end in order with the others; no more come.
    acceptor.adopt_all(&arrived);
    drop(arrived);
    leave::leave(index, &acceptor, &accepting, drain).await;
    tap::send_to(None);
}

fn start_backends(settings: &Settings, counters: &WorkerCounters) -> Backends {
    let (backends, policy, hedge_percent, client_subnet) = of_backends(settings);
    Backends::start(backends, policy, hedge_percent, client_subnet, counters)
}

fn open(listeners: Listeners, acceptor: &Rc<Acceptor>) -> Vec<AbortHandle> {
    let dot = listeners.dot.into_iter().map(|listener| (Transport::Dot, listener));
    let do53 = listeners.do53.into_iter().map(|listener| (Transport::Do53, listener));
    // The index is the same in every worker: each has a socket for each listen address, in one order.
    let streams = dot.chain(do53).enumerate().filter_map(|(number, (transport, listener))| {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(not_registered).ok()?;
        let (listener, acceptor) = (Rc::new(listener), Rc::clone(acceptor));
        let entry = Entry { transport, number, listener: listener.local_addr().ok() };
        acceptor.note_entry(entry);
        let accept = move || accept::accept_all(Rc::clone(&listener), entry, Rc::clone(&acceptor));
        Some(spawn_local(supervise("listener", accept)).abort_handle())
    });
    let datagrams = listeners.datagrams.into_iter().filter_map(|socket| {
        let socket = tokio::net::UdpSocket::from_std(socket).map_err(not_registered).ok()?;
        let shared = Rc::clone(acceptor.shared());
        let task =
            spawn_local(async { session::serve_datagrams(socket, shared).await.map_err(not_registered) });
        Some(task.abort_handle())
    });
    streams.chain(datagrams).collect()
}

/// Whether fewer connections would help `accept`: not if a filter or a policy of the machine refuses.
fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}

fn not_registered(error: io::Error) {
    tracing::error!(%error, "a socket cannot be registered; its worker serves without it");
}

/// Applies new settings. Backends are replaced only if they changed, so queries in flight stay matched.
fn reload(shared: &Rc<WorkerShared>, acceptor: &Acceptor, old: &Settings, new: &Settings) {
    moved::change(shared, old, new);
    if !are_answers_same(old, new) {
        shared.renew_cache(new.keeping);
    }
    shared.admit_by(new.access.clone());
    tenancy::reload(shared, old, new, false);
    shared.watch_misuse(&new.misuse);
    shared.hear_of(new.notified.clone());
    shared.describe_by(designation(&new.discovery, &new.serving));
    tap::renew(old.tap.as_ref(), new.tap.as_ref());
    acceptor.reload(new);
    acceptor.note_fill();
}

//! Module `start`: the order of a start. Steps that need rights come first, then the rights are given up for good.
//!
//! Before: `cli` has a checked config. After: workers serve until a signal, then everything is undone.
//! The order: identities → listeners → XDP → two processes (`keeper`) → privileges → workers → control → signals →
//! drain → detach.
//! Never: serves before every part has reported its state; gives a right to the engine.

mod acme;
mod announce;
mod arrivals;
mod asked;
mod banned;
mod control_loop;
mod designated;
mod dialer;
mod drain;
mod engine_refusals;
pub mod families;
mod fast_open;
mod files;
mod frame_streams;
mod heartbeat;
mod in_a_line;
pub mod journal;
mod kept;
mod kept_addresses;
mod kept_bans;
mod kept_tickets;
mod kernel_lists;
mod known_backends;
mod known_zones;
mod listeners;
pub mod logging;
mod misuse;
mod names;
mod otlp;
mod page_token;
mod plan;
mod policies;
pub mod privileges;
mod process;
mod proofs;
mod recent_refusals;
mod refusals;
mod renew;
mod restart;
mod sought;
mod succession;
mod tap;
mod tenants;
mod tls_history;
mod top;
mod transfers;
pub mod trial;
mod xdp_watchdog;

pub use acme::serve_acme;
pub use in_a_line::in_a_line;
pub use restart::needed_for;
pub use succession::{could_succeed, succeed};

use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Instant};

use anyhow::Context;
use tokio::task::JoinSet;

use crate::{
    backend::{BackendConfig, Embedded},
    config::{Config, Read, Sandbox, XdpMode},
    confine, disk, effective,
    events::{EventSink, tap::TapCounts},
    keeper::{self, Estate, Inheritance, Keeper, Kept, Part, Sockets},
    policy::Zone,
    session::Rates,
    tls::{self, Tickets, certificate},
    worker::{ChargesSink, Listeners, Plan, Worker},
    xdp,
};
use files::Seen;
use listeners::ControlSocket;
use privileges::Owner;
use process::{Kernel, Process, Running, ask, explain::Engine};
use tap::Tapping;
use tls_history::TlsHistory;
use transfers::{Standings, Transferred, Transfers};

/// Everything that was read and opened while there were rights.
struct Opened {
    began: Instant,
    user: Option<Owner>,
    descriptors: u64,
    seen: [Seen; 3],
    zones: Vec<Zone>,
    transferred: Vec<Transferred>,
    loaded: certificate::Loaded,
    tickets: Tickets,
    serving: tls::Serving,
    cpus: Vec<usize>,
    listeners: Vec<Listeners>,
    http: Option<std::net::TcpListener>,
    acme: Vec<(std::net::SocketAddr, OwnedFd)>,
    accounts: Option<OwnedFd>,
    control_socket: ControlSocket,
    embedded: Option<Embedded>,
    backends: Vec<BackendConfig>,
    history: TlsHistory,
    kernel: Kernel,
    queues: Option<xdp::Queues>,
}

impl Opened {
    /// Closes it all in this process; it stays open in the engine.
    fn leave(self) {
        let Self { control_socket, mut kernel, .. } = self;
        control_socket.leave();
        drop(kernel.0.take());
    }
}

/// Serves by `config` until TERM or INT; `path` is read again at HUP. Returns twice: in the keeper with the exit
/// status of the engine, in the engine with its own.
///
/// # Errors
/// One line that names what failed and the remedy. Nothing is left behind.
pub fn run(
    mut config: Config,
    text: Option<String>,
    path: Option<PathBuf>,
    (restart_dir, is_restart): (Option<PathBuf>, bool),
) -> anyhow::Result<u8> {
    confine::close_inherited(3);
    confine::leave_no_dump().context("core dumps cannot be turned off")?;
    // Before another file replaces the program file.
    let program = std::env::current_exe().context("the path of this program cannot be determined")?;
    families::leave_out(&mut config, families::is_here).iter().for_each(|line| tracing::warn!("{line}"));
    if restart_dir.is_some() && !is_restart || config.xdp.mode == XdpMode::Off {
        // A dotd leaves XDP attached for a restart: this start does not follow one, or takes nothing over.
        xdp::clear_left();
    }
    let opened = open(&config, None)?;
    if !is_restart {
        kept_bans::forget(&config.server.run_dir);
        kept_addresses::forget(&config.server.run_dir);
    }
    let estate = Estate {
        path,
        restart_dir,
        text,
        sockets: None,
        program,
        tickets: Kept::default(),
        crashes: Vec::new(),
    };
    become_two(opened, config, estate, None)
}

/// The keeper and its engine from here on. `inherited`: the state of a previous program.
fn become_two(
    mut opened: Opened,
    config: Config,
    mut estate: Estate,
    inherited: Option<&Inheritance>,
) -> anyhow::Result<u8> {
    let (path, text) = (estate.path.clone(), estate.text.clone());
    let keeps_bans = estate.restart_dir.is_some();
    estate.tickets = Kept::now(opened.tickets.write());
    let held = listeners::hold(&config, &opened.listeners, opened.http.as_ref(), &opened.control_socket);
    let (acme, accounts) = (std::mem::take(&mut opened.acme), opened.accounts.take());
    estate.sockets = Some(Sockets { acme, accounts, ..held.context("no descriptor is left")? });
    let holder = opened.kernel.0.as_mut().and_then(xdp::Xdp::give_away);
    match keeper::part(&config, estate, inherited) {
        Ok(Part::Keeper(duty)) => {
            opened.leave();
            logging::take_lines();
            privileges::keep_few()?;
            let status = duty.keep(holder, logging::take_lines);
            logging::flush_at_once();
            Ok(status)
        }
        Ok(Part::Engine(keeper, passage)) => {
            if let Some(holder) = holder {
                holder.forget();
                if let Some(xdp) = &mut opened.kernel.0 {
                    xdp.ask(keeper.attachments(logging::pass_on));
                }
            }
            privileges::drop_all(opened.user)?;
            keeper::end_with(keeper.pid()).context("dotd's keeper process has ended")?;
            keeper.greet()?;
            let opener = keeper.clone();
            disk::open_through(Box::new(move |path| opener.open(path)));
            acme::make_folder(&config);
            confine_engine(&config)?;
            #[cfg(feature = "debug-log")]
            opened.kernel.0.iter_mut().for_each(xdp::Xdp::pass_packet_log_on);
            engine(opened, config, (path, text), (keeper, passage, keeps_bans)).map(|()| 0)
        }
        Err(error) => {
            if let Some(mut holder) = holder.filter(|_| !inherited.is_some_and(Inheritance::is_served)) {
                holder.let_go();
            }
            Err(error).context("dotd cannot fork its engine process")
        }
    }
}

/// Confines the engine to the files and system calls that it needs, and logs that.
fn confine_engine(config: &Config) -> anyhow::Result<()> {
    let server = &config.server;
    if server.sandbox != Sandbox::Off {
        confine::forget_environment();
    }
    confine::leave_no_dump().context("core dumps cannot be turned off")?;
    let (said, is_whole) =
        confine::confine("the engine", server.sandbox, &[&server.state_dir, &server.run_dir], &[]);
    if is_whole || server.sandbox == Sandbox::Off {
        tracing::info!("{said}");
    } else {
        tracing::warn!("{said}");
    }
    Ok(())
}

/// Serves in this process only, without a keeper, until TERM or INT. For a process that already has threads and so
/// cannot fork, such as a test that counts a worker's allocations. XDP is not re-attached after a loss, and no config
/// is read again.
///
/// # Errors
/// As [`run`].
pub fn run_alone(config: Config) -> anyhow::Result<()> {
    let opened = open(&config, None)?;
    privileges::drop_all(opened.user)?;
    engine(opened, config, (None, None), (Keeper::absent(), None, false))
}

/// The sockets and the state of a previous program.
type Left<'a> = (&'a Sockets<OwnedFd>, &'a Inheritance);

/// Does everything that needs rights: reads, binds (or takes the sockets of a previous engine), loads and attaches.
fn open(config: &Config, left: Option<Left<'_>>) -> anyhow::Result<Opened> {
    let (began, user) = (Instant::now(), privileges::user(&config.server.user)?);
    effective::may_act_as(user);
    let descriptors = privileges::raise_descriptors();
    let seen = [files::of_certificates, files::of_zones, proofs::of_proofs].map(|of| Seen::now(config, of));
    let loaded = certificate::load_all(&config.tls, &config.server.state_dir, &[])?;
    let identities = &loaded.identities;
    let tickets = Tickets::new(&config.tls.ticket_secret, config.tls.ticket_rotation)?;
    let tickets = tickets.given_under(renew::trust(&config.tls, identities));
    if let Some((_, inherited)) = left {
        tickets.read(&inherited.tickets.octets, inherited.tickets.age());
    }
    let serving = tls::serving(identities, &config.tls, &tickets)?;
    let state_dir = &config.server.state_dir;
    let transferred = transfers::prepare(config, state_dir)?;
    let zones = policies::load(config, state_dir, &[])?;
    let cpus = privileges::usable_cpus();
    let workers = plan::workers(config.server.workers, cpus.len());
    let (groups, listeners) =
        left.map_or_else(|| listeners::bind(config, workers), |(sockets, _)| Ok(listeners::adopt(sockets)?))?;
    let http = match left {
        Some((sockets, _)) => listeners::adopt_http(sockets)?,
        None => listeners::bind_http(config.control.http)?,
    };
    let acme = acme::sockets(config, left.map(|(sockets, _)| sockets))?;
    let control_socket = match left {
        Some((sockets, _)) => ControlSocket::adopt(sockets)?,
        None => ControlSocket::bind(&config.server.run_dir, user)?,
    };
    let embedded = plan::needs_embedded(config).then(Embedded::bind).transpose();
    let embedded = embedded.context("the embedded backend finds no free loopback port")?;
    let history = TlsHistory::read(&config.server.state_dir);
    let secured = dialer::all(config, &history)?;
    let backends = plan::backends(config, embedded.as_ref().map(Embedded::address), secured, &[]);
    history.serve(config);
    let sockets: Vec<_> = groups.iter().map(listeners::Group::for_xdp).collect();
    let start_xdp = if left.is_some() { xdp::go_on } else { xdp::start };
    let kernel = Kernel(Some(start_xdp(&plan::xdp(config, &config.listen.do53), &sockets)?));
    let listeners_of = [&*config.listen.dot, &*config.listen.do53].concat();
    // Before seccomp, which permits no more sockets of this kind.
    let queues = xdp::Queues::open(listeners_of).ok();
    if left.is_none() {
        process::begin_anew(&config.server.run_dir);
        acme::make_state_dir(config);
        privileges::hand_over_state(&config.server.state_dir, user)?;
    }
    let accounts = acme::accounts(config, user, left.map(|(sockets, _)| sockets))?;
    Ok(Opened {
        began,
        user,
        descriptors,
        seen,
        zones,
        transferred,
        loaded,
        tickets,
        serving,
        cpus,
        listeners,
        http,
        acme,
        accounts,
        control_socket,
        embedded,
        backends,
        history,
        kernel,
        queues,
    })
}

/// The keeper of an engine, and the passage through which it receives the sessions of the previous one, and
/// whether bans survive a restart.
type Ties = (Keeper, Option<OwnedFd>, bool);

/// The config file: its path, and the text in effect.
type File = (Option<PathBuf>, Option<String>);

/// Serves without rights, until a signal.
fn engine(opened: Opened, config: Config, (path, text): File, ties: Ties) -> anyhow::Result<()> {
    let (keeper, passage, keeps_bans) = ties;
    let Opened { loaded, backends, history, listeners, cpus, descriptors, .. } = opened;
    let workers = listeners.len();
    // From here on the process has no rights, and every new thread inherits that.
    start_threads(opened.embedded)?;
    let (runtime, sought, config, backends) = asked::begin(&config, &history, backends)?;
    let groups = tenants::Running::of(&config);
    let admission = plan::admission(&config, descriptors, workers, groups.count_backends(&backends));
    let (rates, queues) = (Arc::new(Rates::default()), opened.queues);
    let (standings, taps) = (Standings::default(), TapCounts::default());
    let transfers = Transfers::start(&config.server.state_dir, standings.clone())?;
    let policies = transfers.policies(&opened.transferred, opened.zones).with(groups);
    let tapping = Tapping::start(&config.dnstap, &taps)?;
    let tap = tapping.as_ref().map(|tapping| tapping.sink.clone());
    let settings = plan::settings(&config, opened.serving, backends.clone(), &policies, tap);
    warn([privileges::warning(opened.user), opened.tickets.warning.as_deref()]);
    let ((sink, charges), (events, refused)) = (ChargesSink::new(), EventSink::new());
    events.log_connections(config.log.connections);
    let (askers, asked) = ask(events.clone(), taps, keeper.clone(), history, standings);
    let staples_until = renew::staples_until(&loaded.identities);
    let process = Process::new(&config, &backends, workers, loaded, opened.kernel, sink.clone(), askers);
    process.begin(keeps_bans, &sought, text.map(|text| Read::of(text, path.as_deref())));
    let mut running = Vec::with_capacity(workers);
    for (index, listeners) in listeners.into_iter().enumerate() {
        let plan = Plan {
            index,
            cpu: cpus.get(index % cpus.len().max(1)).copied().filter(|_| workers <= cpus.len()),
            listeners,
            settings: settings.clone(),
            counters: process.counters(index),
            admission: Arc::clone(&admission),
            rates: Arc::clone(&rates),
            charges: sink.clone(),
            events: events.clone(),
            status: process.status_writer(index)?,
        };
        running.push(Worker::spawn(plan).with_context(|| format!("worker {index} cannot start"))?);
    }
    // This drops a sink; otherwise the tap would not notice that no more messages come.
    drop(settings);
    let lines: Vec<_> = running.iter().map(Worker::line).collect();
    arrivals::take(passage.filter(|_| config.session.move_at_upgrade), &lines, process.hear_past())?;
    process.serve_by(Engine { workers: lines, admission: Arc::clone(&admission), rates, queues });
    let running = Running {
        path,
        keeper,
        sought,
        config,
        tickets: opened.tickets,
        staples_until,
        backends,
        admission,
        descriptors,
        workers: running,
        screen: policies.screen,
        notified: policies.notified,
        tenants: policies.tenants,
        transfers,
        tapping,
        checks: JoinSet::new(),
        charges,
        refused,
        asked,
        successor: None,
    };
    process.screen_by(running.screen.clone(), &[]);
    let doors = (opened.control_socket, opened.http);
    control_loop::run(&runtime, Arc::new(process), running, opened.seen, doors, opened.began)
}

/// Starts the log thread, and the embedded backend if there is one.
fn start_threads(embedded: Option<Embedded>) -> anyhow::Result<()> {
    logging::write_from_now_on().context("the log thread cannot start")?;
    let spawned = embedded.map(Embedded::spawn).transpose();
    spawned.map(drop).context("the embedded backend cannot start its thread")
}

/// If a start fails, only its error is printed: call it when the start has not failed.
fn warn(warnings: [Option<&str>; 2]) {
    warnings.iter().flatten().for_each(|warning| tracing::warn!("{warning}"));
}

//! Module `xdp`: loads the kernel half, attaches it, and reads what it counted. The only module that names aya.
//!
//! Before: `start` has bound the listeners, and still has its rights. After: [`Xdp`] lives in the control thread of the
//! engine, without rights, and uses the maps that it holds; [`Holder`], with the programs, links and pins, lives in the
//! keeper ([`Xdp::give_away`]). Holds, in the order of use: `interfaces`, `links` and `paths` (the places to attach),
//! `presence` (another dotd), `folder` and `pins` (objects that survive this process), `attach` and `tc` (the methods),
//! `refusal` (the driver's reasons), `kernel` (maps), `list` (clients that are denied or allowed), `local` and `routes`
//! (local destinations), `netlink` and `entries` (questions to the kernel, and writes to its maps), `clients` with `bans` and
//! `costs` (clients that are refused for a while; `budget`, `shared_budget`, `deadlines`), `proofs` (clients that have proved
//! their address), `tail_calls`, `notices`, `cookies`, `proxy` and `spread` (the programs behind the judge), `told` (packets of clients
//! that an operator traces), `settings` (the limits),
//! `steering` and `worker_status` (the worker of a connection), `syn_times` (when it began), `queues` (what waits for an
//! accept), `ring` and `mapped` (ways into maps), `report` (the state for operators).
//! Never: stops the engine: everything works without XDP, and [`Report`] says why it is off. It is an error only if the
//! config requires XDP.

mod attach;
mod attachment;
mod bans;
mod budget;
mod client_report;
mod clients;
mod clsact;
mod cookies;
mod costs;
mod deadlines;
mod entries;
mod error;
mod folder;
mod holder;
mod interface_set;
mod interfaces;
mod kernel;
mod link;
mod links;
mod list;
mod load;
mod local;
mod mapped;
mod moved;
mod netlink;
mod notices;
pub mod object;
mod object_parts;
#[cfg(feature = "debug-log")]
mod packet_log;
mod paths;
mod pinned;
mod pins;
mod presence;
mod proofs;
mod proxied;
mod proxy;
mod queues;
mod refusal;
mod report;
mod ring;
mod routes;
mod settings;
mod shared_budget;
mod spread;
mod stale;
mod steering;
mod syn_times;
mod tail_calls;
mod tc;
mod told;
mod watch;
mod worker_status;

use dot_common::counters;

pub use self::{
    client_report::{ClientReport, RateState},
    costs::Charges,
    error::XdpError,
    holder::{Attachments, Holder, Look},
    load::{Cleared, clear, clear_left},
    notices::{Notices, Refusal},
    proxy::with_proxy,
    queues::Queues,
    report::{
        BanCounts, BanRow, CostCounts, InterfaceReport, NoticeCounts, Paths, ProgramReport, ProxyCounts,
        Report, WorkerReport,
    },
    steering::ListenerGroup,
    told::{ToldPacket, ToldPackets},
    watch::Watch,
    worker_status::StatusWriter,
};
use self::{
    kernel::Kernel,
    load::load,
    settings::Prefixes,
    worker_status::{Tables, WorkerStatuses},
};
use crate::{config, ledger::PacketCount};

/// The kernel half, as far as it is loaded.
pub struct Xdp {
    report: Report,
    prefixes: Prefixes,
    statuses: WorkerStatuses,
    kernel: Option<Loaded>,
    /// An operator detached it, and it stays off.
    is_detached: bool,
}

/// The state once the programs are loaded.
struct Loaded {
    kernel: Kernel,
    attached: Attached,
}

/// The holder of the attachments.
enum Attached {
    /// In this process.
    Here(Box<Holder>),
    /// In another process, to which this sends requests.
    Elsewhere(Box<dyn Attachments>),
    /// In another process, without a way to reach it.
    Unasked,
}

impl Attached {
    fn ask(&mut self) -> Result<&mut dyn Attachments, String> {
        match self {
            Self::Here(holder) => Ok(&mut **holder),
            Self::Elsewhere(other) => Ok(&mut **other),
            Self::Unasked => Err("the keeper cannot be reached yet".into()),
        }
    }
}

/// Loads and attaches the kernel half as `config` says, and steers `groups`.
///
/// # Errors
/// Only if `config` requires something that is impossible: `mode` native or generic, `required`, or a value that this
/// version does not support.
pub fn start(config: &config::Xdp, groups: &[ListenerGroup<'_>]) -> Result<Xdp, XdpError> {
    begin(config, groups, false)
}

/// Whether the programs of this build load on this machine, with the constants of a start. Attaches nothing.
///
/// # Errors
/// The reason, where `config` requires that they load; also, with `mode` off, that there are too many ports.
pub fn try_load(config: &config::Xdp, addresses: &[std::net::SocketAddr]) -> Result<(), XdpError> {
    let ports = settings::ports_of(addresses.iter().map(std::net::SocketAddr::port).collect())?;
    if config.mode == config::XdpMode::Off {
        return if config.required { Err(XdpError::RequiredButOff) } else { Ok(()) };
    }
    let is_required = config.required || config.mode != config::XdpMode::Auto;
    load::try_load(config, ports).or_else(|error| if is_required { Err(error) } else { Ok(()) })
}

/// The same after an engine that had `groups` before and crashed or was replaced: counters continue from the pinned
/// ones.
///
/// # Errors
/// As [`start`].
pub fn go_on(config: &config::Xdp, groups: &[ListenerGroup<'_>]) -> Result<Xdp, XdpError> {
    begin(config, groups, true)
}

fn begin(config: &config::Xdp, groups: &[ListenerGroup<'_>], continues: bool) -> Result<Xdp, XdpError> {
    let ports = settings::ports(groups)?;
    let prefixes = Prefixes::of(config);
    let mut tables = Tables::new(groups.iter().map(|group| group.sockets.len()).max().unwrap_or_default());
    let steering = steering::steer(config.steering, groups, &mut tables)?;
    let mut report =
        Report { steering: steering.name, steering_reason: steering.reason, ..Report::default() };
    report.required =
        config.required || matches!(config.mode, config::XdpMode::Native | config::XdpMode::Generic);
    let loaded = if config.mode == config::XdpMode::Off {
        Err(if config.required { XdpError::RequiredButOff } else { XdpError::NotWanted })
    } else {
        load(config, groups, ports, (report.required, continues), &mut tables)
    };
    let kernel = match loaded {
        Ok((loaded, programs, look)) => {
            report.programs = programs;
            report.spread(loaded.kernel.tail_calls.spread.state());
            report.summarize(look, loaded.kernel.local.reason());
            demand(&report, loaded).map(Some)?
        }
        Err(error) if report.required => return Err(error),
        Err(error) => {
            report.state = "off".into();
            report.reason = Some(error.to_string());
            None
        }
    };
    report.programs.extend(steering.program);
    Ok(Xdp { report, prefixes, statuses: tables.seal(), kernel, is_detached: false })
}

/// Returns what is loaded, unless the config requires more: a state that `/health` would report as unwell fails at the
/// start.
fn demand(report: &Report, loaded: Loaded) -> Result<Loaded, XdpError> {
    match (&report.degraded, loaded.attached) {
        (Some(reason), Attached::Here(mut holder)) if report.required => {
            holder.let_go();
            Err(XdpError::Less { reason: reason.clone() })
        }
        (_, attached) => Ok(Loaded { attached, ..loaded }),
    }
}

impl Xdp {
    /// The attachments, their modes, and the reasons against better modes.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut report = Report { workers: self.statuses.rows(), ..self.report.clone() };
        if let Some(Loaded { kernel, .. }) = &self.kernel {
            report.bans = kernel.bans.counts();
            report.costs = kernel.costs.counts();
            report.notices = kernel.notices.counts();
            report.proxied = kernel.proxied.read();
            (report.syn_cookies, report.syn_cookies_reason) =
                kernel.tail_calls.cookies.state(Some(report.paths));
            let (over, reason) = kernel.settings.syn_over();
            (report.syn_over, report.syn_over_reason) = (over.into(), reason.map(str::to_owned));
        }
        report
    }

    /// The entry in which a worker reports its status; must be taken once for each worker.
    #[must_use]
    pub fn status_writer(&self, worker: usize) -> StatusWriter {
        self.statuses.status_writer(worker)
    }

    /// The kernel half's counters, all CPUs together: every verdict, also those at zero.
    #[must_use]
    pub fn packets(&self) -> Vec<PacketCount> {
        let counters = self.kernel.as_ref().map(|loaded| &loaded.kernel.counters);
        let total = |index| -> u64 {
            let per_cpu = counters.and_then(|counters| counters.get(&index, 0).ok());
            per_cpu.map_or(0, |per_cpu| per_cpu.iter().sum())
        };
        counters::rows()
            .map(|verdict| PacketCount {
                verdict: verdict.action.name().into(),
                reason: verdict.reason.name().into(),
                count: total(counters::index(verdict)),
            })
            .collect()
    }

    /// The stream of refused clients. `None`: it was taken already, or nothing refuses. Must be called inside a
    /// runtime.
    ///
    /// # Errors
    /// The runtime refused the ring.
    pub fn notices(&mut self) -> std::io::Result<Option<Notices>> {
        self.kernel.as_mut().map_or(Ok(None), |loaded| loaded.kernel.notices.listen())
    }

    /// Applies the settings that can change while packets flow: the gates, the lists, and the limits, except the
    /// lengths of client prefixes, which the engine's caps share.
    ///
    /// Adds first and removes last, so a prefix that stays on a list is never off it.
    ///
    /// # Errors
    /// [`XdpError::List`], [`XdpError::Settings`]: the kernel refused something; the old settings still apply.
    pub fn apply(&mut self, config: &config::Xdp) -> Result<(), XdpError> {
        let prefixes = self.prefixes;
        let Some(Loaded { kernel, .. }) = &mut self.kernel else { return Ok(()) };
        let before = kernel.lists.grow(config)?;
        if let Err(error) = kernel.settings.apply(config, prefixes) {
            kernel.lists.restore(&before);
            if let Err(error) = kernel.tell_of_clients() {
                tracing::error!("{error}");
            }
            return Err(error);
        }
        kernel.lists.shrink(config);
        kernel.costs.apply(&config.limit);
        kernel.tell_of_clients()
    }

    /// Gives the attachments away, to the keeper. They are not checked until [`Xdp::ask`].
    pub fn give_away(&mut self) -> Option<Holder> {
        let loaded = self.kernel.as_mut()?;
        match std::mem::replace(&mut loaded.attached, Attached::Unasked) {
            Attached::Here(holder) => Some(*holder),
            other => {
                loaded.attached = other;
                None
            }
        }
    }

    /// Sends later requests about the attachments to `other`.
    pub fn ask(&mut self, other: impl Attachments + 'static) {
        if let Some(loaded) = &mut self.kernel {
            loaded.attached = Attached::Elsewhere(Box::new(other));
        }
    }

    /// Makes the holder of the attachments check and repair them. Must be called about twice a second, because the
    /// kernel does not report a detached link.
    ///
    /// `has_news`: interfaces or addresses may have changed.
    pub fn look_after(&mut self, has_news: bool) {
        let Some(Loaded { kernel, attached }) = &mut self.kernel else { return };
        if self.is_detached {
            return;
        }
        // A question without an answer, or a failed write, is repeated: no event would trigger it.
        if (has_news || kernel.local.is_open())
            && let Err(error) = kernel.know_addresses()
        {
            tracing::error!("{error}");
        }
        if let Err(error) = kernel.settings.look_for_cookies() {
            tracing::error!("{error}");
        }
        let look = attached.ask().and_then(|attachments| attachments.look(has_news));
        let before = self.report.degraded.take();
        match look {
            Ok(look) => self.report.summarize(look, kernel.local.reason()),
            Err(reason) => self.report.degraded = Some(format!("XDP is looked after no more: {reason}")),
        }
        match (before, &self.report.degraded) {
            (before, Some(reason)) if before.as_ref() != Some(reason) => {
                tracing::error!("xdp: degraded: {reason}");
            }
            (Some(_), None) => tracing::info!("xdp: degraded no more"),
            _ => {}
        }
    }

    /// Whether the kernel half is loaded.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.kernel.is_some()
    }

    /// Detaches the kernel half from every interface, and removes all pins.
    ///
    /// The kernel ends a link some milliseconds after its pin was removed.
    pub fn detach(mut self) {
        self.take_off();
    }

    /// As [`Xdp::detach`], for a dotd that goes on serving: counters can still be read, and nothing is attached again.
    pub fn leave(&mut self) {
        if self.kernel.is_none() {
            return;
        }
        self.take_off();
        self.is_detached = true;
        let why = "detached by an operator; restart dotd to attach again";
        self.report.interfaces.clear();
        self.report.paths = Paths::default();
        self.report.state = "off".into();
        self.report.reason = Some(why.into());
        self.report.degraded = Some(why.into());
        tracing::warn!("xdp: {why}");
    }

    /// Starts a thread that writes the kernel half's log lines; must be called in the process that serves.
    #[cfg(feature = "debug-log")]
    pub fn pass_packet_log_on(&mut self) {
        let log = self.kernel.as_mut().and_then(|loaded| loaded.kernel.packet_log.take());
        log.into_iter().for_each(packet_log::PacketLog::start);
    }

    fn take_off(&mut self) {
        let Some(Loaded { attached, .. }) = &mut self.kernel else { return };
        if let Err(reason) = attached.ask().and_then(|attachments| attachments.leave()) {
            tracing::error!("xdp: not taken off: {reason}");
        }
    }
}

/// Whether the kernel would make SYN cookies for this config: the reason why not, or the condition.
#[must_use]
pub fn syn_cookies(config: &config::Xdp) -> Option<String> {
    cookies::Cookies::of(config).state(None).1
}

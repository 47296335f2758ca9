//! Room `xdp`: loads the kernel half, attaches it, and reads what it counted. The only room that knows aya.
//!
//! Before: `start` has bound the listeners, and still has its rights. After: [`Xdp`] lives in the control
//! thread; every right may be gone, for it works on descriptors it holds.
//! Holds: in the order of use: `interfaces` (where), `pins` (what survives us), `attach` (how, and
//! what the driver said), `list` (which clients), `local` and `routes` (which destinations), `clients` with `bans` and `costs`
//! (which of them for a while; `budget`, `deadlines`), `proofs` (who has shown its address), `followers`, `notices`, `cookies` and `spread` (what comes behind a verdict), `settings` (how strict), `steering` and `lines` (which worker), `report` (in words).
//! Never: stops the engine: without XDP all works, and [`Report`] says why it is off; only a config that
//! demands XDP makes an error of that.

mod attach;
mod bans;
mod budget;
mod clients;
mod cookies;
mod costs;
mod deadlines;
mod error;
mod followers;
mod interfaces;
mod lines;
mod list;
mod local;
mod notices;
pub mod object;
#[cfg(feature = "debug-log")]
mod packet_log;
mod pins;
mod proofs;
mod report;
mod roster;
mod routes;
mod seat;
mod settings;
mod spread;
mod stale;
mod steering;
mod watch;

use std::{
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
};

use dot_common::{counters, settings::Ports};

use self::{
    attach::{Kernel, Patience},
    lines::{Lines, Tables},
    pins::Pins,
    roster::Roster,
    settings::Prefixes,
};
pub use self::{
    costs::Charges,
    error::XdpError,
    lines::Line,
    notices::{Notices, Refusal},
    report::{
        BanCounts, BanRow, CostCounts, InterfaceReport, NoticeCounts, ProgramReport, Report, WorkerReport,
    },
    watch::Watch,
};
use crate::{config, ledger::PacketCount};

/// The listeners of one address: one SO_REUSEPORT group, one socket per worker.
pub struct ListenerGroup<'a> {
    /// What they are bound to.
    pub address: SocketAddr,
    /// By worker.
    pub sockets: Vec<BorrowedFd<'a>>,
}

/// The kernel half, as far as it is there.
pub struct Xdp {
    report: Report,
    prefixes: Prefixes,
    lines: Lines,
    kernel: Option<Loaded>,
    /// An operator took it off: it stays off.
    is_detached: bool,
}

/// What we hold once the programs are loaded.
struct Loaded {
    kernel: Kernel,
    roster: Roster,
    pins: Option<Pins>,
}

/// Loads and attaches the kernel half as `config` says, and steers `groups`.
///
/// `owner` (user, group) gets the pins, so that an unprivileged process can remove them at its end.
///
/// # Errors
/// Only when `config` demands what cannot be had: `mode` native or generic, `required`, clients to deny, or a value that
/// this version does not have.
pub fn start(
    config: &config::Xdp,
    groups: &[ListenerGroup<'_>],
    owner: Option<(u32, u32)>,
) -> Result<Xdp, XdpError> {
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
        load(config, groups, &ports, owner, report.required, &mut tables)
    };
    let kernel = match loaded {
        Ok(loaded) => {
            report.programs = loaded.kernel.programs()?;
            report.spread(loaded.kernel.followers.spread.state());
            Some(loaded)
        }
        Err(error) if report.required => return Err(error),
        Err(error) if !config.deny.is_empty() => {
            return Err(XdpError::NotDenied { reason: error.to_string() });
        }
        Err(error) => {
            report.state = "off".into();
            report.reason = Some(error.to_string());
            None
        }
    };
    report.programs.extend(steering.program);
    let mut xdp = Xdp { report, prefixes, lines: tables.seal(), kernel, is_detached: false };
    xdp.summarize();
    Ok(xdp)
}

impl Xdp {
    /// What is attached where, in which mode, and why not.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut report = Report { workers: self.lines.rows(), ..self.report.clone() };
        if let Some(Loaded { kernel, .. }) = &self.kernel {
            report.bans = kernel.bans.counts();
            report.costs = kernel.costs.counts();
            report.notices = kernel.notices.counts();
            (report.syn_cookies, report.syn_cookies_reason) = kernel.followers.cookies.state();
        }
        report
    }

    /// Where a worker says how it is; each worker's is asked for once.
    #[must_use]
    pub fn line(&self, worker: usize) -> Line {
        self.lines.line(worker)
    }

    /// What the kernel half counted so far, all CPUs together: every verdict there is, also those never given.
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

    /// Who hears of refused clients; `None` when somebody does already, or nobody refuses. Call it inside a runtime.
    ///
    /// # Errors
    /// The runtime refused the ring.
    pub fn notices(&mut self) -> std::io::Result<Option<Notices>> {
        self.kernel.as_mut().map_or(Ok(None), |loaded| loaded.kernel.notices.listen())
    }

    /// Takes over what can change while packets flow: the gates, the lists, and the limits but for the
    /// lengths of client prefixes, which the engine's caps share.
    ///
    /// Added first, removed last: no prefix that stays on a list is off it for a moment.
    ///
    /// # Errors
    /// [`XdpError::List`], [`XdpError::Settings`]: the kernel refused something; what was before still holds.
    /// [`XdpError::NotDenied`]: XDP is off, and the config denies clients.
    pub fn apply(&mut self, config: &config::Xdp) -> Result<(), XdpError> {
        let prefixes = self.prefixes;
        let Some(Loaded { kernel, .. }) = &mut self.kernel else {
            let reason = self.report.reason.clone().unwrap_or_default();
            return if config.deny.is_empty() { Ok(()) } else { Err(XdpError::NotDenied { reason }) };
        };
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

    /// Looks whether all that should be attached is, and mends what is not. Needs no right: who holds a
    /// program may attach it (Linux 5.19). Call it about twice a second: nobody announces a link that was detached.
    ///
    /// `has_news`: interfaces or addresses may have changed.
    pub fn look_after(&mut self, has_news: bool) {
        let Some(Loaded { kernel, roster, pins }) = &mut self.kernel else { return };
        if self.is_detached {
            return;
        }
        self.report.repairs += roster.mend(kernel, pins.as_ref());
        if has_news {
            if let Err(error) = kernel.know_addresses() {
                tracing::error!("{error}");
            }
            match roster.look(kernel, pins.as_ref(), Patience::None) {
                Ok(attached) => self.report.repairs += attached,
                Err(error) => tracing::warn!("xdp: {error}"),
            }
        }
        let before = self.report.degraded.take();
        self.summarize();
        match (before, &self.report.degraded) {
            (before, Some(reason)) if before.as_ref() != Some(reason) => {
                tracing::error!("xdp: degraded: {reason}");
            }
            (Some(_), None) => tracing::info!("xdp: degraded no more"),
            _ => {}
        }
    }

    /// Takes the kernel half off every interface, and removes all pins.
    ///
    /// The kernel ends a link whose pin was removed a few milliseconds later.
    pub fn detach(self) {
        let Some(Loaded { roster, pins, .. }) = self.kernel else { return };
        // Pins first: a link goes when its last reference does, and its descriptor is the other one.
        if let Some(pins) = pins {
            pins.remove(&roster.links());
        }
    }

    /// As [`Xdp::detach`], for a dotd that serves on: counters can still be read, and nothing is attached again.
    pub fn leave(&mut self) {
        let Some(Loaded { roster, pins, .. }) = &mut self.kernel else { return };
        if let Some(pins) = pins.take() {
            pins.remove(&roster.links());
        }
        roster.dissolve();
        self.is_detached = true;
        let why = "detached by an operator; restart dotd to attach again";
        self.report.interfaces.clear();
        self.report.state = "off".into();
        self.report.reason = Some(why.into());
        self.report.degraded = Some(why.into());
        tracing::warn!("xdp: {why}");
    }

    fn summarize(&mut self) {
        let Some(Loaded { kernel, roster, .. }) = &self.kernel else { return };
        self.report.interfaces = roster.rows();
        self.report.summarize(roster.unserved(), kernel.local.reason());
    }
}

/// What the kernel would say to a config that wants SYN cookies: why it gives none, or when.
#[must_use]
pub fn syn_cookies(config: &config::Xdp) -> Option<String> {
    cookies::Cookies::of(config).state().1
}

/// What [`clear`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Attachments of programs to interfaces.
    pub links: usize,
    /// Pins beside them.
    pub maps: usize,
}

/// Takes off what a dotd that is gone left attached and pinned in this network namespace, whatever its version.
///
/// # Errors
/// [`XdpError::Locked`]: a dotd runs here. [`XdpError::Pins`]: no right.
pub fn clear() -> Result<Cleared, XdpError> {
    let pins = Pins::open()?;
    let names = pins.names();
    let links = names.iter().filter(|name| pins::is_link(name)).count();
    let filters = attach::detach_filters()?;
    pins.remove(&[]);
    Ok(Cleared { links: links + filters, maps: names.len() - links })
}

/// Loads the object and attaches it to every interface. An error leaves nothing attached or pinned.
///
/// Without `required` no interface need be there yet: it is waited for.
fn load(
    config: &config::Xdp,
    groups: &[ListenerGroup<'_>],
    ports: &Ports,
    owner: Option<(u32, u32)>,
    required: bool,
    tables: &mut Tables,
) -> Result<Loaded, XdpError> {
    let (pins, pinless) = match Pins::open() {
        Ok(pins) => (Some(pins), None),
        Err(error @ XdpError::Locked { .. }) => return Err(error),
        Err(error) => (None, Some(error)),
    };
    let addresses = groups.iter().map(|group| group.address.ip()).collect();
    let mut roster = Roster::new(&config.interfaces, addresses, config.mode);
    match attach(config, ports, pins.as_ref(), &mut roster, required, tables) {
        Ok(kernel) => {
            if let Some(pins) = &pins {
                pins.sweep(&roster.links());
                pins.give_to(owner);
            }
            if let Some(error) = pinless {
                tracing::warn!("nothing is pinned, a restart will leave a gap: {error}");
            }
            Ok(Loaded { kernel, roster, pins })
        }
        Err(error) => {
            if let Some(pins) = pins {
                pins.remove(&roster.links());
            }
            Err(error)
        }
    }
}

/// Fills the roster; on an error, with what was attached before it.
fn attach(
    config: &config::Xdp,
    ports: &Ports,
    pins: Option<&Pins>,
    roster: &mut Roster,
    required: bool,
    tables: &mut Tables,
) -> Result<Kernel, XdpError> {
    let prefixes = Prefixes::of(config);
    let mut kernel = Kernel::load(config, *ports, pins, prefixes, tables)?;
    kernel.lists.grow(config)?;
    kernel.settings.apply(config, prefixes)?;
    kernel.costs.apply(&config.limit);
    kernel.tell_of_clients()?;
    kernel.know_addresses()?;
    roster.look(&mut kernel, pins, Patience::Wait)?;
    if required {
        if let Some(row) = roster.first_failure() {
            let reason = row.reason.clone().unwrap_or_else(|| "no reason given".into());
            return Err(XdpError::Interface { name: row.name.clone(), reason });
        }
        if roster.links().is_empty() {
            return Err(XdpError::Nowhere { reasons: report::reasons(&roster.rows()) });
        }
    }
    Ok(kernel)
}

impl AsFd for ListenerGroup<'_> {
    /// Any socket of the group stands for it.
    ///
    /// # Panics
    /// When the group is empty: `start` binds at least one socket per address.
    fn as_fd(&self) -> BorrowedFd<'_> {
        *self.sockets.first().expect("a group has at least one listener")
    }
}

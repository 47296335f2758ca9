//! Room `xdp`: loads the kernel half, attaches it, and reads what it counted. The only room that knows aya.
//!
//! Before: `start` has bound the listeners, and still has its rights. After: [`Xdp`] lives in the control
//! thread; every right may be gone, for it works on descriptors it holds.
//! Holds: in the order of use: `interfaces` (where), `pins` (what survives us), `attach` (how, and
//! what the driver said), `list` (which clients), `bans` and `costs` (which
//! of them for a while; with `budget` and `deadlines`), `settings` (how strict), `steering` (which worker), `report` (in words).
//! Never: stops the engine: without XDP all works, and [`Report`] says why it is off; only a config that
//! demands XDP makes an error of that.

mod attach;
mod bans;
mod budget;
mod costs;
mod deadlines;
mod error;
mod interfaces;
mod list;
pub mod object;
#[cfg(feature = "debug-log")]
mod packet_log;
mod pins;
mod report;
mod settings;
mod steering;

use std::{
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use aya::maps::{MapData, PerCpuArray};
use dot_common::{counters, settings::Ports};

use self::{
    attach::{Kernel, Link},
    bans::Bans,
    costs::Costs,
    interfaces::Interface,
    list::Lists,
    pins::Pins,
    settings::{Prefixes, Written},
};
pub use self::{
    costs::Charges,
    error::XdpError,
    report::{BanCounts, BanRow, CostCounts, InterfaceReport, PacketCount, ProgramReport, Report},
};
use crate::config;

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
    ports: Ports,
    prefixes: Prefixes,
    kernel: Option<Attached>,
}

/// What we hold while attached.
struct Attached {
    counters: PerCpuArray<MapData, u64>,
    settings: Written,
    bans: Bans,
    costs: Costs,
    lists: Lists,
    links: Vec<Link>,
    pins: Option<Pins>,
}

/// Loads and attaches the kernel half as `config` says, and steers `groups`.
///
/// `owner` (user, group) gets the pins, so that an unprivileged process can remove them at its end.
///
/// # Errors
/// Only when `config` demands what cannot be had: `mode` native or generic, `required`, or a value that
/// this version does not have.
pub fn start(
    config: &config::Xdp,
    groups: &[ListenerGroup<'_>],
    owner: Option<(u32, u32)>,
) -> Result<Xdp, XdpError> {
    let ports = settings::ports(groups)?;
    let prefixes = Prefixes::of(config);
    let steering = steering::steer(config.steering, groups)?;
    let mut report =
        Report { steering: steering.name, steering_reason: steering.reason, ..Report::default() };
    let attached = if config.mode == config::XdpMode::Off {
        Err(if config.required { XdpError::RequiredButOff } else { XdpError::NotWanted })
    } else {
        attach(config, groups, &ports, owner, &mut report)
    };
    report.programs.extend(steering.program);
    let demanded =
        config.required || matches!(config.mode, config::XdpMode::Native | config::XdpMode::Generic);
    match attached {
        Ok(attached) => {
            report.summarize();
            Ok(Xdp { report, ports, prefixes, kernel: Some(attached) })
        }
        Err(error) if demanded => Err(error),
        Err(error) => {
            report.state = "off".into();
            report.reason = Some(error.to_string());
            Ok(Xdp { report, ports, prefixes, kernel: None })
        }
    }
}

impl Xdp {
    /// What is attached where, in which mode, and why not.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut report = self.report.clone();
        if let Some(kernel) = &self.kernel {
            report.bans = kernel.bans.counts();
            report.costs = kernel.costs.counts();
        }
        report
    }

    /// What the kernel half counted so far, all CPUs together: every verdict there is, also those never given.
    #[must_use]
    pub fn packets(&self) -> Vec<PacketCount> {
        let counters = self.kernel.as_ref().map(|kernel| &kernel.counters);
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

    /// Takes over what can change while packets flow: the gates, the lists, and the limits but for the
    /// lengths of client prefixes, which the engine's caps share.
    ///
    /// Added first, removed last: no prefix that stays on a list is off it for a moment.
    ///
    /// # Errors
    /// [`XdpError::List`], [`XdpError::Settings`]: the kernel refused something; what was before still holds.
    pub fn apply(&mut self, config: &config::Xdp) -> Result<(), XdpError> {
        let (ports, prefixes) = (self.ports, self.prefixes);
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        let before = kernel.lists.grow(config)?;
        if let Err(error) = kernel.settings.apply(config, ports, prefixes) {
            kernel.lists.restore(&before);
            return Err(error);
        }
        kernel.lists.shrink(config);
        kernel.costs.apply(&config.limit);
        kernel.tell_of_clients()
    }

    /// Every ban, the one that ends first in front.
    #[must_use]
    pub fn bans(&self) -> Vec<BanRow> {
        self.kernel.as_ref().map(|kernel| kernel.bans.rows()).unwrap_or_default()
    }

    /// Bans a client, as an operator says it: an address, or a prefix that limits count by.
    ///
    /// # Errors
    /// [`XdpError::Ban`]: the request is wrong, or XDP is off and nothing would hold the ban.
    pub fn ban(&mut self, client: &str, length: Duration, reason: &str) -> Result<BanRow, XdpError> {
        let kernel = self.attached()?;
        let row = kernel.bans.add(client, length, reason)?;
        kernel.tell_of_clients()?;
        Ok(row)
    }

    /// Lifts a ban, whoever made it.
    ///
    /// # Errors
    /// [`XdpError::Ban`]: there is none.
    pub fn unban(&mut self, client: &str) -> Result<BanRow, XdpError> {
        let kernel = self.attached()?;
        let row = kernel.bans.remove(client)?;
        kernel.tell_of_clients()?;
        Ok(row)
    }

    /// Forgets what is over; to be called now and then.
    pub fn sweep(&mut self) {
        let Some(kernel) = &mut self.kernel else { return };
        kernel.bans.sweep();
        kernel.costs.sweep();
        if let Err(error) = kernel.tell_of_clients() {
            tracing::error!("{error}");
        }
    }

    /// Charges clients with what workers saw of them: who has spent its budget is refused, who does wrong again and again
    /// is banned.
    pub fn charge(&mut self, charges: &Charges) {
        let Some(kernel) = &mut self.kernel else { return };
        for (client, charge) in charges {
            if let Some((length, cause)) = kernel.costs.charge(*client, charge)
                && !kernel.lists.allow(*client)
            {
                kernel.bans.add_for(*client, length, cause);
            }
        }
        if let Err(error) = kernel.tell_of_clients() {
            tracing::error!("{error}");
        }
    }

    /// Whether anything would come of [`Xdp::charge`].
    #[must_use]
    pub fn wants_charges(&self, config: &config::Xdp) -> bool {
        let limit = &config.limit;
        self.kernel.is_some() && (limit.handshake_cost_per_second != 0 || limit.ban_seconds != 0)
    }

    fn attached(&mut self) -> Result<&mut Attached, XdpError> {
        let reason = self.report.reason.as_deref().unwrap_or("no reason given");
        let reason = format!("XDP is off ({reason}): nothing would hold a ban");
        self.kernel.as_mut().ok_or(XdpError::Ban { reason })
    }

    /// Takes the kernel half off every interface, and removes all pins.
    ///
    /// The kernel ends a link whose pin was removed a few milliseconds later.
    pub fn detach(self) {
        let Some(Attached { links, pins, .. }) = self.kernel else { return };
        // Pins first: a link goes when its last reference does, and its descriptor is the other one.
        if let Some(pins) = pins {
            pins.remove(&links);
        }
        drop(links);
    }
}

impl Attached {
    /// Says to the kernel half which IP versions have bans and spent budgets.
    fn tell_of_clients(&mut self) -> Result<(), XdpError> {
        self.settings.set_clients(self.bans.versions(), self.costs.versions())
    }
}

/// Loads the object and attaches it to every interface. An error leaves nothing attached or pinned.
fn attach(
    config: &config::Xdp,
    groups: &[ListenerGroup<'_>],
    ports: &Ports,
    owner: Option<(u32, u32)>,
    report: &mut Report,
) -> Result<Attached, XdpError> {
    let addresses: Vec<_> = groups.iter().map(|group| group.address.ip()).collect();
    let interfaces = interfaces::choose(&config.interfaces, &addresses)?;
    let (pins, pinless) = match Pins::open() {
        Ok(pins) => (Some(pins), None),
        Err(error @ XdpError::Locked { .. }) => return Err(error),
        Err(error) => (None, Some(error)),
    };
    let mut links = Vec::new();
    match attach_each(config, ports, &interfaces, pins.as_ref(), report, &mut links) {
        Ok(Kernel { counters, settings, bans, costs, lists, .. }) => {
            if let Some(pins) = &pins {
                pins.sweep(&links);
                pins.give_to(owner);
            }
            if let Some(error) = pinless {
                tracing::warn!("nothing is pinned, a restart will leave a gap: {error}");
            }
            Ok(Attached { counters, settings, bans, costs, lists, links, pins })
        }
        Err(error) => {
            if let Some(pins) = pins {
                pins.remove(&links);
            }
            Err(error)
        }
    }
}

/// Fills `links` and the report; on an error, with what was attached before it.
fn attach_each(
    config: &config::Xdp,
    ports: &Ports,
    interfaces: &[Interface],
    pins: Option<&Pins>,
    report: &mut Report,
    links: &mut Vec<Link>,
) -> Result<Kernel, XdpError> {
    let prefixes = Prefixes::of(config);
    let mut kernel = Kernel::load(pins, prefixes)?;
    kernel.lists.grow(config)?;
    kernel.settings.apply(config, *ports, prefixes)?;
    kernel.settings.set_clients(kernel.bans.versions(), 0)?;
    kernel.costs.apply(&config.limit);
    report.programs = kernel.programs()?;
    let must = config.required || config.mode != config::XdpMode::Auto;
    for interface in interfaces {
        let (row, held) = kernel.attach(interface, config.mode, pins);
        links.extend(held);
        if row.mode == "off" && must && !interface.may_be_skipped() {
            let reason = row.reason.unwrap_or_else(|| "no reason given".into());
            return Err(XdpError::Interface { name: row.name, reason });
        }
        report.interfaces.push(row);
    }
    if links.is_empty() {
        let reasons = report
            .interfaces
            .iter()
            .map(|row| format!("{}: {}", row.name, row.reason.as_deref().unwrap_or("no reason given")));
        let reasons: Vec<_> = reasons.collect();
        let reasons =
            if reasons.is_empty() { "none carries a listen address".into() } else { reasons.join("; ") };
        return Err(XdpError::Nowhere { reasons });
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

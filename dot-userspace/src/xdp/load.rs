//! Loads and attaches the kernel half, and removes what an earlier dotd left behind.
//!
//! Before: listeners, and rights. After: programs are attached and judge by the config, or nothing is attached or
//! pinned.
//! Never: changes objects of a running dotd.

use dot_common::settings::Ports;

use super::{
    Attached, ListenerGroup, Loaded, ProgramReport, XdpError,
    attach::Programs,
    folder,
    holder::{Holder, Look},
    interface_set::InterfaceSet,
    kernel::Kernel,
    pins::{self, Pins},
    presence::Presence,
    settings::Prefixes,
    tc,
    worker_status::Tables,
};
use crate::config;

/// What [`clear`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Attachments of programs to interfaces.
    pub links: usize,
    /// Other pins.
    pub maps: usize,
}

/// Removes what a dotd that has ended left attached and pinned in this network namespace, of any version.
///
/// # Errors
/// [`XdpError::Locked`]: a dotd runs here. [`XdpError::Unanswered`]: one may run here, and not `force`.
/// [`XdpError::Pins`]: there is no right to do so.
pub fn clear(force: bool) -> Result<Cleared, XdpError> {
    let presence = Presence::claim()?;
    if let (Some(name), false) = (&presence.unknown, force) {
        return Err(XdpError::Unanswered { name: name.clone() });
    }
    let pins = Pins::open()?;
    let names = pins.names();
    let links = names.iter().filter(|name| pins::is_link(name)).count();
    let filters = tc::detach_filters()?;
    pins.remove(&[]);
    Ok(Cleared { links: links + filters, maps: names.len() - links })
}

/// As [`clear`], at a start that takes nothing over. Mounts nothing; where there is no right to look, or another dotd runs, nothing
/// of this one's is left.
pub fn clear_left() {
    if !folder::is_there() {
        return;
    }
    match clear(false) {
        Ok(Cleared { links: 0, .. }) => {}
        Ok(Cleared { links, .. }) => {
            tracing::info!("xdp: {links} links that an earlier dotd left are detached")
        }
        Err(error) => tracing::debug!("xdp: what an earlier dotd left is not looked at: {error}"),
    }
}

/// Loads the object and attaches it to every interface. An error leaves nothing attached or pinned.
///
/// Without `required` interfaces may appear later. `continues`: counters continue from the pinned ones.
pub(super) fn load(
    config: &config::Xdp,
    groups: &[ListenerGroup<'_>],
    ports: Ports,
    (required, continues): (bool, bool),
    tables: &mut Tables,
) -> Result<(Loaded, Vec<ProgramReport>, Look), XdpError> {
    let presence = match Presence::claim() {
        Ok(presence) => {
            // dotd does not stay off for this, because any user can make such a socket.
            if let Some(name) = &presence.unknown {
                tracing::warn!(
                    "xdp: {name} does not say whether another dotd runs in this network namespace"
                );
            }
            Some(presence)
        }
        Err(error @ XdpError::Locked { .. }) => return Err(error),
        Err(error) => {
            tracing::warn!("a second dotd would not find this one: {error}");
            None
        }
    };
    let (pins, pinless) = match Pins::open() {
        Ok(pins) => (Some(pins), None),
        Err(error @ XdpError::Locked { .. }) => return Err(error),
        Err(error) => (None, Some(error)),
    };
    let addresses = groups.iter().map(|group| group.address.ip()).collect();
    let interface_set = InterfaceSet::new(&config.interfaces, addresses, config.mode);
    let prepared = prepare(config, ports, (pins.as_ref(), continues), tables);
    let (kernel, programs) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            if let Some(pins) = pins {
                pins.remove(&[]);
            }
            return Err(error);
        }
    };
    let report = programs.report(&kernel.tail_calls);
    let mut holder = Holder::new(programs, interface_set, pins, presence);
    let begun = report.and_then(|report| holder.begin(required).map(|()| report));
    let report = begun.inspect_err(|_| holder.let_go())?;
    if let Some(error) = pinless {
        tracing::warn!("nothing is pinned, a restart will leave a gap: {error}");
    }
    let look = holder.seen(0);
    Ok((Loaded { kernel, attached: Attached::Here(Box::new(holder)) }, report, look))
}

/// Whether the programs of this build load here. Nothing is attached or pinned.
pub(super) fn try_load(config: &config::Xdp, ports: Ports) -> Result<(), XdpError> {
    prepare(config, ports, (None, false), &mut Tables::new(1)).map(drop)
}

/// Loads the object and writes its settings and lists.
fn prepare(
    config: &config::Xdp,
    ports: Ports,
    pins: (Option<&Pins>, bool),
    tables: &mut Tables,
) -> Result<(Kernel, Programs), XdpError> {
    let prefixes = Prefixes::of(config);
    let (mut kernel, programs) = Kernel::load(config, ports, pins, prefixes, tables)?;
    kernel.lists.grow(config)?;
    kernel.settings.apply(config, prefixes)?;
    kernel.costs.apply(&config.limit);
    kernel.tell_of_clients()?;
    kernel.know_addresses()?;
    Ok((kernel, programs))
}

//! One interface with its attachments: attaches, checks and repairs them.
//!
//! Before: `interfaces` chose it. After: its frames are judged, or its row in the report says why not.
//! Holds: the two links, and the row. An attachment that exists stays: it ends when its interface does.
//! Never: waits while serving; logs the same thing twice.

use super::{
    InterfaceReport,
    attach::{Found, Link, Patience, Programs, keep},
    clsact::Clsact,
    interfaces::Interface,
    pins::Pins,
    tc,
};
use crate::config::XdpMode;

/// The mode of an interface whose packets are judged at tc ingress.
const TC: &str = "tc";

/// The interface and its attachments.
pub(super) struct Attachment {
    interface: Interface,
    row: InterfaceReport,
    /// The link of the judge, as XDP or at tc ingress.
    xdp: Option<Link>,
    /// The reason why it is not attached, or not in a better mode.
    obstacles: Vec<String>,
    learner: Option<Link>,
    /// The link of the SYN proxy, where the config wants one.
    proxy: Option<Link>,
    /// The qdisc for filters, before Linux 6.6, if dotd made it: it is removed after them.
    qdisc: Option<Clsact>,
}

impl Attachment {
    /// Attaches to an interface, as far as that is possible.
    pub(super) fn take(
        interface: Interface,
        programs: &mut Programs,
        mode: XdpMode,
        pins: Option<&Pins>,
        patience: Patience,
    ) -> Self {
        let row = InterfaceReport {
            name: interface.name.clone(),
            mode: "off".into(),
            learner: "off".into(),
            ..InterfaceReport::default()
        };
        let (obstacles, qdisc) = (Vec::new(), None);
        let mut attachment = Self { interface, row, xdp: None, obstacles, learner: None, proxy: None, qdisc };
        attachment.complete(programs, mode, pins, patience);
        attachment
    }

    /// The interface.
    pub(super) fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Its row in the report.
    pub(super) fn row(&self) -> &InterfaceReport {
        &self.row
    }

    /// What is attached.
    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        self.xdp.iter().chain(&self.learner).chain(&self.proxy)
    }

    /// The same, by value; the qdisc of filters stays.
    pub(super) fn into_links(mut self) -> impl Iterator<Item = Link> {
        std::mem::forget(self.qdisc.take());
        self.xdp.into_iter().chain(self.learner).chain(self.proxy)
    }

    /// The interface has another name now.
    pub(super) fn rename(&mut self, name: &str) {
        if self.interface.name != name {
            tracing::info!("xdp: interface {} is called {name} now", self.interface.name);
            name.clone_into(&mut self.interface.name);
            name.clone_into(&mut self.row.name);
        }
    }

    /// Checks whether everything is still attached, and repairs what is not. Returns the number of repairs.
    pub(super) fn mend(&mut self, programs: &mut Programs, mode: XdpMode, pins: Option<&Pins>) -> u64 {
        let name = self.interface.name.clone();
        let renew_judge = |link| match self.row.mode == TC {
            true => programs.renew_tc(tc::INGRESS, link),
            false => programs.renew_xdp(link),
        };
        let (xdp, mut repairs) = look_at(self.xdp.take(), renew_judge, pins, &format!("XDP on {name}"));
        let renew_learner = |link| programs.renew_tc(tc::learner(&self.interface), link);
        let (learner, learners) =
            look_at(self.learner.take(), renew_learner, pins, &format!("learner on {name}"));
        repairs += learners;
        let renew_proxy = |link| programs.renew_tc(tc::PROXY, link);
        let (proxy, proxies) = look_at(self.proxy.take(), renew_proxy, pins, &format!("SYN proxy on {name}"));
        repairs += proxies;
        let pin = |link| if has_lost_its_pin(&link, pins) { pinned(link, pins) } else { Some(link) };
        self.xdp = xdp.and_then(pin);
        self.learner = learner.and_then(pin);
        self.proxy = proxy.and_then(pin);
        self.take_freed(programs, mode, pins);
        let (had_xdp, had_learner) = (self.xdp.is_some(), self.learner.is_some());
        if !(had_xdp && had_learner && self.proxy.is_some() == self.wants_proxy(programs)) {
            self.complete(programs, mode, pins, Patience::None);
        }
        let attached = [(had_xdp, &self.xdp), (had_learner, &self.learner)];
        let attached = attached.into_iter().filter(|(had, link)| !had && link.is_some()).count() as u64;
        if attached > 0 {
            self.say("attached again");
        }
        repairs + attached
    }

    /// Replaces tc ingress by XDP once the other program that held the interface, or one above it, is gone.
    fn take_freed(&mut self, programs: &mut Programs, mode: XdpMode, pins: Option<&Pins>) {
        let is_taken = |why: &String| why.contains("busy") || why.contains("File exists");
        let was_busy = self.row.mode == TC && self.obstacles.iter().any(is_taken);
        if !self.interface.way.is_by_xdp(mode) || !was_busy {
            return;
        }
        let (Some((mode, link)), obstacles) =
            programs.attach_xdp(&self.interface, mode, pins, Patience::None)
        else {
            return;
        };
        // For a moment both judge; in the other order neither would.
        let at_ingress = self.xdp.replace(link);
        if let (Some(pins), Some(pin)) = (pins, at_ingress.as_ref().and_then(Link::pin_name)) {
            pins.unlink(pin);
        }
        self.row.mode = mode.into();
        self.obstacles = obstacles;
        self.row.reason = (!self.obstacles.is_empty()).then(|| self.obstacles.join("; "));
        self.say("free now");
    }

    /// Logs its state.
    pub(super) fn say(&self, what: &str) {
        let InterfaceReport { name, mode, learner, .. } = &self.row;
        tracing::info!("xdp: {name}: {what}: {mode}, learner {learner}");
    }

    /// Detaches everything, and removes its pins.
    pub(super) fn leave(self, pins: Option<&Pins>) {
        for link in self.links() {
            if let (Some(pins), Some(pin)) = (pins, link.pin_name()) {
                pins.unlink(pin);
            }
        }
    }

    /// Attaches what is missing, and updates the row.
    fn complete(&mut self, programs: &mut Programs, mode: XdpMode, pins: Option<&Pins>, patience: Patience) {
        self.row.reason = self.interface.obstacle().map(str::to_owned);
        if self.row.reason.is_none() {
            self.complete_xdp(programs, mode, pins, patience);
            let no_learner = self.complete_learner(programs, pins);
            let no_proxy = self.complete_proxy(programs, pins);
            let reasons: Vec<_> = self.obstacles.iter().cloned().chain(no_learner).chain(no_proxy).collect();
            self.row.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        }
        let is_wanted = !self.interface.may_be_skipped() || self.xdp.is_some();
        self.row.degraded = is_wanted && (self.xdp.is_none() || self.learner.is_none());
    }

    fn complete_xdp(
        &mut self,
        programs: &mut Programs,
        mode: XdpMode,
        pins: Option<&Pins>,
        patience: Patience,
    ) {
        if self.xdp.is_some() {
            return;
        }
        let (mut attached, mut obstacles) = (None, Vec::new());
        let is_by_xdp = self.interface.way.is_by_xdp(mode);
        if is_by_xdp {
            (attached, obstacles) = programs.attach_xdp(&self.interface, mode, pins, patience);
        }
        // Where the config requires XDP, tc ingress does not replace it.
        let is_covered = attached.is_some() || self.interface.may_be_skipped();
        if !is_by_xdp || mode == XdpMode::Auto && !is_covered {
            match programs.attach_tc(tc::INGRESS, &self.interface, pins, &mut self.qdisc) {
                Ok((_, link)) => attached = Some((TC, link)),
                Err(reason) => obstacles.push(format!("tc: {reason}")),
            }
        }
        self.row.mode = attached.as_ref().map_or("off", |(mode, _)| mode).into();
        self.xdp = attached.map(|(_, link)| link);
        self.obstacles = obstacles;
    }

    fn complete_learner(&mut self, programs: &mut Programs, pins: Option<&Pins>) -> Option<String> {
        // A learner without a judge is useless.
        if self.learner.is_some() || self.xdp.is_none() {
            return None;
        }
        let hook = tc::learner(&self.interface);
        match programs.attach_tc(hook, &self.interface, pins, &mut self.qdisc) {
            Ok((way, link)) => {
                self.row.learner = way.into();
                self.learner = Some(link);
                None
            }
            Err(reason) => {
                self.row.learner = "off".into();
                Some(format!("learner: {reason}"))
            }
        }
    }

    /// Whether SYNs are to be answered here: not those of this machine, nor of an interface without Ethernet.
    fn wants_proxy(&self, programs: &Programs) -> bool {
        let Interface { is_loopback, is_ethernet, .. } = self.interface;
        programs.has_proxy && self.xdp.is_some() && is_ethernet && !is_loopback
    }

    fn complete_proxy(&mut self, programs: &mut Programs, pins: Option<&Pins>) -> Option<String> {
        if self.proxy.is_some() || !self.wants_proxy(programs) {
            return None;
        }
        match programs.attach_tc(tc::PROXY, &self.interface, pins, &mut self.qdisc) {
            Ok((_, link)) => {
                self.proxy = Some(link);
                None
            }
            Err(reason) => Some(format!("SYN proxy: {reason}")),
        }
    }
}

/// Restores a pin that was removed: without it a crash would leave a gap.
fn pinned(link: Link, pins: Option<&Pins>) -> Option<Link> {
    let (Link::Held(held, Some(pin)), Some(pins)) = (link, pins) else { return None };
    tracing::warn!("xdp: {}: another program removed this pin; it is made again", pins.path(&pin).display());
    keep(held, pin, Some(pins)).map_err(|reason| tracing::warn!("xdp: not pinned: {reason}")).ok()
}

fn has_lost_its_pin(link: &Link, pins: Option<&Pins>) -> bool {
    link.pin_name().zip(pins).is_some_and(|(pin, pins)| !pins.has(pin))
}

/// The link, if it still exists, and the number of repairs. The pin of a lost link is removed.
fn look_at(
    link: Option<Link>,
    renew: impl FnOnce(Link) -> Found,
    pins: Option<&Pins>,
    what: &str,
) -> (Option<Link>, u64) {
    let Some(link) = link else { return (None, 0) };
    let pin = link.pin_name().map(str::to_owned);
    match renew(link) {
        Found::Ours(link) => (Some(link), 0),
        Found::TakenBack(link) => {
            tracing::warn!("xdp: {what}: another program had replaced ours; ours is back");
            (Some(link), 1)
        }
        Found::Lost => {
            tracing::warn!("xdp: {what}: another program detached it, or its interface has gone");
            if let (Some(pin), Some(pins)) = (pin, pins) {
                pins.unlink(&pin);
            }
            (None, 0)
        }
    }
}

//! All interfaces with XDP, and how a check changes them.
//!
//! Before: the config's interfaces, or the listen addresses. After: each of them is attached, or its row says why not;
//! an attachment that was detached or replaced, or whose interface was made again, is restored.
//! Holds: the comparison of the attachments with the interfaces that exist, which is pure.
//! Never: detaches an interface that still exists, because one that is down, or lost its address, may come back. The
//! exception is an interface whose packets are now judged on another one.

use std::net::IpAddr;

use super::{
    InterfaceReport, XdpError,
    attach::{Link, Patience, Programs},
    attachment::Attachment,
    interfaces::{self, Interface},
    paths,
    pins::Pins,
};
use crate::config::XdpMode;

/// The reason shown for an interface that the config leaves out.
const LEFT_OUT: &str = "not in xdp.interfaces";

/// The wanted interfaces, and the attachments.
pub(super) struct InterfaceSet {
    /// The config's interfaces; empty: chosen by address.
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    mode: XdpMode,
    attachments: Vec<Attachment>,
    unserved: Vec<IpAddr>,
    /// Interfaces that the config leaves out, and through which a listen address can be reached.
    left_out: Vec<String>,
}

/// One difference between the attachments and the interfaces that exist.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// The interface with this number does not exist any more.
    Gone(u32),
    /// It has another name.
    Renamed(u32, String),
    /// A named interface that was missing exists now, so its placeholder can go.
    Found(String),
    /// A wanted interface without an attachment.
    New(Interface),
}

impl InterfaceSet {
    /// No interface yet: [`InterfaceSet::look`] finds them.
    pub(super) fn new(names: &[String], addresses: Vec<IpAddr>, mode: XdpMode) -> Self {
        let (attachments, unserved, left_out) = (Vec::new(), Vec::new(), Vec::new());
        Self { names: names.to_vec(), addresses, mode, attachments, unserved, left_out }
    }

    /// Compares the attachments with the interfaces that exist, and follows. Returns the number of new attachments.
    pub(super) fn look(
        &mut self,
        programs: &mut Programs,
        pins: Option<&Pins>,
        patience: Patience,
    ) -> Result<u64, XdpError> {
        let present = interfaces::list()?;
        let chosen = paths::choose(&self.names, &self.addresses, &present);
        let held: Vec<Interface> =
            self.attachments.iter().map(|attachment| attachment.interface().clone()).collect();
        let mut attached = 0;
        for change in changes(&held, &present, &chosen) {
            match change {
                Change::Gone(index) => self.leave(pins, "has gone", |it| it.index == index),
                Change::Found(name) => self.leave(pins, "is there", |it| it.index == 0 && it.name == name),
                Change::Renamed(index, name) => {
                    let attachments = self
                        .attachments
                        .iter_mut()
                        .filter(|attachment| attachment.interface().index == index);
                    attachments.for_each(|attachment| attachment.rename(&name));
                }
                Change::New(interface) => {
                    let attachment = Attachment::take(interface, programs, self.mode, pins, patience);
                    let is_attached = attachment.row().mode != "off";
                    if is_attached && patience == Patience::None {
                        attachment.say("attached");
                    }
                    attached += u64::from(is_attached);
                    self.attachments.push(attachment);
                }
            }
        }
        // This comes after the others, so that every packet is judged meanwhile, perhaps twice.
        for index in covered(&self.attachments, &present, &chosen) {
            self.leave(pins, "is judged on another interface now", |it| it.index == index);
        }
        self.unserved =
            if self.names.is_empty() { paths::unserved(&self.addresses, &chosen) } else { Vec::new() };
        self.left_out = paths::left_out(&self.names, &self.addresses, &present, &chosen);
        Ok(attached)
    }

    /// Checks every link, and repairs broken ones. Returns the number of repairs.
    pub(super) fn mend(&mut self, programs: &mut Programs, pins: Option<&Pins>) -> u64 {
        let mode = self.mode;
        self.attachments.iter_mut().map(|attachment| attachment.mend(programs, mode, pins)).sum()
    }

    /// The rows of the report.
    pub(super) fn rows(&self) -> Vec<InterfaceReport> {
        let left_out = |name: &String| InterfaceReport {
            name: name.clone(),
            mode: "off".into(),
            reason: Some(LEFT_OUT.into()),
            learner: "off".into(),
            degraded: false,
        };
        let attached = self.attachments.iter().map(|attachment| attachment.row().clone());
        attached.chain(self.left_out.iter().map(left_out)).collect()
    }

    /// Listen addresses on no interface.
    pub(super) fn unserved(&self) -> &[IpAddr] {
        &self.unserved
    }

    /// The first interface that must have XDP and lacks it.
    pub(super) fn first_failure(&self) -> Option<&InterfaceReport> {
        let is_off = |attachment: &&Attachment| {
            attachment.row().mode == "off" && !attachment.interface().may_be_skipped()
        };
        self.attachments.iter().find(is_off).map(Attachment::row)
    }

    /// Every attachment.
    pub(super) fn links(&self) -> Vec<&Link> {
        self.attachments.iter().flat_map(Attachment::links).collect()
    }

    /// All attachments, without their rows.
    pub(super) fn into_links(self) -> impl Iterator<Item = Link> {
        self.attachments.into_iter().flat_map(Attachment::into_links)
    }

    /// Detaches everything; the caller removes pins.
    pub(super) fn dissolve(&mut self) {
        self.attachments.clear();
    }

    fn leave(&mut self, pins: Option<&Pins>, why: &str, is_left: impl Fn(&Interface) -> bool) {
        for attachment in self.attachments.extract_if(.., |attachment| is_left(attachment.interface())) {
            tracing::info!("xdp: interface {} {why}", attachment.interface().name);
            attachment.leave(pins);
        }
    }
}

/// The numbers of interfaces that are not chosen any more because their packets are judged on others: one became a
/// port, or got ports.
fn covered(attachments: &[Attachment], present: &[Interface], chosen: &[Interface]) -> Vec<u32> {
    let is_attached = |one: &Interface| {
        let held = attachments.iter().find(|attachment| attachment.interface().index == one.index);
        held.is_some_and(|held| held.row().mode != "off")
    };
    let is_covered = |held: &&Interface| {
        let mut others = chosen.iter().filter(|one| paths::covers(one, held, present)).peekable();
        others.peek().is_some() && others.all(is_attached)
    };
    let held = |attachment: &Attachment| {
        let index = attachment.interface().index;
        present
            .iter()
            .find(|interface| interface.index == index && chosen.iter().all(|one| one.index != index))
    };
    attachments.iter().filter_map(held).filter(is_covered).map(|interface| interface.index).collect()
}

/// The steps, in order, after which the attachments match the interfaces that exist.
fn changes(held: &[Interface], present: &[Interface], chosen: &[Interface]) -> Vec<Change> {
    let mut changes = Vec::new();
    for ours in held {
        let now = present.iter().find(|interface| interface.index == ours.index);
        match now {
            _ if ours.index == 0 => {
                if chosen.iter().any(|one| one.index != 0 && one.name == ours.name) {
                    changes.push(Change::Found(ours.name.clone()));
                }
            }
            None => changes.push(Change::Gone(ours.index)),
            Some(now) if now.name != ours.name => {
                changes.push(Change::Renamed(ours.index, now.name.clone()));
            }
            Some(_) => {}
        }
    }
    let is_held = |wanted: &Interface| {
        held.iter().any(|ours| ours.index == wanted.index && (wanted.index != 0 || ours.name == wanted.name))
    };
    changes.extend(chosen.iter().filter(|wanted| !is_held(wanted)).cloned().map(Change::New));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, index: u32) -> Interface {
        let mut interface = Interface::default();
        name.clone_into(&mut interface.name);
        interface.index = index;
        interface
    }

    /// Goal: each change of an interface leads to its step, and to no other. Method: attachments, existing and wanted
    /// interfaces, case by case.
    #[test]
    fn each_difference_is_followed() {
        let eth = |index| interface("eth0", index);
        let absent = || interface("eth0", 0);
        type Case = (&'static str, Vec<Interface>, Vec<Interface>, Vec<Interface>, Vec<Change>);
        let cases: [Case; 8] = [
            ("nothing", vec![eth(2)], vec![eth(2)], vec![eth(2)], vec![]),
            ("first look", vec![], vec![eth(2)], vec![eth(2)], vec![Change::New(eth(2))]),
            ("down, so not wanted", vec![eth(2)], vec![eth(2)], vec![], vec![]),
            ("deleted, by address", vec![eth(2)], vec![], vec![], vec![Change::Gone(2)]),
            (
                "deleted, by name",
                vec![eth(2)],
                vec![],
                vec![absent()],
                vec![Change::Gone(2), Change::New(absent())],
            ),
            ("still absent", vec![absent()], vec![], vec![absent()], vec![]),
            (
                "back",
                vec![absent()],
                vec![eth(9)],
                vec![eth(9)],
                vec![Change::Found("eth0".into()), Change::New(eth(9))],
            ),
            (
                "made anew between two looks",
                vec![eth(2)],
                vec![eth(9)],
                vec![eth(9)],
                vec![Change::Gone(2), Change::New(eth(9))],
            ),
        ];
        for (what, held, present, chosen, expected) in cases {
            assert_eq!(changes(&held, &present, &chosen), expected, "{what}");
        }
        let renamed = changes(&[eth(2)], &[interface("wan", 2)], &[absent()]);
        assert_eq!(renamed, [Change::Renamed(2, "wan".into()), Change::New(absent())]);
    }
}

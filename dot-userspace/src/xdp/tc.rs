//! Attaches programs to tc: the learner at egress, and the judge at ingress where XDP cannot be.
//!
//! Before: `attach` loaded them. After: a link (tcx, from Linux 6.6 on), or a filter on a qdisc that dotd made.
//! Holds: both methods. Never: comes after another program at ingress, which could drop packets before they are judged.

use aya::{
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_detach_program},
    },
    util::KernelVersion,
};
use dot_common::maps::{PROGRAM_INGRESS, PROGRAM_LEARN, PROGRAM_LEARN_IP, PROGRAM_PROXY};

use super::{
    XdpError,
    clsact::Clsact,
    error::innermost,
    interfaces::{self, Interface},
    link::Link,
    pins::{Pins, keep},
};

/// A tc program and its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hook {
    /// The program.
    pub(super) program: &'static str,
    /// The beginning of its pin's name.
    pin: &'static str,
    kind: TcAttachType,
}

/// The judge.
pub(super) const INGRESS: Hook =
    Hook { program: PROGRAM_INGRESS, pin: "ingress", kind: TcAttachType::Ingress };
/// The SYN proxy: behind the judge.
pub(super) const PROXY: Hook = Hook { program: PROGRAM_PROXY, pin: "proxy", kind: TcAttachType::Ingress };
/// The learner, on Ethernet.
const LEARN: Hook = Hook { program: PROGRAM_LEARN, pin: "learn", kind: TcAttachType::Egress };
/// The learner, on other interfaces.
const LEARN_IP: Hook = Hook { program: PROGRAM_LEARN_IP, ..LEARN };

/// The learner of an interface.
pub(super) fn learner(interface: &Interface) -> Hook {
    if interface.is_ethernet { LEARN } else { LEARN_IP }
}

/// Takes over a predecessor's link, or makes one; the name says by which method. `qdisc` keeps the qdisc that was made
/// for it.
pub(super) fn attach(
    program: &mut SchedClassifier,
    hook: Hook,
    interface: &Interface,
    pins: Option<&Pins>,
    qdisc: &mut Option<Clsact>,
) -> Result<(&'static str, Link), String> {
    if !has_tcx() {
        return attach_filter(program, hook, interface, qdisc).map(|link| ("clsact", link));
    }
    let pin = format!("{}_{}", hook.pin, interface.index);
    if let Some(pins) = pins {
        if let Some(link) = take_over(program, pins, &pin) {
            return Ok(("tcx", link));
        }
        pins.unlink(&pin);
    }
    let order = if hook == INGRESS { LinkOrder::first() } else { LinkOrder::default() };
    let id = program
        .attach_with_options(&interface.name, hook.kind, TcAttachOptions::TcxOrder(order))
        .map_err(|error| innermost(&error))?;
    let link = program.take_link(id).map_err(|error| innermost(&error))?;
    let link = FdLink::try_from(link).map_err(|error| innermost(&error))?;
    Ok(("tcx", keep(link, pin, pins)?))
}

/// Puts this dotd's program into a predecessor's link.
fn take_over(program: &mut SchedClassifier, pins: &Pins, pin: &str) -> Option<Link> {
    let old = PinnedLink::from_pin(pins.reach(pin)).ok()?;
    let link = SchedClassifierLink::try_from(FdLink::from(old)).ok()?;
    let id = program.attach_to_link(link).ok()?;
    let link = FdLink::try_from(program.take_link(id).ok()?).ok()?;
    Some(Link::Held(link, Some(pin.to_owned())))
}

/// Attaches it as a tc filter, for kernels without tcx. A predecessor's filter is replaced.
fn attach_filter(
    program: &mut SchedClassifier,
    hook: Hook,
    interface: &Interface,
    qdisc: &mut Option<Clsact>,
) -> Result<Link, String> {
    if qdisc.is_none() {
        *qdisc = Clsact::make(&interface.name, interface.index);
    }
    // "Not found" is the usual result.
    let _ = qdisc_detach_program(&interface.name, hook.kind, hook.program);
    let options = TcAttachOptions::Netlink(NlOptions::default());
    let id = program
        .attach_with_options(&interface.name, hook.kind, options)
        .map_err(|error| innermost(&error))?;
    program.take_link(id).map(Link::Filter).map_err(|error| innermost(&error))
}

/// Whether the kernel has links for tc programs.
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(6, 6, 0))
}

/// Removes dotd's filters from every interface; returns how many there were.
pub(super) fn detach_filters() -> Result<usize, XdpError> {
    if has_tcx() {
        return Ok(0);
    }
    let interfaces = interfaces::list()?;
    let hooks = |interface: &Interface| [INGRESS, learner(interface)];
    let detach = |name: &str, hook: Hook| qdisc_detach_program(name, hook.kind, hook.program).is_ok();
    let detached = interfaces.iter().flat_map(|one| hooks(one).map(|hook| detach(&one.name, hook)));
    Ok(detached.filter(|is_detached| *is_detached).count())
}

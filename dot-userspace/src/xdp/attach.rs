//! Attaches the XDP program and the learner to an interface.
//!
//! Before: `interfaces` chose it, and `pins` may hold a predecessor's link. After: frames are judged.
//! Holds: the order native, generic, off, tried explicitly, because aya's own default hides which mode it got. A link
//! of a predecessor is taken over (its program is replaced at once); without one a new link is made.
//! Never: keeps an attachment that would outlive this process unseen (netlink attachments have no descriptor).

use std::{thread, time::Duration};

use aya::{
    Ebpf,
    maps::Map,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_detach_program},
        xdp::{Xdp, XdpLink, XdpMode},
    },
    sys::SyscallError,
    util::KernelVersion,
};
use dot_common::maps::{PROGRAM_LEARN, PROGRAM_XDP};

use super::{
    ProgramReport, XdpError,
    clsact::Clsact,
    error::innermost,
    interfaces::{self, Interface},
    pins::Pins,
    tail_calls::TailCalls,
};
use crate::config;

/// The loaded programs, ready to attach, with the maps that only they use.
pub(super) struct Programs {
    object: Ebpf,
}

/// An attachment that lasts as long as this, or its pin, exists.
pub(super) enum Link {
    /// With the name of its pin, if it has one.
    Held(FdLink, Option<String>),
    /// A tc filter, before Linux 6.6, and the qdisc that we made for it: both end when this is dropped, in this order.
    #[expect(dead_code, reason = "held, not used")]
    Filter(SchedClassifierLink, Option<Clsact>),
}

/// The result of checking a link.
pub(super) enum Found {
    /// Attached, with our program.
    Ours(Link),
    /// Attached; another program had replaced ours, and ours is back.
    TakenBack(Link),
    /// Not attached any more.
    Lost,
}

impl Link {
    /// The name of its pin.
    pub(super) fn pin_name(&self) -> Option<&str> {
        match self {
            Self::Held(_, name) => name.as_deref(),
            Self::Filter(..) => None,
        }
    }
}

impl Programs {
    /// Loads the two programs of an object.
    pub(super) fn load(object: Ebpf) -> Result<Self, XdpError> {
        let mut programs = Self { object };
        programs.xdp()?.load().map_err(|error| refused(PROGRAM_XDP, &error))?;
        programs.learner()?.load().map_err(|error| refused(PROGRAM_LEARN, &error))?;
        Ok(programs)
    }

    /// The object itself, while it is being loaded.
    pub(super) fn object(&mut self) -> &mut Ebpf {
        &mut self.object
    }

    /// What the kernel says about both programs, and those that follow.
    pub(super) fn report(&self, tail_calls: &TailCalls) -> Result<Vec<ProgramReport>, XdpError> {
        let both = [PROGRAM_XDP, PROGRAM_LEARN].iter().map(|name| program_report(&self.object, name));
        let mut programs = both.collect::<Result<Vec<_>, _>>()?;
        programs.extend(tail_calls.programs(&self.object)?);
        Ok(programs)
    }

    /// Takes over a predecessor's link in one of the modes, or makes one in the first mode that works.
    ///
    /// `patience` is for a predecessor that has just ended: see [`attach_new`]. An error names the reason for each
    /// mode; a link comes with the reasons against better modes.
    pub(super) fn attach_xdp(
        &mut self,
        index: u32,
        mode: config::XdpMode,
        pins: Option<&Pins>,
        patience: Patience,
    ) -> (Option<(&'static str, Link)>, Vec<String>) {
        let pin = |mode: &str| format!("xdp_{mode}_{index}");
        let modes = modes(mode);
        let program = match self.xdp() {
            Ok(program) => program,
            Err(error) => return (None, vec![error.to_string()]),
        };
        if let Some(pins) = pins {
            for (mode, _) in &modes {
                if let Some(link) = take_over_xdp(program, pins, &pin(mode)) {
                    return (Some((*mode, link)), Vec::new());
                }
            }
            // The remaining link is dead, or in a mode that the config does not want any more.
            for mode in ["native", "generic"] {
                pins.unlink(&pin(mode));
            }
        }
        let mut reasons = Vec::new();
        for (mode, flag) in modes {
            match attach_new(program, index, flag, patience).and_then(|link| keep(link, pin(mode), pins)) {
                Ok(link) => return (Some((mode, link)), reasons),
                Err(reason) => reasons.push(format!("{mode}: {reason}")),
            }
        }
        (None, reasons)
    }

    /// The same for the learner; the name says by which mechanism.
    pub(super) fn attach_learner(
        &mut self,
        interface: &Interface,
        pins: Option<&Pins>,
    ) -> Result<(&'static str, Link), String> {
        let pin = format!("learn_{}", interface.index);
        let program = self.learner().map_err(|error| error.to_string())?;
        if !has_tcx() {
            return attach_filter(program, interface).map(|link| ("clsact", link));
        }
        if let Some(link) = pins.and_then(|pins| take_over_learner(program, pins, &pin)) {
            return Ok(("tcx", link));
        }
        if let Some(pins) = pins {
            pins.unlink(&pin);
        }
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program
            .attach_with_options(&interface.name, TcAttachType::Egress, options)
            .map_err(|error| innermost(&error))?;
        let link = program.take_link(id).map_err(|error| innermost(&error))?;
        let link = FdLink::try_from(link).map_err(|error| innermost(&error))?;
        Ok(("tcx", keep(link, pin, pins)?))
    }

    /// Checks a link of the XDP program and repairs it in one step: it puts our program into the link, which changes
    /// nothing if it is there already, and fails if the link has lost its interface.
    pub(super) fn renew_xdp(&mut self, link: Link) -> Found {
        let Link::Held(link, pin) = link else { return Found::Lost };
        let Ok(program) = self.xdp() else { return Found::Lost };
        let is_ours = program.info().is_ok_and(|ours| holds(&link, ours.id()));
        let renewed = || {
            let id = program.attach_to_link(XdpLink::try_from(link).ok()?).ok()?;
            FdLink::try_from(program.take_link(id).ok()?).ok()
        };
        found(renewed(), pin, is_ours)
    }

    /// As [`Programs::renew_xdp`], for the learner. A tc filter cannot be checked without rights; it ends with its
    /// interface.
    pub(super) fn renew_learner(&mut self, link: Link) -> Found {
        let Link::Held(link, pin) = link else { return Found::Ours(link) };
        let Ok(program) = self.learner() else { return Found::Lost };
        let is_ours = program.info().is_ok_and(|ours| holds(&link, ours.id()));
        let renewed = || {
            let id = program.attach_to_link(SchedClassifierLink::try_from(link).ok()?).ok()?;
            FdLink::try_from(program.take_link(id).ok()?).ok()
        };
        found(renewed(), pin, is_ours)
    }

    fn xdp(&mut self) -> Result<&mut Xdp, XdpError> {
        let program = self.object.program_mut(PROGRAM_XDP).ok_or_else(|| absent(PROGRAM_XDP))?;
        program.try_into().map_err(|error: ProgramError| refused(PROGRAM_XDP, &error))
    }

    fn learner(&mut self) -> Result<&mut SchedClassifier, XdpError> {
        let program = self.object.program_mut(PROGRAM_LEARN).ok_or_else(|| absent(PROGRAM_LEARN))?;
        program.try_into().map_err(|error: ProgramError| refused(PROGRAM_LEARN, &error))
    }
}

/// Whether to wait for a predecessor's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// At start, when nothing else waits.
    Wait,
    /// While serving: another check comes soon.
    None,
}

/// Makes a new XDP link.
///
/// A link whose pin was removed lives on for some milliseconds, and the interface is busy for that time. So this waits
/// for a predecessor that has just ended.
fn attach_new(program: &mut Xdp, index: u32, mode: XdpMode, patience: Patience) -> Result<FdLink, String> {
    const PAUSE: Duration = Duration::from_millis(20);
    let tries = if patience == Patience::Wait { 20 } else { 1 };
    let mut tried = 1;
    let id = loop {
        match program.attach_to_if_index(index, mode) {
            Ok(id) => break id,
            Err(error) if tried < tries && is_busy(&error) => thread::sleep(PAUSE),
            Err(error) => return Err(innermost(&error)),
        }
        tried += 1;
    };
    let link = program.take_link(id).map_err(|error| innermost(&error))?;
    FdLink::try_from(link).map_err(|_| "no XDP links in this kernel (Linux 5.9 has them)".into())
}

fn holds(link: &FdLink, program: u32) -> bool {
    link.info().is_ok_and(|info| info.program_id() == program)
}

fn found(link: Option<FdLink>, pin: Option<String>, is_ours: bool) -> Found {
    match link {
        Some(link) if is_ours => Found::Ours(Link::Held(link, pin)),
        Some(link) => Found::TakenBack(Link::Held(link, pin)),
        None => Found::Lost,
    }
}

fn is_busy(error: &ProgramError) -> bool {
    let ProgramError::SyscallError(SyscallError { io_error, .. }) = error else { return false };
    matches!(io_error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

/// The modes to try, in order.
fn modes(mode: config::XdpMode) -> Vec<(&'static str, XdpMode)> {
    let (native, generic) = (("native", XdpMode::Driver), ("generic", XdpMode::Skb));
    match mode {
        config::XdpMode::Auto => vec![native, generic],
        config::XdpMode::Native => vec![native],
        config::XdpMode::Generic => vec![generic],
        config::XdpMode::Off => Vec::new(),
    }
}

/// Puts our program into a predecessor's link; its frames are judged without a gap.
fn take_over_xdp(program: &mut Xdp, pins: &Pins, pin: &str) -> Option<Link> {
    let old = PinnedLink::from_pin(pins.reach(pin)).ok()?;
    let link = XdpLink::try_from(FdLink::from(old)).ok()?;
    // Fails for a link whose interface is gone: the caller then makes a new one.
    let id = program.attach_to_link(link).ok()?;
    let link = FdLink::try_from(program.take_link(id).ok()?).ok()?;
    tracing::info!("{pin}: took over the link of a predecessor");
    Some(Link::Held(link, Some(pin.to_owned())))
}

/// As [`take_over_xdp`], for the learner.
fn take_over_learner(program: &mut SchedClassifier, pins: &Pins, pin: &str) -> Option<Link> {
    let old = PinnedLink::from_pin(pins.reach(pin)).ok()?;
    let link = SchedClassifierLink::try_from(FdLink::from(old)).ok()?;
    let id = program.attach_to_link(link).ok()?;
    let link = FdLink::try_from(program.take_link(id).ok()?).ok()?;
    Some(Link::Held(link, Some(pin.to_owned())))
}

/// Pins a link. One that cannot be pinned is lost, and with it the attachment: aya's `pin` takes it whole.
pub(super) fn keep(link: FdLink, pin: String, pins: Option<&Pins>) -> Result<Link, String> {
    let Some(pins) = pins else { return Ok(Link::Held(link, None)) };
    match link.pin(pins.reach(&pin)) {
        Ok(pinned) => Ok(Link::Held(pinned.into(), Some(pin))),
        Err(error) => Err(format!("{}: {}", pins.path(&pin).display(), innermost(&error))),
    }
}

/// The learner as a tc filter, for kernels without tcx. A filter that a predecessor left is replaced.
fn attach_filter(program: &mut SchedClassifier, interface: &Interface) -> Result<Link, String> {
    let (qdisc, interface) = (Clsact::make(&interface.name, interface.index), &interface.name);
    // "Not found" is the usual answer.
    let _ = qdisc_detach_program(interface, TcAttachType::Egress, PROGRAM_LEARN);
    let options = TcAttachOptions::Netlink(NlOptions::default());
    let id = program
        .attach_with_options(interface, TcAttachType::Egress, options)
        .map_err(|error| innermost(&error))?;
    let filter = program.take_link(id).map_err(|error| innermost(&error))?;
    Ok(Link::Filter(filter, qdisc))
}

/// Whether the kernel has links for tc programs.
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(6, 6, 0))
}

/// Removes learners that are tc filters from every interface; returns their number.
pub(super) fn detach_filters() -> Result<usize, XdpError> {
    if has_tcx() {
        return Ok(0);
    }
    let interfaces = interfaces::list()?;
    let detach = |name: &str| qdisc_detach_program(name, TcAttachType::Egress, PROGRAM_LEARN).is_ok();
    Ok(interfaces.iter().filter(|interface| detach(&interface.name)).count())
}

/// What the kernel says about a loaded program.
pub(super) fn program_report(object: &Ebpf, name: &str) -> Result<ProgramReport, XdpError> {
    let program = object.program(name).ok_or_else(|| absent(name))?;
    let info = program.info().map_err(|error| refused(name, &error))?;
    Ok(ProgramReport {
        name: name.to_owned(),
        id: info.id(),
        verified_instructions: info.verified_instruction_count().unwrap_or(0),
        translated_octets: info.size_translated().unwrap_or(0),
    })
}

/// Takes a map out of the object.
pub(super) fn take(object: &mut Ebpf, name: &str) -> Result<Map, XdpError> {
    object.take_map(name).ok_or_else(|| absent(name))
}

pub(super) fn absent(name: &str) -> XdpError {
    XdpError::Load { what: name.into(), reason: "it is not in the object; build again".into() }
}

pub(super) fn refused(what: &str, error: &dyn std::error::Error) -> XdpError {
    XdpError::Load { what: what.into(), reason: innermost(error) }
}

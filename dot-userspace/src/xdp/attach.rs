//! Attaches the XDP program to an interface, and holds tc's programs beside it.
//!
//! Before: `interfaces` chose it, and `pins` may hold a predecessor's link. After: frames are judged.
//! Holds: the order native, generic, off, tried explicitly, because aya's own default hides which mode it got. A link
//! of a predecessor is taken over (its program is replaced at once); without one a new link is made.
//! Never: keeps an attachment that would outlive this process unseen (netlink attachments have no descriptor).

use std::{os::fd::AsFd as _, thread, time::Duration};

use aya::{
    Ebpf,
    programs::{
        ProgramError, SchedClassifier,
        links::{FdLink, PinnedLink},
        tc::SchedClassifierLink,
        xdp::{Xdp, XdpLink, XdpMode},
    },
    sys::SyscallError,
};
use dot_common::maps::{PROGRAM_INGRESS, PROGRAM_LEARN, PROGRAM_LEARN_IP, PROGRAM_PROXY, PROGRAM_XDP};

use super::{
    ProgramReport, XdpError,
    clsact::Clsact,
    error::innermost,
    interfaces::Interface,
    pins::Pins,
    refusal,
    tail_calls::TailCalls,
    tc::{self, Hook},
};
pub(super) use super::{
    link::Link,
    object_parts::{absent, program_report, refused, take},
    pins::keep,
};
use crate::config;

/// The loaded programs, ready to attach, with the maps that only they use.
pub(super) struct Programs {
    object: Ebpf,
    /// Optional programs that the kernel refused, with the reason.
    refused: Vec<(&'static str, String)>,
    /// Whether the SYN proxy is loaded.
    pub(super) has_proxy: bool,
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

impl Programs {
    /// Loads those programs of an object that are attached to interfaces.
    pub(super) fn load(object: Ebpf, has_proxy: bool) -> Result<Self, XdpError> {
        let mut programs = Self { object, refused: Vec::new(), has_proxy };
        programs.xdp()?.load().map_err(|error| refused(PROGRAM_XDP, &error))?;
        programs.classifier(PROGRAM_LEARN)?.load().map_err(|error| refused(PROGRAM_LEARN, &error))?;
        for name in [PROGRAM_INGRESS, PROGRAM_LEARN_IP] {
            if let Err(error) = programs.classifier(name)?.load() {
                let reason = refused(name, &error).to_string();
                tracing::warn!("xdp: interfaces where XDP cannot be are not judged: {reason}");
                programs.refused.push((name, reason));
            }
        }
        Ok(programs)
    }

    /// The object itself, while it is being loaded.
    pub(super) fn object(&mut self) -> &mut Ebpf {
        &mut self.object
    }

    /// The kernel's data about these programs, and about those that follow.
    pub(super) fn report(&self, tail_calls: &TailCalls) -> Result<Vec<ProgramReport>, XdpError> {
        let names = [PROGRAM_XDP, PROGRAM_INGRESS, PROGRAM_LEARN, PROGRAM_LEARN_IP];
        let loaded = names.iter().filter(|name| self.refused.iter().all(|(refused, _)| refused != *name));
        let loaded = loaded.map(|name| program_report(&self.object, name));
        let mut programs = loaded.collect::<Result<Vec<_>, _>>()?;
        if self.has_proxy {
            programs.push(program_report(&self.object, PROGRAM_PROXY)?);
        }
        programs.extend(tail_calls.programs(&self.object)?);
        Ok(programs)
    }

    /// Takes over a predecessor's link in one of the modes, or makes one in the first mode that works.
    ///
    /// `patience` is for a predecessor that has just ended: see [`attach_new`]. An error names the reason for each
    /// mode; a link comes with the reasons against better modes.
    pub(super) fn attach_xdp(
        &mut self,
        interface: &Interface,
        mode: config::XdpMode,
        pins: Option<&Pins>,
        patience: Patience,
    ) -> (Option<(&'static str, Link)>, Vec<String>) {
        let index = interface.index;
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
            // The remaining link is dead, or in a mode that the config does not ask for any more.
            for mode in ["native", "generic"] {
                pins.unlink(&pin(mode));
            }
        }
        let mut reasons = Vec::new();
        for (mode, flag) in modes {
            match attach_new(program, index, flag, patience).and_then(|link| keep(link, pin(mode), pins)) {
                Ok(link) if reasons.is_empty() || interface.is_loopback => {
                    return (Some((mode, link)), reasons);
                }
                Ok(link) => {
                    reasons.push(refusal::PRICE_OF_GENERIC.to_owned());
                    return (Some((mode, link)), reasons);
                }
                Err(reason) => {
                    let in_words = program.fd().ok().filter(|_| mode == "native");
                    let in_words = in_words.map(|fd| refusal::in_words(interface, fd.as_fd(), &reason));
                    reasons.push(format!("{mode}: {}", in_words.unwrap_or(reason)));
                }
            }
        }
        (None, reasons)
    }

    /// Attaches a program of tc's; the name says by which method.
    pub(super) fn attach_tc(
        &mut self,
        hook: Hook,
        interface: &Interface,
        pins: Option<&Pins>,
        qdisc: &mut Option<Clsact>,
    ) -> Result<(&'static str, Link), String> {
        if let Some((_, reason)) = self.refused.iter().find(|(name, _)| *name == hook.program) {
            return Err(reason.clone());
        }
        let program = self.classifier(hook.program).map_err(|error| error.to_string())?;
        tc::attach(program, hook, interface, pins, qdisc)
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

    /// As [`Programs::renew_xdp`], for a program of tc's. A filter cannot be checked without rights; it ends with its
    /// interface.
    pub(super) fn renew_tc(&mut self, hook: Hook, link: Link) -> Found {
        let Link::Held(link, pin) = link else { return Found::Ours(link) };
        let Ok(program) = self.classifier(hook.program) else { return Found::Lost };
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

    fn classifier(&mut self, name: &'static str) -> Result<&mut SchedClassifier, XdpError> {
        classifier(&mut self.object, name)
    }
}

/// Loads the SYN proxy of an object.
pub(super) fn load_proxy(object: &mut Ebpf) -> Result<(), XdpError> {
    classifier(object, PROGRAM_PROXY)?.load().map_err(|error| refused(PROGRAM_PROXY, &error))
}

fn classifier<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, XdpError> {
    let program = object.program_mut(name).ok_or_else(|| absent(name))?;
    program.try_into().map_err(|error: ProgramError| refused(name, &error))
}

/// Whether to wait for a predecessor's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// At the start: nothing else waits.
    Wait,
    /// While serving: another check follows soon.
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
    // This fails for a link whose interface is gone: the caller then makes a new one.
    let id = program.attach_to_link(link).ok()?;
    let link = FdLink::try_from(program.take_link(id).ok()?).ok()?;
    tracing::info!("{pin}: took over the link of a predecessor");
    Some(Link::Held(link, Some(pin.to_owned())))
}

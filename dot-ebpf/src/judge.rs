//! From frame to XDP action: parse, judge, count once, act. Step 3 of 9 of a query.
//!
//! Before: the driver gave us a frame. After: the stack gets it, or it is dropped or answered.
//! Holds: what a verdict means for XDP. `dot_common::judge` decides the verdict.
//! Never: counts a packet twice, or one that is not for dotd.

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use dot_common::{
    ban::Ban,
    client_cache::Standing,
    client_lists,
    flow::{Flow, FlowKey},
    frame::{Located, Payload},
    judge::{self, Judgment, Knowledge},
    network::{self, Network},
    packet::{Interest, Packet, Service, parse_into},
    proof::{Proof, Trust},
    rate::Rate,
    settings::{Gate, Settings},
    spent::Spent,
    truncation::Truncation,
    verdict::{Action, Reason, Verdict},
};

use crate::{context::Frame, lists, maps, ports::OwnPorts, scratch, subprograms, tail_calls, trace};

/// The XDP action for a frame; `None` when it is not for dotd.
#[inline(always)]
pub(crate) fn judge(context: &XdpContext) -> Option<u32> {
    let frame = Frame(context);
    let known = Kernel::about(context);
    let interest = |packet: &Packet| {
        maps::settings().map_or(Interest::Nobodys, |settings| judge::interest(settings, packet, &known))
    };
    let packet = match parse_into(&frame, &OwnPorts, scratch::room, interest) {
        Ok(None) => return None,
        Ok(Some(packet)) => packet,
        Err(malformed) => {
            maps::count(malformed.into());
            return Some(xdp_action::XDP_DROP);
        }
    };
    let settings = maps::settings()?;
    let Judgment { verdict, truncation } = judge::judge(&frame, packet, settings, &known);
    trace::tell(settings, verdict);
    tail_calls::begin(context, verdict);
    maps::count(verdict);
    #[cfg(feature = "debug-log")]
    aya_log_ebpf::debug!(context, "action {} reason {}", verdict.action as u32, verdict.reason as u32);
    let xdp_action = match verdict.action {
        Action::Pass | Action::WouldDrop => xdp_action::XDP_PASS,
        Action::Drop if is_reset(packet, settings, verdict) => subprograms::reset(context),
        Action::Drop => xdp_action::XDP_DROP,
        Action::Answer => match &truncation {
            Some(truncation) => subprograms::answer(context, truncation),
            None => xdp_action::XDP_DROP,
        },
    };
    Some(tail_calls::finish(context, verdict, xdp_action))
}

/// Whether the gate that refused a segment wants its connection reset.
#[inline(always)]
fn is_reset(packet: &Packet, settings: &Settings, verdict: Verdict) -> bool {
    let gate = match packet.service {
        Service::Dot => settings.cleartext_on_dot,
        Service::Do53 => settings.tls_on_do53,
    };
    matches!(verdict.reason, Reason::CleartextOnDot | Reason::TlsOnDo53)
        && matches!(Gate::from_octet(gate), Gate::Reset)
}

/// What a program's context knows about its packet.
pub(crate) trait Hook {
    /// The number of the interface on which it came in.
    fn interface(&self) -> u32;
    /// How the packet becomes its own answer, where this hook can send one.
    fn plan(&self) -> Option<Truncation>;
}

impl Hook for XdpContext {
    #[inline(always)]
    fn interface(&self) -> u32 {
        Frame(self).interface()
    }

    #[inline(always)]
    fn plan(&self) -> Option<Truncation> {
        subprograms::plan(self)
    }
}

/// The judge's questions to the kernel; questions about the frame itself go to its context.
pub(crate) struct Kernel<'a, C = XdpContext> {
    context: Option<&'a C>,
    is_own: bool,
}

impl<'a, C: Hook> Kernel<'a, C> {
    /// The questions about a frame.
    #[inline(always)]
    pub(crate) fn about(context: &'a C) -> Self {
        Self { context: Some(context), is_own: false }
    }
}

impl Kernel<'_> {
    /// The questions about a packet from another machine.
    #[inline(always)]
    pub(crate) fn of_others() -> Self {
        Self { context: None, is_own: false }
    }

    /// The questions about a packet from this machine.
    #[inline(always)]
    pub(crate) fn of_own() -> Self {
        Self { context: None, is_own: true }
    }
}

impl<C: Hook> Knowledge for Kernel<'_, C> {
    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<Flow> {
        maps::flow(key)
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        maps::now_ns()
    }

    #[inline(always)]
    fn is_local(&self, flow: &FlowKey) -> bool {
        maps::settings()
            .and_then(|settings| lists::recall_destination(settings, flow))
            .unwrap_or_else(subprograms::is_local)
    }

    #[inline(always)]
    fn is_own(&self, own_interface: u32) -> bool {
        match self.context {
            Some(context) => own_interface != 0 && context.interface() == own_interface,
            None => self.is_own,
        }
    }

    #[inline(always)]
    fn is_denied(&self, flow: &FlowKey) -> bool {
        lists::is_denied(flow)
    }

    #[inline(always)]
    fn is_allowed(&self, flow: &FlowKey) -> bool {
        lists::is_allowed(flow)
    }

    #[inline(always)]
    fn is_banned(&self, network: &Network, holds: impl FnOnce(&Ban) -> bool) -> bool {
        maps::is_banned(network, holds)
    }

    #[inline(always)]
    fn bars(&self, settings: &Settings, flow: &FlowKey, begins: bool) -> Option<Reason> {
        if self.is_own(settings.own_interface) {
            return subprograms::own_standing().reason(begins);
        }
        maps::recall(settings, flow, begins).unwrap_or_else(subprograms::standing).reason(begins)
    }

    #[inline(always)]
    fn ban_at(
        &self,
        settings: &Settings,
        flow: &FlowKey,
        place: u32,
        begins: bool,
        is_barred: bool,
    ) -> Standing {
        if self.is_own {
            let network = network::level(settings, flow, place);
            return client_lists::ban_at(settings, flow, &network, begins, is_barred, self);
        }
        subprograms::ban_at(place, begins, is_barred)
    }

    #[inline(always)]
    fn would_ban(&self, settings: &Settings, _: &FlowKey) -> bool {
        !self.is_own(settings.own_interface) && subprograms::would_ban()
    }

    #[inline(always)]
    fn plan(&self, _: &impl Payload, _: &Located) -> Option<Truncation> {
        self.context.and_then(Hook::plan)
    }

    #[inline(always)]
    fn spent(&self, network: &Network) -> Spent {
        maps::spent(network)
    }

    #[inline(always)]
    fn proof(&self, network: &Network) -> Proof {
        maps::proof(network)
    }

    #[inline(always)]
    fn spent_by(&self, _: &Settings, _: &FlowKey) -> Option<Reason> {
        subprograms::spent_by()
    }

    #[inline(always)]
    fn trust(&self, _: &Settings, _: &FlowKey) -> Trust {
        subprograms::trust()
    }

    #[inline(always)]
    fn settle(&self, packet: &Packet, verdict: Verdict) -> Verdict {
        scratch::settle_verdict(packet, verdict)
    }

    #[inline(always)]
    fn is_pressed(&self) -> bool {
        // One worker that takes connections is enough, and mostly it is the first: then this reads one entry, no clock,
        // and makes no call.
        maps::closed_until_ns(0).is_some_and(|until_ns| until_ns != 0) && subprograms::is_pressed()
    }

    #[inline(always)]
    fn admits(&self, key: u64, rate: &Rate) -> bool {
        subprograms::admits(key, rate)
    }
}

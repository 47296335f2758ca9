//! The judge at tc ingress: for interfaces where XDP cannot be. Step 3 of 9 of a query.
//!
//! Before: the stack has a packet that came in. After: it has the same verdict as from XDP, counted once; the packet
//! passes or is dropped.
//! Holds: what a verdict means for tc. `dot_common::judge` decides the verdict.
//! Never: answers or rewrites: where XDP would send a reset or TC=1, the packet is dropped here.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    programs::TcContext,
};
use dot_common::{
    judge,
    others::is_for_others,
    packet::{Interest, Packet, parse_into},
    truncation::Truncation,
    verdict::Action,
};

use crate::{
    datagram::{ATTRIBUTABLE_OCTETS, Datagram, JUDGEABLE_OCTETS},
    judge::{Hook, Kernel},
    maps,
    ports::OwnPorts,
    scratch, tail_calls, trace,
};

impl Hook for TcContext {
    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the context is the one the kernel gave this program.
        unsafe { (*self.skb.skb).ifindex }
    }

    #[inline(always)]
    fn plan(&self) -> Option<Truncation> {
        None
    }
}

/// The tc action for a packet: it is dropped, or other programs of this hook see it.
#[inline(always)]
pub(crate) fn judge(context: &TcContext) -> i32 {
    let datagram = Datagram(context);
    // On loopback most packets are a backend's: they are for others, and nothing of them is gathered or walked.
    if is_for_others(&datagram, &OwnPorts) {
        return TC_ACT_UNSPEC;
    }
    datagram.gather::<ATTRIBUTABLE_OCTETS>();
    let known = Kernel::about(context);
    let interest = |packet: &Packet| {
        if !datagram.is_long_segment(&packet.located) {
            datagram.gather::<JUDGEABLE_OCTETS>();
        }
        maps::settings().map_or(Interest::Nobodys, |settings| judge::interest(settings, packet, &known))
    };
    let packet = match parse_into(&datagram, &OwnPorts, scratch::room, interest) {
        Ok(None) => return TC_ACT_UNSPEC,
        Ok(Some(packet)) => packet,
        Err(malformed) => {
            maps::count(malformed.into());
            return TC_ACT_SHOT;
        }
    };
    let Some(settings) = maps::settings() else { return TC_ACT_UNSPEC };
    let verdict = judge::judge(&datagram, packet, settings, &known).verdict;
    maps::count(verdict);
    trace::tell(settings, verdict);
    tail_calls::announce(verdict);
    match verdict.action {
        Action::Pass | Action::WouldDrop => TC_ACT_UNSPEC,
        Action::Drop | Action::Answer => TC_ACT_SHOT,
    }
}

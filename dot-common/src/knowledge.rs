//! The data that the judge asks for: lists, bans, rates, flows, the clock, and the interface of a packet.
//!
//! Before: [`crate::judge`] has a question. After: dot-ebpf answers it from maps, a test from tables.
//! Holds: the questions. Never: answers one; a costly question is asked only where its answer decides.

use crate::{
    ban::Ban,
    client_cache::Standing,
    client_lists::{ban_at, standing, would_ban},
    flow::{Flow, FlowKey},
    frame::{Located, Payload},
    network::{Network, level},
    packet::Packet,
    proof::{Proof, Trust},
    rate::Rate,
    settings::Settings,
    spent::{self, Spent},
    truncation::{self, Truncation},
    verdict::{Reason, Verdict},
};

/// The questions of the judge. Most packets need few of them.
pub trait Knowledge {
    /// The learner's record of a connection.
    fn flow(&self, key: &FlowKey) -> Option<Flow>;

    /// Monotonic time in nanoseconds.
    fn now_ns(&self) -> u64;

    /// Whether a destination belongs to this machine. Asked only where its addresses are known ([`Settings::local`]).
    fn is_local(&self, flow: &FlowKey) -> bool;

    /// Whether the packet arrived on the loopback interface, whose index is `own_interface`; 0: there is no such interface.
    fn is_own(&self, own_interface: u32) -> bool;

    /// Whether the deny list of its IP version holds a client.
    fn is_denied(&self, flow: &FlowKey) -> bool;

    /// Whether the allow list of its IP version holds a client.
    fn is_allowed(&self, flow: &FlowKey) -> bool;

    /// Whether a network has a ban that `holds`; then its hit is counted.
    fn is_banned(&self, network: &Network, holds: impl FnOnce(&Ban) -> bool) -> bool;

    /// Why the [`standing`] of a client refuses a packet that `begins` something, or one that does not. The kernel half
    /// remembers some clients, and makes a call of it for others.
    fn bars(&self, settings: &Settings, flow: &FlowKey, begins: bool) -> Option<Reason>
    where
        Self: Sized,
    {
        standing(settings, flow, begins, self).standing.reason(begins)
    }

    /// [`ban_at`] of the client's network at this place among its [`levels`]; the kernel half makes a call of it.
    ///
    /// [`levels`]: crate::network::levels
    fn ban_at(
        &self,
        settings: &Settings,
        flow: &FlowKey,
        place: u32,
        begins: bool,
        is_barred: bool,
    ) -> Standing
    where
        Self: Sized,
    {
        ban_at(settings, flow, &level(settings, flow, place), begins, is_barred, self)
    }

    /// [`would_ban`], in the same way.
    fn would_ban(&self, settings: &Settings, flow: &FlowKey) -> bool
    where
        Self: Sized,
    {
        would_ban(settings, flow, self)
    }

    /// [`truncation::plan`], in the same way.
    fn plan(&self, frame: &impl Payload, located: &Located) -> Option<Truncation>
    where
        Self: Sized,
    {
        truncation::plan(frame, located)
    }

    /// Until when the new connections of a network are refused.
    fn spent(&self, network: &Network) -> Spent;

    /// The proof of a network by the connections that it completed.
    fn proof(&self, network: &Network) -> Proof;

    /// [`spent::spent_by`]; the kernel half makes a call of it.
    fn spent_by(&self, settings: &Settings, flow: &FlowKey) -> Option<Reason>
    where
        Self: Sized,
    {
        spent::spent_by(settings, flow, self)
    }

    /// [`spent::trust`], in the same way.
    fn trust(&self, settings: &Settings, flow: &FlowKey) -> Trust
    where
        Self: Sized,
    {
        spent::trust(settings, flow, self)
    }

    /// Returns its argument. In the kernel it is read again from a map: the verifier then follows what comes after a
    /// verdict once, and not once for each verdict.
    fn settle(&self, _: &Packet, verdict: Verdict) -> Verdict {
        verdict
    }

    /// Whether no worker accepts connections at the moment; see [`crate::worker_status::is_pressed`].
    fn is_pressed(&self) -> bool;

    /// Whether one more packet is within a rate; if so, it is counted under the key of `rate::key`.
    fn admits(&self, key: u64, rate: &Rate) -> bool;
}

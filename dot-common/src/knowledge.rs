//! What the judge may ask of the world: lists, bans, rates, flows, the clock, and where a packet came from.
//!
//! Before: [`crate::judge`] has a question. After: dot-ebpf answers it from maps, a test from tables.
//! Holds: the questions. Never: answers one; whatever is costly is asked only where its answer decides.

use crate::{
    ban::Ban,
    client_lists::{bars, would_ban},
    flow::{Flow, FlowKey},
    frame::{Located, Payload},
    prefix::ClientPrefix,
    proof::Proof,
    rate::Rate,
    settings::Settings,
    truncation::{self, Truncation},
    verdict::Reason,
};

/// What the judge may ask for, and mostly does not need.
pub trait Knowledge {
    /// What the learner wrote about a connection.
    fn flow(&self, key: &FlowKey) -> Option<Flow>;

    /// Monotonic time in nanoseconds.
    fn now_ns(&self) -> u64;

    /// Whether a destination is this machine's. Asked only where its addresses are known ([`Settings::local`]).
    fn is_local(&self, flow: &FlowKey) -> bool;

    /// Whether the packet came in on this interface, on which this machine hears itself; 0: there is none.
    fn is_own(&self, own_interface: u32) -> bool;

    /// Whether the deny list of its IP version holds a client.
    fn is_denied(&self, flow: &FlowKey) -> bool;

    /// Whether the allow list of its IP version holds a client.
    fn is_allowed(&self, flow: &FlowKey) -> bool;

    /// Whether a client has a ban that `holds`; then its hit is counted.
    fn is_banned(&self, client: ClientPrefix, holds: impl FnOnce(&Ban) -> bool) -> bool;

    /// [`bars`], in whatever way is cheap: the kernel half remembers some clients, and makes a call of it for others.
    fn bars(&self, settings: &Settings, flow: &FlowKey) -> Option<Reason>
    where
        Self: Sized,
    {
        bars(settings, flow, self)
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

    /// Monotonic time in nanoseconds until which a client's handshake budget is spent; 0: it is not.
    fn spent_until_ns(&self, client: ClientPrefix) -> u64;

    /// What the connections that a client finished say of it.
    fn proof(&self, client: ClientPrefix) -> Proof;

    /// Whether no worker takes connections at the moment; see [`crate::worker_status::is_pressed`].
    fn is_pressed(&self) -> bool;

    /// Whether one more is within a rate; then it is counted under the key of `rate::key`.
    fn admits(&self, key: u64, rate: &Rate) -> bool;
}

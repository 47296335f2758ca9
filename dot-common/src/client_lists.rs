//! Judges a packet by its sender alone: deny list, bans, allow list.
//!
//! Before: [`crate::judge`] has a packet of ours. After: it is refused at once, or judged by its content.
//! Holds: the order of the lists: deny, then ban unless allowed. A packet that this machine sent itself is refused only
//! by the deny list or an operator's ban. Never: looks at a port or a payload.

use crate::{
    ban::Ban,
    flow::FlowKey,
    knowledge::Knowledge,
    rate,
    settings::{Over, Settings, version_bit},
    verdict::Reason,
};

/// Whether the deny list or a ban refuses a client whatever it sends.
#[inline(always)]
pub fn bars(settings: &Settings, flow: &FlowKey, known: &impl Knowledge) -> Option<Reason> {
    if settings.deny & version_bit(flow.is_v6()) != 0 && known.is_denied(flow) {
        return Some(Reason::Denied);
    }
    let holds =
        |ban: &Ban| ban.is_operators() || is_enforced(settings) && !known.is_own(settings.own_interface);
    is_banned(settings, flow, known, holds).then_some(Reason::Banned)
}

/// Whether a ban would refuse a client, if limits were enforced.
#[inline(always)]
pub fn would_ban(settings: &Settings, flow: &FlowKey, known: &impl Knowledge) -> bool {
    !known.is_own(settings.own_interface) && is_banned(settings, flow, known, |_| true)
}

/// Whether a ban of a client stands and `holds`. The allow list is looked up only where it has entries.
#[inline(always)]
fn is_banned(
    settings: &Settings,
    flow: &FlowKey,
    known: &impl Knowledge,
    holds: impl FnOnce(&Ban) -> bool,
) -> bool {
    let is_asked = settings.bans & version_bit(flow.is_v6()) != 0;
    is_asked
        && known.is_banned(rate::client(flow, settings.prefix_v4, settings.prefix_v6), |ban| {
            ban.stands(known.now_ns()) && holds(ban) && !is_allowed(settings, flow, known)
        })
}

/// Whether a client is on the allow list of its IP version.
#[inline(always)]
fn is_allowed(settings: &Settings, flow: &FlowKey, known: &impl Knowledge) -> bool {
    settings.allow & version_bit(flow.is_v6()) != 0 && known.is_allowed(flow)
}

/// The reason for which no limit counts a client's packet: the client is allowed, or this machine sent the packet
/// itself.
#[inline(always)]
pub(crate) fn exemption(settings: &Settings, flow: &FlowKey, known: &impl Knowledge) -> Option<Reason> {
    if known.is_own(settings.own_interface) {
        Some(Reason::Own)
    } else if is_allowed(settings, flow, known) {
        Some(Reason::Allowed)
    } else {
        None
    }
}

/// Whether limits refuse packets instead of only counting them.
#[inline(always)]
pub(crate) fn is_enforced(settings: &Settings) -> bool {
    !matches!(Over::from_octet(settings.over), Over::Count)
}

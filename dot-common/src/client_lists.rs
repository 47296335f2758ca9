//! Judges a packet by its client alone: deny list, bans, allow list.
//!
//! Before: [`crate::judge`] has a packet of ours. After: it is refused at once, or judged by what it is.
//! Holds: which list beats which: deny, then ban unless allowed. An operator's ban refuses every packet; one of the engine's
//! refuses packets that begin something, so that sessions of other people behind the same address go on. Packets that this
//! machine sends itself meet only what an operator said. Never: looks at a port or a payload.

use crate::{
    ban::Ban,
    client_cache::Standing,
    flow::FlowKey,
    knowledge::Knowledge,
    network::{Network, levels},
    settings::{Over, Settings, version_bit},
    verdict::Reason,
};

/// The entries of lists and bans for a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The consequence.
    pub standing: Standing,
    /// The network whose ban it is, where it is one's.
    pub banned: Network,
}

/// What the deny list and bans say about a client. A ban that refuses this packet gets a hit; `begins` is
/// [`crate::packet::Packet::begins`]. Of several bans an operator's counts, which refuses more; else the one of the longest
/// prefix.
#[inline(always)]
pub fn standing(settings: &Settings, flow: &FlowKey, begins: bool, known: &impl Knowledge) -> Said {
    if settings.deny & version_bit(flow.is_v6()) != 0 && known.is_denied(flow) {
        return Said { standing: Standing::Denied, ..Said::default() };
    }
    let mut said = Said::default();
    let mut bits = u32::MAX;
    for (level, banned) in (0..).zip(asked_levels(settings, flow)) {
        if banned.bits == bits || matches!(said.standing, Standing::Banned) {
            continue;
        }
        bits = banned.bits;
        let standing = known.ban_at(settings, flow, level, begins, said.standing.is_of_ban());
        if standing.is_of_ban() {
            said = Said { standing, banned };
        }
    }
    said
}

/// What the ban of one network around a client says about it; `is_barred`: one of a longer prefix refuses what begins.
#[inline(always)]
pub fn ban_at(
    settings: &Settings,
    flow: &FlowKey,
    network: &Network,
    begins: bool,
    is_barred: bool,
    known: &impl Knowledge,
) -> Standing {
    let mut found = Standing::Unbarred;
    // Whether the ban got a hit makes no difference here.
    let _ = known.is_banned(network, |ban| {
        let standing = match ban.is_operators() {
            _ if !ban.stands(known.now_ns()) => return false,
            true => Standing::Banned,
            // That of a longer prefix refuses the same packets.
            false if is_barred => return false,
            false if is_enforced(settings) && !known.is_own(settings.own_interface) => Standing::NothingNew,
            false => return false,
        };
        if is_allowed(settings, flow, known) {
            return false;
        }
        found = standing;
        standing.reason(begins).is_some()
    });
    found
}

/// Whether a ban would refuse a packet that begins something, were limits enforced.
#[inline(always)]
pub fn would_ban(settings: &Settings, flow: &FlowKey, known: &impl Knowledge) -> bool {
    if known.is_own(settings.own_interface) {
        return false;
    }
    let mut bits = u32::MAX;
    for network in asked_levels(settings, flow) {
        if network.bits == bits {
            continue;
        }
        bits = network.bits;
        let refuses = |ban: &Ban| ban.stands(known.now_ns()) && !is_allowed(settings, flow, known);
        if known.is_banned(&network, refuses) {
            return true;
        }
    }
    false
}

/// The networks around a client to look for among the bans; networks that are never banned, where no client of its IP version is banned.
#[inline(always)]
fn asked_levels(settings: &Settings, flow: &FlowKey) -> [Network; 3] {
    let is_asked = settings.bans & version_bit(flow.is_v6()) != 0;
    if is_asked { levels(settings, flow) } else { [Network { bits: u32::MAX, ..Network::default() }; 3] }
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

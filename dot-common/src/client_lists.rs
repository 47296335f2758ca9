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
    rate,
    settings::{Over, Settings, version_bit},
    verdict::Reason,
};

/// What the deny list and bans say about a client. A ban that refuses this packet gets a hit; `begins` is
/// [`crate::packet::Packet::begins`].
#[inline(always)]
pub fn standing(settings: &Settings, flow: &FlowKey, begins: bool, known: &impl Knowledge) -> Standing {
    if settings.deny & version_bit(flow.is_v6()) != 0 && known.is_denied(flow) {
        return Standing::Denied;
    }
    let mut standing = Standing::Unbarred;
    let refuses = |ban: &Ban| {
        let of_ban = match ban.is_operators() {
            true => Standing::Banned,
            false if is_enforced(settings) && !known.is_own(settings.own_interface) => Standing::NothingNew,
            false => return false,
        };
        if is_allowed(settings, flow, known) {
            return false;
        }
        standing = of_ban;
        of_ban.reason(begins).is_some()
    };
    // Whether the ban got a hit makes no difference here.
    let _ = meets_ban(settings, flow, known, refuses);
    standing
}

/// Whether a ban would refuse a packet that begins something, were limits enforced.
#[inline(always)]
pub fn would_ban(settings: &Settings, flow: &FlowKey, known: &impl Knowledge) -> bool {
    !known.is_own(settings.own_interface)
        && meets_ban(settings, flow, known, |_| !is_allowed(settings, flow, known))
}

/// Whether a ban of a client stands and `refuses` its packet; then the ban gets a hit.
#[inline(always)]
fn meets_ban(
    settings: &Settings,
    flow: &FlowKey,
    known: &impl Knowledge,
    refuses: impl FnOnce(&Ban) -> bool,
) -> bool {
    let is_asked = settings.bans & version_bit(flow.is_v6()) != 0;
    is_asked
        && known.is_banned(rate::client(flow, settings.prefix_v4, settings.prefix_v6), |ban| {
            ban.stands(known.now_ns()) && refuses(ban)
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

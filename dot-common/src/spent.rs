//! Whether a client has spent what its network may use, and whether its own proof helps it.
//!
//! Before: the loader added up what hosts, client prefixes and wider prefixes cost. After: [`crate::judge`] refuses a SYN, or
//! lets it pass.
//! Holds: the value of the map SPENT, and which level decides. A host that finished handshakes is a client of its own: it
//! passes while others of its network spend more than that may use, up to a multiple of it.
//! Never: is written by a packet.

use crate::{
    flow::FlowKey,
    knowledge::Knowledge,
    network::levels,
    proof::Trust,
    settings::{Settings, version_bit},
    verdict::Reason,
};

/// Until when the new connections of a network are refused. 16 octets, no padding; all zero: they are not.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Monotonic time in nanoseconds until which those of hosts without a proof are.
    pub until_ns: u64,
    /// The same for hosts with a proof.
    pub all_until_ns: u64,
}

const _: () = assert!(size_of::<Spent>() == 16);

impl Spent {
    /// Whether it refuses a host, which is asked for its proof where that decides.
    #[inline(always)]
    fn refuses(self, now_ns: u64, is_proven: impl FnOnce() -> bool) -> bool {
        self.all_until_ns > now_ns || self.until_ns > now_ns && !is_proven()
    }
}

/// Why a SYN is refused by what its host or a network around it has spent. Called only while a network has spent its budget.
#[inline(always)]
pub fn spent_by(settings: &Settings, flow: &FlowKey, known: &impl Knowledge) -> Option<Reason> {
    let [host, client, wide] = levels(settings, flow);
    let now_ns = known.now_ns();
    let is_proven = || matches!(known.proof(&host).trust(now_ns), Trust::Proven);
    // What a host spent itself no proof excuses.
    if known.spent(&host).until_ns > now_ns {
        return Some(Reason::HandshakeCost);
    }
    if client.bits != host.bits && known.spent(&client).refuses(now_ns, is_proven) {
        return Some(Reason::HandshakeCost);
    }
    let is_wide_asked = wide.bits != client.bits && settings.spent_wide & version_bit(flow.is_v6()) != 0;
    (is_wide_asked && known.spent(&wide).refuses(now_ns, is_proven)).then_some(Reason::WideCost)
}

/// How far the host of a SYN over its client's rate is known: by its own connections, else by those of its client prefix.
#[inline(always)]
pub fn trust(settings: &Settings, flow: &FlowKey, known: &impl Knowledge) -> Trust {
    let [host, client, _] = levels(settings, flow);
    let now_ns = known.now_ns();
    match known.proof(&host).trust(now_ns) {
        Trust::Unknown if client.bits != host.bits => match known.proof(&client).trust(now_ns) {
            Trust::Excessive => Trust::Excessive,
            // A prefix proves nothing for its hosts.
            Trust::Proven | Trust::Unknown => Trust::Unknown,
        },
        own => own,
    }
}

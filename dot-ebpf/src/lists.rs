//! Tries of prefixes: which clients are denied, which are allowed, and which destinations are this machine's.
//!
//! Before: a packet's addresses. After: whether a list holds them. Holds: the tries, and what each CPU remembers of destinations.
//! Never: writes a list; the loader does.

use aya_ebpf::{
    macros::map,
    maps::{LpmTrie, PerCpuArray, lpm_trie::Key},
};
use dot_common::{
    flow::FlowKey,
    local::{self, Destination},
    maps::{DESTINATIONS_MAX, LISTED_MAX, LOCAL_MAX},
    settings::Settings,
};

use crate::maps::generation;

#[map]
static DENY4: LpmTrie<u32, u32> = LpmTrie::with_max_entries(LISTED_MAX, 0);

#[map]
static DENY6: LpmTrie<[u32; 4], u32> = LpmTrie::with_max_entries(LISTED_MAX, 0);

#[map]
static ALLOW4: LpmTrie<u32, u32> = LpmTrie::with_max_entries(LISTED_MAX, 0);

#[map]
static ALLOW6: LpmTrie<[u32; 4], u32> = LpmTrie::with_max_entries(LISTED_MAX, 0);

#[map]
static LOCAL4: LpmTrie<u32, u32> = LpmTrie::with_max_entries(LOCAL_MAX, 0);

#[map]
static LOCAL6: LpmTrie<[u32; 4], u32> = LpmTrie::with_max_entries(LOCAL_MAX, 0);

#[map]
static DESTINATIONS: PerCpuArray<Destination> = PerCpuArray::with_max_entries(DESTINATIONS_MAX, 0);

/// What this CPU's cache says about a packet's destination: whether it belongs to this machine.
#[inline(always)]
pub(crate) fn recall_destination(settings: &Settings, flow: &FlowKey) -> Option<bool> {
    if settings.generation == 0 {
        return None;
    }
    let known = DESTINATIONS.get_ptr_mut(local::place(flow))?;
    // SAFETY: a checked map value of this CPU; no program of ours interrupts another on it.
    unsafe { (*known).recall(flow, settings.generation) }
}

/// Looks up whether a packet's destination belongs to this machine, and caches the answer.
#[inline(always)]
pub(crate) fn look_up_destination(settings: &Settings, flow: &FlowKey) -> bool {
    // Read before the look-up: a change in the meantime invalidates the answer.
    let generation = generation(settings);
    let is_local = is_listed(&LOCAL4, &LOCAL6, flow.server, flow.is_v6());
    if let Some(known) = DESTINATIONS.get_ptr_mut(local::place(flow)) {
        // SAFETY: a checked map value of this CPU; no program of ours interrupts another on it.
        unsafe { *known = Destination::of(flow, generation, is_local) };
    }
    is_local
}

/// Whether the deny list holds a client.
#[inline(always)]
pub(crate) fn is_denied(flow: &FlowKey) -> bool {
    is_listed(&DENY4, &DENY6, flow.client, flow.is_v6())
}

/// Whether the allow list holds a client.
#[inline(always)]
pub(crate) fn is_allowed(flow: &FlowKey) -> bool {
    is_listed(&ALLOW4, &ALLOW6, flow.client, flow.is_v6())
}

#[inline(always)]
fn is_listed(v4: &LpmTrie<u32, u32>, v6: &LpmTrie<[u32; 4], u32>, [a, b]: [u64; 2], is_v6: bool) -> bool {
    // Tries compare octets in the order of the wire.
    if is_v6 {
        v6.get(Key::new(128, [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32])).is_some()
    } else {
        v4.get(Key::new(32, a as u32)).is_some()
    }
}

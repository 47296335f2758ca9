//! Which worker's listener gets a new connection.
//!
//! Before: the stack has a SYN for a group of listeners. After: dot-ebpf selects the socket of that worker;
//! an empty slot leaves the choice to the kernel's own hash.
//! Holds: the rule, for any number of workers and CPUs.
//! Never: asks whether that worker has time.

use crate::flow::FlowKey;

/// The worker for a connection whose packets arrive on `cpu`.
///
/// As many workers as CPUs, or fewer: the CPU's own, or the one that shares it. More: those whose number
/// falls on this CPU share by `hash`, so that none is idle. Without workers or CPUs: 0.
#[must_use]
#[inline(always)]
pub const fn worker(cpu: u32, hash: u32, cpus: u32, workers: u32) -> u32 {
    // Checked arithmetic throughout: the BPF target has no way to panic.
    let Some(own) = cpu.checked_rem(if workers < cpus { workers } else { cpus }) else { return 0 };
    let Some(further) = (workers - own - 1).checked_div(cpus) else { return own };
    match hash.checked_rem(further + 1) {
        Some(lane) => own + cpus * lane,
        None => own,
    }
}

/// The place among `cpus` of a connection's CPU: the same for all its packets. `None`: there are none.
#[must_use]
#[inline(always)]
pub const fn spread(flow: &FlowKey, cpus: u32) -> Option<u32> {
    /// 2^64 over the golden ratio, odd (Knuth, TAOCP 6.4).
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let [first, second] = flow.client;
    let mixed = (first.swap_bytes() ^ flow.ports as u64).wrapping_mul(FACTOR) ^ second.swap_bytes();
    // The high half is the mixed one.
    let hash = ((mixed ^ mixed >> 32).wrapping_mul(FACTOR) >> 32) as u32;
    hash.checked_rem(cpus)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{collections::BTreeSet, vec::Vec};

    use super::{spread, worker};
    use crate::flow::FlowKey;

    /// Goal: connections are spread evenly over any number of CPUs, whether they differ by port, by address or by prefix.
    #[test]
    fn connections_are_spread_evenly() {
        let kinds: [fn(u32) -> FlowKey; 3] = [
            |number| FlowKey::new([1, 0, 0, 0], number as u16, [2; 4], 853, false),
            |number| FlowKey::new([0x0a00_0000 + number, 0, 0, 0], 40_000, [2; 4], 853, false),
            |number| FlowKey::new([0x2001_0db8, number, 0, 7], 40_000, [2; 4], 853, true),
        ];
        for make in kinds {
            for cpus in 1..=16 {
                let mut load = [0u32; 16];
                for number in 0..16_000 {
                    let place = spread(&make(number), cpus).expect("there are CPUs");
                    load[place as usize] += 1;
                }
                let fair = 16_000 / cpus;
                let own = &load[..cpus as usize];
                assert!(own.iter().all(|count| count.abs_diff(fair) <= fair / 4), "{cpus}: {own:?}");
            }
        }
        assert_eq!(spread(&FlowKey::default(), 0), None);
    }

    /// Goal: every worker gets connections, and none beyond them is asked for. Method: all CPUs and enough
    /// hashes for each pair of sizes.
    #[test]
    fn every_worker_has_a_way_to_it() {
        for cpus in 1..9 {
            for workers in 1..33 {
                let reached: BTreeSet<u32> = (0..cpus)
                    .flat_map(|cpu| (0..workers).map(move |hash| worker(cpu, hash, cpus, workers)))
                    .collect();
                let all: Vec<u32> = (0..workers).collect();
                assert!(reached.iter().eq(&all), "{cpus} CPUs, {workers} workers: {reached:?}");
            }
        }
    }

    /// Goal: as many workers as CPUs: each its own, whatever the hash.
    #[test]
    fn a_worker_per_cpu_is_its_own() {
        for cpu in 0..64 {
            assert_eq!(worker(cpu, cpu.wrapping_mul(0x9e37_79b9), 64, 64), cpu);
        }
    }

    /// Goal: senseless sizes are no panic.
    #[test]
    fn nothing_to_choose_from() {
        assert_eq!(worker(3, 5, 0, 4), 0);
        assert_eq!(worker(3, 5, 4, 0), 0);
        assert_eq!(worker(u32::MAX, u32::MAX, u32::MAX, u32::MAX), 0);
    }
}

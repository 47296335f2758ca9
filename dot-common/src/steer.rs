//! Which worker's listener gets a new connection.
//!
//! Before: the stack has a SYN for a group of listeners. After: dot-ebpf selects the socket of that worker; if the slot
//! is empty, the kernel's own hash decides.
//! Holds: the rule, for any number of workers and CPUs.
//! Never: asks whether that worker has time.

use crate::flow::FlowKey;

/// The worker for a connection whose packets arrive on the CPU with this `place` among those that workers are pinned to:
/// [`place`].
///
/// With as many workers as CPUs, or fewer, it is the worker of the CPU, or the one that the CPU shares with others.
/// With more workers, `hash` chooses among those whose number falls on this CPU, so that none is idle. Without workers
/// or CPUs: 0.
#[must_use]
#[inline(always)]
pub const fn worker(place: u32, hash: u32, cpus: u32, workers: u32) -> u32 {
    // Checked arithmetic throughout: the BPF target has no way to panic.
    let Some(own) = place.checked_rem(if workers < cpus { workers } else { cpus }) else { return 0 };
    let Some(further) = (workers - own - 1).checked_div(cpus) else { return own };
    match hash.checked_rem(further + 1) {
        Some(lane) => own + cpus * lane,
        None => own,
    }
}

/// The place of a CPU among those that workers are pinned to, given in order. The CPUs without a worker get places in
/// turn, so that their packets are spread over all workers.
#[must_use]
pub fn place(cpu: u32, pinned: &[u32]) -> u32 {
    let found = pinned.iter().position(|one| *one == cpu);
    let others = pinned.iter().filter(|one| **one < cpu).count();
    let count = u32::try_from(pinned.len()).unwrap_or(u32::MAX);
    let before = cpu.saturating_sub(u32::try_from(others).unwrap_or(u32::MAX));
    match found {
        Some(place) => u32::try_from(place).unwrap_or(0),
        None => before.checked_rem(count).unwrap_or(0),
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
    // The high half is the one that is well mixed.
    let hash = ((mixed ^ mixed >> 32).wrapping_mul(FACTOR) >> 32) as u32;
    hash.checked_rem(cpus)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{collections::BTreeSet, vec::Vec};

    use super::{place, spread, worker};
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

    /// Goal: every worker gets connections, and no number beyond theirs is chosen. Method: all CPUs and enough hashes
    /// for each pair of sizes.
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

    /// Goal: with any affinity mask each CPU of it has its own worker, and packets that come in on other CPUs are
    /// spread over all workers. Method: CPUs 0, 2, 4 and 6 of eight, and others.
    #[test]
    fn a_mask_with_gaps_leaves_no_worker_idle() {
        for pinned in [&[0, 2, 4, 6][..], &[4, 5, 6, 7], &[1, 3], &[7], &[0, 1, 2, 3, 4, 5, 6, 7]] {
            let count = u32::try_from(pinned.len()).unwrap();
            for (own, cpu) in (0..).zip(pinned) {
                assert_eq!(worker(place(*cpu, pinned), 99, count, count), own, "{pinned:?}: CPU {cpu}");
            }
            let mut load = std::vec![0; pinned.len()];
            for cpu in (0..8).filter(|cpu| !pinned.contains(cpu)) {
                load[worker(place(cpu, pinned), 99, count, count) as usize] += 1;
            }
            let (most, least) = (load.iter().max().unwrap(), load.iter().min().unwrap());
            assert!(most - least <= 1, "{pinned:?}: {load:?}");
        }
        assert_eq!(place(3, &[]), 0);
    }

    /// Goal: with as many workers as CPUs each CPU has its own worker, whatever the hash.
    #[test]
    fn a_worker_per_cpu_is_its_own() {
        for cpu in 0..64 {
            assert_eq!(worker(cpu, cpu.wrapping_mul(0x9e37_79b9), 64, 64), cpu);
        }
    }

    /// Goal: impossible sizes cause no panic.
    #[test]
    fn nothing_to_choose_from() {
        assert_eq!(worker(3, 5, 0, 4), 0);
        assert_eq!(worker(3, 5, 4, 0), 0);
        assert_eq!(worker(u32::MAX, u32::MAX, u32::MAX, u32::MAX), 0);
    }
}

//! Which worker's listener gets a new connection.
//!
//! Before: the stack has a SYN for a group of listeners. After: dot-ebpf selects the socket of that worker;
//! an empty slot leaves the choice to the kernel's own hash.
//! Holds: the rule, for any number of workers and CPUs.
//! Never: asks whether that worker has time.

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

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{collections::BTreeSet, vec::Vec};

    use super::worker;

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

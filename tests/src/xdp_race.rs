//! Runs the kernel half on two CPUs at once.
//!
//! Before: a lab and a frame. After: what both counted. Never: attaches anything.

use std::{sync::Barrier, thread};

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use dot_common::verdict::Verdict;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::xdp_lab::{Lab, verdict};

impl Lab {
    /// Judges a frame that many times on each of two CPUs at once, and returns what was counted. `None`: there is only
    /// one CPU.
    pub fn race(&mut self, frame: &[u8], repeat: u32) -> Option<Vec<(Verdict, u64)>> {
        let usable = sched_getaffinity(Pid::from_raw(0)).expect("our own CPUs");
        let mut cpus = (0..CpuSet::count()).filter(|cpu| usable.is_set(*cpu).unwrap_or(false));
        let cpus = [cpus.next()?, cpus.next()?];
        let start = Barrier::new(cpus.len());
        let program: &Xdp = self.xdp();
        thread::scope(|scope| {
            for cpu in cpus {
                let start = &start;
                scope.spawn(move || {
                    let mut one = CpuSet::new();
                    one.set(cpu)
                        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &one))
                        .expect("a CPU of ours");
                    start.wait();
                    let options = TestRunOptions { data_in: Some(frame), repeat, ..Default::default() };
                    program.test_run(options).expect("the program runs");
                });
            }
        });
        let new = self.newly_counted_any().into_iter();
        Some(new.map(|(index, count)| (verdict(index), count)).collect())
    }
}

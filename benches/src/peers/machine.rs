//! The machine: the cores in use, its description, and the time that other processes took meanwhile.
//!
//! Before: nothing. After: `process` pins to cores, reports describe the machine.
//! Never: changes the machine beyond our own CPU affinity.
//!
//! Source: proc(5), `/proc/stat` (user nice system idle iowait irq softirq steal), sched_setaffinity(2).

use std::fs;

use anyhow::{Context, Result, bail};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// The cores of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    /// The front end's worker.
    pub(crate) front: usize,
    /// The load and the backend.
    pub(crate) load: usize,
}

impl Cores {
    /// The first two usable cores; one for both if there is only one.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(crate) fn choose() -> Result<Self> {
        match own_cores()?[..] {
            [] => bail!("the kernel names no CPU for us"),
            [only] => Ok(Self { front: only, load: only }),
            [front, load, ..] => Ok(Self { front, load }),
        }
    }
}

/// The CPUs that this thread may run on.
///
/// # Errors
/// The kernel does not say.
pub(crate) fn own_cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// Keeps this thread, and what it starts, on one CPU.
///
/// # Errors
/// This process may not run there.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    pin_to(&[cpu])
}

/// Keeps this thread, and what it starts, on these CPUs.
///
/// # Errors
/// This process may run on none of them.
pub(crate) fn pin_to(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot run on CPU {cpus:?}"))
}

/// What the report says about where it was made.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) system: String,
    pub(crate) cores: Cores,
    /// Load averages over one minute, before and after.
    pub(crate) load: [String; 2],
    /// Seconds since 1970 at which it began.
    pub(crate) begun: u64,
}

impl Machine {
    pub(crate) fn look(cores: Cores) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let release = read("/etc/os-release");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self {
            cpu: value(&cpuinfo, "model name", ':').unwrap_or_else(|| "CPU of unknown make".to_owned()),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_mib: kib(&read("/proc/meminfo"), "MemTotal") / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: value(&release, "PRETTY_NAME", '=').unwrap_or_default().trim_matches('"').to_owned(),
            cores,
            load: [load(), String::new()],
            begun: now.as_secs(),
        }
    }

    pub(crate) fn look_again(&mut self) {
        self.load[1] = load();
    }
}

/// The value of the first line with this key.
fn value(text: &str, key: &str, separator: char) -> Option<String> {
    let pairs = text.lines().filter_map(|line| line.split_once(separator));
    pairs.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned()).next()
}

/// A number of KiB, as meminfo and smaps_rollup write them; zero when it is not there.
pub(crate) fn kib(text: &str, key: &str) -> u64 {
    let value = value(text, key, ':').unwrap_or_default();
    value.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

/// The time of one CPU, in ticks of 10 ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    /// A process ran, interrupts included.
    pub(crate) busy: u64,
    /// Another guest ran.
    pub(crate) stolen: u64,
    /// Idle.
    pub(crate) idle: u64,
}

impl CpuTime {
    /// Reads it now; zero when the kernel does not say.
    pub(crate) fn of(cpu: usize) -> Self {
        parse_stat(&fs::read_to_string("/proc/stat").unwrap_or_default(), cpu).unwrap_or_default()
    }

    /// The part of the time since `before` in which others than `own_seconds` of ours had the CPU.
    pub(crate) fn others_share(self, before: Self, own_seconds: f64) -> f64 {
        let taken = self.busy.saturating_sub(before.busy) + self.stolen.saturating_sub(before.stolen);
        let all = taken + self.idle.saturating_sub(before.idle);
        if all == 0 {
            return 0.0;
        }
        (taken as f64 - own_seconds * TICKS_PER_SECOND).max(0.0) / all as f64
    }
}

const TICKS_PER_SECOND: f64 = 100.0;

/// The line `cpuN user nice system idle iowait irq softirq steal …`.
fn parse_stat(stat: &str, cpu: usize) -> Option<CpuTime> {
    let name = format!("cpu{cpu}");
    let line = stat.lines().find(|line| line.split_whitespace().next() == Some(&name))?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks[..] else { return None };
    Some(CpuTime { busy: user + nice + system + irq + softirq, stolen: steal, idle: idle + iowait })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a CPU's line is found and added up, and cpu1 is not cpu10. Method: a text of proc(5)'s form.
    #[test]
    fn reads_a_cpu_line() {
        let stat =
            "cpu  9 9 9 9 9 9 9 9 0 0\ncpu10 1 0 0 0 0 0 0 0 0 0\ncpu1 10 1 20 50 5 2 3 7 0 0\nintr 1\n";
        assert_eq!(parse_stat(stat, 1), Some(CpuTime { busy: 36, stolen: 7, idle: 55 }));
        assert_eq!(parse_stat(stat, 2), None);
        assert_eq!(parse_stat("cpu0 1 2\n", 0), None);
    }

    /// Goal: what others took is neither ours nor idle, and never below zero. Method: known differences.
    #[test]
    fn others_share_of_a_core() {
        let before = CpuTime { busy: 100, stolen: 0, idle: 100 };
        let after = CpuTime { busy: 170, stolen: 10, idle: 120 };
        assert!((after.others_share(before, 0.5) - 0.3).abs() < 1e-9);
        assert!(after.others_share(before, 2.0).abs() < 1e-9);
        assert!(before.others_share(before, 0.0).abs() < 1e-9);
    }

    /// Goal: numbers of KiB are read by their whole name. Method: two names, one the other's beginning.
    #[test]
    fn reads_kib() {
        let text = "Pss:    120 kB\nPss_Anon:   30 kB\nAnonymous:  44 kB\n";
        assert_eq!((kib(text, "Pss"), kib(text, "Anonymous"), kib(text, "Rss")), (120, 44, 0));
    }
}

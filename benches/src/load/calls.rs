//! System calls of a server, counted by the kernel's tracepoint: no ptrace, which would slow it tenfold.
//!
//! Before: a process id. After: two readings give the calls between them. Never: left on where CPU is measured:
//! an enabled tracepoint sends every process of the machine through the slow entry of system calls.
//!
//! Source: perf_event_open(2), PERF_TYPE_TRACEPOINT with `inherit`; tracefs, raw_syscalls/sys_enter.

use std::fs;

use anyhow::{Context, Result, bail};
use perf_event::{Builder, Counter, events::Tracepoint};

use super::cpu::descendants;

/// Where the kernel names the tracepoint's number; the second for kernels before 4.1's mount point is made.
const IDS: [&str; 2] = [
    "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
    "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
];

/// One counter for each thread; threads and children that begin later count with the one that made them.
pub struct Calls(Vec<Counter>);

impl Calls {
    /// Begins to count.
    ///
    /// # Errors
    /// No tracefs, no right to trace, or no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let id = IDS.iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
        let id = id.context(
            "cannot count system calls: no tracefs here; as root: mount -t tracefs nodev /sys/kernel/tracing",
        )?;
        let mut counters = Vec::new();
        for pid in descendants(pid).into_iter().chain([pid]) {
            // A child may end between the listing and the reading.
            let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for entry in entries.flatten() {
                let Ok(thread) = entry.file_name().to_string_lossy().parse() else { continue };
                counters.push(counter(id, thread)?);
            }
        }
        if counters.is_empty() {
            bail!("no process {pid} (--server-pid)");
        }
        Ok(Self(counters))
    }

    /// System calls since [`Calls::of`].
    ///
    /// # Errors
    /// What the kernel said.
    pub fn count(&mut self) -> Result<u64> {
        self.0.iter_mut().map(|counter| counter.read().map_err(Into::into)).sum()
    }
}

fn counter(id: u64, thread: i32) -> Result<Counter> {
    let mut builder = Builder::new(Tracepoint::with_id(id));
    builder.observe_pid(thread).inherit(true).include_kernel();
    let mut counter =
        builder.build().context("cannot count system calls (perf_event_open); it needs root")?;
    counter.enable()?;
    Ok(counter)
}

#[cfg(test)]
mod tests {
    use dot_tests::require;

    use super::*;

    /// Goal: the count is that of the process, children included, and nobody else's. Method: a shell that starts a
    /// program with a known number of writes, as root.
    #[test]
    fn counts_system_calls() {
        require!(Root);
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "read line; dd if=/dev/zero of=/dev/null bs=1 count=5000 status=none; read line"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("sh");
        let mut calls = Calls::of(shell.id()).expect("root may count");
        let stdin = shell.stdin.as_mut().expect("piped");
        std::io::Write::write_all(stdin, b"\n").expect("the shell reads");
        let counted = dot_tests::harness::eventually("dd is done", || {
            calls.count().ok().filter(|count| *count >= 10_000)
        });
        drop(shell.stdin.take());
        shell.wait().expect("it ends when its input does");
        // 5000 reads, 5000 writes, and what a shell and a program need to start.
        assert!((10_000..12_000).contains(&counted), "{counted}");
    }
}

//! System calls of a server, counted by the kernel's tracepoint: no ptrace, which would slow it tenfold.
//!
//! Before: a process id. After: two readings give the calls between them. Never: stays enabled while CPU is measured:
//! an enabled tracepoint makes every process of the machine use the slow entry of system calls.
//!
//! Source: perf_event_open(2), PERF_TYPE_TRACEPOINT with `inherit`; tracefs, raw_syscalls/sys_enter.

use std::{fs, io, thread};

use anyhow::{Context, Result, bail};
use dot_tests::harness::mounts;
use nix::{
    mount::{MsFlags, mount},
    sched::CloneFlags,
};
use perf_event::{Builder, Counter, events::Tracepoint};

use super::cpu::descendants;

/// The file with the tracepoint's number, within tracefs.
const ID: &str = "events/raw_syscalls/sys_enter/id";
/// The usual mount points of tracefs: since Linux 4.1, and before.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// One counter for each thread; threads and children that begin later count with the one that made them.
pub struct Calls(Vec<Counter>);

impl Calls {
    /// Begins to count.
    ///
    /// # Errors
    /// No right to trace, a kernel without tracepoints, or no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let id = tracepoint().context("cannot count system calls")?;
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
    /// The error of the kernel.
    pub fn count(&mut self) -> Result<u64> {
        self.0.iter_mut().map(|counter| counter.read().map_err(Into::into)).sum()
    }
}

/// The tracepoint's number: from the machine's tracefs, else from one that is mounted for this look alone.
fn tracepoint() -> Result<u64> {
    let mounted = TRACEFS.iter().find_map(|root| fs::read_to_string(format!("{root}/{ID}")).ok());
    let id = match mounted {
        Some(id) => id,
        None => {
            thread::spawn(own_tracefs).join().unwrap_or_else(|_| bail!("the thread that looks panicked"))?
        }
    };
    id.trim().parse().with_context(|| format!("the kernel calls its tracepoint {id:?}"))
}

/// The number from a tracefs that this thread mounts; the mount ends with the thread.
fn own_tracefs() -> Result<String> {
    mounts::separate(CloneFlags::empty())
        .context("no tracefs is mounted, and none can be (it needs root, CAP_SYS_ADMIN)")?;
    // Any folder will do, and every machine has this one.
    mount(Some("tracefs"), "/sys", Some("tracefs"), MsFlags::empty(), mounts::NOTHING)
        .context("no tracefs is mounted, and this kernel mounts none (it needs CONFIG_TRACING)")?;
    fs::read_to_string(format!("/sys/{ID}")).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            bail!("this kernel has no tracepoint for system calls (CONFIG_FTRACE_SYSCALLS)")
        }
        _ => Err(error.into()),
    })
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

    /// Goal: the count is that of the process, children included, and of no other process. Method: a shell that starts a
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

    /// Goal: the count needs no mount that was made by hand. Method: the number of the tracepoint as the fallback finds
    /// it, beside what this process could see before: its own mounts are what they were.
    #[test]
    fn mounts_tracefs_for_itself_alone() {
        require!(Root);
        let before = fs::read_to_string("/proc/self/mounts").expect("procfs");
        let id = thread::spawn(own_tracefs).join().expect("no panic").expect("root may mount it");
        assert!(id.trim().parse::<u64>().is_ok_and(|id| id == tracepoint().expect("found twice")), "{id}");
        assert_eq!(fs::read_to_string("/proc/self/mounts").expect("procfs"), before);
    }
}

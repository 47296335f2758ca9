//! The CPU time of a process and of each of its threads, from /proc.
//!
//! Before: a process id. After: two readings give what was used between them. Never: needs a right beyond
//! reading /proc.
//!
//! Source: proc(5), `/proc/PID/stat` fields 14 (utime) and 15 (stime).

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};

/// Units of /proc/PID/stat a second: USER_HZ is 100 on every Linux we run on.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time used so far, or between two readings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In the program.
    pub user: Duration,
    /// In the kernel on its behalf.
    pub system: Duration,
    /// Threads that live now, busiest first once it is a difference.
    pub threads: Vec<ThreadUsage>,
}

/// One thread's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadUsage {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// In the program.
    pub user: Duration,
    /// In the kernel on its behalf.
    pub system: Duration,
}

impl Usage {
    /// Reads it now, threads that ended included in the sum.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let folder = format!("/proc/{pid}");
        let missing = || format!("no process {pid} (--server-pid)");
        let whole = read(Path::new(&folder)).with_context(missing)?;
        let mut threads = Vec::new();
        for entry in fs::read_dir(format!("{folder}/task")).with_context(missing)? {
            let entry = entry?;
            let id = entry.file_name().to_string_lossy().parse().unwrap_or_default();
            // A thread may end between the listing and the reading.
            threads.extend(read(&entry.path()).ok().map(|thread| ThreadUsage { id, ..thread }));
        }
        Ok(Self { user: whole.user, system: whole.system, threads })
    }

    /// What was used since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut threads: Vec<ThreadUsage> =
            self.threads.iter().map(|thread| thread.since(&before.threads)).collect();
        threads.sort_by_key(|thread| std::cmp::Reverse(thread.user + thread.system));
        Self {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
            threads,
        }
    }

    /// User and system.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.user + self.system
    }
}

impl ThreadUsage {
    fn since(&self, before: &[Self]) -> Self {
        let earlier = before.iter().find(|thread| thread.id == self.id);
        let used = |now: Duration, then: fn(&Self) -> Duration| {
            now.saturating_sub(earlier.map_or(Duration::ZERO, then))
        };
        Self {
            user: used(self.user, |thread| thread.user),
            system: used(self.system, |thread| thread.system),
            ..self.clone()
        }
    }
}

fn read(folder: &Path) -> Result<ThreadUsage> {
    let stat = fs::read_to_string(folder.join("stat"))?;
    parse(&stat).with_context(|| format!("{}/stat is not as proc(5) says", folder.display()))
}

/// `1234 (name with ) inside) S 1 …`: the name ends at the last bracket.
fn parse(stat: &str) -> Option<ThreadUsage> {
    let (front, fields) = stat.rsplit_once(')')?;
    let (id, name) = front.split_once('(')?;
    let mut times = fields.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    let mut ticks =
        || times.next().flatten().map(|ticks| Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND));
    Some(ThreadUsage { id: id.trim().parse().ok()?, name: name.to_owned(), user: ticks()?, system: ticks()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the right fields are read, whatever the process calls itself. Method: a line of proc(5)'s form
    /// with brackets and blanks in the name.
    #[test]
    fn reads_a_stat_line() {
        let line = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 30 0 0 20 0 1 0 5 6 7";
        let usage = parse(line).expect("a stat line");
        assert_eq!((usage.id, usage.name.as_str()), (42, "a) b (c"));
        assert_eq!((usage.user, usage.system), (Duration::from_millis(2500), Duration::from_millis(300)));
        assert_eq!(parse("42 (a"), None);
    }

    /// Goal: a difference is taken thread by thread, and a thread that is new counts whole.
    #[test]
    fn subtracts_thread_by_thread() {
        let thread = |id, ms| ThreadUsage {
            id,
            name: "w".into(),
            user: Duration::from_millis(ms),
            system: Duration::ZERO,
        };
        let usage = |ms, threads| Usage { user: Duration::from_millis(ms), system: Duration::ZERO, threads };
        let before = usage(50, vec![thread(1, 50)]);
        let after = usage(100, vec![thread(1, 60), thread(2, 40)]);
        assert_eq!(after.since(&before), usage(50, vec![thread(2, 40), thread(1, 10)]));
    }

    /// Goal: our own process can be read, and one that cannot exist is an error that names it.
    #[test]
    fn reads_proc() {
        assert!(!Usage::of(std::process::id()).expect("our own").threads.is_empty());
        let error = Usage::of(u32::MAX).expect_err("no such process");
        assert!(error.to_string().contains("4294967295"), "{error}");
    }
}

//! The CPU time and context switches of a process, its children and each of their threads, from /proc.
//!
//! Before: a process id. After: two readings give what was used between them. Never: needs a right beyond
//! reading /proc; counts the switches of threads that ended, which the kernel forgets.
//!
//! Source: proc(5), `/proc/PID/stat` fields 4 (ppid), 14 (utime) and 15 (stime); `/proc/PID/task/TID/status`.

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
    /// Context switches of the threads that live now.
    pub switches: Switches,
    /// Threads that live now, busiest first once it is a difference.
    pub threads: Vec<ThreadUsage>,
}

/// Context switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// It waited for something.
    pub voluntary: u64,
    /// Another thread got its CPU.
    pub involuntary: u64,
}

/// The figures of one thread.
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
    /// Its context switches.
    pub switches: Switches,
}

impl Usage {
    /// Reads it now for the process and its descendants, threads that ended included in the times.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let mut usage = Self::of_one(pid)?;
        for child in descendants(pid) {
            // A child may end between the listing and the reading.
            usage.extend(Self::of_one(child).unwrap_or_default());
        }
        Ok(usage)
    }

    fn of_one(pid: u32) -> Result<Self> {
        let folder = format!("/proc/{pid}");
        let missing = || format!("no process {pid} (--server-pid)");
        let whole = read(Path::new(&folder)).with_context(missing)?;
        let mut usage = Self { user: whole.user, system: whole.system, ..Self::default() };
        for entry in fs::read_dir(format!("{folder}/task")).with_context(missing)? {
            let entry = entry?;
            let id = entry.file_name().to_string_lossy().parse().unwrap_or_default();
            // A thread may end between the listing and the reading.
            let Ok(thread) = read(&entry.path()) else { continue };
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let thread = ThreadUsage { id, switches: switches(&status), ..thread };
            usage.switches = usage.switches.plus(thread.switches);
            usage.threads.push(thread);
        }
        Ok(usage)
    }

    fn extend(&mut self, other: Self) {
        self.user += other.user;
        self.system += other.system;
        self.switches = self.switches.plus(other.switches);
        self.threads.extend(other.threads);
    }

    /// The usage since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut threads: Vec<ThreadUsage> =
            self.threads.iter().map(|thread| thread.since(&before.threads)).collect();
        threads.sort_by_key(|thread| std::cmp::Reverse(thread.user + thread.system));
        Self {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
            switches: threads.iter().fold(Switches::default(), |sum, thread| sum.plus(thread.switches)),
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
            switches: self.switches.minus(earlier.map(|thread| thread.switches).unwrap_or_default()),
            ..self.clone()
        }
    }
}

impl Switches {
    fn plus(self, other: Self) -> Self {
        Self {
            voluntary: self.voluntary + other.voluntary,
            involuntary: self.involuntary + other.involuntary,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            voluntary: self.voluntary.saturating_sub(other.voluntary),
            involuntary: self.involuntary.saturating_sub(other.involuntary),
        }
    }
}

/// The children of a process, theirs, and so on: as they are now.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids
        .filter_map(|pid| Some((pid, parent(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect();
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(above) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}

/// Field 4 of a stat line: the process id of the parent.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The two counts of a status file; zero where a line is missing.
fn switches(status: &str) -> Switches {
    let count = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        value.trim().parse().unwrap_or_default()
    };
    Switches {
        voluntary: count("voluntary_ctxt_switches:"),
        involuntary: count("nonvoluntary_ctxt_switches:"),
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
    Some(ThreadUsage {
        id: id.trim().parse().ok()?,
        name: name.to_owned(),
        user: ticks()?,
        system: ticks()?,
        switches: Switches::default(),
    })
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
        assert_eq!(parent(line), Some(1));
    }

    /// Goal: the two kinds of switches are not mixed up: one name ends with the other. Method: a status file.
    #[test]
    fn reads_switches() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(switches(status), Switches { voluntary: 12, involuntary: 3 });
        assert_eq!(switches(""), Switches::default());
    }

    /// Goal: grandchildren are found, and end with their parents' list. Method: a shell that starts a sleep.
    #[test]
    fn finds_descendants() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sleep 60 & echo started; read line; kill $!"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh");
        let mut line = [0; 8];
        std::io::Read::read_exact(shell.stdout.as_mut().expect("piped"), &mut line).expect("a line");
        let children = descendants(shell.id());
        let is_listed = descendants(std::process::id()).contains(&shell.id());
        drop(shell.stdin.take());
        shell.wait().expect("it ends when its input does");
        assert_eq!(children.len(), 1);
        assert!(is_listed);
    }

    /// Goal: a difference is taken thread by thread, and a thread that is new counts whole.
    #[test]
    fn subtracts_thread_by_thread() {
        let thread = |id, ms| ThreadUsage {
            id,
            name: "w".into(),
            user: Duration::from_millis(ms),
            system: Duration::ZERO,
            switches: Switches { voluntary: ms, involuntary: 1 },
        };
        let usage = |ms, threads: Vec<ThreadUsage>| Usage {
            user: Duration::from_millis(ms),
            system: Duration::ZERO,
            switches: threads.iter().fold(Switches::default(), |sum, thread| sum.plus(thread.switches)),
            threads,
        };
        let before = usage(50, vec![thread(1, 50)]);
        let after = usage(100, vec![thread(1, 60), thread(2, 40)]);
        let mut first = thread(1, 10);
        first.switches.involuntary = 0;
        assert_eq!(after.since(&before), usage(50, vec![thread(2, 40), first]));
    }

    /// Goal: our own process can be read, and one that cannot exist is an error that names it.
    #[test]
    fn reads_proc() {
        assert!(!Usage::of(std::process::id()).expect("our own").threads.is_empty());
        let error = Usage::of(u32::MAX).expect_err("no such process");
        assert!(error.to_string().contains("4294967295"), "{error}");
    }
}

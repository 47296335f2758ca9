//! Programs that a test starts: client programs with a time limit, servers that are ended with the test.
//!
//! Before: a namespace. After: the program was ended by its own pid, whatever the test did.
//! Never: ends a process by name.

use std::{
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{DEADLINE, netns::Namespace, scratch::Scratch};

/// A client program that `timeout` ends if it hangs.
#[must_use]
pub fn bounded(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", &DEADLINE.as_secs().to_string(), program]).stdin(Stdio::null());
    command
}

/// A serving program that the kernel ends when the thread of its namespace ends, whatever the reason.
#[must_use]
pub fn bound_to_namespace(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]).stdin(Stdio::null());
    command
}

/// The value of one line of each thread's status file.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn of_each_thread(pid: u32, key: &str) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let status = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("status")).ok();
    let line =
        |status: String| Some(status.lines().find_map(|line| line.strip_prefix(key))?.trim().to_owned());
    threads.flatten().filter_map(status).filter_map(line).collect()
}

/// A running program that is ended on drop: by SIGTERM, then by SIGKILL.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts a program in a namespace, and notes its pid in the scratch folder.
    #[must_use]
    pub fn start(name: &str, namespace: &Namespace, scratch: &Scratch, command: Command) -> Self {
        let child = namespace.spawn(command);
        scratch.note_process(child.id());
        Self { child, name: name.to_owned() }
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, if the process still runs.
    pub fn signal(&mut self, signal: Signal) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let pid = i32::try_from(self.child.id()).expect("a pid fits");
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Its status, if it ended within the time.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(5)),
                _ => return None,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        if self.wait(Duration::from_secs(3)).is_none() {
            eprintln!("{} {} did not end on SIGTERM; SIGKILL", self.name, self.child.id());
            self.signal(Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

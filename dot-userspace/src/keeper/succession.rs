//! One engine after another: what the keeper does when its engine crashes.
//!
//! Before: an engine has ended by a signal or a panic. After: this process runs its own program again, which takes the sockets
//! and the kernel half over, and forks the next engine with an address space of its own.
//! Holds: the bound on crashes.
//! Never: restarts an engine that never served, or one that crashes again and again.
//!
//! Source: execve(2): the process and its descriptors stay.

use std::{
    convert::Infallible,
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    time::Duration,
};

use nix::unistd::execv;

use super::{
    duty::{Duty, End, ended},
    estate::monotonic_ms,
    inherit::Inheritance,
};

/// Crashes within [`CRASHES_WITHIN`] after which there is no further engine, and the service manager decides.
const CRASHES_MAX: usize = 5;
/// A minute.
const CRASHES_WITHIN: Duration = Duration::from_secs(60);
/// This program, also where its file was replaced.
const OURSELVES: &str = "/proc/self/exe";

impl Duty {
    /// How the engine ended, if dotd ends with it. Where another engine follows, this does not return.
    pub(super) fn look_at_engine(&mut self) -> Option<End> {
        let end = ended(self.engine.pid)?;
        let is_orderly = end == End::Exit(0) || self.is_stopping || !self.engine.is_ready;
        if is_orderly || !self.may_restart() {
            return Some(end);
        }
        self.engine.socket = None;
        let note = format!("dotd's engine ended {end}; another one takes its place");
        let Err(error) = self.become_program(Path::new(OURSELVES), &note);
        tracing::error!("dotd's engine ended {end}, and no other one can be started: {error}");
        Some(end)
    }

    /// Counts this crash; `false`: too many of late.
    fn may_restart(&mut self) -> bool {
        let now = monotonic_ms() / 1000;
        self.estate.crashes.retain(|crash| now.saturating_sub(*crash) < CRASHES_WITHIN.as_secs());
        self.estate.crashes.push(now);
        self.estate.sockets.is_some() && self.estate.crashes.len() <= CRASHES_MAX
    }

    /// Runs `program` in this process. Returns only where that fails.
    fn become_program(&self, program: &Path, note: &str) -> io::Result<Infallible> {
        let lines = (self.lines)();
        let lines = lines.iter().map(|line| String::from_utf8_lossy(line).trim_end().to_owned());
        let list = Inheritance::of(&self.estate, lines.chain([note.to_owned()]).collect())?;
        let file = list.write()?;
        let words = self.words(file.as_raw_fd());
        let words = words.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let path = CString::new(program.as_os_str().as_bytes())?;
        list.keep_at_exec(true)?;
        let failed = execv(&path, &words);
        list.keep_at_exec(false)?;
        Ok(failed?)
    }

    fn words(&self, list: RawFd) -> Vec<Vec<u8>> {
        let octets = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let mut words = vec![octets(&self.estate.program)];
        if let Some(path) = &self.estate.path {
            words.extend([b"--config".to_vec(), octets(path)]);
        }
        words.extend([b"run".to_vec(), b"--inherit".to_vec(), list.to_string().into_bytes()]);
        words
    }
}

//! Programs that a comparison starts: each on its cores, each ended by its own pid.
//!
//! Before: a command line. After: the program runs until its value is dropped, Ctrl-C or TERM comes, or we die.
//! Holds: the list of what runs, under one lock with the start of a program, so that a signal misses none.
//! Never: ends a process that it did not start.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal};

use super::machine;

/// Time to end by itself after TERM.
const GRACE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(10);
/// Status of a program that INT ended, as shells say it.
const INTERRUPTED: i32 = 130;

/// Knows what runs and which folders are ours to remove.
#[derive(Clone)]
pub(crate) struct Keeper(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    pids: Vec<u32>,
    folder: Option<PathBuf>,
}

impl Keeper {
    /// From now on INT, TERM and HUP end all that runs before they end us.
    ///
    /// # Errors
    /// No thread or no signal to be had.
    pub(crate) fn watch() -> Result<Self> {
        let keeper = Self(Arc::default());
        let kept = Arc::clone(&keeper.0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupt, mut terminate, mut hangup) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            )
        };
        thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
            end_all(&kept);
        })?;
        Ok(keeper)
    }

    /// A folder to remove when a signal ends us; its owner removes it otherwise.
    pub(crate) fn remove_at_signal(&self, folder: &Path) {
        self.kept().folder = Some(folder.to_path_buf());
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends all that runs, removes the folder, and ends us: the main thread may be in the midst of a load.
#[expect(clippy::disallowed_methods, reason = "what drop would do is done here; no XDP is ours")]
fn end_all(kept: &Mutex<Kept>) -> ! {
    // Held to the end: nothing is started any more, and no pid is freed by a wait.
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.pids.iter().for_each(|pid| send(*pid, Signal::SIGTERM));
    let end = Instant::now() + GRACE;
    while kept.pids.iter().any(|pid| is_alive(*pid)) && Instant::now() < end {
        thread::sleep(LOOK);
    }
    kept.pids.iter().for_each(|pid| send(*pid, Signal::SIGKILL));
    if let Some(folder) = &kept.folder {
        // A file that a dying process still writes is not worth another try.
        let _ = fs::remove_dir_all(folder);
    }
    eprintln!("dotbench: interrupted; all that was started has ended");
    std::process::exit(INTERRUPTED)
}

/// A running program, ended on drop: TERM, and KILL if that does not help.
pub(crate) struct Process {
    child: Child,
    keeper: Keeper,
    line: Line,
}

/// How it was started.
struct Line {
    cores: Vec<usize>,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
}

impl Process {
    /// Starts it on these cores; what it prints goes to `log`. The kernel ends it when our main thread dies.
    ///
    /// # Errors
    /// It did not start.
    pub(crate) fn start(
        keeper: &Keeper,
        cores: &[usize],
        program: &Path,
        arguments: &[String],
        log: &Path,
    ) -> Result<Self> {
        let line = Line {
            cores: cores.to_vec(),
            program: program.to_path_buf(),
            arguments: arguments.to_vec(),
            log: log.to_path_buf(),
        };
        Ok(Self { child: line.spawn(keeper)?, keeper: keeper.clone(), line })
    }

    /// Ends it, and starts the same again.
    ///
    /// # Errors
    /// It did not start.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.end();
        self.child = self.line.spawn(&self.keeper)?;
        Ok(())
    }

    /// The program and its arguments.
    pub(crate) fn line(&self) -> (&Path, &[String]) {
        (&self.line.program, &self.line.arguments)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&self) -> Option<String> {
        (!is_alive(self.pid())).then(|| "it ended by itself".to_owned())
    }
}

impl Line {
    fn spawn(&self, keeper: &Keeper) -> Result<Child> {
        let output = fs::File::create(&self.log)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let own = machine::own_cores()?;
        // Threads and children inherit it; we go back to where we were.
        machine::pin_to(&self.cores)?;
        let mut kept = keeper.kept();
        let child = command.spawn();
        let back = machine::pin_to(&own);
        let child = child.with_context(|| format!("cannot start {}", self.program.display()))?;
        kept.pids.push(child.id());
        drop(kept);
        back?;
        Ok(child)
    }
}

impl Process {
    /// TERM, and KILL if that does not help in time.
    fn end(&mut self) {
        send(self.pid(), Signal::SIGTERM);
        let end = Instant::now() + GRACE;
        while is_alive(self.pid()) && Instant::now() < end {
            thread::sleep(LOOK);
        }
        let mut kept = self.keeper.kept();
        send(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
        let pid = self.pid();
        kept.pids.retain(|other| *other != pid);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A child that was not waited for: its pid is ours, dead or alive.
fn send(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Whether it runs. A child that ended stays as a zombie until its parent waits for it.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().next());
    state.is_some_and(|state| !matches!(state, "Z" | "X"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a process that is started again, or dropped, is gone, its pid too. Method: a sleep on the first core we may use.
    #[test]
    fn ends_what_it_started() {
        let keeper = Keeper(Arc::default());
        let folder = tempfile::tempdir().expect("a folder");
        let core = machine::own_cores().expect("cores")[0];
        let before = machine::own_cores().expect("cores");
        let arguments = ["60".to_owned()];
        let log = folder.path().join("log");
        let sleep = Process::start(&keeper, &[core], Path::new("sleep"), &arguments, &log).expect("sleep");
        let pid = sleep.pid();
        assert!(is_alive(pid) && keeper.kept().pids == [pid]);
        assert_eq!(machine::own_cores().expect("cores"), before);
        let mut sleep = sleep;
        sleep.restart().expect("sleep");
        assert!(!Path::new(&format!("/proc/{pid}")).exists() && is_alive(sleep.pid()));
        let pid = sleep.pid();
        drop(sleep);
        assert!(!Path::new(&format!("/proc/{pid}")).exists() && keeper.kept().pids.is_empty());
    }
}

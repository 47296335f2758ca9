//! Module `keeper`: the process that was started keeps a few rights and reads nothing from the
//! network; its child process, the engine, has no rights and serves.
//!
//! Before: `start` has opened, loaded and attached everything that needs rights. After: [`part`]
//! has made two processes of one. The parent handles the few requests of the child, forwards
//! signals, and ends when the child ends. After a crash, and at an upgrade, it starts another
//! child.
//! Holds: `acme` (the process that gets certificates), `accounts` (the folder with its accounts), `words` (the requests and their
//! encoding), `duty` (the parent's work), `engine` (the child, as the parent sees it), `request` (the
//! child's side), `succession` (one engine after another), `upgrade` (another program replaces the
//! parent's program), `estate` (state that outlives engines), `inherit` (how that state passes to
//! the next program), `restart_dir` (what a restart finds).
//! Never: accepts a path, an interface or a program from the child: it uses only those that the
//! config names.
//!
//! Source: fork(2), unix(7) (SCM_RIGHTS), signalfd(2), prctl(2) (PR_SET_PDEATHSIG).

mod accept_filter;
mod accounts;
mod acme;
mod duty;
mod engine;
mod estate;
mod inherit;
mod request;
mod restart_dir;
mod succession;
mod upgrade;
mod words;

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask},
        socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt},
        time::{TimeVal, TimeValLike},
    },
    unistd::{ForkResult, Pid, fork, getpid, getppid},
};

pub use self::{
    accounts::{FOLDER, keep_accounts_in, open_folder},
    acme::take_descriptors,
    duty::Duty,
    estate::{Estate, Groups, Kept, Sockets},
    inherit::Inheritance,
    request::{Keeper, KeeperError, Successor},
    restart_dir::served_before,
    upgrade::{COULD_SERVE, INCOMPATIBLE, ask_for_upgrade},
    words::State,
};
use self::{engine::Engine, succession::Leaving, upgrade::Asker};
use crate::{config::Config, effective};

/// The process that [`part`] returns in.
pub enum Part {
    /// The parent process, with its duty.
    Keeper(Box<Duty>),
    /// The child process: the keeper that it asks, and at an upgrade the passage through which it
    /// receives the sessions of the previous engine.
    Engine(Keeper, Option<OwnedFd>),
}

/// Signals that end, reload or inform dotd, and the signal that reports the end of a child.
pub(crate) const SIGNALS: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGCHLD];
/// The keeper's own socket in `server.run_dir`, for `dotd upgrade`.
pub const KEEPER_SOCKET: &str = "keeper.sock";
/// Socket buffer of a passage, in octets. It holds some hundred sessions, or one with many unsent
/// octets.
const PASSAGE_OCTETS: usize = 208 * 1024;
/// How long an engine waits for an answer. The keeper may have to read a config from a slow disk,
/// or to attach to many interfaces.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Forks this process. `SIGNALS` are blocked in both processes from now on: the keeper reads them
/// from a descriptor, and the engine unblocks them when it has handlers ([`hear`]). `inherited`:
/// this program has replaced another one. An engine that still serves continues until the new one
/// serves.
///
/// # Errors
/// There are other threads, which a fork would not copy; or the system cannot create another
/// process.
pub fn part(config: &Config, estate: Estate, inherited: Option<&Inheritance>) -> io::Result<Part> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("{threads} threads run, and dotd can fork with only one")));
    }
    let (before, asker) = inherited.map(Inheritance::take_engine).transpose()?.unwrap_or_default();
    let (ours, theirs) = pair()?;
    let (from, to) = before.is_some().then(passage).transpose()?.unzip();
    let mask = hold_signals(inherited.is_some())?;
    if inherited.is_some() {
        // The program may have been run by another path than its own, such as /proc/self/exe.
        prctl::set_name(c"dotd")?;
    }
    let keeper = getpid();
    // SAFETY: there is one thread, so no other thread holds a lock or has half-written state in the
    // child.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop((theirs, to));
            let user = effective::user();
            let engine = Engine { pid: child, socket: Some(ours), user, is_ready: false };
            let mut duty = Duty::new(engine, estate, config, mask)?;
            duty.leaving = before.map(|before| Leaving::of(before).by(from));
            duty.asker = asker.map(|socket| Asker { socket, has_asked: true });
            Ok(Part::Keeper(Box::new(duty)))
        }
        ForkResult::Child => {
            // These belong to the keeper only.
            drop((ours, estate, before, asker, from));
            Ok(Part::Engine(Keeper::new(patient(theirs)?, keeper), to))
        }
    }
}

/// The keeper of an engine that continues to serve, because the new program could not start another
/// engine; `reason` says why.
///
/// # Errors
/// There is no such engine.
pub fn stay(inherited: &Inheritance, config: &Config, estate: Estate, reason: String) -> io::Result<Duty> {
    let (engine, asker) = inherited.take_engine()?;
    let leaving = engine.map(Leaving::of).ok_or_else(|| io::Error::other(reason.clone()))?;
    let mut duty = Duty::new(leaving.engine, estate, config, hold_signals(true)?)?;
    duty.asker = asker.map(|socket| Asker { socket, has_asked: true });
    duty.say_how_it_went(Err(reason));
    Ok(duty)
}

fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// A socket pair for sessions: the first end is for the previous engine, the second for the next
/// one.
fn passage() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (from, to) = pair()?;
    // The size is set explicitly, because the system default may be too small for one packet or
    // queue many.
    setsockopt(&from, sockopt::SndBuf, &PASSAGE_OCTETS)?;
    Ok((from, to))
}

/// Blocks the signals. Returns those that were blocked before dotd started.
fn hold_signals(is_next: bool) -> Result<SigSet, Errno> {
    let before = block()?;
    // The parent process may have left SIGCHLD ignored: the kernel would then discard the exit
    // status of a child before this process reads it.
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs none of our code.
    unsafe { sigaction(Signal::SIGCHLD, &action) }?;
    // If another program ran in this process before, that program blocked them.
    Ok(if is_next { SigSet::empty() } else { before })
}

/// Makes the kernel kill this process when the keeper ends, for any reason. Call it after the
/// change of user, which would undo it.
///
/// # Errors
/// The keeper has already ended.
pub fn end_with(keeper: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == keeper { Ok(()) } else { Err(io::Error::other("the keeper has ended")) }
}

/// Unblocks the signals. Call it when their handlers are installed.
///
/// # Errors
/// The kernel refused.
pub fn hear() -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&SigSet::from_iter(SIGNALS)), None)?)
}

/// Blocks the signals. Returns those that were blocked before.
fn block() -> Result<SigSet, Errno> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::from_iter(SIGNALS)), Some(&mut before))?;
    Ok(before)
}

/// The engine's end of the pair, with a timeout for answers.
fn patient(socket: OwnedFd) -> io::Result<OwnedFd> {
    let seconds = TimeVal::seconds(ANSWER_TIMEOUT.as_secs().cast_signed());
    setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &seconds)?;
    setsockopt(&socket.as_fd(), sockopt::SendTimeout, &seconds)?;
    Ok(socket)
}

//! Module `keeper`: the process that was started keeps its rights, few of them, and reads nothing from the network; its
//! child, the engine, has none and serves.
//!
//! Before: `start` has opened, loaded and attached what needs rights. After: [`part`] made two processes of one. The
//! parent does what the child asks for by a short list of requests, forwards signals, and ends as the child ends; after a
//! crash, and at an upgrade, there is another child.
//! Holds: `words` (what may be asked, and its form), `duty` (the parent's work), `request` (the child's side),
//! `succession` (one engine after another), `upgrade` (another program in the parent's place), `estate` (what outlives engines), `inherit` (its form for the program that
//! takes the parent's place).
//! Never: takes a path, an interface or a program from the child on trust: what the config names is all there is.
//!
//! Source: fork(2), unix(7) (SCM_RIGHTS), signalfd(2), prctl(2) (PR_SET_PDEATHSIG).

mod duty;
mod estate;
mod inherit;
mod request;
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
    duty::Duty,
    estate::{Estate, Groups, Kept, Sockets},
    inherit::Inheritance,
    request::{Keeper, KeeperError, Successor},
    upgrade::{COULD_SERVE, ask_for_upgrade},
    words::State,
};
use self::{duty::Engine, succession::Leaving, upgrade::Asker};
use crate::config::Config;

/// Which of the two processes this is.
pub enum Part {
    /// The one that was started: its duty.
    Keeper(Box<Duty>),
    /// Its child: whom it asks, and at an upgrade the passage by which the sessions of the engine before come.
    Engine(Keeper, Option<OwnedFd>),
}

/// Signals that end, reload or inform dotd, and the news of a child's end.
pub(crate) const SIGNALS: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGCHLD];
/// The keeper's own socket in `server.run_dir`, for `dotd upgrade`.
pub const KEEPER_SOCKET: &str = "keeper.sock";
/// Octets that the kernel holds of sessions on their way: some hundred of them, or one with much to take along.
const PASSAGE_OCTETS: usize = 208 * 1024;
/// An answer of the keeper's: it may have to read a config from a slow disk, or to attach to many interfaces.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes two processes of this one. In both, `SIGNALS` wait from now on: the keeper reads them, the engine lets them
/// through when it hears them ([`hear`]). `inherited`: this program has taken the place of another one; an engine that serves
/// still goes on until the new one does.
///
/// # Errors
/// There are other threads, which the child would not have; or the system has no room for another process.
pub fn part(config: &Config, estate: Estate, inherited: Option<&Inheritance>) -> io::Result<Part> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("{threads} threads, and one is all that a fork may have")));
    }
    let (before, asker) = inherited.map(Inheritance::take_engine).transpose()?.unwrap_or_default();
    let (ours, theirs) = pair()?;
    let (from, to) = before.is_some().then(passage).transpose()?.unzip();
    let mask = hold_signals(inherited.is_some())?;
    if inherited.is_some() {
        // It was run by another path than its own.
        prctl::set_name(c"dotd")?;
    }
    let keeper = getpid();
    // SAFETY: there is one thread, so that no lock is held and no state half written in the child.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop((theirs, to));
            let engine = Engine { pid: child, socket: Some(ours), is_ready: false };
            let mut duty = Duty::new(engine, estate, config, mask)?;
            duty.leaving = before.map(|before| Leaving::of(before).by(from));
            duty.asker = asker.map(|socket| Asker { socket, has_asked: true });
            Ok(Part::Keeper(Box::new(duty)))
        }
        ForkResult::Child => {
            // These are the keeper's alone.
            drop((ours, estate, before, asker, from));
            Ok(Part::Engine(Keeper::new(patient(theirs)?, keeper), to))
        }
    }
}

/// The keeper of an engine that serves on, because the program that was to bring another one could not start it, and why.
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

/// A pair for sessions: its first end is for the engine before, the second for the next one.
fn passage() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (from, to) = pair()?;
    // Whatever this machine's default is: a packet must fit, and not many wait.
    setsockopt(&from, sockopt::SndBuf, &PASSAGE_OCTETS)?;
    Ok((from, to))
}

/// Has the signals wait; returns those that were blocked before dotd began.
fn hold_signals(is_next: bool) -> Result<SigSet, Errno> {
    let before = block()?;
    // The parent process may have it ignored: the kernel would then keep no end of a child for us to read.
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs none of our code.
    unsafe { sigaction(Signal::SIGCHLD, &action) }?;
    // The program before us had them wait.
    Ok(if is_next { SigSet::empty() } else { before })
}

/// Has the kernel end this process when the keeper ends, however that ends. To be called once the user has changed: that
/// would undo it.
///
/// # Errors
/// The keeper has ended already.
pub fn end_with(keeper: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == keeper { Ok(()) } else { Err(io::Error::other("the keeper has ended")) }
}

/// Lets the signals through that have waited: to be called when they are handled.
///
/// # Errors
/// The kernel refused.
pub fn hear() -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&SigSet::from_iter(SIGNALS)), None)?)
}

/// Has the signals wait; those that did so before.
fn block() -> Result<SigSet, Errno> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::from_iter(SIGNALS)), Some(&mut before))?;
    Ok(before)
}

/// The engine's end of the pair, which does not wait for ever.
fn patient(socket: OwnedFd) -> io::Result<OwnedFd> {
    let seconds = TimeVal::seconds(ANSWER_TIMEOUT.as_secs().cast_signed());
    setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &seconds)?;
    setsockopt(&socket.as_fd(), sockopt::SendTimeout, &seconds)?;
    Ok(socket)
}

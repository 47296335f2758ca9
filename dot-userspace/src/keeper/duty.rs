//! What the keeper does until its engine ends.
//!
//! Before: [`super::part`] made two processes, and this one gave up the rights that it will not need. After: it ended as
//! its engine ended.
//! Holds: one thread, which waits for a question, a signal, or somebody who asks whether a dotd is here; nothing of it
//! waits for the engine, or for who reads the log.
//! Never: takes what is attached off an interface because the engine crashed: the next dotd takes it over without a gap.

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{SigSet, SigmaskHow, Signal, kill, raise, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        socket::{MsgFlags, recv},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{
    SIGNALS,
    request::Report,
    words::{Answer, REQUEST_OCTETS_MAX, Request, State, VERSION},
};
use crate::{
    config::{self, Config},
    disk,
    xdp::{Attachments as _, Holder},
};

/// Questions answered before signals are looked at again.
const QUESTIONS_MAX: usize = 64;
/// The exit status of shells for a process that ended by a signal, without the signal's number.
const SIGNALLED: u8 = 128;

/// What the keeper has.
pub struct Duty {
    /// `None` once the engine has closed its end.
    socket: Option<OwnedFd>,
    engine: Pid,
    signals: SignalFd,
    /// Signals that waited before there was a keeper.
    before: SigSet,
    path: Option<PathBuf>,
    /// What the config names that is served, and what the one that was read last names.
    named: [Vec<PathBuf>; 2],
    holder: Option<Holder>,
    /// Log lines of this process since the last look.
    lines: fn() -> Vec<Vec<u8>>,
}

/// How the engine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Exit(i32),
    Signal(Signal),
    /// The kernel says that it ended, and how is not to be known: by a real-time signal, which nix has no name for.
    Unknown,
}

impl Duty {
    pub(super) fn new(
        socket: OwnedFd,
        engine: Pid,
        path: Option<PathBuf>,
        config: &Config,
        before: SigSet,
    ) -> io::Result<Self> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&SigSet::from_iter(SIGNALS), flags)?;
        let named = [named(config), Vec::new()];
        let (socket, holder, lines) = (Some(socket), None, Vec::new as fn() -> _);
        Ok(Self { socket, engine, signals, before, path, named, holder, lines })
    }

    /// Serves until the engine has ended; the exit status is the engine's. After a signal this process ends by the same.
    ///
    /// `lines`: the log lines of this process so far, which the engine writes: this process never waits for standard error.
    pub fn keep(mut self, holder: Option<Holder>, lines: fn() -> Vec<Vec<u8>>) -> u8 {
        (self.holder, self.lines) = (holder, lines);
        let end = loop {
            self.wait();
            self.forward();
            self.answer_all();
            if let Some(holder) = &self.holder {
                holder.answer();
            }
            if let Some(end) = ended(self.engine) {
                break end;
            }
        };
        match end {
            // It ended in order, whether or not it served.
            End::Exit(code @ (0 | 1)) => {
                if let Some(holder) = &mut self.holder {
                    holder.let_go();
                }
                u8::try_from(code).unwrap_or(1)
            }
            End::Exit(code) => u8::try_from(code).unwrap_or(1),
            End::Signal(number) => self.end_by(number),
            End::Unknown => SIGNALLED,
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) {
        let presence = self.holder.as_ref().and_then(Holder::presence);
        let sources = [self.socket.as_ref().map(OwnedFd::as_fd), Some(self.signals.as_fd()), presence];
        let mut polled: Vec<_> =
            sources.into_iter().flatten().map(|source| PollFd::new(source, PollFlags::POLLIN)).collect();
        // Interrupted or not: all sources are looked at after it.
        let _ = poll(&mut polled, PollTimeout::NONE);
    }

    /// Answers until the engine closes its end: what [`Duty::keep`] does beside signals.
    #[cfg(test)]
    pub(super) fn answer_until_closed(&mut self) {
        while self.socket.is_some() {
            self.wait();
            self.answer_all();
        }
    }

    /// Hands signals on.
    fn forward(&mut self) {
        while let Ok(Some(arrived)) = self.signals.read_signal() {
            let number =
                i32::try_from(arrived.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            match number {
                Some(Signal::SIGCHLD) | None => {}
                Some(number) => {
                    // It has just ended, or this process lacks CAP_KILL: then its service manager has to tell it.
                    if let Err(errno) = kill(self.engine, number)
                        && errno != Errno::ESRCH
                    {
                        tracing::error!("{number} does not reach dotd's engine: {}", errno.desc());
                    }
                }
            }
        }
    }

    fn answer_all(&mut self) {
        for _ in 0..QUESTIONS_MAX {
            let Some(socket) = &self.socket else { return };
            let mut packet = [0; REQUEST_OCTETS_MAX + 1];
            match recv(socket.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => self.socket = None,
                Ok(length) => {
                    let request = packet.get(..length).filter(|packet| packet.len() <= REQUEST_OCTETS_MAX);
                    let answer = match request.and_then(Request::decode) {
                        Some(request) => self.answer(request),
                        None => Answer::Refused("no such request".into()),
                    };
                    if let Some(socket) = &self.socket {
                        // Whoever asks without reading answers has none.
                        let _ = answer.send(socket);
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                Err(_) => self.socket = None,
            }
        }
    }

    fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Hello(VERSION) => Answer::Done(None),
            Request::Hello(version) => {
                Answer::Refused(format!("the keeper speaks version {VERSION}, the engine {version}"))
            }
            Request::Look { has_news } => self.look(has_news),
            Request::Leave => {
                if let Some(holder) = &mut self.holder {
                    holder.let_go();
                }
                Answer::Done(None)
            }
            Request::Notify(state) => {
                notify(state);
                Answer::Done(None)
            }
            Request::ReadConfig => self.read_config(),
            Request::Adopt => {
                let [served, read] = &mut self.named;
                if !read.is_empty() {
                    *served = std::mem::take(read);
                }
                Answer::Done(None)
            }
            Request::Open(path) => self.open(&path),
        }
    }

    fn look(&mut self, has_news: bool) -> Answer {
        let look = self.holder.as_mut().map(|holder| holder.look(has_news).unwrap_or_default());
        let lines = (self.lines)().iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        let report = Report { look: look.unwrap_or_default(), lines };
        let text = serde_json::to_vec(&report).map_err(io::Error::from).and_then(|text| in_memory(&text));
        text.map_or_else(|error| Answer::Refused(error.to_string()), |file| Answer::Done(Some(file)))
    }

    fn read_config(&mut self) -> Answer {
        let read = match config::read(self.path.as_deref()) {
            Ok(Some(read)) => read,
            Ok(None) => {
                self.named[1] = named(&Config::default());
                return Answer::Done(None);
            }
            Err(errors) => return Answer::Refused(errors.to_string()),
        };
        // The engine finds the same mistakes, and says them.
        if let Ok(config) = config::parse(&read.text, &read.file) {
            self.named[1] = named(&config);
        }
        let text = in_memory(read.text.as_bytes());
        text.map_or_else(|error| Answer::Refused(error.to_string()), |file| Answer::Done(Some(file)))
    }

    fn open(&self, path: &Path) -> Answer {
        if !self.named.iter().flatten().any(|named| named == path) {
            return Answer::NotNamed;
        }
        match disk::open_directly(path) {
            Ok(file) => Answer::Done(Some(file)),
            Err(error) => {
                error.raw_os_error().map_or_else(|| Answer::Refused(error.to_string()), Answer::Failed)
            }
        }
    }

    /// Ends as the engine did, so that whoever started us sees it.
    fn end_by(self, number: Signal) -> u8 {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
        let _ = raise(number);
        // Reached where the signal's default is to do nothing.
        u8::try_from(i32::from(SIGNALLED) + number as i32).unwrap_or(1)
    }
}

/// How the engine ended, if it has.
fn ended(engine: Pid) -> Option<End> {
    match waitpid(engine, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Some(End::Exit(code)),
        Ok(WaitStatus::Signaled(_, number, _)) => Some(End::Signal(number)),
        Ok(_) | Err(Errno::EINTR) => None,
        // Its end has been read, and its status is not one that nix knows; or somebody else has read it.
        Err(_) => Some(End::Unknown),
    }
}

fn notify(state: State) {
    use sd_notify::NotifyState;
    let states = match state {
        State::Ready => vec![NotifyState::Ready],
        State::Reloading => {
            NotifyState::monotonic_usec_now().map(|now| vec![NotifyState::Reloading, now]).unwrap_or_default()
        }
        State::Stopping => vec![NotifyState::Stopping],
    };
    // Without systemd there is nobody to notify, which is no error.
    let _ = sd_notify::notify(&states);
}

/// A file without a name that holds this, from its beginning.
fn in_memory(octets: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("dotd", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(octets)?;
    file.rewind()?;
    Ok(file)
}

/// Every file that a config names, and that is opened again while dotd runs.
pub(super) fn named(config: &Config) -> Vec<PathBuf> {
    let tls = &config.tls;
    let certificates = tls.certificates.iter().flat_map(|entry| [&entry.cert, &entry.key, &entry.ocsp]);
    let of_backends = config.backend.iter().map(|backend| &backend.ca);
    let files = certificates.chain([&tls.client_ca, &tls.ticket_secret]).chain(of_backends);
    files.filter(|path| !path.as_os_str().is_empty()).cloned().collect()
}

//! The work of the keeper process while engines start and end.
//!
//! Before: [`super::part`] made two processes, and this one gave up the rights that it will not
//! need. After: the last engine has ended, and this process ends with the same status.
//! Holds: one thread, which waits for a request of the engine, a signal, or a process that asks
//! whether a dotd is here; the listening sockets, so that the kernel queues connections while no
//! engine accepts them. The thread never waits for an engine or for a reader of the log.
//! Never: detaches XDP programs or maps because an engine crashed: the next engine takes them over
//! without a gap.

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
        signal::{SigSet, SigmaskHow, Signal, raise, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        socket::{MsgFlags, recv},
    },
};

use super::{
    SIGNALS, accept_filter,
    acme::AcmeProcess,
    engine::{End, Engine},
    estate::{Estate, Kept},
    request::Report,
    succession::Leaving,
    upgrade::{Asker, Trial},
    words::{Answer, REQUEST_OCTETS_MAX, Request, State, VERSION},
};
use crate::{
    config::{self, Config},
    disk, effective,
    xdp::{Attachments as _, Holder},
};

/// Most requests that are answered before the keeper reads signals again.
const QUESTIONS_MAX: usize = 64;
/// Interval at which the keeper checks deadlines during an upgrade.
const LOOK_MS: u16 = 50;
/// Shells report 128 plus the signal's number for a process that a signal ended; this is the 128.
const SIGNALLED: u8 = 128;

/// The state of the keeper.
pub struct Duty {
    pub(super) engine: Engine,
    pub(super) estate: Estate,
    /// The previous engine, until it has ended.
    pub(super) leaving: Option<Leaving>,
    /// The operator that waits for the result of an upgrade.
    pub(super) asker: Option<Asker>,
    pub(super) trial: Option<Trial>,
    /// An operator has asked dotd to stop.
    pub(super) is_stopping: bool,
    signals: SignalFd,
    /// Signals that were blocked before dotd started.
    pub(super) before: SigSet,
    /// The files that the served config names, and those that the config read last names.
    named: [Vec<PathBuf>; 2],
    /// What was read last, until it is served or refused: the text, or that there is no file.
    read: Option<Option<String>>,
    pub(super) holder: Option<Holder>,
    pub(super) acme: AcmeProcess,
    /// Takes the log lines that this process has collected since the last call.
    pub(super) lines: fn() -> Vec<Vec<u8>>,
}

impl Duty {
    pub(super) fn new(engine: Engine, estate: Estate, config: &Config, before: SigSet) -> io::Result<Self> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&SigSet::from_iter(SIGNALS), flags)?;
        Ok(Self {
            engine,
            leaving: None,
            asker: None,
            trial: None,
            estate,
            is_stopping: false,
            signals,
            before,
            named: [named(config), Vec::new()],
            read: None,
            holder: None,
            acme: AcmeProcess::by(config),
            lines: Vec::new,
        })
    }

    /// Serves until the last engine has ended. Returns that engine's exit status. If a signal ended
    /// the engine, this process ends by the same signal.
    ///
    /// `lines` takes the log lines of this process so far. The engine writes them: this process
    /// never waits for standard error.
    pub fn keep(mut self, holder: Option<Holder>, lines: fn() -> Vec<Vec<u8>>) -> u8 {
        (self.holder, self.lines) = (holder, lines);
        let end = loop {
            self.wait();
            self.forward();
            self.answer_all();
            self.hear_operators();
            self.look_at_trial();
            self.acme.look(self.estate.sockets.as_ref(), &self.estate.program);
            if let Some(holder) = &self.holder {
                holder.answer();
            }
            if let Some(end) = self.look_at_engines() {
                break end;
            }
        };
        self.acme.end();
        match end {
            // The engine ended in order, whether or not it served.
            End::Exit(code @ (0 | 1)) => {
                self.release(code == 0);
                u8::try_from(code).unwrap_or(1)
            }
            End::Exit(code) => u8::try_from(code).unwrap_or(1),
            End::Signal(number) => self.end_by(number),
            End::Unknown => SIGNALLED,
        }
    }

    /// Waits until a source has something to handle.
    fn wait(&self) {
        let presence = self.holder.as_ref().and_then(Holder::presence);
        let leaving = self.leaving.as_ref().and_then(|leaving| leaving.engine.socket.as_ref());
        let engines = [self.engine.socket.as_ref(), leaving].map(|socket| socket.map(OwnedFd::as_fd));
        let sources =
            engines.into_iter().chain([Some(self.signals.as_fd()), presence]).chain(self.upgrade_sources());
        let mut polled: Vec<_> =
            sources.flatten().map(|source| PollFd::new(source, PollFlags::POLLIN)).collect();
        let patience = if self.is_upgrading() { PollTimeout::from(LOOK_MS) } else { self.acme.patience() };
        // As the user of the engine, so that the kernel kills the engine if this process is killed: the signal of PR_SET_PDEATHSIG
        // needs the rights of the process that ends. All sources are checked afterwards, also if a signal interrupted the call.
        let _ = effective::as_user(|| poll(&mut polled, patience));
    }

    /// Answers until the engine closes its end: the part of [`Duty::keep`] without signals.
    #[cfg(test)]
    pub(super) fn answer_until_closed(&mut self) {
        while self.engine.socket.is_some() {
            self.wait();
            self.answer_all();
        }
    }

    /// Forwards signals to the engine.
    fn forward(&mut self) {
        while let Ok(Some(arrived)) = self.signals.read_signal() {
            let number =
                i32::try_from(arrived.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            match number {
                Some(Signal::SIGCHLD) | None => {}
                Some(Signal::SIGUSR2) => self.begin_upgrade(None),
                Some(number) => {
                    if matches!(number, Signal::SIGTERM | Signal::SIGINT) {
                        self.is_stopping = true;
                        // No engine will accept from these sockets any more: closing them refuses
                        // new clients at once.
                        self.estate.sockets = None;
                        self.acme.stop();
                    }
                    let leaving = self.leaving.as_ref().filter(|_| self.is_stopping);
                    let leaving = leaving.map(|leaving| &leaving.engine);
                    leaving.into_iter().chain([&self.engine]).for_each(|engine| engine.hand_on(number));
                }
            }
        }
    }

    fn answer_all(&mut self) {
        if let Some(mut leaving) = self.leaving.take() {
            let socket = std::mem::take(&mut leaving.engine.socket);
            leaving.engine.socket = self.answer_each(socket, Some(&leaving));
            self.leaving = Some(leaving);
        }
        let socket = std::mem::take(&mut self.engine.socket);
        self.engine.socket = self.answer_each(socket, None);
    }

    /// Answers the requests that wait in `socket`. Returns the socket, unless its other end is
    /// closed. `leaving`: the owner of the socket, if it is the previous engine.
    fn answer_each(&mut self, socket: Option<OwnedFd>, leaving: Option<&Leaving>) -> Option<OwnedFd> {
        let socket = socket?;
        for _ in 0..QUESTIONS_MAX {
            let mut packet = [0; REQUEST_OCTETS_MAX + 1];
            match recv(socket.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return None,
                Ok(length) => {
                    let request = packet.get(..length).filter(|packet| packet.len() <= REQUEST_OCTETS_MAX);
                    let answer = match (request.and_then(Request::decode), leaving) {
                        (Some(request), None) => self.answer(request),
                        (Some(request), Some(leaving)) => self.answer_leaving(&request, leaving),
                        (None, _) => Answer::Refused("no such request".into()),
                    };
                    // An engine that sends requests and reads no answers loses the answers.
                    let _ = answer.send(&socket);
                }
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(_) => return None,
            }
        }
        Some(socket)
    }

    fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Hello(VERSION) => Answer::Done(None),
            Request::Hello(version) => {
                Answer::Refused(format!("the keeper speaks version {VERSION}, the engine {version}"))
            }
            Request::Look { has_news } => self.look(has_news),
            // A new engine that has not begun to serve detaches nothing while the old one serves.
            Request::Leave if self.leaving.is_some() || self.leaves_attached() => Answer::Done(None),
            Request::Leave => {
                if let Some(holder) = &mut self.holder {
                    holder.let_go();
                }
                Answer::Done(None)
            }
            Request::Notify(state) => {
                match state {
                    State::Ready => {
                        // A reload is over: what it did not serve is refused.
                        (self.named[1], self.read) = (Vec::new(), None);
                        self.note_ready();
                    }
                    State::Reloading => {}
                    State::Stopping => {
                        (self.is_stopping, self.estate.sockets) = (true, None);
                        self.acme.stop();
                    }
                }
                notify(state);
                Answer::Done(None)
            }
            Request::Accept { is_on } => match &self.estate.sockets {
                Some(sockets) => accept_filter::set(sockets, is_on)
                    .map_or_else(|error| Answer::Refused(error.to_string()), |()| Answer::Done(None)),
                // dotd is stopping.
                None => Answer::Done(None),
            },
            Request::Alive(text) => {
                use sd_notify::NotifyState;
                // Without systemd nothing is notified, which is not an error.
                let _ = sd_notify::notify(&[NotifyState::Watchdog, NotifyState::Status(&text)]);
                Answer::Done(None)
            }
            Request::IsSucceeded => Answer::Refused("it is not".into()),
            Request::ReadConfig => self.read_config(),
            Request::Adopt => {
                if let Some(text) = self.read.take() {
                    let [served, read] = &mut self.named;
                    (*served, self.estate.text) = (std::mem::take(read), text);
                    self.note_served();
                }
                self.acme.follow_text(self.estate.text.as_deref(), self.estate.path.as_deref());
                Answer::Done(None)
            }
            Request::Open(path) => self.open(&path),
            Request::Renew => self.acme.renew().map_or_else(Answer::Refused, |()| Answer::Done(None)),
            Request::Keep(tickets) => {
                self.estate.tickets = Kept::now(tickets);
                Answer::Done(None)
            }
        }
    }

    pub(super) fn look(&mut self, has_news: bool) -> Answer {
        let look = self.holder.as_mut().map(|holder| holder.look(has_news).unwrap_or_default());
        let lines = (self.lines)().iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        let report = Report { look: look.unwrap_or_default(), lines };
        let text = serde_json::to_vec(&report).map_err(io::Error::from).and_then(|text| in_memory(&text));
        text.map_or_else(|error| Answer::Refused(error.to_string()), |file| Answer::Done(Some(file)))
    }

    fn read_config(&mut self) -> Answer {
        (self.named[1], self.read) = (Vec::new(), None);
        let read = match config::read(self.estate.path.as_deref()) {
            Ok(Some(read)) => read,
            Ok(None) => {
                (self.named[1], self.read) = (named(&Config::default()), Some(None));
                return Answer::Done(None);
            }
            Err(errors) => return Answer::Refused(errors.to_string()),
        };
        // The engine finds the same mistakes and reports them.
        if let Ok(config) = config::parse(&read.text, &read.file) {
            self.named[1] = named(&config);
        }
        let text = in_memory(read.text.as_bytes());
        self.read = Some(Some(read.text));
        text.map_or_else(|error| Answer::Refused(error.to_string()), |file| Answer::Done(Some(file)))
    }

    pub(super) fn open(&self, path: &Path) -> Answer {
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

    /// Ends by the same signal as the engine, so that the parent process sees it.
    fn end_by(self, number: Signal) -> u8 {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
        let _ = raise(number);
        // Reached if the default action of the signal is to ignore it.
        u8::try_from(i32::from(SIGNALLED) + number as i32).unwrap_or(1)
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
    // Without systemd there is no notification socket. That is no error.
    let _ = sd_notify::notify(&states);
}

/// A file in memory with this content, positioned at its beginning.
fn in_memory(octets: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("dotd", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(octets)?;
    file.rewind()?;
    Ok(file)
}

/// Every file that the config names and that dotd opens again while it runs.
pub(super) fn named(config: &Config) -> Vec<PathBuf> {
    config.files().cloned().collect()
}

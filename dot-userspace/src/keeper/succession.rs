//! One engine after another: after a crash, and at an upgrade.
//!
//! Before: an engine serves. After a crash: this process has run its own program again, which takes
//! over the sockets and the kernel half and forks the next engine with a new address space. After an
//! upgrade: `upgrade` has tried the other program, and this process has run it; the old engine
//! continues until the new one is ready, and then ends.
//! Holds: the limit on crashes; which engine is leaving, and its deadline.
//! Never: ends an engine that serves before another one serves; restarts an engine that never
//! served, or one that crashes again and again.
//!
//! Source: execve(2): the process, its children and its descriptors stay.

use std::{
    cell::Cell,
    convert::Infallible,
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::Signal,
        socket::{Shutdown, shutdown},
    },
    unistd::{Pid, execv},
};

use super::{
    duty::Duty,
    engine::{End, Engine, ended},
    estate::monotonic_ms,
    inherit::{Inheritance, Serving},
    restart_dir,
    words::{Answer, Request, VERSION},
};

/// More crashes than this within [`CRASHES_WITHIN`], and the keeper starts no further engine; the
/// service manager decides.
const CRASHES_MAX: usize = 5;
/// A minute.
const CRASHES_WITHIN: Duration = Duration::from_secs(60);
/// Time in which a new engine must begin to serve while another one serves.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time in which a replaced engine must end: its own drain takes up to 15 s.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(20);
/// The program file of this process, also if another file has replaced it on disk.
const OURSELVES: &str = "/proc/self/exe";

/// An engine that another one replaces.
pub(super) struct Leaving {
    pub(super) engine: Engine,
    /// Its end of the passage through which sessions go to the next engine.
    pub(super) passage: Option<OwnedFd>,
    /// The next engine serves, and this one has been told to leave.
    is_told: bool,
    /// This engine has learned that it is replaced, and serves no longer. Until then it serves,
    /// whatever happens to the next one.
    has_heard: Cell<bool>,
    /// The deadline of the next engine; once this engine has been told to leave, its own deadline.
    until: Instant,
}

impl Leaving {
    pub(super) fn of((serving, socket): (Serving, OwnedFd)) -> Self {
        let Serving { pid, user, .. } = serving;
        let engine = Engine { pid: Pid::from_raw(pid), socket: Some(socket), user, is_ready: true };
        let until = Instant::now() + READY_TIMEOUT;
        Self { engine, passage: None, is_told: false, has_heard: Cell::new(false), until }
    }

    /// The same, with the passage for its sessions.
    pub(super) fn by(self, passage: Option<OwnedFd>) -> Self {
        Self { passage, ..self }
    }

    /// The engine has ended: nothing arrives through its passage any more, even if another process
    /// holds a descriptor of it.
    fn close(self) {
        if let Some(passage) = self.passage {
            // If the next engine has closed its end, there is nothing to shut down.
            let _ = shutdown(passage.as_raw_fd(), Shutdown::Both);
        }
    }
}

impl Duty {
    /// Whether programs stay attached at the end: a restart may follow, and each attachment resets the rings of a card. A service
    /// manager that has named the folder for restarts detaches them at a stop.
    pub(super) fn leaves_attached(&self) -> bool {
        self.is_stopping && self.estate.restart_dir.is_some()
    }

    /// The last engine ended in order: its attachments end too, or stay for a restart if it served well.
    pub(super) fn release(&mut self, is_well: bool) {
        let stays = is_well && self.leaves_attached();
        match self.holder.take() {
            Some(holder) if stays => holder.forget(),
            Some(mut holder) => holder.let_go(),
            None => {}
        }
    }

    /// How the engine ended, if dotd must end with it. If another engine follows after a crash,
    /// this call does not return.
    pub(super) fn look_at_engines(&mut self) -> Option<End> {
        self.look_at_leaving();
        let end = ended(self.engine.pid)?;
        if let Some(leaving) = self.leaving.take_if(|leaving| !leaving.has_heard.get()) {
            self.engine = leaving.engine;
            self.say_how_it_went(Err(format!(
                "the new engine ended {end} before it had taken over, and the old one continues to serve; the log says why"
            )));
            return None;
        }
        let is_orderly = end == End::Exit(0) || self.is_stopping || !self.engine.is_ready;
        if is_orderly || !self.may_restart() {
            return Some(end);
        }
        self.engine.socket = None;
        let note = format!("dotd's engine ended {end}; another one takes its place");
        // A previous engine, if there is one, now has no successor for its sessions: they end in
        // order.
        self.tell_operator(Err(format!(
            "the new engine ended {end} after it had begun to serve; another one takes its place, the log says why"
        )));
        let Err(error) = self.become_program(Path::new(OURSELVES), false, note);
        tracing::error!("dotd's engine ended {end}, and no other one can be started: {error}");
        Some(end)
    }

    /// The engine serves. The previous engine, if there is one, is told to leave.
    pub(super) fn note_ready(&mut self) {
        self.engine.is_ready = true;
        self.note_served();
        if let Some(leaving) = self.leaving.as_mut().filter(|leaving| !leaving.is_told) {
            leaving.is_told = true;
            leaving.until = Instant::now() + LEAVE_TIMEOUT;
            // If it has already ended, the next look finds that.
            let _ = leaving.engine.signal(Signal::SIGUSR2);
        }
    }

    /// Answers a request of an engine that is being replaced.
    pub(super) fn answer_leaving(&mut self, request: &Request, leaving: &Leaving) -> Answer {
        match request {
            // Without a passage the engine drains its sessions.
            Request::IsSucceeded if leaving.is_told => {
                leaving.has_heard.set(true);
                let passage = leaving.passage.as_ref().and_then(|passage| passage.try_clone().ok());
                Answer::Done(passage.map(File::from))
            }
            Request::IsSucceeded => Answer::Refused("not yet".into()),
            // The next engine notifies systemd.
            Request::Notify(_) | Request::Alive(_) => Answer::Done(None),
            Request::Look { has_news } => self.look(*has_news),
            Request::Open(path) => self.open(path),
            Request::Hello(_)
            | Request::Leave
            | Request::ReadConfig
            | Request::Adopt
            | Request::Accept { .. }
            | Request::Keep(_)
            | Request::Renew => Answer::Refused("an upgrade is under way; try again".into()),
        }
    }

    /// Keeps the text of the config that is served for a restart.
    pub(super) fn note_served(&self) {
        if let (Some(folder), Some(text)) = (&self.estate.restart_dir, &self.estate.text) {
            restart_dir::note(folder, text);
        }
    }

    fn look_at_leaving(&mut self) {
        let Some(leaving) = &mut self.leaving else { return };
        if ended(leaving.engine.pid).is_some() {
            let was_told = leaving.is_told;
            self.leaving.take().into_iter().for_each(Leaving::close);
            if was_told {
                self.say_how_it_went(Ok(()));
            }
        } else if Instant::now() >= leaving.until {
            leaving.until = Instant::now() + LEAVE_TIMEOUT;
            let late = if leaving.is_told { &leaving.engine } else { &self.engine };
            tracing::error!(
                "process {} is killed: as an engine it neither serves nor ends in time",
                late.pid
            );
            let _ = late.signal(Signal::SIGKILL);
        }
    }

    /// Counts this crash. `false`: there were too many recently.
    fn may_restart(&mut self) -> bool {
        let now = monotonic_ms() / 1000;
        self.estate.crashes.retain(|crash| now.saturating_sub(*crash) < CRASHES_WITHIN.as_secs());
        self.estate.crashes.push(now);
        self.estate.sockets.is_some() && self.estate.crashes.len() <= CRASHES_MAX
    }

    /// The state for the next program. `is_served`: the engine continues to serve meanwhile.
    pub(super) fn list(&self, is_served: bool, lines: Vec<String>, note: String) -> io::Result<Inheritance> {
        let mut list = Inheritance::of(&self.estate, lines, note)?;
        list.engine = self.engine.socket.as_ref().filter(|_| is_served).map(|socket| Serving {
            pid: self.engine.pid.as_raw(),
            socket: socket.as_raw_fd(),
            user: self.engine.user,
            words: VERSION,
        });
        list.asker = self.asker.as_ref().filter(|_| is_served).map(|asker| asker.socket.as_raw_fd());
        Ok(list)
    }

    /// Runs `program` in this process. Returns only if that fails.
    pub(super) fn become_program(
        &mut self,
        program: &Path,
        is_served: bool,
        note: String,
    ) -> io::Result<Infallible> {
        let lines = (self.lines)();
        let lines = lines.iter().map(|line| String::from_utf8_lossy(line).into_owned());
        let list = self.list(is_served, lines.collect(), note)?;
        let file = list.write()?;
        let words = self.words(file.as_raw_fd());
        let words = words.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let path = CString::new(program.as_os_str().as_bytes())?;
        // The next program starts its own.
        self.acme.end();
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
        if let Some(folder) = &self.estate.restart_dir {
            words.extend([b"--restart-dir".to_vec(), octets(folder)]);
        }
        words
    }
}

//! The ACME process: another child of the keeper, which gets certificates and holds no right.
//!
//! Before: the config that is served has `[acme]`. After: a process of this program runs with the errand and its descriptors, and another one when it ends
//! or when the errand changes.
//! Holds: how soon another one starts after one that ended at once.
//! Never: takes a request from it, or reads what it writes; waits for it longer than a signal takes.
//!
//! Source: RFC 8555; execve(2), because the keeper's memory holds ticket keys that this process must not have.

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    net::TcpListener,
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::FdFlag,
    poll::PollTimeout,
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
    },
    unistd::{Pid, getpid},
};

use super::{
    accounts,
    estate::Sockets,
    inherit::{adopt, set_flag},
};
use crate::{
    acme::{Errand, account_file},
    config::{self, Config},
    effective,
};

/// The wait after a process that ended, and the longest one after many.
const RESTART_MIN: Duration = Duration::from_secs(1);
const RESTART_MAX: Duration = Duration::from_secs(600);
/// A process that ran for this long has not failed at its start.
const RAN_WELL: Duration = Duration::from_secs(3600);
/// The program file of this process, also if another file has replaced it on disk.
const OURSELVES: &str = "/proc/self/exe";

/// The process, or when the next one starts.
pub(super) struct AcmeProcess {
    errand: Option<Errand>,
    child: Option<(Child, Instant)>,
    next: Option<Instant>,
    pause: Duration,
    /// Why it does not run.
    why: String,
}

impl AcmeProcess {
    /// By the config that is served.
    pub(super) fn by(config: &Config) -> Self {
        let mut process =
            Self { errand: None, child: None, next: None, pause: RESTART_MIN, why: String::new() };
        process.follow(config);
        process
    }

    /// Another config is served: a process with another errand takes the place of this one.
    pub(super) fn follow(&mut self, config: &Config) {
        let errand = Errand::by(config).unwrap_or_else(|reason| {
            tracing::error!("acme: {reason}; no certificate is renewed until a reload");
            self.why = reason;
            None
        });
        if errand != self.errand {
            self.end();
            self.next = errand.is_some().then(Instant::now);
            (self.errand, self.pause) = (errand, RESTART_MIN);
        }
    }

    /// The text of another config is served, which came from `path`.
    pub(super) fn follow_text(&mut self, text: Option<&str>, path: Option<&Path>) {
        let file = path.unwrap_or(Path::new(config::DEFAULT_PATH)).display().to_string();
        // The engine has read the same text, and found no mistake.
        if let Ok(config) = config::parse(text.unwrap_or_default(), &file) {
            self.follow(&config);
        }
    }

    /// The time until the next one starts.
    pub(super) fn patience(&self) -> PollTimeout {
        let left = self.next.map(|next| next.saturating_duration_since(Instant::now()));
        // A millisecond more, so that the time has come when the wait is over.
        left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        })
    }

    /// Notes the end of a process, and starts the next one when its time has come. `program`: the name that it shows.
    pub(super) fn look(&mut self, sockets: Option<&Sockets<OwnedFd>>, program: &Path) {
        if let Some((child, since)) = &mut self.child {
            let how = match child.try_wait() {
                Ok(None) => return,
                Ok(Some(status)) => status.to_string(),
                Err(error) => error.to_string(),
            };
            if since.elapsed() >= RAN_WELL {
                self.pause = RESTART_MIN;
            }
            self.child = None;
            self.next = Some(Instant::now() + self.pause);
            tracing::error!("acme: its process ended ({how}); another one starts in {:?}", self.pause);
            self.why = format!("it ended ({how})");
            self.pause = (self.pause * 2).min(RESTART_MAX);
        }
        let (Some(errand), Some(sockets)) = (&self.errand, sockets) else { return self.next = None };
        if self.next.is_none_or(|next| next > Instant::now()) {
            return;
        }
        match start(errand, sockets, program) {
            Ok(child) => (self.child, self.next) = (Some((child, Instant::now())), None),
            Err(error) => {
                tracing::error!("acme: its process cannot be started: {error}");
                self.why = error.to_string();
                self.next = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(RESTART_MAX);
            }
        }
    }

    /// Makes it get a certificate now.
    pub(super) fn renew(&self) -> Result<(), String> {
        let (child, _) = self.child.as_ref().ok_or_else(|| match (&self.errand, self.why.as_str()) {
            (_, why) if !why.is_empty() => format!("the ACME process does not run: {why}"),
            (Some(_), _) => "the ACME process does not run at this moment; try again".to_owned(),
            (None, _) => "[acme] is off: set acme.directory and acme.names".to_owned(),
        })?;
        signal(child, Signal::SIGUSR1)
            .map_err(|error| format!("the ACME process cannot be signalled: {error}"))
    }

    /// dotd stops: no other one starts.
    pub(super) fn stop(&mut self) {
        self.errand = None;
        self.end();
    }

    /// Ends it now. What it was doing is done again by the next one.
    pub(super) fn end(&mut self) {
        if let Some((mut child, _)) = self.child.take() {
            // It has no state but its files, each of which is whole at any moment.
            let _ = signal(&child, Signal::SIGKILL);
            let _ = child.wait();
        }
        self.next = self.errand.is_some().then(Instant::now);
    }
}

fn signal(child: &Child, number: Signal) -> nix::Result<()> {
    effective::signal(Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)), number, None)
}

/// Runs this program with the errand on its standard input, and with the sockets.
fn start(errand: &Errand, sockets: &Sockets<OwnedFd>, program: &Path) -> io::Result<Child> {
    let account = account(errand, sockets).map_err(io::Error::other)?;
    let mut numbers: Vec<RawFd> = sockets.acme.iter().map(|(_, socket)| socket.as_raw_fd()).collect();
    let (keeper, account) = (getpid().as_raw(), (account.as_raw_fd(), account));
    let errand = Errand { keeper, sockets: numbers.clone(), account: account.0, ..errand.clone() };
    numbers.push(account.0);
    let mut input = File::from(memfd_create("dotd", MFdFlags::MFD_CLOEXEC)?);
    input.write_all(&serde_json::to_vec(&errand)?)?;
    input.rewind()?;
    let mut command = Command::new(OURSELVES);
    command.arg0(program).args(["run", "--acme"]).stdin(input).stdout(Stdio::null());
    let hold = || {
        // Until it has a handler: a request that comes before would end it.
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::from(Signal::SIGUSR1)), None)?;
        Ok(())
    };
    // SAFETY: between fork and exec it makes one system call, and allocates nothing.
    unsafe { command.pre_exec(hold) };
    let keep = |flag: FdFlag| numbers.iter().try_for_each(|number| set_flag(*number, flag));
    keep(FdFlag::empty())?;
    let child = command.spawn();
    keep(FdFlag::FD_CLOEXEC)?;
    child
}

/// The file of the account, opened with the rights of this process: the ACME process, whose user is that of the engine, could not open it.
fn account(errand: &Errand, sockets: &Sockets<OwnedFd>) -> Result<OwnedFd, String> {
    let state_dir = errand.folder.parent().unwrap_or(Path::new("/"));
    let opened;
    let folder = match &sockets.accounts {
        Some(folder) => folder,
        // A reload has brought the section. Works if dotd's own user owns `server.state_dir`.
        None => {
            opened = accounts::open_folder(state_dir)?;
            &opened
        }
    };
    let name = account_file(errand.acme.directory_url());
    accounts::open(folder, &name)
        .map_err(|error| format!("{}: {error}", accounts::path(state_dir).join(name).display()))
}

/// In the ACME process: takes ownership of the sockets, and of the account's file, that an errand names.
///
/// # Errors
/// One of them is not open.
pub fn take_descriptors(errand: &Errand) -> io::Result<(Vec<TcpListener>, File)> {
    let sockets = errand.sockets.iter().map(|number| Ok(TcpListener::from(OwnedFd::from(adopt(*number)?))));
    Ok((sockets.collect::<io::Result<_>>()?, adopt(errand.account)?))
}

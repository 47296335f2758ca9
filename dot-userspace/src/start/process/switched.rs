//! What an operator has switched: DNS over TLS as a whole, and single backends.
//!
//! Before: `dotd enable`, `disable` and `backend`. After: XDP or the keeper, every worker and the probes apply it.
//! Holds: an empty file that says that DNS over TLS is off. It is in `run_dir` until a restart, where the engine
//! after a crash or an upgrade finds it, or in `state_dir` to last. A file in `run_dir` has the switches of backends, for that engine too.
//! Never: changes the config.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::OFlag;

use super::{
    super::{
        kept,
        kept_addresses::{self, Addresses},
    },
    Process, lock,
};
use crate::{
    backend::BackendConfig,
    config::{self, Config, limit},
    control::{BackendRequest, BackendStatus, BackendSwitch, OffStatus, SwitchRequest},
    disk,
    effective::as_owner,
};

/// The name of the file in `run_dir` or `state_dir`.
const FILE_NAME: &str = "dot-is-off";
/// The name of the file in `run_dir` with the switches of backends.
const BACKENDS_FILE: &str = "backend-switches";
/// How long a start looks whether the engine before has switched something: it serves until this one does, and a little longer.
const SETTLING_TIME: Duration = Duration::from_secs(8);
/// Thousands of backends; a name has 255 octets at most.
const BACKENDS_OCTETS_MAX: u64 = 1 << 20;

/// The state of the switches.
pub(super) struct Switched {
    run_dir: PathBuf,
    state_dir: PathBuf,
    off: Option<OffStatus>,
    backends: Backends,
    /// The addresses that the next engine finds.
    addresses: Addresses,
}

/// Backends that are not used as the config says, by name.
type Backends = BTreeMap<String, BackendSwitch>;

impl Switched {
    pub(super) fn of(config: &Config) -> Self {
        let (run_dir, state_dir) = (config.server.run_dir.clone(), config.server.state_dir.clone());
        Self { run_dir, state_dir, off: None, backends: Backends::new(), addresses: Addresses::new() }
    }

    /// What the files say of DNS over TLS.
    fn noted(&self) -> Option<OffStatus> {
        let persists = is_noted(&self.state_dir);
        (persists || is_noted(&self.run_dir)).then_some(OffStatus { persists })
    }

    fn note(&self, request: SwitchRequest) -> io::Result<()> {
        match (request.is_on, request.persists) {
            (true, _) => forget(&self.state_dir).and_then(|()| forget(&self.run_dir)),
            (false, true) => note(&self.state_dir).and_then(|()| forget(&self.run_dir)),
            (false, false) => note(&self.run_dir).and_then(|()| forget(&self.state_dir)),
        }
    }
}

/// At a start: DNS over TLS is on again if it was off until a restart, and backends are used as the config says.
pub(in crate::start) fn begin_anew(run_dir: &Path) {
    kept::forget(run_dir, BACKENDS_FILE);
    // If the folder does not exist, there is no such file. If it cannot be changed, the next switch reports the
    // error.
    let _ = forget(run_dir);
}

impl Process {
    /// Switches DNS over TLS.
    pub(super) fn switch_by(&self, request: SwitchRequest) -> Result<SwitchRequest, String> {
        let engine = self.engine().ok_or("dotd is starting; try again")?;
        if !self.listeners.iter().any(|listener| listener.transport == "dot") {
            return Err("listen.dot is empty: there is no DNS over TLS to switch".into());
        }
        let mut switched = lock(&self.switched);
        switched.note(request).map_err(|error| {
            let folder = if request.persists { &switched.state_dir } else { &switched.run_dir };
            format!("{}: cannot be changed: {error}", folder.display())
        })?;
        switched.off = (!request.is_on).then_some(OffStatus { persists: request.persists });
        drop(switched);
        self.tell_kernel(request.is_on);
        engine.workers.iter().for_each(|worker| worker.switch(request.is_on));
        if request.is_on {
            tracing::info!("DNS over TLS is switched on");
        } else {
            tracing::warn!(
                persists = request.persists,
                "DNS over TLS is switched off; to switch it on: `dotd enable`"
            );
        }
        Ok(request)
    }

    /// Before workers start, and again when they run: applies the last state.
    pub(super) fn resume_switch(&self) {
        let mut switched = lock(&self.switched);
        switched.off = switched.noted();
        self.read_switches(&mut switched);
        let is_on = switched.off.is_none();
        drop(switched);
        self.tell_kernel(is_on);
        if let Some(engine) = self.engine() {
            engine.workers.iter().for_each(|worker| worker.switch(is_on));
        } else if !is_on {
            tracing::warn!("DNS over TLS is switched off; to switch it on: `dotd enable`");
        }
    }

    /// Switches the listeners and XDP before the workers: a packet that the kernel drops uses no memory here. If
    /// neither can be switched, workers close the connections that they accept.
    fn tell_kernel(&self, is_on: bool) {
        if let Err(error) = self.keeper.accept(is_on) {
            tracing::debug!(
                is_on,
                "the listeners cannot be switched, so each new connection is accepted and closed: {error}"
            );
        }
        if let Some(xdp) = &mut lock(&self.kernel).0
            && let Err(error) = xdp.set_dot_off(!is_on)
        {
            tracing::error!("XDP cannot be told whether DNS over TLS is on: {error}");
        }
    }

    /// The state of DNS over TLS if it is off.
    pub(super) fn off(&self) -> Option<OffStatus> {
        lock(&self.switched).off
    }

    /// Switches a backend; the control loop tells the workers.
    pub(super) fn switch_backend_by(&self, request: BackendRequest) -> Result<BackendRequest, String> {
        let names: Vec<_> =
            lock(&self.backends).statuses(&self.history).into_iter().map(|status| status.name).collect();
        let is_known = names.iter().any(|name| called(name).any(|called| called == request.name));
        // One that has left can be enabled again before it comes back.
        if !is_known && !lock(&self.switched).backends.contains_key(&request.name) {
            return Err(format!(
                "there is no backend \"{}\"; the backends are: {}",
                request.name,
                names.join(", ")
            ));
        }
        let weights = limit::BACKEND_WEIGHT.min..=limit::BACKEND_WEIGHT.max;
        if let BackendSwitch::Weight(weight) = request.switch
            && !weights.contains(&weight)
        {
            return Err(format!(
                "{weight} is not a valid weight: use {} to {}",
                weights.start(),
                weights.end()
            ));
        }
        let mut switched = lock(&self.switched);
        let mut backends = switched.backends.clone();
        match request.switch {
            BackendSwitch::Enable => drop(backends.remove(&request.name)),
            switch => drop(backends.insert(request.name.clone(), switch)),
        }
        kept::save(&switched.run_dir, BACKENDS_FILE, &backends)
            .map_err(|error| format!("{}: cannot be changed: {error}", switched.run_dir.display()))?;
        switched.backends = backends;
        drop(switched);
        tracing::info!(backend = request.name, "switched: {:?}", request.switch);
        // If a message already waits, it covers this change too.
        let _ = self.weigher.try_send(());
        Ok(request)
    }

    /// Gives each backend the weight that an operator has set, or else the weight of the config; 0: it is drained.
    pub(in crate::start) fn weigh(&self, config: &Config, backends: &mut [BackendConfig]) {
        weigh_by(&lock(&self.switched).backends, config, backends);
    }

    /// Applies what an operator has asked of the previous engine while this one began. Call it every second: it looks the first times.
    pub(in crate::start) fn resume_late_switches(&self) {
        if self.started.elapsed() > SETTLING_TIME {
            return;
        }
        let before = self.off();
        let noted = {
            let mut switched = lock(&self.switched);
            self.read_switches(&mut switched);
            switched.noted()
        };
        if noted != before {
            self.resume_switch();
        }
    }

    /// Reads the switches of backends again, and has other ones applied: a worker may have weights from before them.
    fn read_switches(&self, switched: &mut Switched) {
        let backends = read_backends(&switched.run_dir);
        if backends != switched.backends {
            switched.backends = backends;
            // If a message already waits, it covers this change too.
            let _ = self.weigher.try_send(());
        }
    }

    /// Keeps the addresses of names for the next engine.
    pub(in crate::start) fn keep_addresses(&self, addresses: &Addresses) {
        let mut switched = lock(&self.switched);
        if switched.addresses != *addresses {
            kept_addresses::save(&switched.run_dir, addresses);
            switched.addresses.clone_from(addresses);
        }
    }

    /// The status of each backend, with what an operator has switched.
    pub(super) fn switched_statuses(&self) -> Vec<BackendStatus> {
        let mut statuses = lock(&self.backends).statuses(&self.history);
        let switched = lock(&self.switched);
        for status in &mut statuses {
            match switch_of(&switched.backends, &status.name) {
                Some(BackendSwitch::Drain) => status.is_drained = true,
                Some(BackendSwitch::Weight(weight)) => status.weight = Some(weight),
                _ => {}
            }
        }
        statuses
    }
}

/// Before a worker has its first query: gives each backend the weight that an operator has set while the previous engine served.
pub(in crate::start) fn weigh_as_switched(config: &Config, backends: &mut [BackendConfig]) {
    weigh_by(&read_backends(&config.server.run_dir), config, backends);
}

fn weigh_by(switched: &Backends, config: &Config, backends: &mut [BackendConfig]) {
    for backend in backends {
        backend.weight = match switch_of(switched, &backend.name) {
            Some(BackendSwitch::Drain) => 0,
            Some(BackendSwitch::Weight(weight)) => weight,
            _ => configured(config, &backend.name),
        };
    }
}

/// What an operator has switched while the previous engine served, or this one.
fn read_backends(run_dir: &Path) -> Backends {
    let kept = kept::read::<Backends>(run_dir, BACKENDS_FILE, BACKENDS_OCTETS_MAX).unwrap_or_else(|error| {
        tracing::warn!("{}/{BACKENDS_FILE}: switches of backends are not read: {error}", run_dir.display());
        None
    });
    let weights = limit::BACKEND_WEIGHT.min..=limit::BACKEND_WEIGHT.max;
    let is_valid = |switch: &BackendSwitch| match switch {
        BackendSwitch::Drain => true,
        BackendSwitch::Enable => false,
        BackendSwitch::Weight(weight) => weights.contains(weight),
    };
    kept.unwrap_or_default().into_iter().filter(|(_, switch)| is_valid(switch)).collect()
}

/// What a backend is called: its own name; that of the backend over TLS for which it stands in; that in the config, if it is one of the
/// addresses of that name.
fn called(name: &str) -> impl Iterator<Item = &str> {
    let secured = name.strip_suffix(config::Backend::IN_CLEAR).unwrap_or(name);
    let whole = secured.rsplit_once('/').map_or(secured, |(whole, _)| whole);
    [name, secured, whole].into_iter()
}

/// What an operator has switched; the nearest name counts.
fn switch_of(switched: &Backends, name: &str) -> Option<BackendSwitch> {
    called(name).find_map(|called| switched.get(called).copied())
}

/// The weight that the config gives it.
fn configured(config: &Config, name: &str) -> u16 {
    let of_config = |called: &str| config.backend.iter().find(|one| one.called() == called);
    called(name).find_map(of_config).map_or(limit::BACKEND_WEIGHT.default, |one| one.weight)
}

/// Opens the folder first: its path may point elsewhere a moment later.
fn with_file<T>(folder: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let folder = disk::open_folder(folder)?;
    let owner = folder.metadata()?.uid();
    as_owner(owner, || act(&disk::path_of(&folder).join(FILE_NAME)))
}

fn note(folder: &Path) -> io::Result<()> {
    with_file(folder, |file| {
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .create(true)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(file)
            .map(drop)
    })
}

fn forget(folder: &Path) -> io::Result<()> {
    match with_file(folder, |file| fs::remove_file(file)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn is_noted(folder: &Path) -> bool {
    with_file(folder, |file| fs::symlink_metadata(file)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a switch of a backend applies to each address of its name, whenever that is found, and to its stand-in in clear, which
    /// otherwise has the weight of the config too. Method: names of status, before and after switches.
    #[test]
    fn a_switch_follows_its_backend() {
        let text = "[balance]\nbootstrap = [\"192.0.2.53:53\"]\n\
                    [[backend]]\nname = \"office\"\naddress = \"ns.example:853\"\ntransport = \"tls\"\nweight = 7\n";
        let config = crate::config::parse(text, "dotd.toml").unwrap();
        let names = ["office", "office/192.0.2.1", "office/2001:db8::1", "office/192.0.2.1:clear", "other"];
        let weights: Vec<_> = names.iter().map(|name| configured(&config, name)).collect();
        assert_eq!(weights, [7, 7, 7, 7, 1], "other: not in the config");
        let mut switched = Backends::from([("office".to_owned(), BackendSwitch::Drain)]);
        let of = |switched: &Backends| names.map(|name| switch_of(switched, name));
        let drained = Some(BackendSwitch::Drain);
        assert_eq!(of(&switched), [drained, drained, drained, drained, None]);
        let one = Some(BackendSwitch::Weight(3));
        switched.insert("office/192.0.2.1".into(), BackendSwitch::Weight(3));
        assert_eq!(of(&switched), [drained, one, drained, one, None]);
    }

    /// Goal: the state is noted in one place, for as long as it must last, and a link is not followed. Method: each
    /// switch in turn, in two folders; then a link in place of the file.
    #[test]
    fn what_is_off_is_noted_once() {
        let (run, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut config = Config::default();
        (config.server.run_dir, config.server.state_dir) = (run.path().into(), state.path().into());
        let switched = Switched::of(&config);
        let noted = || (is_noted(run.path()), is_noted(state.path()));
        for (is_on, persists, expected) in [
            (false, false, (true, false)),
            (false, true, (false, true)),
            (false, false, (true, false)),
            (true, false, (false, false)),
            (true, false, (false, false)),
        ] {
            switched.note(SwitchRequest { is_on, persists }).unwrap();
            assert_eq!(noted(), expected);
        }
        let elsewhere = state.path().join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, run.path().join(FILE_NAME)).unwrap();
        assert!(
            switched.note(SwitchRequest { is_on: false, persists: false }).is_err() && !elsewhere.exists()
        );
        begin_anew(run.path());
        assert!(!is_noted(run.path()));
    }
}

//! The memories of TLS with backends, kept in a file of `state_dir`, by address and name of the server.
//!
//! Before: a start reads the file; `dialer` asks for the memory of each backend. After: the file contains the
//! changes, a few seconds later, and at the end.
//! Holds: the servers of the config, and others up to [`ENTRIES_MAX`] in all; the oldest ones are removed first.
//! Never: stops a start because the file is missing or damaged, or writes it more than once in [`SAVE_INTERVAL`].

use std::{
    collections::BTreeMap,
    io::Read as _,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    backend::{BackendConfig, Remembered, TlsMemory},
    config::{BackendAddress, Config, Profile, Transport},
    control::{ForgiveRequest, TlsRow},
    disk::{self, Arrival},
};

/// The file's name in `state_dir`.
pub const FILE_NAME: &str = "tls-history.json";
/// Most servers that are remembered, unless the config has more. A config has a few; 256 cover years of its changes.
const ENTRIES_MAX: usize = 256;
/// 3,000 servers need this much; 256 need a tenth.
const FILE_OCTETS_MAX: u64 = 2 * 1024 * 1024;
/// Shortest time between two writes: a server whose TLS comes and goes must not wear out the disk.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);

/// The file.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    backends: Vec<Row>,
}

/// One server in the file.
#[derive(Serialize, Deserialize)]
struct Row {
    name: String,
    address: SocketAddr,
    #[serde(default)]
    server_name: String,
    #[serde(flatten)]
    remembered: Remembered,
}

/// One server.
struct Entry {
    name: String,
    address: SocketAddr,
    server_name: String,
    is_configured: bool,
    memory: TlsMemory,
}

/// All memories. Clones share them.
#[derive(Clone, Default)]
pub(super) struct TlsHistory(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// The path; empty: nothing is kept.
    path: PathBuf,
    entries: Mutex<Vec<Entry>>,
    saved_at: Mutex<Option<Instant>>,
    /// Held while the file is written, so that an older text cannot replace a newer one.
    writing: Mutex<()>,
    is_saving: AtomicBool,
    /// The last write failed.
    has_failed: AtomicBool,
}

impl TlsHistory {
    /// Reads the file in `state_dir`, if there is one.
    pub(super) fn read(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE_NAME);
        let kept = match read(&path) {
            Ok(kept) => kept,
            Err(why) => {
                tracing::warn!(
                    "{}: {why}: what was known of backends' TLS is lost, and a downgrade may go unnoticed until each has \
                     spoken TLS again",
                    path.display()
                );
                Kept::default()
            }
        };
        let entries = kept.backends.into_iter().map(|row| Entry {
            name: row.name,
            address: row.address,
            server_name: row.server_name,
            is_configured: false,
            memory: TlsMemory::of(row.remembered),
        });
        Self(Arc::new(Shared { path, entries: Mutex::new(entries.collect()), ..Shared::default() }))
    }

    /// The memory of a server, which is empty if it is a new one.
    pub(super) fn memory_of(&self, name: &str, address: SocketAddr, server_name: &str) -> TlsMemory {
        let mut entries = self.entries();
        let same = entries.iter().find(|one| one.address == address && one.server_name == server_name);
        if let Some(entry) = same {
            return entry.memory.clone();
        }
        let memory = TlsMemory::default();
        entries.push(Entry {
            name: name.to_owned(),
            address,
            server_name: server_name.to_owned(),
            is_configured: false,
            memory: memory.clone(),
        });
        memory
    }

    /// The TLS server that proved lately to be the one at `address`.
    pub(super) fn proved_for(&self, address: IpAddr, window: Duration) -> Option<SocketAddr> {
        let name = address.to_string();
        let entries = self.entries();
        let of_it = entries.iter().filter(|entry| entry.server_name == name);
        let last = of_it.max_by_key(|entry| entry.memory.row().last_success)?;
        last.memory.must_speak_within(window).then_some(last.address)
    }

    /// Serves this config from now on: its names and its window are in effect.
    pub(super) fn serve(&self, config: &Config) {
        let mut entries = self.entries();
        for entry in &mut *entries {
            let of_config = config.backend.iter().find(|backend| {
                backend.transport == Transport::Tls
                    && backend.address == BackendAddress::Socket(entry.address)
                    && backend.server_name == entry.server_name
            });
            entry.is_configured = of_config.is_some();
            if let Some(backend) = of_config {
                entry.name = backend.called();
                let is_opportunistic = backend.profile == Profile::Opportunistic;
                entry.memory.judge_by(config.balance.downgrade_window, is_opportunistic);
            }
        }
        share(&entries);
        let configured = entries.iter().filter(|entry| entry.is_configured).count();
        let most = ENTRIES_MAX.max(configured);
        if entries.len() > most {
            entries.sort_by_cached_key(|entry| {
                std::cmp::Reverse((entry.is_configured, entry.memory.row().last_success))
            });
            entries.truncate(most);
        }
    }

    /// The periodic work: suspicions, and the file.
    pub(super) fn look(&self, backends: &[BackendConfig]) {
        share(&self.entries());
        for backend in backends {
            let Some(tls) = &backend.tls else { continue };
            let stands_in = |one: &&BackendConfig| one.stands_in.as_ref() == Some(&tls.memory);
            let in_clear = backends.iter().find(stands_in);
            tls.memory.look(&backend.name, in_clear.is_some_and(|one| one.health.is_up()));
        }
        let is_unsaved =
            self.0.has_failed.load(Relaxed) || self.entries().iter().any(|one| one.memory.is_unsaved());
        let mut saved_at = self.0.saved_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = saved_at.is_none_or(|at| at.elapsed() >= SAVE_INTERVAL);
        if is_unsaved && is_due && !self.0.is_saving.swap(true, Relaxed) {
            *saved_at = Some(Instant::now());
            let history = self.clone();
            // A slow disk must not make an operator wait.
            tokio::task::spawn_blocking(move || {
                history.save();
                history.0.is_saving.store(false, Relaxed);
            });
        }
    }

    /// Writes the file.
    pub(super) fn save(&self) {
        if self.0.path.as_os_str().is_empty() {
            return;
        }
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = self.entries();
        let has_news = |entry: &&Entry| entry.memory.row() != Remembered::default();
        let backends = rows.iter().filter(has_news).map(|entry| Row {
            name: entry.name.clone(),
            address: entry.address,
            server_name: entry.server_name.clone(),
            remembered: entry.memory.save(),
        });
        let kept = Kept { backends: backends.collect() };
        drop(rows);
        if kept.backends.is_empty() {
            return;
        }
        let text = serde_json::to_string_pretty(&kept).map_err(std::io::Error::other);
        let written = text.and_then(|text| disk::write_whole(&self.0.path, &(text + "\n"), Arrival::Replace));
        let had_failed = self.0.has_failed.swap(written.is_err(), Relaxed);
        if let (Err(error), false) = (written, had_failed) {
            tracing::warn!(
                "{}: cannot be written ({error}): after a restart a downgrade may go unnoticed",
                self.0.path.display()
            );
        }
    }

    /// The history of a backend's server.
    pub(super) fn row_of(&self, memory: &TlsMemory) -> Option<TlsRow> {
        self.entries().iter().find(|entry| entry.memory == *memory).map(Entry::row)
    }

    /// Everything, the servers of the config first; others only if they have a history.
    pub(super) fn rows(&self) -> Vec<TlsRow> {
        let mut rows: Vec<_> = self.entries().iter().map(Entry::row).collect();
        rows.retain(|row| row.is_configured || row.remembered != Remembered::default());
        rows.sort_by_key(|row| !row.is_configured);
        rows
    }

    /// Ends a suspicion; of a backend with a name, that of each of its addresses.
    ///
    /// # Errors
    /// There is no such backend, or its TLS does not fail.
    pub(super) fn forgive(&self, ForgiveRequest { name }: &ForgiveRequest) -> Result<TlsRow, String> {
        let entries = self.entries();
        let is_called = |entry: &Entry| {
            let rest = entry.name.strip_prefix(name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                || entry.address.to_string() == *name
        };
        let mut outcome = Err(format!(
            "no backend over TLS is called \"{}\": `dotd upstream history` lists them",
            name.escape_debug()
        ));
        for entry in entries.iter().filter(|entry| entry.is_configured && is_called(entry)) {
            match entry.memory.forgive() {
                Ok(()) => {
                    tracing::warn!(
                        backend = entry.name,
                        "an operator has ended the suspicion about its failing TLS"
                    );
                    outcome = outcome.or_else(|_| Ok(entry.row()));
                }
                Err(why) => outcome = outcome.map_err(|_| format!("{}: {why}", entry.name)),
            }
        }
        outcome
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn row(&self) -> TlsRow {
        let (suspicions, pin_changes) = self.memory.counts();
        TlsRow {
            name: self.name.clone(),
            address: self.address.to_string(),
            server_name: self.server_name.clone(),
            is_configured: self.is_configured,
            is_in_clear: false,
            remembered: self.memory.row(),
            suspicions,
            pin_changes,
        }
    }
}

/// If one server of a name spoke TLS, and no operator has forgiven it, the others of that name must speak TLS too.
fn share(entries: &[Entry]) {
    let named = || entries.iter().filter(|entry| !entry.server_name.is_empty());
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in named() {
        let row = entry.memory.row();
        let spoke = if row.forgiven == 0 { row.last_success } else { 0 };
        let of_name = last.entry(&entry.server_name).or_default();
        *of_name = spoke.max(*of_name);
    }
    for entry in named() {
        entry.memory.share(last.get(entry.server_name.as_str()).copied().unwrap_or_default());
    }
}

/// The file, or nothing if there is none.
fn read(path: &Path) -> Result<Kept, String> {
    let file = match disk::open_own(path) {
        Ok(file) => file,
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(Kept::default());
        }
        Err(error) => return Err(error.to_string()),
    };
    let mut text = String::new();
    file.take(FILE_OCTETS_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_OCTETS_MAX {
        return Err(format!("it is longer than {FILE_OCTETS_MAX} octets"));
    }
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;

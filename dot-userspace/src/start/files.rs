//! Sees when files change: the watch that makes renewed certificates and policy zones take effect without a signal.
//!
//! Before: a config that names files. After: [`Files::have_changed`] says that another load is worth the while.
//! Holds: a watch on each folder in which a change can lead one of the paths to other content: that of the file, of
//! each symbolic link on the way, and of what the link names (Kubernetes swaps a link to a folder, certbot one to a
//! file; writers that are careful rename).
//! Never: reads a file, queues events (they ring a bell, and ringing twice is ringing once), or watches more than
//! [`FOLDERS_MAX`].

use std::{
    cell::Cell,
    collections::{BTreeSet, HashSet, VecDeque},
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    config::Config,
    disk::{self, Print},
};

/// A renewal writes several files: it is over when nothing has changed for this long.
const QUIET: Duration = Duration::from_millis(300);
/// A writer that never stops is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often files are looked at in folders that cannot be watched, such as those that are root's alone.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Folders watched. A certificate needs one to four.
const FOLDERS_MAX: usize = 256;
/// Symbolic links followed for one path, as many as Linux follows.
const LINKS_MAX: usize = 40;

/// Which files of a config are meant.
pub(super) type Named = fn(&Config) -> BTreeSet<PathBuf>;

/// What files were at some moment.
pub(super) struct Seen {
    named: Named,
    paths: BTreeSet<PathBuf>,
    prints: Vec<Option<Print>>,
}

impl Seen {
    /// As they are now: to be asked before they are read, so that what changes meanwhile is another change.
    pub(super) fn now(config: &Config, named: Named) -> Self {
        let paths = named(config);
        Self { named, prints: prints(&paths), paths }
    }
}

/// Files of what is being served.
pub(super) struct Files {
    watcher: Option<RecommendedWatcher>,
    watched: HashSet<PathBuf>,
    seen: Seen,
    settled: Arc<Notify>,
    task: AbortHandle,
    /// When they are looked at without an event: a folder is closed to us, or cannot be watched.
    next_look: Cell<Option<Instant>>,
}

impl Files {
    /// Watches the files that were `seen` before they were read; what has changed since then has settled at once. Where
    /// the kernel has no watch left it says so, and HUP still works.
    pub(super) fn watch(seen: Seen) -> Self {
        let (bell, settled) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let ring = Arc::clone(&bell);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| is_change(event.kind)) {
                ring.notify_one();
            }
        });
        let watcher = watcher.map_err(|error| say_unwatched(&error)).ok();
        let task = tokio::spawn(settle(bell, Arc::clone(&settled))).abort_handle();
        let next_look = Cell::new(watcher.is_none().then(|| Instant::now() + LOOK_INTERVAL));
        let mut files = Self { watcher, watched: HashSet::new(), seen, settled, task, next_look };
        files.follow();
        files.settled.notify_one();
        files
    }

    /// Waits until something has changed in the folders, and then nothing for a moment; or a minute, where there are folders
    /// that are not watched.
    ///
    /// # Cancel safety
    /// A change is kept for the next call, and so is the time.
    pub(super) async fn settled(&self) {
        let Some(next_look) = self.next_look.get() else { return self.settled.notified().await };
        if timeout_at(next_look, self.settled.notified()).await.is_err() {
            self.next_look.set(Some(Instant::now() + LOOK_INTERVAL));
        }
    }

    /// Whether a path leads to other content than when it was noted.
    pub(super) fn have_changed(&self) -> bool {
        self.seen.prints != prints(&self.seen.paths)
    }

    /// Takes what the files are now for seen, whether or not it could be used, and watches where they are now.
    pub(super) fn note(&mut self, config: &Config) {
        self.seen.paths = (self.seen.named)(config);
        self.follow();
        // After the watches: what changes from now on rings.
        self.seen.prints = prints(&self.seen.paths);
    }

    /// After a reload: other files are noted again, the same ones were before it.
    pub(super) fn name(&mut self, config: &Config) {
        if self.seen.paths != (self.seen.named)(config) {
            self.note(config);
        }
    }

    fn follow(&mut self) {
        let wanted: HashSet<_> =
            self.seen.paths.iter().flat_map(|path| folders(path)).take(FOLDERS_MAX).collect();
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.watched.difference(&wanted) {
            // A folder that is gone took its watch with it.
            let _ = watcher.unwatch(gone);
        }
        // Also those watched before: a folder of the same name may be another one.
        let watch = |folder: &PathBuf| watcher.watch(folder, RecursiveMode::NonRecursive).err();
        let unwatched = wanted.iter().filter_map(watch).last();
        if let Some(error) = &unwatched
            && self.next_look.get().is_none()
        {
            say_unwatched(error);
        }
        self.next_look.set(unwatched.map(|_| Instant::now() + LOOK_INTERVAL));
        self.watched = wanted;
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn say_unwatched(error: &notify::Error) {
    tracing::warn!(%error, "files of certificates or policy zones are not all watched: they are looked at once a minute");
}

/// A read does not count as a change: dotd's own reads would wake it for ever.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// Rings `settled` when `bell` has rung and then been quiet.
async fn settle(bell: Arc<Notify>, settled: Arc<Notify>) {
    loop {
        bell.notified().await;
        let patience_until = Instant::now() + PATIENCE;
        while Instant::now() < patience_until && timeout(QUIET, bell.notified()).await.is_ok() {}
        settled.notify_one();
    }
}

/// Every file that a handshake depends on, with clients or with backends, and another program writes.
pub(super) fn of_certificates(config: &Config) -> BTreeSet<PathBuf> {
    let tls = &config.tls;
    let pairs = tls.certificates.iter().flat_map(|entry| [&entry.cert, &entry.key, &entry.ocsp]);
    let authorities = config.backend.iter().map(|backend| &backend.ca);
    let files = pairs.chain([&tls.client_ca, &tls.ticket_secret]).chain(authorities);
    files.filter(|path| !path.as_os_str().is_empty()).cloned().collect()
}

/// Every file of a policy zone.
pub(super) fn of_zones(config: &Config) -> BTreeSet<PathBuf> {
    config.policy.zone.iter().filter(|zone| !zone.is_transferred()).map(|zone| zone.file.clone()).collect()
}

fn prints(paths: &BTreeSet<PathBuf>) -> Vec<Option<Print>> {
    let print = |path: &PathBuf| {
        let found = disk::open_named(path).and_then(|file| file.metadata());
        found.ok().map(|found| disk::print_of(&found))
    };
    paths.iter().map(print).collect()
}

/// The folders in which a change can lead `path` elsewhere, as the kernel walks them.
fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    let mut at = PathBuf::from(if path.is_absolute() { "/" } else { "." });
    let mut rest: VecDeque<OsString> = names(path).collect();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        let next = at.join(&name);
        match fs::read_link(&next) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                folders.insert(at.clone());
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                names(&target).collect::<Vec<_>>().into_iter().rev().for_each(|name| rest.push_front(name));
            }
            _ if rest.is_empty() => {
                folders.insert(at.clone());
            }
            _ => at = next,
        }
    }
    folders
}

/// The names of a path, without what stands for the root or for no step at all.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    let steps = path.components().filter(|step| matches!(step, Component::Normal(_) | Component::ParentDir));
    steps.map(|step| step.as_os_str().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::Tls;

    /// Goal: each place where a path can be turned is watched. Method: a file by way of a link to a file, a link to a
    /// folder (absolute and relative), a file in place of a folder, and a link to itself.
    #[test]
    fn folders_are_those_where_a_path_can_turn() {
        let scratch = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(scratch.path()).unwrap();
        for folder in ["live", "archive", "v1", "elsewhere"] {
            fs::create_dir(root.join(folder)).unwrap();
        }
        fs::write(root.join("archive/cert1.pem"), "x").unwrap();
        fs::write(root.join("v1/tls.crt"), "x").unwrap();
        symlink(Path::new("..").join("archive/cert1.pem"), root.join("live/cert.pem")).unwrap();
        symlink(root.join("v1"), root.join("..data")).unwrap();
        symlink("..data/tls.crt", root.join("tls.crt")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let of = |path: &str| {
            let found = folders(&root.join(path));
            found.iter().map(|folder| fs::canonicalize(folder).unwrap()).collect::<BTreeSet<_>>()
        };
        let these = |names: &[&str]| names.iter().map(|name| root.join(name)).collect::<BTreeSet<_>>();
        assert_eq!(of("archive/cert1.pem"), these(&["archive"]));
        assert_eq!(of("live/cert.pem"), these(&["live", "archive"]));
        assert_eq!(of("tls.crt"), [root.clone(), root.join("v1")].into());
        assert_eq!(of("elsewhere/absent.pem"), these(&["elsewhere"]));
        assert_eq!(of("loop"), [root.clone()].into());
    }

    /// Goal: what changed after it was read, and before it was watched, is no secret. Method: a key written in between.
    #[tokio::test]
    async fn a_change_before_the_watch_is_seen() {
        let scratch = tempfile::tempdir().unwrap();
        let key = scratch.path().join("key.pem");
        let tls = Tls { ticket_secret: key.clone(), ..Config::default().tls };
        let config = Config { tls, ..Config::default() };
        fs::write(&key, "one").unwrap();
        let seen = Seen::now(&config, of_certificates);
        fs::write(&key, "another").unwrap();
        let mut files = Files::watch(seen);
        files.settled().await;
        assert!(files.have_changed());
        files.note(&config);
        assert!(!files.have_changed());
    }

    /// Goal: other content is seen, however it came, and the same content is not. Method: in place, by rename, gone.
    #[test]
    fn other_content_has_another_print() {
        let scratch = tempfile::tempdir().unwrap();
        let (file, new) = (scratch.path().join("key.pem"), scratch.path().join("new"));
        let paths = BTreeSet::from([file.clone()]);
        let absent = prints(&paths);
        assert_eq!(absent, [None]);
        fs::write(&file, "one").unwrap();
        let one = prints(&paths);
        assert_ne!(one, absent);
        assert_eq!(fs::read(&file).unwrap(), b"one");
        assert_eq!(prints(&paths), one, "reading changes nothing");
        fs::write(&new, "two").unwrap();
        fs::rename(&new, &file).unwrap();
        assert_ne!(prints(&paths), one);
        fs::remove_file(&file).unwrap();
        assert_eq!(prints(&paths), absent);
    }
}

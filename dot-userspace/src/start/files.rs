//! Watches files for changes: renewed certificates and policy zones take effect without a signal.
//!
//! Before: a config that names files. After: [`Files::have_changed`] says that the files must be loaded again.
//! Holds: a watch on each folder in which a change can make one of the paths lead to other content: that of the file,
//! of each symbolic link on the path, and of the link's target (Kubernetes replaces a link to a folder, certbot one
//! to a file; careful writers rename).
//! Never: reads a file, queues events (several events cause one notification), or watches more than [`FOLDERS_MAX`].

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

/// A renewal writes several files: it has ended when nothing has changed for this long.
const QUIET: Duration = Duration::from_millis(300);
/// Longest wait for a writer that never stops.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often files are checked in folders that cannot be watched, such as those that only root may read.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Folders watched. A certificate needs one to four.
const FOLDERS_MAX: usize = 256;
/// Most symbolic links that are followed for one path, as in Linux.
const LINKS_MAX: usize = 40;

/// Selects files of a config.
pub(super) type Named = fn(&Config) -> BTreeSet<PathBuf>;

/// The state of files at some moment.
pub(super) struct Seen {
    named: Named,
    paths: BTreeSet<PathBuf>,
    prints: Vec<Option<Print>>,
}

impl Seen {
    /// The present state. Call it before the files are read, so that a change during the read counts as another
    /// change.
    pub(super) fn now(config: &Config, named: Named) -> Self {
        let paths = named(config);
        Self { named, prints: prints(&paths), paths }
    }
}

/// The files of the config that is served.
pub(super) struct Files {
    watcher: Option<RecommendedWatcher>,
    watched: HashSet<PathBuf>,
    seen: Seen,
    settled: Arc<Notify>,
    task: AbortHandle,
    /// When the files are checked without an event, because a folder may not be read or cannot be watched.
    next_look: Cell<Option<Instant>>,
}

impl Files {
    /// Watches the files that were `seen` before they were read; a change since then counts at once. If the kernel
    /// has no watch left, a line says so, and HUP still works.
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

    /// Waits until something has changed in the folders, and then nothing for a moment; or a minute, if some folders
    /// are not watched.
    ///
    /// # Cancel safety
    /// A change is kept for the next call, and so is the time.
    pub(super) async fn settled(&self) {
        let Some(next_look) = self.next_look.get() else { return self.settled.notified().await };
        if timeout_at(next_look, self.settled.notified()).await.is_err() {
            self.next_look.set(Some(Instant::now() + LOOK_INTERVAL));
        }
    }

    /// Whether a path now leads to other content than when it was noted.
    pub(super) fn have_changed(&self) -> bool {
        self.seen.prints != prints(&self.seen.paths)
    }

    /// Notes the present state as seen, whether or not the files could be used, and watches their present folders.
    pub(super) fn note(&mut self, config: &Config) {
        self.seen.paths = (self.seen.named)(config);
        self.follow();
        // After the watches are set: every later change causes an event.
        self.seen.prints = prints(&self.seen.paths);
    }

    /// After a reload: notes files that are new in the config; the others were noted before it.
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
            // A folder that was removed took its watch with it.
            let _ = watcher.unwatch(gone);
        }
        // Watched folders are watched again, because a folder of the same name may be another one.
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
    tracing::warn!(%error, "some files of certificates or policy zones cannot be watched, and are checked once a minute");
}

/// A read does not count as a change: dotd's own reads would wake it for ever.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// Notifies `settled` after `bell` was notified and then no event came for a while.
async fn settle(bell: Arc<Notify>, settled: Arc<Notify>) {
    loop {
        bell.notified().await;
        let patience_until = Instant::now() + PATIENCE;
        while Instant::now() < patience_until && timeout(QUIET, bell.notified()).await.is_ok() {}
        settled.notify_one();
    }
}

/// Every file that a handshake with clients or with backends depends on and that another program writes.
pub(super) fn of_certificates(config: &Config) -> BTreeSet<PathBuf> {
    let tls = &config.tls;
    let pairs = tls.entries().flat_map(|entry| [&entry.cert, &entry.key, &entry.ocsp]);
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

/// The folders in which a change can make `path` lead elsewhere, in the order in which the kernel walks them.
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

/// The names of a path, without those for the root or the present folder.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    let steps = path.components().filter(|step| matches!(step, Component::Normal(_) | Component::ParentDir));
    steps.map(|step| step.as_os_str().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::Tls;

    /// Goal: each folder in which a path can change is watched. Method: a file through a link to a file, through a
    /// link to a folder (absolute and relative), a file in place of a folder, and a link to itself.
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

    /// Goal: a change after the file was read, and before it was watched, is noticed. Method: a key written in
    /// between.
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

    /// Goal: other content is noticed, however it was written, and the same content is not. Method: in place, by
    /// rename, removed.
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

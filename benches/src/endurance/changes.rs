//! Changes a serving dotd and its surroundings: each kind of change at its own interval, until the load ends.
//!
//! Before: a running dotd, its two backends, its authority. After: the number of changes of each kind, and a complaint for
//! each one that failed. Holds: the time at which each is due next. Never: makes two changes at once.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use dot_tests::harness::{backends::Backend, netns::Network, pki::Authority, server::Server};

use super::{Options, scene};

/// One reload in so many has a config that must be refused.
const BAD_EACH: u64 = 10;
const LOOK: Duration = Duration::from_millis(10);
/// Complaints that are kept word by word.
const KEPT: usize = 20;

/// Changes made so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    pub(super) reloads: u64,
    pub(super) refused_reloads: u64,
    pub(super) restarts: u64,
    pub(super) renewals: u64,
    pub(super) bans: u64,
    /// Changes that failed, in words.
    pub(super) complaints: Vec<String>,
}

/// The processes and files that are changed.
pub(super) struct Changed<'a> {
    pub(super) network: &'a Network,
    pub(super) dotd: &'a Server,
    pub(super) backends: [Option<Backend>; 2],
    pub(super) authority: &'a Authority,
}

/// A kind of change and when it is due.
struct Due {
    every: Duration,
    next: Instant,
}

impl Due {
    fn new(every: Duration) -> Self {
        Self { every, next: Instant::now() + every }
    }

    /// Whether the change is due. The next interval starts now: a change that took long is not made up for.
    fn is_now(&mut self) -> bool {
        let now = Instant::now();
        let is_due = now >= self.next;
        if is_due {
            self.next = now + self.every;
        }
        is_due
    }
}

/// Makes changes until `is_over`.
pub(super) fn make(options: &Options, mut changed: Changed<'_>, is_over: &AtomicBool) -> Changes {
    let mut changes = Changes::default();
    let [mut reload, mut restart, mut renew, mut ban] =
        [options.reload_every, options.restart_every, options.renew_every, options.ban_every].map(Due::new);
    while !is_over.load(Relaxed) {
        if renew.is_now() {
            changes.renewals += 1;
            renew_certificate(changed.dotd.folder(), changed.authority, changes.renewals);
        }
        if restart.is_now() {
            let which = usize::from(changes.restarts % 2 == 1);
            changes.restarts += 1;
            restart_backend(&mut changed, which);
        }
        if ban.is_now() {
            changes.bans += 1;
            let client = format!("203.0.113.{}", changes.bans % 250);
            changes.expect(changed.dotd, &["ban", "add", &client, "--for", "3s"], true);
        }
        if reload.is_now() {
            changes.reload(options, changed.dotd);
        }
        thread::sleep(LOOK);
    }
    changes
}

impl Changes {
    /// One config in ten is wrong, and the others alternate between two.
    fn reload(&mut self, options: &Options, dotd: &Server) {
        let number = self.reloads + self.refused_reloads;
        let is_bad = number % BAD_EACH == BAD_EACH - 1;
        if is_bad {
            self.refused_reloads += 1;
            dotd.rewrite_config_text("[session]\nidle_timeot = \"1m\"\n");
        } else {
            self.reloads += 1;
            dotd.rewrite_config(&scene::config(options, dotd.folder(), number % 2 == 1));
        }
        self.expect(dotd, &["reload"], !is_bad);
    }

    /// Runs a verb, which must succeed or must fail.
    fn expect(&mut self, dotd: &Server, words: &[&str], is_to_succeed: bool) {
        let said = dotd.operate(words);
        if said.is_success != is_to_succeed && self.complaints.len() < KEPT {
            let how = if said.is_success { "succeeded" } else { "failed" };
            self.complaints.push(format!("dotd {} {how}: {}", words.join(" "), said.text.trim()));
        }
    }
}

/// A new certificate and key in a folder of their own, and one link that moves, as certbot does it.
///
/// # Panics
/// When the folder cannot be written.
pub(super) fn renew_certificate(folder: &Path, authority: &Authority, number: u64) {
    let issued = authority.issue("dotd.test");
    let own = folder.join(format!("archive-{number}"));
    fs::create_dir(&own).expect("our own folder");
    fs::write(own.join("cert.pem"), issued.cert).expect("our own folder");
    fs::write(own.join("key.pem"), issued.key).expect("our own folder");
    let link = folder.join("live.new");
    symlink(&own, &link).expect("our own folder");
    fs::rename(&link, folder.join("live")).expect("our own folder");
}

/// Ends one NSD and starts it again at its address.
fn restart_backend(changed: &mut Changed<'_>, which: usize) {
    // Ended first: two cannot have one address.
    drop(changed.backends[which].take());
    changed.backends[which] = Some(Backend::nsd_at(changed.network, scene::BACKENDS[which]));
}

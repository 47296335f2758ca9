//! Tells the kernel half which destinations are this machine's.
//!
//! Before: `routes` asked the kernel. After: XDP judges what is for us, and lets pass uncounted what a router, a bridge or a
//! hypervisor only hands on.
//! Holds: the two tries as their one writer, and the groups that every machine belongs to.
//! Never: leaves a gap: where the addresses cannot be known, every destination counts as ours, and the report says so.

use std::{collections::BTreeSet, io};

use aya::Ebpf;
use dot_common::{maps, settings::version_bit};
use ipnet::IpNet;
use nix::errno::Errno;

use super::{XdpError, list::List, routes};

/// What a socket may be given without an address of its own: multicast and the limited broadcast.
const GROUPS: [&str; 3] = ["224.0.0.0/4", "255.255.255.255/32", "ff00::/8"];

/// The addresses.
pub(super) struct Local {
    list: List,
    /// IP versions whose addresses are known.
    pub(super) versions: u8,
    /// Why one is not.
    reason: Option<String>,
    /// Since the kernel half was told.
    pub(super) has_changed: bool,
}

impl Local {
    /// Takes both maps out of the object. Nothing is known yet.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, XdpError> {
        let list = List::take(object, "local addresses", maps::LOCAL4, maps::LOCAL6)?;
        Ok(Self { list, versions: 0, reason: None, has_changed: false })
    }

    /// Why every destination counts as ours, if so.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Asks anew, and follows. SETTINGS is to be written when something `has_changed`.
    pub(super) fn look(&mut self) {
        let answers = [false, true].map(|is_v6| (is_v6, routes::local(is_v6)));
        self.follow(answers);
    }

    fn follow(&mut self, answers: [(bool, io::Result<BTreeSet<IpNet>>); 2]) {
        let before = (self.versions, self.list.prefixes());
        let mut wanted: BTreeSet<IpNet> = GROUPS.iter().filter_map(|group| group.parse().ok()).collect();
        let (mut versions, mut reasons) = (0, Vec::new());
        for (is_v6, answer) in answers {
            match answer {
                Ok(prefixes) => {
                    wanted.extend(prefixes);
                    versions |= version_bit(is_v6);
                }
                Err(error) if is_absent(&error) => versions |= version_bit(is_v6),
                Err(error) => reasons.push(format!("IPv{}: {error}", if is_v6 { 6 } else { 4 })),
            }
        }
        let wanted: Vec<IpNet> = wanted.into_iter().collect();
        match self.list.grow(&wanted) {
            Ok(()) => self.list.shrink(&wanted),
            Err(error) => {
                versions = 0;
                reasons.push(error.to_string());
            }
        }
        let reasons = (!reasons.is_empty()).then(|| reasons.join("; "));
        self.reason =
            reasons.map(|reasons| format!("packets to every address count as this machine's: {reasons}"));
        self.versions = versions;
        self.has_changed |= before != (versions, self.list.prefixes());
    }
}

/// A kernel without this IP version has no address of it.
fn is_absent(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP))
}

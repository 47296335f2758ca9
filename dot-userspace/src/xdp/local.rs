//! Tells the kernel half which destinations are this machine's.
//!
//! Before: `routes` asked the kernel. After: XDP judges packets for this machine, and lets packets that a router, a
//! bridge or a hypervisor forwards pass uncounted.
//! Holds: the two tries, which nothing else writes, and the multicast groups that every machine belongs to.
//! Never: leaves a gap: if the addresses cannot be known, every destination counts as local, and the report says so.

use std::{collections::BTreeSet, io};

use aya::Ebpf;
use dot_common::{maps, settings::version_bit};
use ipnet::IpNet;
use nix::errno::Errno;

use super::{XdpError, list::List, routes};

/// Destinations whose packets reach sockets without a local address: multicast and the limited broadcast.
const GROUPS: [&str; 3] = ["224.0.0.0/4", "255.255.255.255/32", "ff00::/8"];

/// The addresses.
pub(super) struct Local {
    list: List,
    /// The IP versions whose addresses are known.
    pub(super) versions: u8,
    /// The reasons why the addresses of a version are not known.
    reason: Option<String>,
    /// Set when the kernel half needs new settings.
    pub(super) has_changed: bool,
}

impl Local {
    /// Takes both maps out of the object. No address is known yet.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, XdpError> {
        let list = List::take(object, "local addresses", maps::LOCAL4, maps::LOCAL6)?;
        Ok(Self { list, versions: 0, reason: None, has_changed: false })
    }

    /// The reason why every destination counts as local, if that is so.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Whether the last answer was incomplete, so that the kernel must be asked again.
    pub(super) fn is_open(&self) -> bool {
        self.reason.is_some() || self.has_changed
    }

    /// Asks again, and follows. If something `has_changed`, the caller must write SETTINGS.
    pub(super) fn look(&mut self) {
        let answers = [false, true].map(|is_v6| (is_v6, routes::local(is_v6)));
        let held = self.list.prefixes();
        let Wanted { prefixes, mut versions, mut reasons } = wanted(&held, answers);
        match self.list.grow(&prefixes) {
            Ok(()) => self.list.shrink(&prefixes),
            Err(error) => {
                versions = 0;
                reasons.push(error.to_string());
            }
        }
        let reasons = (!reasons.is_empty()).then(|| reasons.join("; "));
        self.reason =
            reasons.map(|reasons| format!("packets to every address count as this machine's: {reasons}"));
        self.has_changed |= (self.versions, held) != (versions, self.list.prefixes());
        self.versions = versions;
    }
}

/// The wanted content of the tries.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    prefixes: Vec<IpNet>,
    /// The IP versions whose addresses are known.
    versions: u8,
    /// The reasons why the addresses of a version are not known.
    reasons: Vec<String>,
}

/// The wanted content of the tries after these answers. The prefixes of a version without an answer stay: until
/// SETTINGS says that the version is not known, the kernel half uses them, and it does not judge packets to a missing
/// address.
fn wanted(held: &[IpNet], answers: [(bool, io::Result<BTreeSet<IpNet>>); 2]) -> Wanted {
    let mut prefixes: BTreeSet<IpNet> = GROUPS.iter().filter_map(|group| group.parse().ok()).collect();
    let (mut versions, mut reasons) = (0, Vec::new());
    for (is_v6, answer) in answers {
        match answer {
            Ok(found) => {
                prefixes.extend(found);
                versions |= version_bit(is_v6);
            }
            Err(error) if is_absent(&error) => versions |= version_bit(is_v6),
            Err(error) => {
                prefixes.extend(held.iter().filter(|prefix| matches!(prefix, IpNet::V6(_)) == is_v6));
                reasons.push(format!("IPv{}: {error}", if is_v6 { 6 } else { 4 }));
            }
        }
    }
    Wanted { prefixes: prefixes.into_iter().collect(), versions, reasons }
}

/// A kernel without this IP version has no addresses of it.
fn is_absent(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(prefixes: &[&str]) -> BTreeSet<IpNet> {
        prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect()
    }

    /// Goal: a question without an answer removes no address; an answer does. Method: an address of each version is
    /// held, and the question for one version fails, or the kernel says that it lacks the version.
    #[test]
    fn an_unanswered_question_takes_no_address_away() {
        let held: Vec<IpNet> = set(&["192.0.2.1/32", "2001:db8::1/128"]).into_iter().collect();
        let all = |more: &[&str]| -> Vec<IpNet> { set(&[&GROUPS, more].concat()).into_iter().collect() };
        let failed = || Err(io::Error::from_raw_os_error(Errno::ENOBUFS as i32));
        let absent = || Err(io::Error::from_raw_os_error(Errno::EAFNOSUPPORT as i32));
        let other = set(&["192.0.2.2/32"]);
        let half = wanted(&held, [(false, Ok(other.clone())), (true, failed())]);
        assert_eq!(half.prefixes, all(&["192.0.2.2/32", "2001:db8::1/128"]));
        assert_eq!((half.versions, half.reasons.len()), (version_bit(false), 1));
        let none = wanted(&held, [(false, failed()), (true, failed())]);
        assert_eq!(none.prefixes, all(&["192.0.2.1/32", "2001:db8::1/128"]));
        assert_eq!((none.versions, none.reasons.len()), (0, 2));
        let whole = wanted(&held, [(false, Ok(other)), (true, absent())]);
        assert_eq!(whole.prefixes, all(&["192.0.2.2/32"]));
        assert_eq!((whole.versions, whole.reasons.len()), (version_bit(false) | version_bit(true), 0));
    }
}

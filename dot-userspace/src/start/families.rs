//! Removes wildcard listeners of an address family that this kernel lacks (`ipv6.disable=1`).
//!
//! Before: a config, whose default listens on both families. After: the remaining addresses can be bound.
//! Never: removes an address that the config names: `check` and the start report that as a mistake.

use std::{io, net::SocketAddr};

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use crate::config::Config;

/// Removes such listeners from the config; returns a line for each. `is_here` says whether the kernel has the family
/// of an address.
pub fn leave_out(config: &mut Config, is_here: impl Fn(SocketAddr) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut keep = |key: &str, address: SocketAddr| {
        let is_kept = !address.ip().is_unspecified() || is_here(address);
        if !is_kept {
            let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
            lines.push(format!("{key}: {address} is left out: this kernel has no {family}"));
        }
        is_kept
    };
    config.listen.dot.retain(|address| keep("listen.dot", *address));
    config.listen.do53.retain(|address| keep("listen.do53", *address));
    if config.acme.is_on() {
        config.acme.http_listen.retain(|address| keep("acme.http_listen", *address));
    }
    lines
}

/// Whether the kernel makes sockets of this family.
#[must_use]
pub fn is_here(address: SocketAddr) -> bool {
    match Socket::new(Domain::for_address(address), Type::STREAM, None) {
        Ok(_) => true,
        Err(error) => !is_missing(&error),
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: on a kernel without IPv6 the default listens on IPv4 only and says so; a configured address stays, and
    /// the start reports the mistake. Method: a family that the kernel lacks, and one that it has.
    #[test]
    fn a_wildcard_of_a_missing_family_is_left_out() {
        let mut config = Config::default();
        config.listen.do53 = vec!["[::]:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        let (dot, do53) = (config.listen.dot.clone(), config.listen.do53.clone());
        assert!(leave_out(&mut config, |_| true).is_empty());
        assert_eq!((&config.listen.dot, &config.listen.do53), (&dot, &do53));
        let lines = leave_out(&mut config, |address| address.is_ipv4());
        assert_eq!(lines[0], "listen.dot: [::]:853 is left out: this kernel has no IPv6");
        assert_eq!(lines.len(), 2);
        assert_eq!((config.listen.dot, config.listen.do53), (dot[..1].to_vec(), do53[1..].to_vec()));
    }

    /// Goal: a missing family is recognised by the kernel's error. Method: the error of a kernel without the family,
    /// and one of another kind.
    #[test]
    fn a_missing_family_is_known_by_its_error() {
        assert!(is_here("127.0.0.1:0".parse().unwrap()));
        assert!(is_missing(&io::Error::from_raw_os_error(Errno::EAFNOSUPPORT as i32)));
        assert!(!is_missing(&io::Error::from_raw_os_error(Errno::EMFILE as i32)));
    }
}

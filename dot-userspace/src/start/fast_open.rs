//! TCP Fast Open on listeners: a client's ClientHello may come with its SYN (RFC 7413, RFC 7858 §3.4).
//!
//! Before: `listen.fast_open` and a socket that is about to listen. After: the kernel accepts octets in a SYN, if the
//! machine's own setting permits it; [`state`] reports that.
//! Never: changes that setting, which applies to the whole machine.

use std::{fs, io, os::fd::AsFd};

use nix::{setsockopt_impl, sockopt_impl, sys::socket::setsockopt};

sockopt_impl!(
    /// Handshakes with octets that may wait for `accept`.
    FastOpenQueue,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_FASTOPEN,
    i32
);

/// Most SYNs with octets that wait: each holds a segment of a client that has proved nothing but a cookie. 256, as
/// many as a worker's handshakes of a quarter of a second.
const WAITING_MAX: i32 = 256;
/// The kernel's setting for this network namespace, and its bit for listeners (ip-sysctl: tcp_fastopen).
const SETTING: &str = "/proc/sys/net/ipv4/tcp_fastopen";
const SETTING_OF_SERVERS: u32 = 2;

/// Lets clients of `socket` send octets with their SYN.
pub(super) fn permit(socket: impl AsFd) -> io::Result<()> {
    Ok(setsockopt(&socket, FastOpenQueue, &WAITING_MAX)?)
}

/// The state for an operator: "on", or the reason why it is off. `None`: the config does not ask for it.
pub(super) fn state(is_wanted: bool) -> Option<String> {
    is_wanted.then(|| describe(fs::read_to_string(SETTING).ok().as_deref()))
}

fn describe(setting: Option<&str>) -> String {
    let setting = setting.map(str::trim).unwrap_or_default();
    // Some operators write it in hexadecimal; the kernel shows it in decimal.
    match setting.parse::<u32>() {
        Ok(bits) if bits & SETTING_OF_SERVERS != 0 => "on".to_owned(),
        Ok(bits) => format!("off (net.ipv4.tcp_fastopen is {bits}: set it to {})", bits | SETTING_OF_SERVERS),
        Err(_) => "off (this kernel has no net.ipv4.tcp_fastopen)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_machine_permits() {
        assert_eq!(state(false), None);
        for (setting, expected) in [
            (Some("3\n"), "on"),
            (Some("1538\n"), "on"),
            (Some("1\n"), "off (net.ipv4.tcp_fastopen is 1: set it to 3)"),
            (Some("0\n"), "off (net.ipv4.tcp_fastopen is 0: set it to 2)"),
            (None, "off (this kernel has no net.ipv4.tcp_fastopen)"),
        ] {
            assert_eq!(describe(setting), expected);
        }
    }
}

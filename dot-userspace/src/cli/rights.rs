//! Which rights of this process matter to dotd, as the kernel states them.
//!
//! Before: `/proc/self/status`. After: `dotd check` says what would work. Never: changes a right (`start`
//! does).
//!
//! Source: capabilities(7).

use std::fs;

/// The rights that `dotd run` would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    effective: u64,
}

impl Rights {
    /// Those of this process; none when the kernel does not say.
    pub(super) fn of_this_process() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self::from_status(&status)
    }

    fn from_status(status: &str) -> Self {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let effective = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        Self { effective }
    }

    /// What XDP lacks, by name; empty when nothing.
    pub(super) fn lacking_for_xdp(self) -> Vec<&'static str> {
        let has = |bit: u32| self.effective & (1 << bit) != 0;
        let needed = [
            ("CAP_NET_ADMIN", has(NET_ADMIN)),
            ("CAP_BPF", has(BPF) || has(SYS_ADMIN)),
            ("CAP_PERFMON", has(PERFMON) || has(SYS_ADMIN)),
        ];
        needed.into_iter().filter(|(_, is_there)| !is_there).map(|(name, _)| name).collect()
    }

    /// Whether `server.user` can be another than now.
    pub(super) fn may_become_another(self) -> bool {
        self.effective & (1 << SETUID) != 0
    }

    /// Whether ports below `net.ipv4.ip_unprivileged_port_start` can be opened.
    pub(super) fn may_open(self, port: u16) -> bool {
        let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok();
        let first = first.and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
        port >= first || self.effective & (1 << NET_BIND_SERVICE) != 0
    }
}

const SETUID: u32 = 7;
const NET_BIND_SERVICE: u32 = 10;
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the mask is read right: root lacks nothing, a user everything, CAP_SYS_ADMIN stands for the
    /// newer two.
    #[test]
    fn names_what_is_lacking() {
        let lacking = |mask: &str| {
            Rights::from_status(&format!("Name:\tx\nCapEff:\t{mask}\nCapBnd:\t0\n")).lacking_for_xdp()
        };
        assert!(lacking("000001ffffffffff").is_empty());
        assert_eq!(lacking("0000000000000000"), ["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"]);
        assert!(lacking(&format!("{:016x}", (1u64 << 21) | (1 << 12))).is_empty());
        assert_eq!(lacking(&format!("{:016x}", (1u64 << 39) | (1 << 38))), ["CAP_NET_ADMIN"]);
        assert_eq!(lacking("garbage").len(), 3);
    }
}

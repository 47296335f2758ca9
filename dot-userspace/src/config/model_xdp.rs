//! The shape of `[xdp]` in `dotd.toml`: every key, its unit and its meaning.
//!
//! Before: `config::load` has the file's text. After: `config::range` and `config::consistency`, then only the `xdp`
//! module.
//! Never: knows maps or programs.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// `[xdp]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Xdp {
    /// How to attach.
    pub mode: XdpMode,
    /// Refuse to start without XDP on every interface.
    pub required: bool,
    /// Interfaces; empty: those that carry the listen addresses.
    pub interfaces: Vec<String>,
    /// Cleartext on TCP/853.
    pub cleartext_853: Gate,
    /// TLS on TCP/53.
    pub tls_53: Gate,
    /// Anything on UDP/853.
    pub udp_853: Gate,
    /// Whether lists, bans and limits apply to port 53.
    pub port_53: Port53,
    /// Prefixes without any limit; gates apply to them too.
    pub allow: Vec<IpNet>,
    /// Prefixes whose packets are dropped, whatever other keys say.
    pub deny: Vec<IpNet>,
    /// How connections find their worker.
    pub steering: Steering,
    /// SYN cookies made by XDP.
    pub syn_cookies: SynCookies,
    /// Rates per client prefix.
    pub limit: XdpLimit,
}

impl Xdp {
    /// The same with `port_53` resolved by these addresses of `listen.do53`.
    #[must_use]
    pub fn beside(&self, do53: &[SocketAddr]) -> Self {
        let mut xdp = self.clone();
        if xdp.port_53 == Port53::Auto {
            let is_ours = do53.iter().any(|address| address.port() == 53);
            xdp.port_53 = if is_ours { Port53::On } else { Port53::Off };
        }
        xdp
    }
}

/// `xdp.port_53`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Port53 {
    /// If `listen.do53` has an address with this port.
    Auto,
    /// Also for another server's clients.
    On,
    /// Not at all.
    Off,
}

/// `xdp.mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native, then generic, then off.
    Auto,
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
    /// Not at all.
    Off,
}

/// The action of a gate for a packet that does not belong on the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// Drop it.
    Drop,
    /// Reset its connection.
    Reset,
    /// Let it pass, count it as `would_drop`.
    Count,
    /// Let it pass.
    Pass,
}

/// `xdp.steering`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Steering {
    /// The best method of this kernel.
    Auto,
    /// Packets move to the worker's CPU.
    Cpumap,
    /// Connections go to the worker of the packet's CPU.
    Reuseport,
    /// The kernel's own hash.
    Off,
}

/// `xdp.syn_cookies`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SynCookies {
    /// Above `xdp.limit.syn_flood_rate`.
    Auto,
    /// For every SYN.
    Always,
    /// Above the same rate, at tc ingress and with the client's options; by XDP before Linux 6.9.
    Proxy,
    /// Never.
    Off,
}

/// `[xdp.limit]`: per client prefix; a rate of 0 is no limit.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct XdpLimit {
    /// Length of an IPv4 client prefix, in bits.
    pub prefix_v4: u8,
    /// Length of an IPv6 client prefix, in bits.
    pub prefix_v6: u8,
    /// TCP SYN per second, those to port 53 apart from those to DNS-over-TLS ports.
    pub syn_per_second: u32,
    /// TCP SYN at once.
    pub syn_burst: u32,
    /// The treatment of SYNs to a DNS-over-TLS port over the limit.
    pub syn_over: SynOver,
    /// UDP/53 queries per second.
    pub udp53_per_second: u32,
    /// UDP/53 queries at once.
    pub udp53_burst: u32,
    /// The treatment of UDP/53 over the limit.
    pub udp53_over: Over,
    /// Handshake cost per second: full 1, resumed 0.2, failed 3.
    pub handshake_cost_per_second: u32,
    /// Length of a wider IPv4 prefix, in bits.
    pub wide_v4: u8,
    /// Length of a wider IPv6 prefix, in bits.
    pub wide_v6: u8,
    /// Finished connections per second of a wider prefix.
    pub wide_connections_per_second: u32,
    /// Handshake cost per second of a wider prefix.
    pub wide_cost_per_second: u32,
    /// Length of a ban in seconds.
    pub ban_seconds: u32,
    /// TCP SYN per second of all clients together above which XDP asks for cookies.
    pub syn_flood_rate: u32,
    /// Enforce, or only count, whatever `udp53_over` says.
    pub mode: LimitMode,
}

/// `xdp.limit.syn_over`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SynOver {
    /// Let the stack answer with a cookie once its queue is full: only clients that finish too many connections are
    /// refused.
    Cookie,
    /// Drop it.
    Drop,
}

/// `xdp.limit.udp53_over`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// Answer TC=1 so that a real client comes back over TCP.
    Truncate,
    /// Drop.
    Drop,
    /// Let pass and count.
    Count,
}

/// `xdp.limit.mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitMode {
    /// Limits refuse.
    Enforce,
    /// Limits count what they would refuse.
    Count,
}

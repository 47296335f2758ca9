//! The shape of `[misuse]` in `dotd.toml`: the limits for clients and domains, and the actions above them.
//!
//! Before: `config::load` has the file's text. After: `config::consistency_misuse`, then the `policy` module alone.
//! Never: counts a query.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;

/// `[misuse]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Misuse {
    /// The length of a window, in which everything is counted.
    #[serde(with = "duration")]
    pub window: Duration,
    /// Time that an action lasts after its reason was last found.
    #[serde(with = "duration")]
    pub hold: Duration,
    /// Domains below which nothing is judged by its names.
    pub ignore: Vec<String>,
    /// Messages a second of a delayed client.
    pub delayed_per_second: u32,
    /// Floods of random names below a domain.
    pub random_names: MisuseAction,
    /// Fewest different names below a flooded domain in a window.
    pub random_names_min: u32,
    /// Smallest percentage of answers without data of a flooded domain.
    pub random_names_missing_percent: u8,
    /// New names that backends get in a window below a flooded domain.
    pub random_names_budget: u32,
    /// Tunnels through names and answers.
    pub tunnel: MisuseAction,
    /// Octets of long new names below a domain, of one client in a window, that are a tunnel.
    pub tunnel_name_octets: u32,
    /// The same of answers of types that tunnels use.
    pub tunnel_answer_octets: u32,
    /// Clients whose answers are failures.
    pub failures: MisuseAction,
    /// Fewest answers of a client in a window that are judged.
    pub failures_min: u32,
    /// Percentage of NXDOMAIN and SERVFAIL among them.
    pub failures_percent: u8,
    /// Clients that ask too much.
    pub queries: MisuseAction,
    /// Most messages of a client in a window.
    pub queries_max: u32,
    /// Clients that get too much.
    pub answer_octets: MisuseAction,
    /// Most octets of answers to a client in a window.
    pub answer_octets_max: u32,
}

/// The action for a misuse, from the mildest to the strictest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MisuseAction {
    /// It is not looked for.
    #[default]
    Off,
    /// It is counted and shown.
    Count,
    /// Messages over connections wait; datagrams get TC=1.
    Delay,
    /// Datagrams get TC=1, so that the client comes over TCP.
    Truncate,
    /// Queries are REFUSED.
    Refuse,
    /// The session ends; datagrams get TC=1.
    Close,
    /// The same, and the kernel half refuses the client's next connections for `xdp.limit.ban_seconds`.
    Ban,
}

impl MisuseAction {
    /// Its name in the config and in `dotd misuse`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Count => "count",
            Self::Delay => "delay",
            Self::Truncate => "truncate",
            Self::Refuse => "refuse",
            Self::Close => "close",
            Self::Ban => "ban",
        }
    }
}

impl Misuse {
    /// Each kind with its action, by key.
    #[must_use]
    pub const fn actions(&self) -> [(&'static str, MisuseAction); 5] {
        [
            ("random_names", self.random_names),
            ("tunnel", self.tunnel),
            ("failures", self.failures),
            ("queries", self.queries),
            ("answer_octets", self.answer_octets),
        ]
    }
}

//! The peers: what each is, how it is started, which template it is configured by.
//!
//! Before: a name. After: `stage` fills the template and `process` starts the program.
//! Holds: the one table of peers. Never: looks at the machine.

/// What a front end does with a query: only like is compared with like without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Asks the backend for every query.
    Relay,
    /// Answers by itself, from a zone or from its cache.
    Answers,
    /// dotd; it asks the backend for every query.
    Ours,
    /// What is measured against, and no server.
    Floor,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Answers => "answers itself",
            Self::Ours => "ours, relay",
            Self::Floor => "floor",
        }
    }
}

/// Where the program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// On PATH, or where administrators' programs are.
    Installed(&'static str),
    /// `--dotd`
    Dotd,
    /// `--floor`
    Floor,
}

/// One peer. In arguments and template stand names to fill, in at signs: see `stage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) program: Program,
    pub(super) arguments: &'static [&'static str],
    /// Arguments that make it say its version.
    pub(super) version: &'static [&'static str],
    pub(super) config: &'static str,
    /// How it reaches the backend, or `none`.
    pub(super) transport: &'static str,
    /// Does it answer from the zone? An echo does not.
    pub(super) is_answering: bool,
}

/// All peers, in the order of the tables.
pub(super) const CATALOG: &[Entry] = &[
    Entry {
        name: "stunnel",
        program: Program::Installed("stunnel4"),
        arguments: &["@CONFIG@"],
        version: &["-version"],
        config: include_str!("../../peers/stunnel.conf"),
        transport: "tcp",
        ..RELAY
    },
    Entry {
        name: "haproxy",
        program: Program::Installed("haproxy"),
        arguments: &["-db", "-f", "@CONFIG@"],
        version: &["-v"],
        config: include_str!("../../peers/haproxy.conf"),
        transport: "tcp",
        ..RELAY
    },
    Entry {
        name: "nginx",
        program: Program::Installed("nginx"),
        arguments: &["-e", "stderr", "-c", "@CONFIG@"],
        version: &["-v"],
        config: include_str!("../../peers/nginx.conf"),
        transport: "tcp",
        ..RELAY
    },
    Entry { name: "dnsdist", config: include_str!("../../peers/dnsdist.conf"), ..DNSDIST },
    Entry {
        name: "dnsdist-cache",
        kind: Kind::Answers,
        config: include_str!("../../peers/dnsdist-cache.conf"),
        ..DNSDIST
    },
    Entry {
        name: "unbound",
        kind: Kind::Answers,
        program: Program::Installed("unbound"),
        arguments: &["-d", "-c", "@CONFIG@"],
        version: &["-V"],
        config: include_str!("../../peers/unbound.conf"),
        transport: "none",
        ..RELAY
    },
    Entry {
        name: "named",
        kind: Kind::Answers,
        program: Program::Installed("named"),
        arguments: &["-g", "-n", "1", "-c", "@CONFIG@"],
        version: &["-v"],
        config: include_str!("../../peers/named.conf"),
        transport: "none",
        ..RELAY
    },
    Entry {
        name: "knot",
        kind: Kind::Answers,
        program: Program::Installed("kresd"),
        arguments: &["-n", "-c", "@CONFIG@", "@DIR@"],
        version: &["-V"],
        config: include_str!("../../peers/knot.conf"),
        transport: "udp",
        ..RELAY
    },
    Entry { name: "dotd", transport: "udp", ..DOTD },
    Entry { name: "dotd-tcp", transport: "tcp", ..DOTD },
    Entry {
        name: "floor-echo",
        arguments: &["echo", FLOOR[0], FLOOR[1], FLOOR[2]],
        is_answering: false,
        ..FLOORS
    },
    Entry {
        name: "floor-relay",
        arguments: &["relay", FLOOR[0], FLOOR[1], FLOOR[2], "--backend=127.0.0.1:@BACKEND_PORT@"],
        transport: "udp",
        ..FLOORS
    },
];

const RELAY: Entry = Entry {
    name: "",
    kind: Kind::Relay,
    program: Program::Dotd,
    arguments: &[],
    version: &["--version"],
    config: "",
    transport: "",
    is_answering: true,
};

const DNSDIST: Entry = Entry {
    program: Program::Installed("dnsdist"),
    arguments: &["--supervised", "--disable-syslog", "-C", "@CONFIG@"],
    transport: "tcp",
    ..RELAY
};

const DOTD: Entry = Entry {
    kind: Kind::Ours,
    arguments: &["run", "-c", "@CONFIG@"],
    config: include_str!("../../peers/dotd.toml"),
    ..RELAY
};

const FLOOR: [&str; 3] = ["--listen=127.0.0.1:@PORT@", "--cert=@CERT@", "--key=@KEY@"];

const FLOORS: Entry = Entry { kind: Kind::Floor, program: Program::Floor, transport: "none", ..RELAY };

/// The backend of all relays, told like a peer.
pub(super) const BACKEND: Entry = Entry {
    name: "nsd",
    program: Program::Installed("nsd"),
    arguments: &["-d", "-c", "@CONFIG@"],
    version: &["-v"],
    config: include_str!("../../peers/nsd.conf"),
    transport: "none",
    ..RELAY
};

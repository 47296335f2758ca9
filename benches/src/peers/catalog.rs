//! The peers: the kind of each, its command line, its config template.
//!
//! Before: a name. After: `stage` fills the template and `process` starts the program.
//! Holds: the one table of peers. Never: looks at the machine.

/// The way a front end handles a query: only front ends of the same kind are compared without a remark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Asks the backend for every query.
    Relay,
    /// Answers by itself, from a zone or from its cache.
    Answers,
    /// dotd; it asks the backend for every query.
    Ours,
    /// dotd with its cache.
    OursCached,
    /// A reference, which is no server.
    Floor,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Answers => "answers itself",
            Self::Ours => "ours, relay",
            Self::OursCached => "ours, from its cache",
            Self::Floor => "floor",
        }
    }
}

/// The backend behind a front end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// NSD: a write for each answer over TCP, a datagram for each over UDP.
    Nsd,
    /// `responder`: all answers to what was read in one write.
    Coalescing,
}

/// The place of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// On PATH, or where administrators' programs are.
    Installed(&'static str),
    /// `--dotd`
    Dotd,
    /// `--floor`
    Floor,
    /// `--responder`
    Responder,
}

/// One peer. Arguments and template contain names between at signs, which are filled in: see `stage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) program: Program,
    pub(crate) arguments: &'static [&'static str],
    /// Arguments that make it say its version.
    pub(crate) version: &'static [&'static str],
    pub(crate) config: &'static str,
    /// How it reaches the backend, or `none`.
    pub(crate) transport: &'static str,
    /// Whether it answers from the zone. An echo does not.
    pub(crate) is_answering: bool,
    /// Whether it is also measured with the backend that coalesces.
    pub(crate) is_coalesced: bool,
}

impl Entry {
    /// Whether it is measured with this backend.
    pub(crate) fn has(&self, backend: Backend) -> bool {
        backend == Backend::Nsd || self.is_coalesced
    }
}

/// All peers, in the order of the tables.
pub(crate) const CATALOG: &[Entry] = &[
    Entry {
        name: "stunnel",
        program: Program::Installed("stunnel4"),
        arguments: &["@CONFIG@"],
        version: &["-version"],
        config: include_str!("../../peers/stunnel.conf"),
        ..STREAMS
    },
    Entry {
        name: "haproxy",
        program: Program::Installed("haproxy"),
        arguments: &["-db", "-f", "@CONFIG@"],
        version: &["-v"],
        config: include_str!("../../peers/haproxy.conf"),
        ..STREAMS
    },
    Entry {
        name: "nginx",
        program: Program::Installed("nginx"),
        arguments: &["-e", "stderr", "-c", "@CONFIG@"],
        version: &["-v"],
        config: include_str!("../../peers/nginx.conf"),
        ..STREAMS
    },
    Entry { name: "dnsdist", config: include_str!("../../peers/dnsdist.conf"), ..DNSDIST },
    Entry {
        name: "dnsdist-cache",
        kind: Kind::Answers,
        config: include_str!("../../peers/dnsdist-cache.conf"),
        is_coalesced: false,
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
    Entry { name: "dotd-tcp", transport: "tcp", is_coalesced: true, ..DOTD },
    Entry {
        name: "dotd-cache",
        kind: Kind::OursCached,
        config: include_str!("../../peers/dotd-cache.toml"),
        transport: "udp",
        ..DOTD
    },
    Entry {
        name: "floor-echo",
        arguments: &["echo", FLOOR[0], FLOOR[1], FLOOR[2]],
        is_answering: false,
        ..FLOORS
    },
    Entry {
        name: "floor-relay",
        arguments: &["relay", FLOOR[0], FLOOR[1], FLOOR[2], FLOOR[3]],
        transport: "udp",
        ..FLOORS
    },
    Entry {
        name: "floor-relay-tcp",
        arguments: &["relay-tcp", FLOOR[0], FLOOR[1], FLOOR[2], FLOOR[3]],
        transport: "tcp",
        is_coalesced: true,
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
    is_coalesced: false,
};

/// The peers that ask over TCP.
pub(crate) const STREAMS: Entry = Entry { transport: "tcp", is_coalesced: true, ..RELAY };

pub(crate) const DNSDIST: Entry = Entry {
    program: Program::Installed("dnsdist"),
    arguments: &["--supervised", "--disable-syslog", "-C", "@CONFIG@"],
    ..STREAMS
};

pub(crate) const DOTD: Entry = Entry {
    kind: Kind::Ours,
    arguments: &["run", "-c", "@CONFIG@"],
    config: include_str!("../../peers/dotd.toml"),
    ..RELAY
};

const FLOOR: [&str; 4] =
    ["--listen=@ADDRESS@:@PORT@", "--cert=@CERT@", "--key=@KEY@", "--backend=127.0.0.1:@BACKEND_PORT@"];

const FLOORS: Entry = Entry { kind: Kind::Floor, program: Program::Floor, transport: "none", ..RELAY };

/// The backends of all relays, described like peers.
pub(crate) const BACKENDS: [(Backend, Entry); 2] = [(Backend::Nsd, NSD), (Backend::Coalescing, RESPONDER)];

const RESPONDER: Entry = Entry {
    name: "responder",
    program: Program::Responder,
    arguments: &["127.0.0.1:@PORT@"],
    transport: "none",
    ..RELAY
};

const NSD: Entry = Entry {
    name: "nsd",
    program: Program::Installed("nsd"),
    arguments: &["-d", "-c", "@CONFIG@"],
    version: &["-v"],
    config: include_str!("../../peers/nsd.conf"),
    transport: "none",
    ..RELAY
};

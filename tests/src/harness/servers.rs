//! Four DNS servers of other projects, all with the same signed zone, a TSIG key, and cookies where they support them.
//!
//! Before: a namespace and a kind. After: a [`Backend`] that answers, on loopback.
//! Holds: the zone's key, so that a validator can trust it. Never: signs: BIND's tools do.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command, sync::OnceLock};

use super::{
    backends::{Backend, zone},
    netns::Network,
    process::bound_to_namespace,
    scratch::Scratch,
};

/// Name of the TSIG key.
pub const KEY_NAME: &str = "key.dotd.test";
/// Its secret, HMAC-SHA256.
pub const KEY_SECRET: &str = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlYyE=";

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// NSD, with cookies.
    Nsd,
    /// Unbound, the zone as its own.
    Unbound,
    /// BIND 9, with cookies.
    Bind,
    /// Knot DNS.
    Knot,
}

impl Kind {
    /// Every server.
    pub const ALL: [Self; 4] = [Self::Nsd, Self::Unbound, Self::Bind, Self::Knot];

    /// The name of its program.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Nsd => "nsd",
            Self::Unbound => "unbound",
            Self::Bind => "named",
            Self::Knot => "knotd",
        }
    }

    /// Starts it with the signed zone on 127.0.0.1, at this port.
    #[must_use]
    pub fn start(self, network: &Network, port: u16) -> Backend {
        let scratch = Scratch::new();
        let file = scratch.write("dotd.test.zone", &signed().text);
        let folder = scratch.folder(self.program()).display().to_string();
        let place = Place { port, folder, file };
        let (text, words) = match self {
            Self::Nsd => (place.nsd(), &["-d", "-c"][..]),
            Self::Unbound => (place.unbound(), &["-d", "-c"][..]),
            Self::Bind => (place.bind(), &["-g", "-n", "1", "-c"][..]),
            Self::Knot => (place.knot(), &["-c"][..]),
        };
        let config = scratch.write("server.conf", text);
        let mut command = bound_to_namespace(self.program());
        command.args(words).arg(config);
        Backend::start(network, self.program(), SocketAddr::from(([127, 0, 0, 1], port)), scratch, command)
    }
}

/// The address and the folder of a server.
struct Place {
    port: u16,
    folder: String,
    file: PathBuf,
}

impl Place {
    fn nsd(&self) -> String {
        let Self { port, folder, file } = self;
        format!(
            "server:\n ip-address: 127.0.0.1@{port}\n server-count: 1\n username: \"\"\n chroot: \"\"\n \
             database: \"\"\n zonesdir: \"{folder}\"\n pidfile: \"\"\n xfrdir: \"{folder}\"\n \
             xfrdfile: \"{folder}/xfrd.state\"\n zonelistfile: \"{folder}/zone.list\"\n rrl-ratelimit: 0\n \
             answer-cookie: yes\n cookie-secret: \"{COOKIE_SECRET}\"\nremote-control:\n control-enable: no\n\
             key:\n name: {KEY_NAME}\n algorithm: hmac-sha256\n secret: \"{KEY_SECRET}\"\n\
             zone:\n name: dotd.test\n zonefile: \"{}\"\n provide-xfr: 127.0.0.1 {KEY_NAME}\n",
            file.display()
        )
    }

    fn unbound(&self) -> String {
        let Self { port, folder, file } = self;
        format!(
            "server:\n interface: 127.0.0.1@{port}\n port: {port}\n do-daemonize: no\n username: \"\"\n \
             chroot: \"\"\n directory: \"{folder}\"\n pidfile: \"\"\n use-syslog: no\n verbosity: 0\n \
             num-threads: 1\n module-config: \"iterator\"\n do-not-query-localhost: no\n \
             local-zone: \"test.\" nodefault\nauth-zone:\n name: dotd.test\n zonefile: \"{}\"\n \
             for-downstream: yes\n for-upstream: yes\nremote-control:\n control-enable: no\n",
            file.display()
        )
    }

    fn bind(&self) -> String {
        let Self { port, folder, file } = self;
        format!(
            "options {{ directory \"{folder}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; \
             pid-file none; session-keyfile none; lock-file none; recursion no; dnssec-validation no; \
             allow-query {{ any; }}; allow-transfer {{ key {KEY_NAME}; }}; notify no; }};\ncontrols {{ }};\n\
             key {KEY_NAME} {{ algorithm hmac-sha256; secret \"{KEY_SECRET}\"; }};\n\
             zone dotd.test {{ type primary; file \"{}\"; }};\n",
            file.display()
        )
    }

    fn knot(&self) -> String {
        let Self { port, folder, file } = self;
        format!(
            "server:\n  rundir: \"{folder}\"\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\ncontrol:\n  listen: \"{folder}/knot.sock\"\ndatabase:\n  \
             storage: \"{folder}\"\nkey:\n  - id: {KEY_NAME}\n    algorithm: hmac-sha256\n    \
             secret: {KEY_SECRET}\nacl:\n  - id: ours\n    key: {KEY_NAME}\n    action: [transfer]\n\
             zone:\n  - domain: dotd.test\n    file: \"{}\"\n    acl: ours\n    zonefile-sync: -1\n    \
             journal-content: none\n",
            file.display()
        )
    }
}

/// A key of 128 bits for RFC 9018's SipHash.
const COOKIE_SECRET: &str = "000102030405060708090a0b0c0d0e0f";

/// A signed zone.
#[derive(Debug)]
pub struct Signed {
    /// The zone file.
    pub text: String,
    /// The DNSKEY record that a validator trusts.
    pub anchor: String,
}

/// The zone of every server here, signed once for each run.
///
/// # Panics
/// When BIND's tools are missing or fail.
#[must_use]
pub fn signed() -> &'static Signed {
    static SIGNED: OnceLock<Signed> = OnceLock::new();
    SIGNED.get_or_init(|| {
        let scratch = Scratch::new();
        scratch.write("zone", zone());
        let key = run(&scratch, "dnssec-keygen", "-q -a ECDSAP256SHA256 -f KSK dotd.test");
        run(&scratch, "dnssec-signzone", &format!("-q -S -z -x -o dotd.test -f signed zone {}", key.trim()));
        let read = |name: &str| fs::read_to_string(scratch.path().join(name)).expect("the tools wrote it");
        let record = read(&format!("{}.key", key.trim()));
        let anchor = record.lines().find(|line| !line.starts_with(';')).expect("a DNSKEY record").to_owned();
        Signed { text: read("signed"), anchor }
    })
}

fn run(scratch: &Scratch, program: &str, words: &str) -> String {
    let mut command = Command::new(program);
    let output = command.current_dir(scratch.path()).args(words.split_whitespace()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {words}: {complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

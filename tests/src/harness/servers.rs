//! Four DNS servers of other projects, all with the same signed zone, a TSIG key, and cookies where they support them.
//!
//! Before: a namespace and a kind. After: a [`Backend`] that answers, on loopback.
//! Holds: the zone's key, so that a validator can trust it. Never: signs: BIND's tools do.

use std::{fs, net::SocketAddr, process::Command, sync::OnceLock};

use super::{
    backends::{Backend, zone},
    netns::Network,
    process::bound_to_namespace,
    scratch::Scratch,
    server_config::Site,
};

pub use super::server_config::{KEY_NAME, KEY_SECRET};

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
        let site = Site { port, folder, zone: "dotd.test", file };
        let text = match self {
            Self::Nsd => site.nsd(
                &format!(" answer-cookie: yes\n cookie-secret: \"{COOKIE_SECRET}\"\n"),
                &format!(" provide-xfr: 127.0.0.1 {KEY_NAME}\n"),
            ),
            Self::Unbound => unbound(&site),
            Self::Bind => site.bind("notify no;", ""),
            Self::Knot => site.knot(
                &format!("acl:\n  - id: ours\n    key: {KEY_NAME}\n    action: transfer\n"),
                "    journal-content: none\n",
            ),
        };
        self.run(network, port, scratch, &text)
    }

    /// Starts it with this config.
    pub(super) fn run(self, network: &Network, port: u16, scratch: Scratch, text: &str) -> Backend {
        let words = match self {
            Self::Nsd | Self::Unbound => &["-d", "-c"][..],
            Self::Bind => &["-g", "-n", "1", "-c"],
            Self::Knot => &["-c"],
        };
        let config = scratch.write("server.conf", text);
        let mut command = bound_to_namespace(self.program());
        command.args(words).arg(config);
        Backend::start(network, self.program(), SocketAddr::from(([127, 0, 0, 1], port)), scratch, command)
    }
}

fn unbound(Site { port, folder, zone, file }: &Site<'_>) -> String {
    format!(
        "server:\n interface: 127.0.0.1@{port}\n port: {port}\n do-daemonize: no\n username: \"\"\n \
         chroot: \"\"\n directory: \"{folder}\"\n pidfile: \"\"\n use-syslog: no\n verbosity: 0\n \
         num-threads: 1\n module-config: \"iterator\"\n do-not-query-localhost: no\n \
         local-zone: \"test.\" nodefault\nauth-zone:\n name: {zone}\n zonefile: \"{}\"\n \
         for-downstream: yes\n for-upstream: yes\nremote-control:\n control-enable: no\n",
        file.display()
    )
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

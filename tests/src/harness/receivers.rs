//! DNS servers of other projects that read PROXY headers, configured so that their answer shows which client they see.
//!
//! Before: a namespace. After: a [`Backend`] on 127.0.0.3 that expects a header from 127.0.0.1, dotd's source address,
//! and answers `www.dotd.test` A with [`SEEN`] for the test's client alone.
//! Never: sends a header to them itself: dotd does that.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{
    backends::Backend,
    netns::{CLIENT_V4, Network},
    process::{bound_to_namespace, bounded},
    scratch::Scratch,
};

/// The answer for a client whose own address was seen.
pub const SEEN: [u8; 4] = [192, 0, 2, 77];
/// The answer for every other client.
const OTHERS: [u8; 4] = [192, 0, 2, 1];
/// The address at which they listen.
pub const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 3], 5300);
/// The address at which BIND listens without a header: elsewhere it accepts no query without one.
const PLAIN: ([u8; 4], u16) = ([127, 0, 0, 4], 5300);

/// A server that reads headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// Knot DNS, since 3.2: only over UDP, only for clients over UDP, and without LOCAL, so that health checks fail.
    /// Its module `whoami` answers with the client's address.
    Knot,
    /// Knot Resolver, since 5.4; over a connection only for octets that it reads together with the header.
    KnotResolver,
    /// dnsdist, since 1.5.
    Dnsdist,
    /// PowerDNS Recursor, since 4.4.
    Recursor,
    /// PowerDNS Authoritative, since 4.6.
    Authoritative,
    /// BIND, since 9.20.
    Bind,
}

impl Receiver {
    /// The name of its program.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Knot => "knotd",
            Self::KnotResolver => "kresd",
            Self::Dnsdist => "dnsdist",
            Self::Recursor => "pdns_recursor",
            Self::Authoritative => "pdns_server",
            Self::Bind => "named",
        }
    }

    /// Its answer to the test's client.
    #[must_use]
    pub fn seen(self) -> [u8; 4] {
        match (self, CLIENT_V4) {
            (Self::Knot, IpAddr::V4(client)) => client.octets(),
            _ => SEEN,
        }
    }

    /// Starts it.
    #[must_use]
    pub fn start(self, network: &Network) -> Backend {
        let scratch = Scratch::new();
        let folder = scratch.folder("run").display().to_string();
        let (file, text) = match self {
            Self::Knot => ("knot.conf", knot(&scratch, &folder)),
            Self::KnotResolver => ("kresd.conf", knot_resolver()),
            Self::Dnsdist => ("dnsdist.conf", dnsdist()),
            Self::Recursor => ("recursor.conf", recursor(&scratch, &folder)),
            Self::Authoritative => ("pdns.conf", authoritative(&scratch, &folder)),
            Self::Bind => ("named.conf", bind(&scratch, &folder)),
        };
        let config = scratch.write(file, text).display().to_string();
        let mut command = bound_to_namespace(self.program());
        match self {
            Self::Knot => command.args(["-c", &config]),
            Self::KnotResolver => command.args(["-n", "-c", &config, &folder]),
            Self::Dnsdist => command.args(["--supervised", "--disable-syslog", "-C", &config]),
            Self::Recursor | Self::Authoritative => {
                command.args([&format!("--config-dir={}", scratch.path().display()), "--daemon=no"])
            }
            Self::Bind => command.args(["-g", "-n", "1", "-c", &config]),
        };
        let address = if self == Self::Bind { PLAIN } else { ADDRESS };
        Backend::start(network, self.program(), SocketAddr::from(address), scratch, command)
    }
}

/// The reason why this BIND cannot be used; `None`: it can.
#[must_use]
pub fn bind_lacks_proxy() -> Option<String> {
    let scratch = Scratch::new();
    let config = scratch.write("named.conf", "options { allow-proxy { 127.0.0.1; }; };\n");
    let said = bounded("named-checkconf").arg(config).output().ok()?;
    if said.status.success() {
        return None;
    }
    let version = bounded("named").arg("-v").output().ok()?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    Some(format!("{version} has no `allow-proxy`, which came with 9.20"))
}

fn knot(scratch: &Scratch, folder: &str) -> String {
    let zone = |name: &str| {
        let text = format!(
            "$ORIGIN {name}.\n@ 60 SOA ns.example. hostmaster.example. 1 3600 600 86400 60\n@ 60 NS ns.example.\n"
        );
        scratch.write(name, text).display().to_string()
    };
    let ([a, b, c, d], port) = ADDRESS;
    format!(
        "server:\n  rundir: \"{folder}\"\n  listen: {a}.{b}.{c}.{d}@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  \
         background-workers: 1\n  proxy-allowlist: 127.0.0.1\ncontrol:\n  listen: \"{folder}/knot.sock\"\n\
         database:\n  storage: \"{folder}\"\ntemplate:\n  - id: default\n    zonefile-sync: -1\n    \
         journal-content: none\nzone:\n  - domain: www.dotd.test\n    module: mod-whoami\n    file: \"{}\"\n  \
         - domain: dotd.test\n    file: \"{}\"\n",
        zone("www.dotd.test"),
        zone("dotd.test"),
    )
}

fn knot_resolver() -> String {
    let ([a, b, c, d], port) = ADDRESS;
    let answer = |address: Ipv4Addr| {
        format!(
            "policy.all(policy.ANSWER({{ [kres.type.A] = {{ rdata = kres.str2ip('{address}'), ttl = 1 }} }}, true))"
        )
    };
    format!(
        "net.listen('{a}.{b}.{c}.{d}', {port}, {{ kind = 'dns' }})\nnet.proxy_allowed({{ '127.0.0.1' }})\n\
         modules = {{ 'view < policy' }}\ncache.size = 10 * MB\ntrust_anchors.remove('.')\n\
         view:addr('{CLIENT_V4}/32', {})\nview:addr('0.0.0.0/0', {})\n",
        answer(SEEN.into()),
        answer(OTHERS.into()),
    )
}

fn dnsdist() -> String {
    let ([a, b, c, d], port) = ADDRESS;
    format!(
        "setLocal('{a}.{b}.{c}.{d}:{port}')\nsetACL({{'0.0.0.0/0'}})\nsetProxyProtocolACL({{'127.0.0.1/32'}})\n\
         addAction(NotRule(QTypeRule(DNSQType.A)), RCodeAction(DNSRCode.NOERROR))\n\
         addAction(makeRule('{CLIENT_V4}/32'), SpoofAction('{}'))\naddAction(AllRule(), SpoofAction('{}'))\n",
        Ipv4Addr::from(SEEN),
        Ipv4Addr::from(OTHERS),
    )
}

fn recursor(scratch: &Scratch, folder: &str) -> String {
    let ([a, b, c, d], port) = ADDRESS;
    let script = scratch.write(
        "seen.lua",
        format!(
            "function preresolve(dq)\n  if dq.remoteaddr:toString() == '{CLIENT_V4}' then\n    \
             dq:addAnswer(pdns.A, '{}')\n  else\n    dq:addAnswer(pdns.A, '{}')\n  end\n  return true\nend\n",
            Ipv4Addr::from(SEEN),
            Ipv4Addr::from(OTHERS),
        ),
    );
    format!(
        "local-address={a}.{b}.{c}.{d}:{port}\nproxy-protocol-from=127.0.0.1/32\nallow-from=0.0.0.0/0\nthreads=1\n\
         socket-dir={folder}\nlua-dns-script={}\ndnssec=off\nhint-file=no\nsecurity-poll-suffix=\nsetuid=\nsetgid=\n\
         disable-syslog=yes\n",
        script.display()
    )
}

/// A record that is computed from the client's address.
fn authoritative(scratch: &Scratch, folder: &str) -> String {
    let ([a, b, c, d], port) = ADDRESS;
    let (seen, others) = (Ipv4Addr::from(SEEN), Ipv4Addr::from(OTHERS));
    let zone = scratch.write(
        "authoritative.zone",
        format!(
            "$ORIGIN dotd.test.\n@ 60 SOA ns.dotd.test. hostmaster.dotd.test. 1 3600 600 86400 60\n@ 60 NS ns\n\
             ns 60 A 192.0.2.53\nwww 60 LUA A \"view({{ {{ {{'{CLIENT_V4}/32'}}, {{'{seen}'}} }}, \
             {{ {{'0.0.0.0/0'}}, {{'{others}'}} }} }})\"\n"
        ),
    );
    let zones = scratch.write(
        "zones.conf",
        format!("zone \"dotd.test\" {{ type master; file \"{}\"; }};\n", zone.display()),
    );
    format!(
        "launch=bind\nbind-config={}\nlocal-address={a}.{b}.{c}.{d}:{port}\nproxy-protocol-from=127.0.0.1/32\n\
         enable-lua-records=yes\nsocket-dir={folder}\nsecurity-poll-suffix=\nreceiver-threads=1\n\
         distributor-threads=1\ncache-ttl=0\nsetuid=\nsetgid=\n",
        zones.display()
    )
}

/// A view for the client alone, with another zone than other clients see.
fn bind(scratch: &Scratch, folder: &str) -> String {
    let zone = |address: Ipv4Addr| {
        format!(
            "$ORIGIN dotd.test.\n@ 60 SOA ns.dotd.test. hostmaster.dotd.test. 1 3600 600 86400 60\n@ 60 NS ns\n\
             ns 60 A 192.0.2.53\nwww 60 A {address}\n"
        )
    };
    let seen = scratch.write("seen.zone", zone(SEEN.into()));
    let other = scratch.write("other.zone", zone(OTHERS.into()));
    let view = |name: &str, clients: &str, file: &std::path::Path| {
        format!(
            "view {name} {{ match-clients {{ {clients}; }}; zone dotd.test {{ type primary; file \"{}\"; }}; }};\n",
            file.display()
        )
    };
    let ([a, b, c, d], port) = ADDRESS;
    let ([p, q, r, s], plain) = PLAIN;
    format!(
        "options {{ directory \"{folder}\"; listen-on port {port} proxy plain {{ {a}.{b}.{c}.{d}; }}; \
         listen-on port {plain} {{ {p}.{q}.{r}.{s}; }}; listen-on-v6 {{ none; }}; allow-proxy {{ 127.0.0.1; }}; \
         pid-file none; session-keyfile none; lock-file none; recursion no; allow-query {{ any; }}; }};\n\
         controls {{ }};\n{}{}",
        view("seen", &CLIENT_V4.to_string(), &seen),
        view("other", "any", &other),
    )
}

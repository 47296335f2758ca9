//! Real DNS servers from apt behind dotd, on loopback in the server's namespace.
//!
//! Before: a namespace. After: the server has answered a query, so it is up.
//! Holds: one generated zone, with the names of dotd's embedded zone and a thousand hosts more.
//! Never: runs as a service; waits for a fixed time.

use std::{
    fmt::Write,
    fs::{self, File},
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    eventually,
    message::{Query, REFUSED, SOA},
    netns::Network,
    process::{Process, bound_to_namespace, bounded},
    response::Message,
    scratch::Scratch,
    uninterrupted,
};

/// Names `host-0.dotd.test` and so on.
pub const HOSTS: usize = 1000;
/// Octets in the TXT record of `big.dotd.test`, in strings of 200.
pub const BIG_OCTETS: usize = 5000;

/// The secret of NSD's key `transfer` (hmac-sha256).
pub const TSIG_SECRET: &str = "c2VjcmV0LW9mLXRoZS10ZXN0cy0zMi1vY3RldHMtbG9uZw==";
/// The port at which [`Backend::unbound_proxied`] expects PROXY headers.
pub const PROXIED_PORT: u16 = 5301;
/// The port at which it expects PROXY headers with TLS behind them.
pub const PROXIED_TLS_PORT: u16 = 5302;

/// A server that answers for `dotd.test`.
#[derive(Debug)]
pub struct Backend {
    /// Its address.
    pub address: SocketAddr,
    process: Process,
    scratch: Scratch,
}

impl Backend {
    /// NSD on 127.0.0.1, at this port.
    #[must_use]
    pub fn nsd(network: &Network, port: u16) -> Self {
        Self::nsd_at(network, SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// NSD at this address.
    #[must_use]
    pub fn nsd_at(network: &Network, address: SocketAddr) -> Self {
        let scratch = Scratch::new();
        let zone = scratch.write("dotd.test.zone", zone());
        Self::nsd_serving(network, address, scratch, &zone)
    }

    /// The same on 127.0.0.1, at this port, with these additional lines in its zone.
    #[must_use]
    pub fn nsd_with(network: &Network, port: u16, more: &str) -> Self {
        let scratch = Scratch::new();
        let zone = scratch.write("dotd.test.zone", zone() + more);
        Self::nsd_serving(network, SocketAddr::from(([127, 0, 0, 1], port)), scratch, &zone)
    }

    /// NSD on 127.0.0.1, at this port, with the same zone signed. The second value is the zone's key for a validator to
    /// trust: flags, protocol, algorithm, key.
    ///
    /// # Panics
    /// When BIND's tools do not sign it.
    #[must_use]
    pub fn nsd_signed(network: &Network, port: u16) -> (Self, String) {
        Self::nsd_signed_with(network, port, "")
    }

    /// The same with these additional lines in the zone.
    ///
    /// # Panics
    /// As [`Backend::nsd_signed`].
    #[must_use]
    pub fn nsd_signed_with(network: &Network, port: u16, more: &str) -> (Self, String) {
        let scratch = Scratch::new();
        scratch.write("dotd.test.zone", zone() + more);
        let bind = |program: &str, words: &[&str]| {
            let mut command = bounded(program);
            let output = command.args(words).current_dir(scratch.path()).output().expect("it can be started");
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        let algorithm = ["-q", "-a", "ECDSAP256SHA256"];
        let trusted = bind("dnssec-keygen", &[&algorithm[..], &["-f", "KSK", "dotd.test"]].concat());
        bind("dnssec-keygen", &[&algorithm[..], &["dotd.test"]].concat());
        bind("dnssec-signzone", &["-S", "-o", "dotd.test", "-f", "signed.zone", "dotd.test.zone"]);
        let key = fs::read_to_string(scratch.path().join(format!("{trusted}.key"))).expect("it was made");
        let line = key.lines().find(|line| !line.starts_with(';')).expect("a DNSKEY record");
        let key = line.split_once("DNSKEY").expect("a DNSKEY record").1.trim().to_owned();
        let zone = scratch.path().join("signed.zone");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        (Self::nsd_serving(network, address, scratch, &zone), key)
    }

    fn nsd_serving(network: &Network, address: SocketAddr, scratch: Scratch, zone: &Path) -> Self {
        let folder = scratch.folder("nsd").display().to_string();
        let text = format!(
            "server:\n ip-address: {}@{}\n server-count: 1\n username: \"\"\n chroot: \"\"\n database: \"\"\n \
             zonesdir: \"{folder}\"\n pidfile: \"\"\n xfrdir: \"{folder}\"\n \
             xfrdfile: \"{folder}/xfrd.state\"\n zonelistfile: \"{folder}/zone.list\"\n rrl-ratelimit: 0\n \
             tcp-count: 200\nremote-control:\n control-enable: no\nkey:\n name: \"transfer\"\n algorithm: hmac-sha256\n \
             secret: \"{TSIG_SECRET}\"\nzone:\n name: dotd.test\n zonefile: \"{}\"\n \
             provide-xfr: 127.0.0.0/8 NOKEY\n provide-xfr: 127.0.0.0/8 transfer\n",
            address.ip(),
            address.port(),
            zone.display(),
        );
        let config = scratch.write("nsd.conf", text);
        let mut command = bound_to_namespace("nsd");
        command.arg("-d").arg("-c").arg(config);
        Self::start(network, "nsd", address, scratch, command)
    }

    /// Unbound on 127.0.0.1, at this port, with the zone as its own.
    #[must_use]
    pub fn unbound(network: &Network, port: u16) -> Self {
        Self::unbound_with(network, port, Scratch::new(), "")
    }

    /// The same, which refuses every client.
    #[must_use]
    pub fn unbound_refusing(network: &Network, port: u16) -> Self {
        Self::unbound_with(network, port, Scratch::new(), " access-control: 127.0.0.1/32 refuse\n")
    }

    fn unbound_with(network: &Network, port: u16, scratch: Scratch, more: &str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let zone = scratch.write("dotd.test.zone", zone());
        let folder = scratch.folder("unbound").display().to_string();
        let text = format!(
            "server:\n interface: 127.0.0.1@{port}\n port: {port}\n do-daemonize: no\n username: \"\"\n \
             chroot: \"\"\n directory: \"{folder}\"\n pidfile: \"\"\n use-syslog: no\n verbosity: 0\n \
             num-threads: 1\n module-config: \"iterator\"\n do-not-query-localhost: no\n \
             local-zone: \"test.\" nodefault\n{more}\
             auth-zone:\n name: dotd.test\n zonefile: \"{}\"\n for-downstream: yes\n for-upstream: yes\n\
             remote-control:\n control-enable: no\n",
            zone.display(),
        );
        let config = scratch.write("unbound.conf", text);
        let mut command = bound_to_namespace("unbound");
        command.arg("-d").arg("-c").arg(config);
        Self::start(network, "unbound", address, scratch, command)
    }

    /// Unbound on every address, at this port. It asks `upstream` for `dotd.test`, and applies the response policy zone
    /// `rpz.lab` with this text.
    #[must_use]
    pub fn unbound_with_policy(network: &Network, port: u16, upstream: SocketAddr, policy: &str) -> Self {
        let scratch = Scratch::new();
        let folder = scratch.folder("unbound").display().to_string();
        let policy = scratch.write("rpz.lab.zone", policy).display().to_string();
        let (host, upstream) = (upstream.ip(), upstream.port());
        let text = format!(
            "server:\n interface: 0.0.0.0@{port}\n port: {port}\n do-daemonize: no\n username: \"\"\n \
             chroot: \"\"\n directory: \"{folder}\"\n pidfile: \"\"\n use-syslog: no\n verbosity: 0\n \
             num-threads: 1\n module-config: \"respip iterator\"\n do-not-query-localhost: no\n \
             access-control: 0.0.0.0/0 allow\n local-zone: \"test.\" nodefault\n\
             rpz:\n name: rpz.lab\n zonefile: \"{policy}\"\n\
             stub-zone:\n name: dotd.test\n stub-addr: {host}@{upstream}\n\
             remote-control:\n control-enable: no\n"
        );
        let config = scratch.write("unbound.conf", text);
        let mut command = bound_to_namespace("unbound");
        command.arg("-d").arg("-c").arg(config);
        Self::start(network, "unbound", SocketAddr::from(([127, 0, 0, 1], port)), scratch, command)
    }

    /// BIND as a resolver on loopback that asks `upstream` for `dotd.test`, with the response policy zone `rpz.lab` with this
    /// text.
    #[must_use]
    pub fn bind_with_policy(network: &Network, port: u16, upstream: SocketAddr, policy: &str) -> Self {
        let scratch = Scratch::new();
        let folder = scratch.folder("named").display().to_string();
        let policy = scratch.write("rpz.lab.zone", policy).display().to_string();
        let (host, upstream) = (upstream.ip(), upstream.port());
        let text = format!(
            "options {{ directory \"{folder}\"; pid-file none; session-keyfile none; recursion yes; notify no; \
             listen-on port {port} {{ any; }}; listen-on-v6 {{ none; }}; allow-query {{ any; }}; allow-recursion {{ any; }}; \
             dnssec-validation no; response-policy {{ zone \"rpz.lab\"; }} qname-wait-recurse no nsip-enable no nsdname-enable no; }};\n\
             controls {{ }};\nzone \"rpz.lab\" {{ type primary; file \"{policy}\"; }};\n\
             zone \"dotd.test\" {{ type forward; forward only; forwarders {{ {host} port {upstream}; }}; }};\n"
        );
        let config = scratch.write("named.conf", text);
        let mut command = bound_to_namespace("named");
        command.args(["-g", "-n", "1", "-c"]).arg(config);
        Self::start(network, "named", SocketAddr::from(([127, 0, 0, 1], port)), scratch, command)
    }

    /// Unbound as a DoT server of its own on every address, port 853: as clients would use it without dotd.
    #[must_use]
    pub fn unbound_over_tls(network: &Network) -> Self {
        let made = rcgen::generate_simple_self_signed(["ns.dotd.test".to_owned()]).expect("a certificate");
        let certificate = (&*made.cert.pem(), &*made.signing_key.serialize_pem());
        Self::unbound_tls(network, certificate, 853, "interface: 0.0.0.0@853\n interface: ::0@853\n")
    }

    /// Unbound with this certificate and key for TLS on [`Backend::tls_address`].
    #[must_use]
    pub fn unbound_with_certificate(network: &Network, certificate: (&str, &str)) -> Self {
        Self::unbound_tls(network, certificate, 5303, "interface: 127.0.0.1@5303\n")
    }

    /// The same, which closes the connection on a query for any name below `deny.dotd.test`.
    #[must_use]
    pub fn unbound_that_denies(network: &Network, certificate: (&str, &str)) -> Self {
        let more = "interface: 127.0.0.1@5303\n local-zone: \"deny.dotd.test.\" deny\n";
        Self::unbound_tls(network, certificate, 5303, more)
    }

    /// dnsmasq on 127.0.0.1 port 5300, which answers the queries of a connection one after the other. It gives this address
    /// for names of `dotd.test`, and asks `slow` for those of `slow.test`.
    #[must_use]
    pub fn dnsmasq(network: &Network, address: [u8; 4], slow: SocketAddr) -> Self {
        let at = SocketAddr::from(([127, 0, 0, 1], 5300));
        let mut command = bound_to_namespace("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
        ]);
        command.args(["--user=root", "--pid-file=", "--port=5300", "--listen-address=127.0.0.1"]);
        command.arg(format!("--address=/dotd.test/{}", std::net::Ipv4Addr::from(address)));
        command.arg(format!("--server=/slow.test/{}#{}", slow.ip(), slow.port()));
        Self::start(network, "dnsmasq", at, Scratch::new(), command)
    }

    /// The address at which [`Backend::unbound_with_certificate`] speaks TLS.
    #[must_use]
    pub fn tls_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 5303))
    }

    fn unbound_tls(network: &Network, certificate: (&str, &str), port: u16, addresses: &str) -> Self {
        let scratch = Scratch::new();
        let cert = scratch.write("cert.pem", certificate.0).display().to_string();
        let key = scratch.write("key.pem", certificate.1).display().to_string();
        let tls = format!(
            " {addresses} access-control: 0.0.0.0/0 allow\n \
             access-control: ::0/0 allow\n tls-port: {port}\n tls-service-pem: \"{cert}\"\n \
             tls-service-key: \"{key}\"\n"
        );
        Self::unbound_with(network, 5353, scratch, &tls)
    }

    /// Unbound on 127.0.0.1 port 5300, which logs each query with its client. It reads the client from a PROXY header
    /// on port [`PROXIED_PORT`], and on port [`PROXIED_TLS_PORT`] from a header in front of TLS with this certificate
    /// and key.
    #[must_use]
    pub fn unbound_proxied(network: &Network, certificate: (&str, &str)) -> Self {
        let scratch = Scratch::new();
        let cert = scratch.write("cert.pem", certificate.0).display().to_string();
        let key = scratch.write("key.pem", certificate.1).display().to_string();
        let more = format!(
            " interface: 127.0.0.1@{PROXIED_PORT}\n interface: 127.0.0.1@{PROXIED_TLS_PORT}\n \
             proxy-protocol-port: {PROXIED_PORT}\n proxy-protocol-port: {PROXIED_TLS_PORT}\n \
             tls-port: {PROXIED_TLS_PORT}\n tls-service-pem: \"{cert}\"\n tls-service-key: \"{key}\"\n \
             access-control: 0.0.0.0/0 allow\n access-control: ::0/0 allow\n log-queries: yes\n"
        );
        Self::unbound_with(network, 5300, scratch, &more)
    }

    /// Writes a file that it serves anew, and has it read its files again (HUP).
    pub(super) fn rewrite(&self, name: &str, text: &str) {
        self.scratch.write(name, text);
        let _ = kill(Pid::from_raw(i32::try_from(self.process.pid()).expect("a pid fits")), Signal::SIGHUP);
    }

    /// Its output so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    pub(super) fn start(
        network: &Network,
        name: &str,
        address: SocketAddr,
        scratch: Scratch,
        mut command: Command,
    ) -> Self {
        let log = File::create(scratch.path().join("log")).expect("our own folder");
        command.stdout(Stdio::null()).stderr(log);
        let process = Process::start(name, &network.server, &scratch, command);
        let backend = Self { address, process, scratch };
        let socket =
            network.server.run(move || UdpSocket::bind((address.ip(), 0)).expect("loopback has ports"));
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("not zero");
        let query = Query::new(1, "dotd.test", SOA).octets();
        eventually(&format!("{name} answers at {address}"), || {
            socket.send_to(&query, address).ok()?;
            let mut buffer = [0; 512];
            let length = uninterrupted(|| socket.recv(&mut buffer)).ok()?;
            let reply = Message::parse(&buffer[..length]);
            reply.filter(|reply| matches!(reply.rcode(), 0 | REFUSED)).map(|_| ())
        });
        backend
    }
}

impl Backend {
    /// Stops the server and its children: the kernel still accepts what is sent, but nothing answers.
    pub fn stop_all(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    /// Lets them go on.
    pub fn continue_all(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    /// Parents come before children, so that a process that forks leaves no child out.
    fn signal_all(&self, signal: Signal) {
        let mut family = vec![self.process.pid()];
        while let Some(pid) = family.pop() {
            let _ = kill(Pid::from_raw(i32::try_from(pid).expect("a pid fits")), signal);
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // A stopped process reacts to no other signal.
        self.continue_all();
        if thread::panicking() {
            let log = fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default();
            eprintln!("--- backend {} ---\n{log}---", self.address);
        }
    }
}

/// Lines for dnsperf: `count` queries, the hosts in turn, every seventh for a name that is not there.
#[must_use]
pub fn dnsperf_queries(count: usize) -> String {
    let mut text = String::new();
    for index in 0..count {
        let _ = match index % 7 {
            6 => writeln!(text, "absent-{index}.dotd.test A"),
            3 => writeln!(text, "host-{}.dotd.test AAAA", index % HOSTS),
            _ => writeln!(text, "host-{}.dotd.test A", index % HOSTS),
        };
    }
    text
}

/// The zone: the names of the embedded zone, and the hosts.
pub(super) fn zone() -> String {
    let mut text = String::from(
        "$ORIGIN dotd.test.\n$TTL 300\n@ SOA ns.dotd.test. hostmaster.dotd.test. 1 3600 600 86400 60\n\
         @ NS ns\n@ A 192.0.2.53\n@ AAAA 2001:db8::53\n@ MX 10 mail\nns A 192.0.2.53\nmail A 192.0.2.25\n\
         www A 192.0.2.80\nwww AAAA 2001:db8::80\ntxt TXT \"DNS over TLS\"\nbig TXT",
    );
    for index in 0..BIG_OCTETS / 200 {
        let _ = write!(
            text,
            " \"{}\"",
            char::from(b'a' + u8::try_from(index % 26).expect("small")).to_string().repeat(200)
        );
    }
    text.push('\n');
    for index in 0..HOSTS {
        let _ = writeln!(
            text,
            "host-{index} A 198.51.100.{}\nhost-{index} AAAA 2001:db8:1::{index:x}",
            index % 250
        );
    }
    text
}

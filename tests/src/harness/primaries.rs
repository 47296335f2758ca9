//! Primary servers of others that transfer a zone to dotd: NSD, BIND and Knot, with differences, NOTIFY, TSIG and TLS.
//!
//! Before: a namespace and a zone's text. After: a server on 127.0.0.1 that gives the zone away, and tells dotd of a newer one.
//! Never: waits until dotd has it: that is the test's.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    backends::Backend,
    netns::Network,
    pki::Issued,
    process::bound_to_namespace,
    scratch::Scratch,
    servers::{KEY_NAME, KEY_SECRET, Kind},
};

/// The zone of these servers.
pub const ZONE: &str = "rpz.lab";
/// Where BIND and NSD speak TLS.
pub const TLS_PORT: u16 = 5454;

/// A primary server.
#[derive(Debug)]
pub struct Primary {
    /// The server.
    pub backend: Backend,
}

/// What it does beside giving the zone away to the key.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// It tells dotd at 127.0.0.1 port 53 of newer versions.
    pub notifies: bool,
    /// Its certificate on [`TLS_PORT`].
    pub certificate: Option<Issued>,
}

/// Where it keeps its files, and what it is to do.
struct Place {
    port: u16,
    folder: String,
    zone: PathBuf,
    notifies: bool,
    /// Paths of certificate and key.
    tls: Option<(String, String)>,
}

impl Primary {
    /// Starts a server of this kind at 127.0.0.1 and `port`.
    ///
    /// # Panics
    /// For Unbound, which transfers nothing; when it does not answer.
    #[must_use]
    pub fn start(kind: Kind, network: &Network, port: u16, zone: &str, wishes: &Wishes) -> Self {
        let scratch = Scratch::new();
        let folder = scratch.folder("server").display().to_string();
        let write = |name: &str, text: &str| scratch.write(name, text).display().to_string();
        let tls = wishes.certificate.as_ref();
        let tls = tls.map(|issued| (write("cert.pem", &issued.cert), write("key.pem", &issued.key)));
        let notifies = wishes.notifies;
        let place = Place { port, folder, zone: scratch.write("zone", zone), notifies, tls };
        let (text, words) = match kind {
            Kind::Nsd => (place.nsd(), &["-d", "-c"][..]),
            Kind::Bind => (place.bind(), &["-g", "-n", "1", "-c"][..]),
            Kind::Knot => (place.knot(), &["-c"][..]),
            Kind::Unbound => panic!("Unbound transfers nothing"),
        };
        let config = scratch.write("server.conf", text);
        let mut command = bound_to_namespace(kind.program());
        command.args(words).arg(config);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self { backend: Backend::start(network, kind.program(), address, scratch, command) }
    }

    /// Has it serve another version.
    pub fn serve(&self, zone: &str) {
        self.backend.rewrite("zone", zone);
    }
}

impl Place {
    fn nsd(&self) -> String {
        let Self { port, folder, zone, notifies, tls } = self;
        let notify = if *notifies { format!(" notify: 127.0.0.1@53 {KEY_NAME}\n") } else { String::new() };
        let tls = tls.as_ref().map_or(String::new(), |(cert, key)| {
            format!(
                " ip-address: 127.0.0.1@{TLS_PORT}\n tls-port: {TLS_PORT}\n tls-service-pem: \"{cert}\"\n tls-service-key: \"{key}\"\n"
            )
        });
        format!(
            "server:\n ip-address: 127.0.0.1@{port}\n{tls} server-count: 1\n username: \"\"\n chroot: \"\"\n \
             database: \"\"\n zonesdir: \"{folder}\"\n pidfile: \"\"\n xfrdir: \"{folder}\"\n \
             xfrdfile: \"{folder}/xfrd.state\"\n zonelistfile: \"{folder}/zone.list\"\n rrl-ratelimit: 0\n\
             remote-control:\n control-enable: no\n\
             key:\n name: {KEY_NAME}\n algorithm: hmac-sha256\n secret: \"{KEY_SECRET}\"\n\
             zone:\n name: {ZONE}\n zonefile: \"{}\"\n provide-xfr: 127.0.0.0/8 {KEY_NAME}\n{notify} \
             store-ixfr: yes\n create-ixfr: yes\n",
            zone.display()
        )
    }

    fn bind(&self) -> String {
        let Self { port, folder, zone, notifies, tls } = self;
        let notify = match notifies {
            true => format!("notify explicit; also-notify {{ 127.0.0.1 port 53 key {KEY_NAME}; }};"),
            false => "notify no;".to_owned(),
        };
        let (tls_block, listen) = tls.as_ref().map_or_else(Default::default, |(cert, key)| {
            let block = format!("tls own {{ cert-file \"{cert}\"; key-file \"{key}\"; }};\n");
            (block, format!("listen-on port {TLS_PORT} tls own {{ 127.0.0.1; }};"))
        });
        format!(
            "{tls_block}options {{ directory \"{folder}\"; listen-on port {port} {{ 127.0.0.1; }}; {listen} listen-on-v6 {{ none; }}; \
             pid-file none; session-keyfile none; lock-file none; recursion no; dnssec-validation no; \
             allow-query {{ any; }}; allow-transfer {{ key {KEY_NAME}; }}; notify-delay 0; max-ixfr-ratio unlimited; {notify} }};\ncontrols {{ }};\n\
             key {KEY_NAME} {{ algorithm hmac-sha256; secret \"{KEY_SECRET}\"; }};\n\
             zone {ZONE} {{ type primary; file \"{}\"; ixfr-from-differences yes; journal \"{folder}/journal\"; }};\n",
            zone.display()
        )
    }

    fn knot(&self) -> String {
        let Self { port, folder, zone, notifies, .. } = self;
        let notify = if *notifies { "    notify: dotd\n" } else { "" };
        format!(
            "server:\n  rundir: \"{folder}\"\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\ncontrol:\n  listen: \"{folder}/knot.sock\"\ndatabase:\n  \
             storage: \"{folder}\"\nkey:\n  - id: {KEY_NAME}\n    algorithm: hmac-sha256\n    \
             secret: {KEY_SECRET}\nremote:\n  - id: dotd\n    address: 127.0.0.1@53\n    key: {KEY_NAME}\n\
             acl:\n  - id: ours\n    key: {KEY_NAME}\n    action: [transfer]\n\
             zone:\n  - domain: {ZONE}\n    file: \"{}\"\n    acl: ours\n    zonefile-sync: -1\n    \
             zonefile-load: difference\n    journal-content: changes\n{notify}",
            zone.display()
        )
    }
}

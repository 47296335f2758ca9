//! Primary servers of others that transfer a zone to dotd: NSD, BIND and Knot, with differences, NOTIFY, TSIG and TLS.
//!
//! Before: a namespace and a zone's text. After: a server on 127.0.0.1 that gives the zone away, and tells dotd of a newer one.
//! Never: waits until dotd has it: that is the test's.

use super::{
    backends::Backend,
    netns::Network,
    pki::Issued,
    scratch::Scratch,
    server_config::Site,
    servers::{KEY_NAME, Kind},
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
        let site = Site { port, folder, zone: ZONE, file: scratch.write("zone", zone) };
        let text = match kind {
            Kind::Nsd => nsd(&site, wishes.notifies, tls),
            Kind::Bind => bind(&site, wishes.notifies, tls),
            Kind::Knot => knot(&site, wishes.notifies),
            Kind::Unbound => panic!("Unbound transfers nothing"),
        };
        Self { backend: kind.run(network, port, scratch, &text) }
    }

    /// Has it serve another version.
    pub fn serve(&self, zone: &str) {
        self.backend.rewrite("zone", zone);
    }
}

fn nsd(site: &Site<'_>, notifies: bool, tls: Option<(String, String)>) -> String {
    let notify = if notifies { format!(" notify: 127.0.0.1@53 {KEY_NAME}\n") } else { String::new() };
    let tls = tls.map_or(String::new(), |(cert, key)| {
        format!(
            " ip-address: 127.0.0.1@{TLS_PORT}\n tls-port: {TLS_PORT}\n tls-service-pem: \"{cert}\"\n tls-service-key: \"{key}\"\n"
        )
    });
    let zone = format!(" provide-xfr: 127.0.0.0/8 {KEY_NAME}\n{notify} store-ixfr: yes\n create-ixfr: yes\n");
    site.nsd(&tls, &zone)
}

fn bind(site: &Site<'_>, notifies: bool, tls: Option<(String, String)>) -> String {
    let notify = match notifies {
        true => format!("notify explicit; also-notify {{ 127.0.0.1 port 53 key {KEY_NAME}; }};"),
        false => "notify no;".to_owned(),
    };
    let (tls_block, listen) = tls.map_or_else(Default::default, |(cert, key)| {
        let block = format!("tls own {{ cert-file \"{cert}\"; key-file \"{key}\"; }};\n");
        (block, format!("listen-on port {TLS_PORT} tls own {{ 127.0.0.1; }};"))
    });
    let options = format!("{listen} notify-delay 0; max-ixfr-ratio unlimited; {notify}");
    let zone = format!("ixfr-from-differences yes; journal \"{}/journal\";", site.folder);
    format!("{tls_block}{}", site.bind(&options, &zone))
}

fn knot(site: &Site<'_>, notifies: bool) -> String {
    let notify = if notifies { "    notify: dotd\n" } else { "" };
    let sections = format!(
        "remote:\n  - id: dotd\n    address: 127.0.0.1@53\n    key: {KEY_NAME}\n\
         acl:\n  - id: ours\n    key: {KEY_NAME}\n    action: [transfer]\n"
    );
    site.knot(&sections, &format!("    zonefile-load: difference\n    journal-content: changes\n{notify}"))
}

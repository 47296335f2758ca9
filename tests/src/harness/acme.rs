//! Pebble, the test authority of Let's Encrypt, in the client's namespace: it proves names at port 80 or by DNS as a public one does.
//!
//! Before: a namespace, and what the authority is to do. After: its directory answers.
//! Never: issues anything without a proof.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpStream},
    process::Stdio,
};

use serde_json::json;

use super::{
    backends::Backend,
    clients::tool,
    eventually,
    netns::{CLIENT_V4, Network, SERVER_V4},
    pki::Authority,
    process::{Process, bound_to_namespace},
    scratch::Scratch,
    servers::{KEY_NAME, KEY_SECRET, Kind},
};

/// The port of the directory.
const PORT: u16 = 14_000;
/// The port where it says its root.
const MANAGEMENT_PORT: u16 = 15_000;
/// The port of the names that it asks for.
const DNS_PORT: u16 = 8053;

/// What the authority does.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Seconds for which its certificates are valid.
    pub seconds: u64,
    /// Domains for which it issues nothing.
    pub blocked: Vec<&'static str>,
    /// The server that it asks for names; `None`: one of its own, for which every name is the server's IPv4 address.
    pub dns: Option<SocketAddr>,
    /// The key identifier and MAC key of the external account without which it opens no account.
    pub external: Option<(&'static str, &'static str)>,
}

impl Default for Wishes {
    fn default() -> Self {
        Self { seconds: 90 * 86_400, blocked: Vec::new(), dns: None, external: None }
    }
}

/// A running authority.
#[derive(Debug)]
pub struct Pebble {
    // Ended in this order.
    _pebble: Process,
    _names: Option<Process>,
    /// PEM of the authority of the directory's own certificate.
    pub ca: String,
    scratch: Scratch,
}

impl Pebble {
    /// Starts it.
    ///
    /// # Panics
    /// When it does not listen in time.
    #[must_use]
    pub fn start(network: &Network, wishes: &Wishes) -> Self {
        let (scratch, authority) = (Scratch::new(), Authority::new());
        let issued = authority.issue(&CLIENT_V4.to_string());
        let config = json!({ "pebble": {
            "listenAddress": format!("{CLIENT_V4}:{PORT}"),
            "managementListenAddress": format!("{CLIENT_V4}:{MANAGEMENT_PORT}"),
            "certificate": scratch.write("cert.pem", &issued.cert),
            "privateKey": scratch.write("key.pem", &issued.key),
            "httpPort": 80,
            "tlsPort": 443,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": wishes.external.is_some(),
            "externalAccountMACKeys": wishes.external.into_iter().collect::<BTreeMap<_, _>>(),
            "domainBlocklist": wishes.blocked,
            "certificateValidityPeriod": wishes.seconds,
        }});
        let config = scratch.write("pebble.json", config.to_string());
        let names = wishes.dns.is_none().then(|| {
            let mut command = bound_to_namespace("pebble-challtestsrv");
            command.args(["-defaultIPv4", &SERVER_V4.to_string(), "-defaultIPv6", ""]);
            command.args(["-dns01", &format!("{CLIENT_V4}:{DNS_PORT}"), "-management", "127.0.0.1:8055"]);
            command.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            Process::start("pebble-challtestsrv", &network.client, &scratch, command)
        });
        let dns = wishes.dns.unwrap_or(SocketAddr::new(CLIENT_V4, DNS_PORT));
        let mut command = bound_to_namespace("pebble");
        command.args(["-strict", "-dnsserver", &dns.to_string(), "-config"]).arg(config);
        // Each order is proved anew, at once; some of the good nonces are refused, as RFC 8555 §6.5 permits.
        command.envs([
            ("PEBBLE_VA_NOSLEEP", "1"),
            ("PEBBLE_AUTHZREUSE", "0"),
            ("PEBBLE_WFE_NONCEREJECT", "15"),
        ]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let pebble = Process::start("pebble", &network.client, &scratch, command);
        let directory = SocketAddr::new(CLIENT_V4, PORT);
        eventually("pebble listens", || network.client.run(move || TcpStream::connect(directory).ok()));
        Self { _pebble: pebble, _names: names, ca: authority.pem(), scratch }
    }

    /// The URL of its directory.
    #[must_use]
    pub fn directory() -> String {
        format!("https://{CLIENT_V4}:{PORT}/dir")
    }

    /// The file with the root of its certificates.
    ///
    /// # Panics
    /// When it does not say its root.
    #[must_use]
    pub fn root(&self, network: &Network) -> String {
        let ask = format!(
            "printf 'GET /roots/0 HTTP/1.0\\r\\nHost: pebble\\r\\n\\r\\n' | openssl s_client -quiet -connect {CLIENT_V4}:{MANAGEMENT_PORT} 2>/dev/null"
        );
        let said = tool(&network.client, "bash", &["-c", &ask]);
        let begin = said.text.find("-----BEGIN").unwrap_or_else(|| panic!("{said:?}"));
        self.scratch.write("root.pem", &said.text[begin..]).display().to_string()
    }
}

/// A server at [`SERVER_V4`] and this port with the zone `lab.test`, which the key of the tests may update.
///
/// # Panics
/// For another one than BIND and Knot; when it does not answer.
#[must_use]
pub fn updatable(kind: Kind, network: &Network, port: u16) -> Backend {
    let scratch = Scratch::new();
    let folder = scratch.folder("server").display().to_string();
    let zone = scratch.write(
        "server/lab.zone",
        "$TTL 60\n@ IN SOA ns.lab.test. host.lab.test. 1 3600 600 86400 60\n@ IN NS ns.lab.test.\nns IN A 10.53.0.1\n",
    );
    let zone = zone.display();
    let (text, words) = match kind {
        Kind::Bind => (
            format!(
                "options {{ directory \"{folder}\"; listen-on port {port} {{ {SERVER_V4}; }}; listen-on-v6 {{ none; }}; \
                 pid-file none; session-keyfile none; lock-file none; recursion no; dnssec-validation no; }};\n\
                 controls {{ }};\nkey {KEY_NAME} {{ algorithm hmac-sha256; secret \"{KEY_SECRET}\"; }};\n\
                 zone lab.test {{ type primary; file \"{zone}\"; journal \"{folder}/journal\"; notify no; \
                 update-policy {{ grant {KEY_NAME} subdomain lab.test. TXT; }}; }};\n"
            ),
            &["-g", "-n", "1", "-c"][..],
        ),
        Kind::Knot => (
            format!(
                "server:\n  rundir: \"{folder}\"\n  listen: {SERVER_V4}@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  \
                 background-workers: 1\ncontrol:\n  listen: \"{folder}/knot.sock\"\ndatabase:\n  storage: \"{folder}\"\n\
                 key:\n  - id: {KEY_NAME}\n    algorithm: hmac-sha256\n    secret: {KEY_SECRET}\n\
                 acl:\n  - id: ours\n    key: {KEY_NAME}\n    action: [update]\n\
                 zone:\n  - domain: lab.test\n    file: \"{zone}\"\n    acl: ours\n    zonefile-sync: -1\n    \
                 zonefile-load: difference\n    journal-content: changes\n"
            ),
            &["-c"][..],
        ),
        other => panic!("{other:?} takes no updates here"),
    };
    let config = scratch.write("server.conf", text);
    let mut command = bound_to_namespace(kind.program());
    command.args(words).arg(config);
    Backend::start(network, kind.program(), SocketAddr::new(SERVER_V4, port), scratch, command)
}

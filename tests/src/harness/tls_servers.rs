//! TLS servers of other projects that answer for `dotd.test`, in clear too: Unbound, dnsdist, Knot Resolver.
//!
//! Before: a namespace, and NSD at [`UPSTREAM_PORT`] for those that have no zone. After: a [`Backend`] that answers in clear, and
//! speaks TLS at [`TLS_PORT`].
//! Never: keeps an answer: what is asked twice is asked of NSD twice.

use std::net::SocketAddr;

use super::{backends::Backend, netns::Network, pki::Issued, process::bound_to_namespace, scratch::Scratch};

/// Where NSD must answer.
pub const UPSTREAM_PORT: u16 = 5301;
/// Where they speak TLS, on 127.0.0.1.
pub const TLS_PORT: u16 = 5303;
/// Where dnsdist and Knot Resolver answer in clear.
const CLEAR_PORT: u16 = 5300;

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsServer {
    /// Unbound, with the zone as its own.
    Unbound,
    /// dnsdist before NSD.
    Dnsdist,
    /// Knot Resolver, which asks NSD.
    KnotResolver,
}

impl TlsServer {
    /// The name of its program.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Unbound => "unbound",
            Self::Dnsdist => "dnsdist",
            Self::KnotResolver => "kresd",
        }
    }

    /// Starts it with this certificate.
    #[must_use]
    pub fn start(self, network: &Network, issued: &Issued) -> Backend {
        let scratch = Scratch::new();
        let [cert, key] = [("cert.pem", &issued.cert), ("key.pem", &issued.key)]
            .map(|(name, pem)| scratch.write(name, pem).display().to_string());
        let mut command = bound_to_namespace(self.program());
        match self {
            Self::Unbound => {
                return Backend::unbound_with_certificate(network, (&issued.cert, &issued.key));
            }
            Self::Dnsdist => {
                let text = format!(
                    "setLocal('127.0.0.1:{CLEAR_PORT}')\naddTLSLocal('127.0.0.1:{TLS_PORT}', '{cert}', '{key}')\n\
                     setACL({{'0.0.0.0/0'}})\nsetSecurityPollSuffix('')\n\
                     newServer({{address='127.0.0.1:{UPSTREAM_PORT}', healthCheckMode='up'}})\n"
                );
                let config = scratch.write("dnsdist.conf", text);
                command.args(["--supervised", "--disable-syslog", "-C"]).arg(config);
            }
            Self::KnotResolver => {
                let text = format!(
                    "net.listen('127.0.0.1', {CLEAR_PORT}, {{ kind = 'dns' }})\n\
                     net.listen('127.0.0.1', {TLS_PORT}, {{ kind = 'tls' }})\nnet.tls('{cert}', '{key}')\n\
                     cache.size = 10 * MB\ntrust_anchors.remove('.')\n\
                     policy.add(policy.suffix(policy.FLAGS({{'NO_CACHE'}}), {{todname('dotd.test.')}}))\n\
                     policy.add(policy.suffix(policy.STUB('127.0.0.1@{UPSTREAM_PORT}'), {{todname('dotd.test.')}}))\n"
                );
                let config = scratch.write("kresd.conf", text);
                let folder = scratch.folder("run");
                command.args(["-n", "-c"]).arg(config).arg(folder);
            }
        }
        let address = SocketAddr::from(([127, 0, 0, 1], CLEAR_PORT));
        Backend::start(network, self.program(), address, scratch, command)
    }
}

//! `dotd check --connect`: asks every backend one question as `run` would, and reports each failure with its remedy.
//!
//! Before: `check` found no mistake in the config. After: a line or a JSON object for each backend.
//! Holds: the remedy for each kind of failure. A TLS backend gets two handshakes: one as `run` makes it, which
//! decides, and one for diagnosis, which also shows a certificate that was refused.
//! Never: sends a client's query; judges an rcode, because `run` does not; prints a control character from a server
//! to the terminal.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::show;
use crate::{
    backend::{BackendConfig, Missed, NotOpened, probe},
    config::{Backend, BackendAddress, Config, Transport},
    ledger::{TlsFault, Traffic},
    start::{in_a_line, trial},
    tls::{Inquiry, Shown, Wanted, fault_of},
};

/// Backends that are asked at the same time.
const AT_ONCE: usize = 16;
/// A certificate that expires sooner gets a warning.
const ENDS_SOON: Duration = Duration::from_secs(7 * 86_400);

/// The result for one backend.
#[derive(Debug, Serialize)]
pub(super) struct Tried {
    name: String,
    address: String,
    transport: &'static str,
    /// "answered", "failed", or "embedded" for the server inside dotd.
    outcome: &'static str,
    milliseconds: u64,
    /// The rcode of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    rcode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Secured>,
    /// The kind of a TLS failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'static str>,
    /// The failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// The TLS parameters and certificate of a backend.
#[derive(Debug, Serialize)]
struct Secured {
    version: &'static str,
    names: Vec<String>,
    issuer: String,
    pin_sha256: String,
    ends_in_seconds: i64,
}

impl Tried {
    pub(super) fn has_failed(&self) -> bool {
        self.outcome == "failed"
    }

    /// A line for people, and one for each warning.
    pub(super) fn lines(&self) -> String {
        let Self { name, address, transport, milliseconds, .. } = self;
        let name = if name == address { String::new() } else { format!("{name}: ") };
        let mut text = match (self.outcome, &self.reason) {
            ("embedded", _) => "connect: embedded: part of dotd\n".to_owned(),
            (_, Some(reason)) => {
                let mend = self.mend.as_deref().unwrap_or_default();
                format!("connect: {name}{address} ({transport}): FAILED: {reason}\n  mend: {mend}\n")
            }
            _ => {
                let rcode = self.rcode.unwrap_or_default();
                let tls = self.tls.as_ref().map_or_else(String::new, |tls| {
                    format!(", {}, certificate {}", tls.version, show::ends(tls.ends_in_seconds))
                });
                format!(
                    "connect: {name}{address} ({transport}): answers {rcode} after {milliseconds} ms{tls}\n"
                )
            }
        };
        for warning in &self.warnings {
            text += &format!("warning: {name}{address}: {warning}\n");
        }
        text
    }
}

/// Tries every backend, some at the same time. The results are in the order of the config.
///
/// # Errors
/// A line: a file that a backend's TLS needs cannot be used.
pub(super) fn all(config: &Config) -> Result<Vec<Tried>, String> {
    let (config, lacking) = trial::resolved(config).map_err(|error| error.to_string())?;
    let config = &config;
    let backends = trial::backends(config).map_err(|error| in_a_line(&error))?;
    let has_address = |backend: &&Backend| matches!(backend.address, BackendAddress::Socket(_));
    let configured: Vec<_> = config.backend.iter().filter(has_address).zip(&backends).collect();
    let mut tried: Vec<Tried> = Vec::new();
    for some in configured.chunks(AT_ONCE) {
        let some = thread::scope(|scope| {
            let begun: Vec<_> =
                some.iter().map(|(backend, as_run)| scope.spawn(move || try_one(backend, as_run))).collect();
            begun.into_iter().map(thread::ScopedJoinHandle::join).collect::<Result<Vec<_>, _>>()
        });
        tried.extend(some.map_err(|_| "dotd panicked while it tried a backend".to_owned())?);
    }
    for one in tried.iter_mut().filter(|one| one.transport == "udp") {
        one.warnings.extend(lacking.get(&one.name).map(|why| format!("discover: {}", safe(why))));
    }
    for backend in &config.backend {
        match &backend.address {
            BackendAddress::Embedded => tried.push(embedded()),
            BackendAddress::Named(host) => tried.push(Tried {
                reason: lacking.get(&host.name).map(|why| safe(why)),
                mend: Some("see that a resolver of `balance.bootstrap` answers for this name".to_owned()),
                ..nothing_yet(backend.called(), host.to_string(), backend.transport.label())
            }),
            BackendAddress::Socket(_) => {}
        }
    }
    if config.backend.is_empty() {
        tried.push(embedded());
    }
    Ok(tried)
}

fn embedded() -> Tried {
    let name = "embedded";
    Tried { outcome: name, ..nothing_yet(name.into(), name.into(), name) }
}

fn nothing_yet(name: String, address: String, transport: &'static str) -> Tried {
    Tried {
        name,
        address,
        transport,
        outcome: "failed",
        milliseconds: 0,
        rcode: None,
        tls: None,
        fault: None,
        reason: None,
        mend: None,
        warnings: Vec::new(),
    }
}

fn try_one(configured: &Backend, backend: &BackendConfig) -> Tried {
    let began = Instant::now();
    let outcome = ask(backend);
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let address = backend.address.to_string();
    let mut tried =
        Tried { milliseconds, ..nothing_yet(backend.name.to_string(), address, backend.transport.label()) };
    let shown = (backend.transport == Transport::Tls).then(|| inquire(configured, backend)).flatten();
    match outcome {
        Ok(rcode) => {
            tried.outcome = "answered";
            tried.rcode = Some(Traffic::of_rcode(rcode).label());
            tried.warnings.extend(warnings(backend, shown.as_ref()));
        }
        Err(missed) => {
            let fault = match &missed {
                Missed::NotOpened(NotOpened::NotSecure(error)) => Some(fault_of(error)),
                _ => None,
            };
            tried.fault = fault.map(TlsFault::label);
            tried.mend = Some(match fault {
                Some(fault) => mend_tls(configured, backend.address, fault, shown.as_ref()),
                None => mend(backend, &missed),
            });
            tried.reason = Some(safe(&missed.to_string()));
        }
    }
    tried.tls = shown.as_ref().and_then(secured);
    tried
}

/// Asks one question, as `run` does.
fn ask(backend: &BackendConfig) -> Result<u8, Missed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Missed::Unanswered)?.block_on(probe(backend))
}

/// A handshake for diagnosis: it shows the server's certificate even if that is refused.
fn inquire(configured: &Backend, backend: &BackendConfig) -> Option<Shown> {
    let wanted = Wanted {
        address: backend.address.ip(),
        name: Some(configured.server_name.clone()).filter(|name| !name.is_empty()),
        pins: configured.spki_pins.clone(),
        ca: configured.ca.clone(),
        sni: None,
        alpn: vec!["dot".to_owned()],
        version: None,
        identity: None,
    };
    let inquiry = Inquiry::new(&wanted).ok()?;
    let tcp = TcpStream::connect_timeout(&backend.address, backend.timeout).ok()?;
    tcp.set_read_timeout(Some(backend.timeout)).ok()?;
    tcp.set_write_timeout(Some(backend.timeout)).ok()?;
    inquiry.connect(tcp).ok().map(|(_, shown)| shown)
}

fn secured(shown: &Shown) -> Option<Secured> {
    let leaf = shown.chain.first()?;
    Some(Secured {
        version: shown.version,
        names: leaf.names.iter().map(|name| safe(name)).collect(),
        issuer: safe(&leaf.issuer),
        pin_sha256: leaf.pin.clone(),
        ends_in_seconds: leaf.ends_in_seconds,
    })
}

/// Warnings about a backend that answers.
fn warnings(backend: &BackendConfig, shown: Option<&Shown>) -> Vec<String> {
    let mut warnings = Vec::new();
    if backend.transport == Transport::Udp {
        let over_tcp = BackendConfig { transport: Transport::Tcp, ..backend.clone() };
        if let Err(missed) = ask(&over_tcp) {
            let missed = safe(&missed.to_string());
            warnings.push(format!(
                "not over TCP ({missed}): answers that need more than a datagram become SERVFAIL; let the server answer TCP"
            ));
        }
    }
    let soon = i64::try_from(ENDS_SOON.as_secs()).unwrap_or(i64::MAX);
    let leaf = shown.and_then(|shown| shown.chain.first());
    if let Some(leaf) = leaf.filter(|leaf| leaf.ends_in_seconds < soon) {
        warnings.push(format!("its certificate {}", show::ends(leaf.ends_in_seconds)));
    }
    warnings
}

/// The remedy for a failure outside TLS.
fn mend(backend: &BackendConfig, missed: &Missed) -> String {
    let (address, port) = (backend.address.ip(), backend.address.port());
    let protocol = if backend.transport == Transport::Udp { "UDP" } else { "TCP" };
    let header = if backend.proxy_v2 { "; it must expect PROXY headers here (proxy_v2)" } else { "" };
    let error = match missed {
        Missed::NotOpened(NotOpened::Unconnected(error) | NotOpened::NotSecure(error))
        | Missed::Unanswered(error) => error,
        Missed::Unmatched(_) => {
            return format!(
                "the server at {protocol} port {port} sent no DNS answer to this question: correct `address`{header}"
            );
        }
    };
    match (error.kind(), missed) {
        (io::ErrorKind::ConnectionRefused, _) => {
            format!(
                "nothing listens on {protocol} port {port} of {address}: start the DNS server, or correct `address`"
            )
        }
        (io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable, _) => {
            format!(
                "this machine has no route to {address}: correct `address`, or see `ip route get {address}`"
            )
        }
        (io::ErrorKind::TimedOut, Missed::NotOpened(_)) => {
            format!(
                "no host answers at {address}, or a firewall drops {protocol} port {port}: correct `address`, or open that port"
            )
        }
        (io::ErrorKind::TimedOut, _) => format!(
            "the server is silent: let its access list permit this machine, look for a firewall that drops {protocol} port \
             {port}, or raise `timeout`{header}"
        ),
        (io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset, _) => format!(
            "the server closes the connection after a question: permit this machine in its access list{header}"
        ),
        _ => format!("see `ip route get {address}`, and the server's log"),
    }
}

/// The remedy for a failure of TLS.
fn mend_tls(configured: &Backend, address: SocketAddr, fault: TlsFault, shown: Option<&Shown>) -> String {
    let leaf = shown.and_then(|shown| shown.chain.first());
    let port = address.port();
    match fault {
        TlsFault::Name => {
            let names = leaf.map(|leaf| leaf.names.iter().map(|name| safe(name)).collect::<Vec<_>>());
            let names = names.filter(|names| !names.is_empty()).map(|names| names.join(", "));
            let names = names.unwrap_or_else(|| "no name".to_owned());
            let wanted = &configured.server_name;
            format!(
                "its certificate is for {names}: set `server_name` to its name, or give the server a certificate for {wanted}"
            )
        }
        TlsFault::Pin => {
            let pin = leaf.map_or("another one", |leaf| leaf.pin.as_str());
            format!("the pin of its key is {pin}: ask the operator of the server; if this is its new key, set `spki_pins` to that pin")
        }
        TlsFault::Expired => {
            let ends = leaf.map_or_else(String::new, |leaf| format!(" ({})", show::ends(leaf.ends_in_seconds)));
            format!("renew the server's certificate{ends}, and check the clocks of both machines")
        }
        TlsFault::Authority => {
            let issuer = leaf.map_or_else(|| "unknown".to_owned(), |leaf| safe(&leaf.issuer));
            let ca = match configured.ca.as_os_str().is_empty() {
                true => "this system trusts".to_owned(),
                false => format!("{} contains", configured.ca.display()),
            };
            format!(
                "no authority that {ca} has signed its certificate; its issuer is {issuer}: name that authority's PEM file in `ca`"
            )
        }
        TlsFault::NotTls | TlsFault::Silent => format!(
            "port {port} does not speak TLS: use the server's TLS port, which is usually 853; otherwise a device on the path strips TLS"
        ),
        TlsFault::Closed => {
            "the server or a device on the path ends the handshake: see the server's log; if it has no line about this, a device on the path did it"
                .to_owned()
        }
        TlsFault::Alert => {
            "the server refuses the handshake: see its log; it may require a client certificate, or may not know this `server_name`"
                .to_owned()
        }
        TlsFault::Incompatible => {
            "the server has neither TLS 1.3 nor TLS 1.2 with the extended master secret (RFC 7627): update it".to_owned()
        }
        TlsFault::Unconnected | TlsFault::Other => "see the server's log".to_owned(),
    }
}

/// Text from a server, without control characters.
fn safe(text: &str) -> String {
    text.escape_default().to_string().replace("\\\"", "\"").replace("\\'", "'")
}

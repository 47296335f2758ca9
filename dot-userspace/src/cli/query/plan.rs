//! Turns the command line into a plan: the server, the questions, and the required proof of identity.
//!
//! Before: `arguments` and `words` have parsed the command line. After: `mod` asks. Holds: the limits of a list.
//! Never: sends an octet, except for the system's own lookup of a server's name.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read},
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    path::Path,
    time::Duration,
};

use hickory_proto::rr::RecordType;

use super::{
    arguments::{Profile, QueryArguments},
    compose::Manner,
    used::{AllUsed, Used, canonical},
    words::{self, Question},
};
use crate::{
    cli::error::CliError,
    config,
    proxy::Client,
    tls::{Inquiry, Wanted},
};

/// The transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tls,
    Tcp,
    Udp,
}

impl Transport {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A command line without contradictions.
pub(super) struct Plan {
    /// The server as it was typed, and its address.
    pub(super) server: String,
    pub(super) address: SocketAddr,
    pub(super) transport: Transport,
    pub(super) questions: Vec<Question>,
    /// How often all questions are asked, and whether each time over a new connection.
    pub(super) rounds: u32,
    pub(super) resumes: bool,
    pub(super) in_flight: usize,
    pub(super) timeout: Duration,
    /// The TLS parameters. `None`: TLS is not used.
    pub(super) tls: Option<Inquiry>,
    pub(super) is_strict: bool,
    pub(super) falls_back: bool,
    pub(super) keeps_truncated: bool,
    pub(super) fast_open: bool,
    pub(super) proxy: Option<Client>,
    pub(super) proxy_within: bool,
    pub(super) manner: Manner,
    /// The sockets that were used.
    pub(super) used: AllUsed,
}

impl Plan {
    /// A socket is connected: from then on the server may see this end of it.
    pub(super) fn note_use(&self, local: io::Result<SocketAddr>, is_stream: bool) {
        let seen = self.proxy.as_ref().map_or(local, |client| Ok(client.source));
        self.used.borrow_mut().extend(seen.ok().map(|client| Used { client: canonical(client), is_stream }));
    }
}

/// Most questions of one call: each is kept with its answer until it is printed.
const QUESTIONS_MAX: usize = 10_000;
/// Octets of a list.
const LIST_OCTETS_MAX: u64 = 4 << 20;
const PORT_TLS: u16 = 853;
pub(super) const PORT_CLEAR: u16 = 53;

/// Checks `arguments`; without a server, the dotd of `config` is asked.
pub(super) fn plan(arguments: QueryArguments, config: Option<&Path>) -> Result<Plan, CliError> {
    let transport = match (arguments.way.udp, arguments.way.tcp) {
        (true, _) => Transport::Udp,
        (_, true) => Transport::Tcp,
        _ => Transport::Tls,
    };
    let asked = words::read(arguments.words.iter().map(String::as_str)).map_err(CliError::Query)?;
    let server = asked.server.or(arguments.server.clone());
    let mut questions = asked.questions;
    questions.extend(arguments.reverse.iter().copied().map(words::reverse));
    if let Some(file) = &arguments.file {
        questions.extend(list(file)?);
    }
    check_questions(&questions, transport)?;
    let (server, address) = match server {
        Some(server) => {
            let default = if transport == Transport::Tls { PORT_TLS } else { PORT_CLEAR };
            let address = find(&server, arguments.port.unwrap_or(default), arguments.port.is_some());
            (server.clone(), address.map_err(CliError::Query)?)
        }
        None => ours(config, transport, arguments.port)?,
    };
    let name = arguments.secured.name.clone().or_else(|| host_name(&server));
    let is_strict = transport == Transport::Tls && is_strict(&arguments, name.is_some())?;
    let tls = match transport {
        Transport::Tls => Some(inquiry(&arguments, name, address.ip()).map_err(CliError::Query)?),
        _ => None,
    };
    let manner = Manner::new(&arguments.message, transport == Transport::Tls).map_err(CliError::Query)?;
    let proxy = arguments.way.proxy.map(|(source, destination)| Client {
        source,
        destination,
        is_datagram: transport == Transport::Udp,
        tls: None,
        tlvs: None,
    });
    Ok(Plan {
        server,
        address,
        transport,
        questions,
        rounds: if arguments.resume { arguments.repeat.max(2) } else { arguments.repeat },
        resumes: arguments.resume,
        in_flight: arguments.in_flight.into(),
        timeout: arguments.timeout,
        tls,
        is_strict,
        falls_back: arguments.secured.fallback,
        keeps_truncated: arguments.way.ignore,
        fast_open: arguments.way.tfo,
        proxy,
        proxy_within: arguments.way.proxy_within,
        manner,
        used: AllUsed::default(),
    })
}

/// Whether the profile is strict, which needs a name or a pin for the server.
fn is_strict(arguments: &QueryArguments, has_name: bool) -> Result<bool, CliError> {
    let secured = &arguments.secured;
    let is_proven = has_name || !secured.pins.is_empty();
    let default = if is_proven || secured.ca.is_some() { Profile::Strict } else { Profile::Opportunistic };
    let is_strict = secured.profile.unwrap_or(default) == Profile::Strict;
    let wrong = match (is_strict, is_proven) {
        (true, false) if secured.ca.is_some() => {
            "--ca: the name that the certificate must be valid for is missing; add --name"
        }
        (true, false) => "strict: the proof of identity is missing; add --name or --pin",
        (true, true) if secured.fallback => {
            "--fallback: with the strict profile no question is sent in clear; remove one of the two"
        }
        _ => return Ok(is_strict),
    };
    Err(CliError::Query(wrong.to_owned()))
}

fn inquiry(arguments: &QueryArguments, name: Option<String>, address: IpAddr) -> Result<Inquiry, String> {
    let secured = &arguments.secured;
    Inquiry::new(&Wanted {
        address,
        name,
        pins: secured.pins.clone(),
        ca: secured.ca.clone().unwrap_or_default(),
        sni: secured.sni.clone(),
        alpn: secured.alpn.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        version: secured.tls_version,
        identity: secured.client_cert.clone().zip(secured.client_key.clone()),
    })
}

fn check_questions(questions: &[Question], transport: Transport) -> Result<(), CliError> {
    let is_transfer = |question: &Question| question.kind == RecordType::AXFR;
    let wrong = match questions {
        [] => Some("the name is missing: `dotd query @SERVER NAME [TYPE]`".to_owned()),
        all if all.len() > QUESTIONS_MAX => {
            Some(format!("{} questions are more than {QUESTIONS_MAX}, the most permitted", all.len()))
        }
        all if all.len() > 1 && all.iter().any(is_transfer) => {
            Some("a zone transfer needs its own connection: ask no other question with it".to_owned())
        }
        [only] if is_transfer(only) && transport == Transport::Udp => {
            Some("a zone transfer needs a connection: use --tls or --tcp".to_owned())
        }
        _ => None,
    };
    wrong.map_or(Ok(()), |wrong| Err(CliError::Query(wrong)))
}

/// The address of a server that was typed as an address, an address with a port, or a name.
fn find(server: &str, port: u16, is_typed: bool) -> Result<SocketAddr, String> {
    let bare = server.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(server);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, port));
    }
    if let Ok(address) = server.parse::<SocketAddr>() {
        return Ok(if is_typed { SocketAddr::new(address.ip(), port) } else { address });
    }
    // dig and Unbound write `ADDRESS#PORT` and `ADDRESS@PORT`.
    if let Some((host, text)) = server.split_once(['#', '@']) {
        let port = text.parse().map_err(|_| format!("server {server}: \"{text}\" is not a port"))?;
        return find(host, port, true);
    }
    let (host, port) = match server.rsplit_once(':') {
        Some((host, text)) => {
            (host, text.parse().map_err(|_| format!("server {server}: \"{text}\" is not a port"))?)
        }
        None => (server, port),
    };
    let found = (host, port).to_socket_addrs().map_err(|error| format!("server {server}: {error}"))?;
    found.into_iter().next().ok_or_else(|| format!("server {server}: its name has no address"))
}

/// The name in the typed text. `None`: it is an address.
fn host_name(server: &str) -> Option<String> {
    let host = server.split(['#', '@']).next().unwrap_or_default();
    if host.parse::<SocketAddr>().is_ok() || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return None;
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    Some(name.trim_end_matches('.').to_owned())
}

/// The address of the config's first listener.
fn ours(
    path: Option<&Path>,
    transport: Transport,
    port: Option<u16>,
) -> Result<(String, SocketAddr), CliError> {
    let config = config::load(path)?;
    let (key, listeners) = match transport {
        Transport::Tls => ("listen.dot", config.listen.dot),
        _ => ("listen.do53", config.listen.do53),
    };
    let Some(mut address) = listeners.first().copied() else {
        return Err(CliError::Query(format!(
            "the server is missing: add `@SERVER`; the config has no {key}"
        )));
    };
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address.set_port(port.unwrap_or(address.port()));
    Ok((address.to_string(), address))
}

/// Reads a file with one question in each line.
fn list(path: &Path) -> Result<Vec<Question>, CliError> {
    let wrong = |reason: String| CliError::Query(format!("{}: {reason}", path.display()));
    let input: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).map_err(|error| wrong(error.to_string()))?),
    };
    let mut questions = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(input.take(LIST_OCTETS_MAX)).lines()) {
        let line = line.map_err(|error| wrong(error.to_string()))?;
        let said = line.split(['#', ';']).next().unwrap_or_default();
        let asked = words::read(said.split_whitespace());
        let asked = asked.map_err(|error| wrong(format!("line {number}: {error}")))?;
        if asked.server.is_some() {
            return Err(wrong(format!(
                "line {number}: a list cannot name the server: name it on the command line"
            )));
        }
        questions.extend(asked.questions);
        if questions.len() > QUESTIONS_MAX {
            return Err(wrong(format!("more than {QUESTIONS_MAX} questions")));
        }
    }
    Ok(questions)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a server can be typed as for dig and kdig and as in config files; a name is also the one that the
    /// certificate must have.
    #[test]
    fn a_server_has_many_forms() {
        let at = |text: &str| find(text, 853, false).unwrap().to_string();
        assert_eq!(at("192.0.2.1"), "192.0.2.1:853");
        assert_eq!(at("192.0.2.1:8853"), "192.0.2.1:8853");
        assert_eq!(at("192.0.2.1#8853"), "192.0.2.1:8853");
        assert_eq!(at("192.0.2.1@8853"), "192.0.2.1:8853");
        assert_eq!(at("2001:db8::1"), "[2001:db8::1]:853");
        assert_eq!(at("[2001:db8::1]:8853"), "[2001:db8::1]:8853");
        assert_eq!(at("[2001:db8::1]"), "[2001:db8::1]:853");
        assert!(find("192.0.2.1#x", 853, false).unwrap_err().contains("is not a port"));
        for address in ["192.0.2.1", "192.0.2.1#53", "[2001:db8::1]:8853", "2001:db8::1"] {
            assert_eq!(host_name(address), None, "{address}");
        }
        for name in ["ns.dotd.test", "ns.dotd.test:8853", "ns.dotd.test.", "ns.dotd.test@853"] {
            assert_eq!(host_name(name).as_deref(), Some("ns.dotd.test"), "{name}");
        }
    }
}

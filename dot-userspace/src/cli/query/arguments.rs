//! The words and options of `dotd query`, with their help.
//!
//! Before: the shell's words, or those that `words::as_options` made of `+name=value`. After: `plan` checks them.
//! Never: does more than describe.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::super::examples::QUERY_EXAMPLES;
use crate::config::{TlsVersion, parse_duration};

/// The questions, the server, and the options.
#[derive(Debug, Args)]
#[command(after_help = QUERY_EXAMPLES)]
pub(in crate::cli) struct QueryArguments {
    /// `@SERVER`, then names, each followed by its type and class, as for dig
    ///
    /// A word that is a type (A, AAAA, TYPE65, AXFR) counts as one; write a name that looks like a type with a dot
    /// after it (`mx.`). If SERVER is a name, its certificate must be valid for it.
    #[arg(value_name = "WORD")]
    pub(super) words: Vec<String>,
    /// Address or name of the server.
    #[arg(long, value_name = "SERVER", help_heading = WHAT,
        help = "Server: ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT or a name [default: the first listener of the config]"
    )]
    pub(super) server: Option<String>,
    /// Port of the server [default: 853 with TLS, else 53]
    #[arg(short, long, value_name = "PORT", help_heading = WHAT)]
    pub(super) port: Option<u16>,
    /// Ask for the name of this address: its PTR record
    #[arg(short = 'x', long, value_name = "ADDRESS", help_heading = WHAT)]
    pub(super) reverse: Vec<std::net::IpAddr>,
    /// File with one question in each line, `NAME [TYPE [CLASS]]`; "-" reads standard input
    #[arg(short = 'f', long, value_name = "FILE", help_heading = WHAT)]
    pub(super) file: Option<PathBuf>,
    /// Ask all questions this many times, over the same connection
    #[arg(long, value_name = "TIMES", default_value_t = 1, help_heading = WHAT,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) repeat: u32,
    /// Ask each time over a new connection, which offers the ticket of the previous one; twice unless --repeat says
    /// more
    #[arg(long, help_heading = WHAT)]
    pub(super) resume: bool,
    /// Most questions of a connection that wait for their answers at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 64, help_heading = WHAT,
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) in_flight: u16,
    /// How long to wait for a connection, a handshake or an answer, as 2s or 500ms
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time, help_heading = WHAT)]
    pub(super) timeout: Duration,
    #[command(flatten)]
    pub(super) way: Way,
    #[command(flatten)]
    pub(super) secured: Secured,
    #[command(flatten)]
    pub(super) message: MessageArguments,
    /// Show what the dotd of this machine saw of this query, from accept to end, as `dotd trace` does; its control socket is asked
    #[arg(long, conflicts_with = "short", help_heading = FORM)]
    pub(super) trace_on: bool,
    /// Control socket of that dotd [default: control.sock in the config's run_dir]
    #[arg(long, value_name = "PATH", requires = "trace_on", help_heading = FORM)]
    pub(super) socket: Option<PathBuf>,
    /// Print the data of the answers and nothing else
    #[arg(long, conflicts_with = "json", help_heading = FORM)]
    pub(super) short: bool,
    /// Print everything as JSON, for programs
    #[arg(long, help_heading = FORM)]
    pub(super) json: bool,
}

/// The transport.
#[derive(Debug, Args)]
pub(super) struct Way {
    /// DNS over TLS (RFC 7858), which is the default
    #[arg(long, group = "transport", help_heading = WAY)]
    pub(super) tls: bool,
    /// DNS in clear over TCP
    #[arg(long, group = "transport", help_heading = WAY)]
    pub(super) tcp: bool,
    /// DNS in clear over UDP; a truncated answer is asked for again over TCP
    #[arg(long, alias = "notcp", group = "transport", help_heading = WAY)]
    pub(super) udp: bool,
    /// Keep a truncated answer instead of asking again over TCP
    #[arg(long, help_heading = WAY)]
    pub(super) ignore: bool,
    /// Send the first octets with the SYN if the server has given a cookie (TCP Fast Open)
    #[arg(long, alias = "fastopen", conflicts_with = "udp", help_heading = WAY)]
    pub(super) tfo: bool,
    /// Begin with a PROXY header (version 2) with these two ends of the client, as 192.0.2.1:1234-198.51.100.1:853
    #[arg(long, value_name = "SOURCE-DESTINATION", value_parser = ends, help_heading = WAY)]
    pub(super) proxy: Option<(SocketAddr, SocketAddr)>,
    /// Send the PROXY header as the first octets inside TLS, not in front of it
    #[arg(long, requires = "proxy", help_heading = WAY)]
    pub(super) proxy_within: bool,
}

/// The required identity of the server (RFC 8310).
#[derive(Debug, Args)]
pub(super) struct Secured {
    /// "strict": send no question to a server without proof of its identity; "opportunistic": TLS with any server
    /// [default: strict with a name, a pin or a CA file, else opportunistic]
    #[arg(long, value_name = "PROFILE", help_heading = TLS)]
    pub(super) profile: Option<Profile>,
    /// With the opportunistic profile: if TLS fails, ask in clear over TCP, port 53, and say so
    #[arg(long, help_heading = TLS)]
    pub(super) fallback: bool,
    /// The name that the server's certificate must be valid for
    #[arg(long, aliases = ["tls-hostname", "tls-host"], value_name = "NAME", help_heading = TLS)]
    pub(super) name: Option<String>,
    /// A pin of the server's key, as `dotd pin` prints; may be repeated: one of them must match
    #[arg(long = "pin", alias = "tls-pin", value_name = "PIN", help_heading = TLS)]
    pub(super) pins: Vec<String>,
    /// PEM file of the authorities for the name [default: the system's]
    #[arg(long, alias = "tls-ca", value_name = "FILE", help_heading = TLS)]
    pub(super) ca: Option<PathBuf>,
    /// The name in the ClientHello, if it is not the one above; "" sends none
    #[arg(long, alias = "tls-sni", value_name = "NAME", help_heading = TLS)]
    pub(super) sni: Option<String>,
    /// Protocols offered by ALPN, separated by commas; "" sends no such extension
    #[arg(long, value_name = "NAMES", default_value = "dot", help_heading = TLS)]
    pub(super) alpn: String,
    /// The only version offered: 1.2 or 1.3 [default: both]
    #[arg(long, value_name = "VERSION", value_parser = version, help_heading = TLS)]
    pub(super) tls_version: Option<TlsVersion>,
    /// PEM file of a client certificate, for servers that ask for one
    #[arg(long, alias = "tls-certfile", value_name = "FILE", requires = "client_key", help_heading = TLS)]
    pub(super) client_cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, alias = "tls-keyfile", value_name = "FILE", requires = "client_cert", help_heading = TLS)]
    pub(super) client_key: Option<PathBuf>,
}

/// The content of each query.
#[derive(Debug, Args)]
pub(super) struct MessageArguments {
    /// Ask for DNSSEC records (DO)
    #[arg(long = "do", visible_alias = "dnssec", help_heading = MESSAGE)]
    pub(super) dnssec: bool,
    /// Ask for no validation (CD)
    #[arg(long, alias = "cdflag", help_heading = MESSAGE)]
    pub(super) cd: bool,
    /// Ask whether the answer was validated (AD)
    #[arg(long, alias = "adflag", help_heading = MESSAGE)]
    pub(super) ad: bool,
    /// Ask for no recursion (RD=0)
    #[arg(long, aliases = ["norecurse", "norec", "nordflag"], help_heading = MESSAGE)]
    pub(super) no_recurse: bool,
    /// Send no OPT record
    #[arg(long, alias = "noedns", conflicts_with_all = ["dnssec", "padding", "keepalive", "subnet", "cookie", "nsid", "edns_options"],
        help_heading = MESSAGE)]
    pub(super) no_edns: bool,
    /// UDP payload size of the OPT record
    #[arg(long, value_name = "OCTETS", default_value_t = 1232, help_heading = MESSAGE,
        value_parser = clap::value_parser!(u16).range(512..))]
    pub(super) bufsize: u16,
    /// Pad to a multiple of this many octets (RFC 8467) [default: 128 with TLS; 0: no padding]
    #[arg(long, value_name = "OCTETS", num_args = 0..=1, require_equals = true, default_missing_value = "128",
        help_heading = MESSAGE)]
    pub(super) padding: Option<u16>,
    /// Ask how long an idle connection may stay open (RFC 7828)
    #[arg(long, conflicts_with = "udp", help_heading = MESSAGE)]
    pub(super) keepalive: bool,
    /// Client subnet (RFC 7871), as 192.0.2.0/24; 0.0.0.0/0 asks for privacy
    #[arg(long, value_name = "PREFIX", help_heading = MESSAGE)]
    pub(super) subnet: Option<IpNet>,
    /// Send a cookie (RFC 7873): 8 to 40 octets in hexadecimal, or eight random ones
    #[arg(long, value_name = "HEX", num_args = 0..=1, require_equals = true, default_missing_value = "",
        help_heading = MESSAGE)]
    pub(super) cookie: Option<String>,
    /// Ask for the identity of the server (RFC 5001)
    #[arg(long, help_heading = MESSAGE)]
    pub(super) nsid: bool,
    /// Send any other option: its code, and its octets in hexadecimal
    #[arg(long = "edns-option", alias = "ednsopt", value_name = "CODE[:HEX]", value_parser = option, help_heading = MESSAGE)]
    pub(super) edns_options: Vec<(u16, Vec<u8>)>,
}

/// Usage profiles of RFC 8310 §5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Profile {
    /// No question is sent without proof of the server's identity.
    Strict,
    /// TLS with any server.
    Opportunistic,
}

const WHAT: &str = "Questions and server";
const WAY: &str = "Transport";
const TLS: &str = "TLS";
const MESSAGE: &str = "Message";
const FORM: &str = "Output";
/// Octets of a cookie (RFC 7873 §4): eight of the client's, and up to 32 of the server's.
const COOKIE_OCTETS_MAX: usize = 40;

/// A time with a unit, or in seconds as for kdig.
fn time(text: &str) -> Result<Duration, String> {
    let time = match text.parse::<u16>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        Err(_) => parse_duration(text)?,
    };
    match time.is_zero() {
        true => Err("the time must be longer than 0".to_owned()),
        false => Ok(time),
    }
}

fn version(text: &str) -> Result<TlsVersion, String> {
    match text {
        "1.2" => Ok(TlsVersion::V1_2),
        "1.3" => Ok(TlsVersion::V1_3),
        _ => Err("write 1.2 or 1.3".to_owned()),
    }
}

fn ends(text: &str) -> Result<(SocketAddr, SocketAddr), String> {
    let (source, destination) = text.split_once('-').ok_or("write SOURCE:PORT-DESTINATION:PORT")?;
    let end = |text: &str| {
        text.parse::<SocketAddr>().map_err(|_| format!("\"{text}\" is not an address with a port"))
    };
    let (source, destination) = (end(source)?, end(destination)?);
    match source.is_ipv4() == destination.is_ipv4() {
        true => Ok((source, destination)),
        false => Err("both addresses must be of one family".to_owned()),
    }
}

fn option(text: &str) -> Result<(u16, Vec<u8>), String> {
    let (code, octets) = text.split_once(':').unwrap_or((text, ""));
    let code = code.parse().map_err(|_| format!("\"{code}\" is not the number of an option"))?;
    Ok((code, octets_of(octets)?))
}

/// Hexadecimal text as octets.
pub(super) fn octets_of(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("\"{text}\" is not pairs of hexadecimal digits");
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return Err(wrong());
    }
    let pairs = (0..text.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())).collect()
}

/// A cookie as it was typed; an empty text gives eight random octets.
pub(super) fn cookie(text: &str) -> Result<Vec<u8>, String> {
    if text.is_empty() {
        let mut octets = vec![0; 8];
        getrandom::fill(&mut octets).map_err(|error| format!("no random numbers: {error}"))?;
        return Ok(octets);
    }
    let octets = octets_of(text)?;
    match octets.len() {
        8 | 16..=COOKIE_OCTETS_MAX => Ok(octets),
        count => Err(format!("a cookie has 8 or 16 to {COOKIE_OCTETS_MAX} octets, and this one {count}")),
    }
}

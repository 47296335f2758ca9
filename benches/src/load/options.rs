//! The command line of `dotload`, checked.
//!
//! Before: arguments. After: every other part reads its own fields. Never: opens anything.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Parser, ValueEnum};

use super::population::Mix;

/// The length of a run without another bound.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// Loads a DNS-over-TLS server. Closed loop: each connection keeps DEPTH queries in flight and sends the next
/// when a response came, so the server is never asked for more than it gives. With --rate open loop: queries
/// fall due at random times (Poisson), and a latency counts from when its query was due.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "dotload",
    version,
    after_help = "\
EXAMPLES:
    dotload 127.0.0.1:853
        100 connections, one query in flight on each, for 10 seconds
    dotload 127.0.0.1:853 --connections 10 --depth 50 --threads 2 --queries 1000000
        pipelining, a million queries
    dotload 127.0.0.1:853 --rate 5000 --depth 100
        open loop: 5000 queries a second over 100 connections, whether or not the server keeps up
    dotload 127.0.0.1:853 --per-connection 1 --no-resumption --tls 1.2
        a new connection with a full TLS 1.2 handshake for each query
    dotload 127.0.0.1:853 --file names.txt --sources 200 --server-pid $(pgrep -ox dotd) --json
        names of a file (`name type` a line), from 200 client addresses, with the server's CPU
    dotload 127.0.0.1:853 --connections 1000 --mix idle=80,one-shot=15,chatty=5 --pause 10
        most clients idle: a query each 10 seconds on average; some connect for one query; few ask all the time

OPEN LOOP:
    Each arrival goes to a connection chosen at random; with DEPTH queries in flight there it waits, and the
    wait is in its latency (no coordinated omission). Arrivals are the same each run. `lag` in the report is
    how late dotload itself was: where it is not small beside the latency, use more threads or another core.

POPULATIONS:
    Without --mix every client is chatty. An idle client holds its connection and asks after random pauses
    (exponential, --pause on average); a one-shot client opens a new one for each query, and pauses as long.
    --depth and --rate are for the chatty ones.

CERTIFICATES:
    Without --ca any certificate is taken, as a load generator has no secrets; its signature is
    verified all the same, so that a handshake costs what it costs a real client.

EXIT STATUS:
    0 when every query was answered as expected, 1 when not, 2 for a mistake in the command line."
)]
pub struct Options {
    /// Address and port of the server
    pub server: SocketAddr,
    /// Connections open at once
    #[arg(short, long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,
    /// Queries in flight on each connection; with --rate at most
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub depth: u16,
    /// Open loop: queries a second over all connections, at random times
    #[arg(short, long, conflicts_with = "per_connection", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rate: Option<u32>,
    /// Threads, each with its share of the connections
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// End after so many queries
    #[arg(short = 'n', long, conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    pub queries: Option<u64>,
    /// End after so many seconds [default: 10, unless --queries]
    #[arg(short = 's', long, value_parser = seconds)]
    pub seconds: Option<Duration>,
    /// Name to ask for
    #[arg(long, default_value = "dotd.test.", conflicts_with = "file")]
    pub name: String,
    /// Type to ask for: a mnemonic (A, AAAA, TXT, …) or TYPE12345
    #[arg(long = "type", default_value = "A", conflicts_with = "file")]
    pub qtype: String,
    /// Names to ask for in turn: a file with `name type` on each line, as dnsperf has them
    #[arg(short, long)]
    pub file: Option<PathBuf>,
    /// Response codes that count as answered
    #[arg(long, value_delimiter = ',', default_value = "NOERROR,NXDOMAIN")]
    pub expect: Vec<String>,
    /// Pad queries to a multiple of 128 octets (RFC 8467), as private stub resolvers do
    #[arg(long)]
    pub pad: bool,
    /// TLS version
    #[arg(long, value_enum, default_value_t = TlsVersion::Any)]
    pub tls: TlsVersion,
    /// Full handshakes only: keep no tickets
    #[arg(long)]
    pub no_resumption: bool,
    /// Close a connection after so many queries and open a new one; 0: never
    #[arg(long, default_value_t = 0)]
    pub per_connection: u64,
    /// Connect from so many addresses: clients a server tells apart (IPv4; 127.0.1.0 and up on loopback)
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=16_000_000))]
    pub sources: u32,
    /// Kinds of clients, by parts of the connections: chatty=N,idle=N,one-shot=N
    #[arg(long, value_name = "NAME=PART,…", conflicts_with = "per_connection")]
    pub mix: Option<Mix>,
    /// Seconds between queries of an idle or one-shot client, on average
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub pause: Duration,
    /// Offer no ALPN protocol; else `dot`
    #[arg(long)]
    pub no_alpn: bool,
    /// Send no server name (SNI)
    #[arg(long)]
    pub no_sni: bool,
    /// The first of them, where the server is not on loopback; this machine must own all of them
    #[arg(long, requires = "sources")]
    pub source_base: Option<Ipv4Addr>,
    /// Name the server must have in its certificate, and sent as SNI
    #[arg(long, default_value = "dotd.test")]
    pub server_name: String,
    /// Authorities in PEM; the server's certificate must come from one of them
    #[arg(long)]
    pub ca: Option<PathBuf>,
    /// Seconds to wait for a handshake or for a response
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub timeout: u16,
    /// Also report the CPU that this process and its children used: user and system time per query
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Also count that process's system calls, as root; the count itself costs it CPU
    #[arg(long, requires = "server_pid")]
    pub server_calls: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// No progress bar
    #[arg(long)]
    pub quiet: bool,
}

/// Seconds, with a fraction if need be.
///
/// # Errors
/// Not a number, too short or too long.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.001..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "seconds from 0.001 to 86400".to_owned())
}

/// `--tls`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsVersion {
    /// 1.2 only.
    #[value(name = "1.2")]
    V1_2,
    /// 1.3 only.
    #[value(name = "1.3")]
    V1_3,
    /// The version that the server prefers.
    Any,
}

impl Options {
    /// Time to wait for a handshake or a response.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }

    /// When a run bounded by time ends; none when queries bound it.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        self.seconds.or(self.queries.is_none().then_some(DEFAULT_DURATION))
    }
}

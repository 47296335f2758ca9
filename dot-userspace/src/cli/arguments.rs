//! The verbs and options of `dotd`, with the help that an operator reads instead of a manual page.
//!
//! Before: the shell's words. After: `cli::main` calls the verb. Never: does more than describe.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use super::{
    acme::AcmeVerb,
    backend::BackendVerb,
    config_verbs::ConfigVerb,
    examples::*,
    import::Program,
    log::LogVerb,
    policy::PolicyVerb,
    query::QueryArguments,
    switches::SwitchVerb,
    tickets::TicketsVerb,
    upgrade::UpgradeArguments,
    upstream::UpstreamVerb,
    verify::VerifyArguments,
    watch_arguments::{TopArguments, TraceArguments},
};
use crate::config::parse_duration;

/// DNS over TLS in front of your DNS server.
///
/// dotd accepts DNS-over-TLS queries (RFC 7858) on port 853, forwards them in batches to a DNS server behind it and
/// returns the responses. An XDP program in the kernel drops packets that do not belong on the port before they cost
/// anything; without the rights for it dotd still serves, and says so.
#[derive(Debug, Parser)]
#[command(name = "dotd", version, max_term_width = 100, arg_required_else_help = true, after_help = EXAMPLES,
    after_long_help = LONG_EXAMPLES)]
pub(super) struct Arguments {
    /// Config file (TOML) [default: /etc/dotd/dotd.toml if it exists, else the default of every key]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// The verb.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Serve DNS over TLS until TERM or INT
    ///
    /// Prints how XDP is attached, the listen addresses, the certificate's pin and a `kdig` line that works when
    /// pasted, then `ready`. HUP makes dotd read config and certificates again; if they have mistakes, the old ones
    /// stay.
    #[command(after_help = RUN_EXAMPLES)]
    Run {
        /// Root's folder for the state that a restart keeps: the config that is served, and that bans survive
        ///
        /// The service manager empties it at a stop (RuntimeDirectoryPreserve=restart in systemd), and runs `dotd xdp detach
        /// --unless-restarts UNIT` behind each end, because XDP stays attached for a restart. If the config file has mistakes at a
        /// restart, dotd serves by the config from before.
        #[arg(long, value_name = "FOLDER")]
        restart_dir: Option<PathBuf>,
        /// Root's folder for what the process that serves must not read: the accounts of `[acme]`
        ///
        /// It must exist, belong to the user that starts dotd, and have mode 0700; the packaged unit has systemd make it
        /// (StateDirectory=). Without this option it is `keeper` in server.state_dir, which dotd makes.
        #[arg(long, value_name = "FOLDER")]
        keeper_dir: Option<PathBuf>,
        /// The descriptor of the list that the previous program of this process wrote
        #[arg(long, hide = true, value_name = "DESCRIPTOR")]
        inherit: Option<i32>,
        /// Check whether this program could take over, and change nothing
        #[arg(long, hide = true, requires = "inherit")]
        trial: bool,
        /// Be the ACME process of the keeper that runs this, with the errand on standard input
        #[arg(long, hide = true, conflicts_with_all = ["inherit", "restart_dir", "keeper_dir"])]
        acme: bool,
    },
    /// Report what `run` would do, and every mistake in config and certificates
    ///
    /// Opens no listener, writes no file, and sends no packet without --connect. Prints one line for each mistake
    /// with file, line and column; exit status 1 if there is one.
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// Ask every backend one question, as `run` would, and report each failure with its remedy
        ///
        /// Uses the backend's transport, and its name and pins over TLS; exit status 1 if a backend gives no answer.
        /// Any answer counts, also an error.
        #[arg(long)]
        connect: bool,
        /// Print the result of each backend as JSON, for programs
        #[arg(long, requires = "connect")]
        json: bool,
    },
    /// The certificate by ACME: show its state, or renew it now
    ///
    /// `[acme]` in the config names the authority and the names; dotd then gets and renews the certificate itself.
    Acme {
        #[command(subcommand)]
        verb: AcmeVerb,
    },
    /// Print the settings with which clients and DHCP servers find this dotd
    ///
    /// DHCP options (RFC 9463) for Kea, dnsmasq and systemd-networkd, an Apple profile, Android's host name, and
    /// lines for systemd-resolved, Unbound and Stubby, with the name and the pin of the certificate. Reads only the
    /// config and the certificates.
    #[command(after_help = DISCOVERY_EXAMPLES)]
    Discovery {
        /// Address that clients ask; may be repeated [default: those of listen.dot]
        #[arg(long = "address", value_name = "ADDRESS")]
        addresses: Vec<IpAddr>,
    },
    /// Print SPKI pins of certificates in the form for clients (RFC 7858 §4.2)
    ///
    /// A pin is the Base64 form of SHA-256 over a certificate's public key. It stays the same when the certificate is
    /// renewed with the same key. Without files: the pins of the certificates that the config names, or of the
    /// self-signed one.
    #[command(after_help = PIN_EXAMPLES)]
    Pin {
        /// PEM files: certificates, or private keys for backup pins
        #[arg(value_name = "CERT")]
        files: Vec<PathBuf>,
    },
    /// Ask a DNS server over TLS, TCP or UDP, and show the details of connection and answers
    ///
    /// A client for diagnosis. Questions and options may be written as for dig and kdig: `+short` is `--short`. All
    /// questions are sent over one connection, and the output shows in which order the answers came.
    Query(Box<QueryArguments>),
    /// Show the running dotd: listeners, backends, certificates, XDP
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Show every counter of the running dotd
    ///
    /// Kernel, workers and control thread in one ledger. "ledger difference" is the number of messages and
    /// connections that came in, less those with a counted fate: zero when none is in progress.
    #[command(after_help = STATS_EXAMPLES)]
    Stats {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Watch the running dotd: rates, latencies, drops, top clients, backends
    ///
    /// While an operator watches, workers count the clients with the most activity; they stop fifteen seconds after
    /// the last request.
    #[command(after_help = TOP_EXAMPLES)]
    Top(TopArguments),
    /// Follow the events of a client: accept, handshake, queries, responses, refusals, end
    ///
    /// Shows events of a client's whole prefix, or of one session as `dotd explain` names it. A reader that is too
    /// slow loses events, which are counted; dotd never waits for a reader.
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(TraceArguments),
    /// Look at the packets of the DNS-over-TLS ports, and say whether they are TLS
    ///
    /// Captures for a while, follows each TCP connection, and counts TLS records by version and octets in clear by
    /// their sender. Needs root, and no running dotd. Packets that native XDP drops reach no capture: their number
    /// comes from dotd's counters. Exit status 1 if the server sent an octet in clear.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyArguments),
    /// Show the state of a client in the running dotd, and the keys that would change it
    ///
    /// Lists, ban, handshake budget, rates (of the kernel half too), connections, sessions, and the client's last
    /// refusals.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain {
        /// An address, or a prefix
        #[arg(value_name = "CLIENT")]
        client: String,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Print the URL of the running dotd's page, with the token that permits actions
    ///
    /// The page is on `control.http`. With the token a browser may read the page, drain dotd, ban clients and lift
    /// bans; each start of dotd makes a new token.
    #[command(after_help = PAGE_EXAMPLES)]
    Page {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Make the running dotd read its config and certificates again
    ///
    /// Prints what is in effect now, and which keys wait for a restart. If the new config, or a certificate that it
    /// names, cannot be used, the old one stays, the reason is printed, and the exit status is 1.
    #[command(after_help = RELOAD_EXAMPLES)]
    Reload {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Replace the program of the running dotd, and keep its clients connected
    ///
    /// dotd first tries the installed program, or `--binary`: the trial checks config and certificates, and loads the
    /// XDP programs. The new program then takes over the listening sockets, XDP, bans, counters of packets and ticket
    /// keys. Once it serves, the old one answers the queries that it has, hands its sessions over or ends them, and
    /// exits. No connection is refused. If the new program cannot serve, the old one continues to serve, the reason
    /// is printed, and the exit status says whether a restart helps. The config file is read again.
    #[command(after_help = UPGRADE_EXAMPLES)]
    Upgrade(UpgradeArguments),
    /// History of TLS with backends: since when, with which key, how it fails, and whether an attacker may strip it
    Upstream {
        #[command(subcommand)]
        verb: UpstreamVerb,
    },
    /// The backends of the running dotd: drain one, or change its weight
    Backend {
        #[command(subcommand)]
        verb: BackendVerb,
    },
    /// Ban clients for a while, and lift bans
    ///
    /// XDP drops a banned client's packets to the ports of dotd before they cost anything; clients in `xdp.allow`
    /// still pass. Bans are kept in the kernel: they survive a reload and a crash, and an orderly stop ends them. For
    /// a permanent ban use `xdp.deny`.
    Ban {
        #[command(subcommand)]
        verb: BanVerb,
    },
    /// The caches of the running dotd
    Cache {
        #[command(subcommand)]
        verb: CacheVerb,
    },
    /// The policy zones of the running dotd: rules that change the answers for names and addresses
    #[command(after_help = POLICY_EXAMPLES, args_conflicts_with_subcommands = true)]
    Policy {
        #[command(subcommand)]
        verb: Option<PolicyVerb>,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Show the misuses that the running dotd finds now: floods of random names, tunnels, clients that do too much
    ///
    /// `[misuse]` of the config says which misuse dotd looks for, and what it does about it. Each worker counts on its own.
    #[command(after_help = MISUSE_EXAMPLES)]
    Misuse {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// The session tickets of the running dotd
    Tickets {
        #[command(subcommand)]
        verb: TicketsVerb,
    },
    /// The config of the running dotd, and what a file would change in it
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// The log of the running dotd
    Log {
        #[command(subcommand)]
        verb: LogVerb,
    },
    /// The kernel half of the running dotd
    Xdp {
        #[command(subcommand)]
        verb: XdpVerb,
    },
    /// Convert the config of stunnel, HAProxy or nginx to a dotd.toml
    ///
    /// Prints TOML that `dotd check` accepts, and names the line of the old file beside each value. A line of the old
    /// file without a counterpart becomes a comment that gives the reason. Nothing is written or changed.
    #[command(after_help = IMPORT_EXAMPLES)]
    Import {
        /// Program that the files belong to
        program: Program,
        /// Its config files; name the files that they include here too
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    #[command(flatten)]
    Switch(SwitchVerb),
    /// Print a manual page, for machines on which no package installed it
    #[command(after_help = MAN_EXAMPLES)]
    Man {
        /// The verb, such as `query` or `ban add`; without one, the page of dotd itself
        #[arg(value_name = "VERB")]
        verbs: Vec<String>,
        /// Write every page into this folder instead
        #[arg(long, value_name = "DIR", conflicts_with = "verbs")]
        to: Option<PathBuf>,
    },
    /// Print completions for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// The verbs for bans.
#[derive(Debug, Subcommand)]
pub(super) enum BanVerb {
    /// Show every ban with its hits and the time left
    #[command(after_help = BAN_LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Ban a client, or change its ban
    ///
    /// XDP drops every packet of the client, and its open sessions end at once. This works also if `xdp.limit.mode`
    /// is "count".
    #[command(after_help = BAN_ADD_EXAMPLES)]
    Add {
        /// An address, whose client prefix is banned, or exactly such a prefix
        #[arg(value_name = "CLIENT")]
        client: String,
        /// Duration of the ban, up to 7d [default: xdp.limit.ban_seconds, or 1min if that is 0]
        #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
        length: Option<Duration>,
        /// The reason, for the list of bans
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Lift a ban, whether dotd or an operator made it
    #[command(after_help = BAN_DEL_EXAMPLES)]
    Del {
        /// The client, as `dotd ban list` shows it
        #[arg(value_name = "CLIENT")]
        client: String,
        #[command(flatten)]
        control: ControlArguments,
    },
}

/// The verbs for the caches.
#[derive(Debug, Subcommand)]
pub(super) enum CacheVerb {
    /// Remove cached answers: for a name, for all names below it, of a type, or all
    ///
    /// Queries that are at a backend continue, and their answers are cached. `dotd stats` shows how many answers are
    /// cached.
    #[command(after_help = CACHE_FLUSH_EXAMPLES)]
    Flush {
        /// Remove the answers for this name; without it, those for every name
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// Remove also the answers for every name below it
        #[arg(long, requires = "name")]
        suffix: bool,
        /// Remove only answers of this type, such as AAAA or TYPE65
        #[arg(long = "type", value_name = "TYPE")]
        qtype: Option<String>,
        #[command(flatten)]
        control: ControlArguments,
    },
}

/// The verbs for the kernel half.
#[derive(Debug, Subcommand)]
pub(super) enum XdpVerb {
    /// Show interfaces, steering and programs, and the reason for anything that is degraded
    #[command(after_help = XDP_EXAMPLES)]
    Show {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Detach the kernel half from every interface
    ///
    /// Removes the programs and maps that a crashed dotd of any version left attached and pinned in this network
    /// namespace; needs root. It is refused while a dotd runs here, because that dotd would attach again. With
    /// --force the running dotd detaches, and continues to serve without XDP until it is restarted.
    #[command(after_help = DETACH_EXAMPLES)]
    Detach {
        /// Detach also while a dotd is running
        #[arg(long)]
        force: bool,
        /// Do nothing while systemd restarts this unit, or will start it again after a failure: for its ExecStopPost=
        #[arg(long, value_name = "UNIT", conflicts_with = "force")]
        unless_restarts: Option<String>,
        #[command(flatten)]
        control: ControlArguments,
    },
}

/// How to reach the running dotd and how to print its answer.
#[derive(Debug, Args)]
pub(super) struct ControlArguments {
    /// Control socket of the running dotd [default: control.sock in the config's run_dir]
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// Print the answer as JSON, for programs
    #[arg(long)]
    pub(super) json: bool,
}

#[cfg(test)]
mod tests;

//! The verbs and options of `dotd`, with the help an operator reads instead of a manual page.
//!
//! Before: the shell's words. After: `cli::main` calls the verb. Never: does anything but describe.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use super::{
    examples::*,
    import::Program,
    log::LogVerb,
    policy::PolicyVerb,
    query::QueryArguments,
    switches::SwitchVerb,
    tickets::TicketsVerb,
    upgrade::UpgradeArguments,
    upstream::UpstreamVerb,
    watch_arguments::{TopArguments, TraceArguments},
};
use crate::config::parse_duration;

/// DNS over TLS in front of your DNS server.
///
/// dotd takes DNS-over-TLS queries (RFC 7858) on port 853, forwards them in batches to a DNS server behind it
/// and returns the responses. An XDP program in the kernel drops what does not belong on the port before it
/// costs anything; without the rights for it everything still works, and dotd says so.
#[derive(Debug, Parser)]
#[command(name = "dotd", version, max_term_width = 100, arg_required_else_help = true, after_help = EXAMPLES,
    after_long_help = LONG_EXAMPLES)]
pub(super) struct Arguments {
    /// Config file (TOML) [default: /etc/dotd/dotd.toml if it is there, else every default]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Serve DNS over TLS until TERM or INT
    ///
    /// Prints how XDP is attached, where it listens, the certificate's pin and a `kdig` line that works when
    /// pasted, then `ready`. HUP reads config and certificates again; when they are wrong, the old ones stay.
    #[command(after_help = RUN_EXAMPLES)]
    Run {
        /// The descriptor on which the program before, in this process, lists what it leaves
        #[arg(long, hide = true, value_name = "DESCRIPTOR")]
        inherit: Option<i32>,
        /// Look whether this program could take over, and change nothing
        #[arg(long, hide = true, requires = "inherit")]
        trial: bool,
    },
    /// Say what `run` would do, and every mistake in config and certificates
    ///
    /// Touches nothing: opens no listener, writes no file, and sends no packet without --connect. One line for each mistake
    /// with file, line and column; exit status 1 when there is one.
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// Ask every backend one question, as `run` would, and say what failed and how to mend it
        ///
        /// Over its transport, and with its name and pins over TLS; exit status 1 when one gives no answer. Any answer counts,
        /// also an error.
        #[arg(long)]
        connect: bool,
        /// Print what came of each backend as JSON, for programs
        #[arg(long, requires = "connect")]
        json: bool,
    },
    /// Print what clients and DHCP servers need to find this dotd
    ///
    /// DHCP options (RFC 9463) for Kea, dnsmasq and systemd-networkd, an Apple profile, Android's host name, and lines for
    /// systemd-resolved, Unbound and Stubby, with the name and the pin of the certificate. Reads the config alone.
    #[command(after_help = DISCOVERY_EXAMPLES)]
    Discovery {
        /// Address that clients ask; may be repeated [default: those of listen.dot]
        #[arg(long = "address", value_name = "ADDRESS")]
        addresses: Vec<IpAddr>,
    },
    /// Print SPKI pins of certificates, as clients take them (RFC 7858 §4.2)
    ///
    /// A pin is the Base64 form of SHA-256 over a certificate's public key. It stays the same when the
    /// certificate is renewed with the same key. Without files: of the certificates that the config names, or
    /// of the self-signed one.
    #[command(after_help = PIN_EXAMPLES)]
    Pin {
        /// PEM files: certificates, or private keys for backup pins
        #[arg(value_name = "CERT")]
        files: Vec<PathBuf>,
    },
    /// Ask a DNS server over TLS, TCP or UDP, and show everything about it
    ///
    /// A client for diagnosis. Questions and options may be written as for dig and kdig: `+short` is `--short`. All
    /// questions go out over one connection, and the answers say in which order they came.
    Query(Box<QueryArguments>),
    /// Show the running dotd: listeners, backends, certificates, XDP
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Show every counter of the running dotd
    ///
    /// Kernel, workers and control thread in one ledger. "ledger difference" is what came in less what was
    /// accounted for: all zero when nothing is under way.
    #[command(after_help = STATS_EXAMPLES)]
    Stats {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Watch the running dotd: rates, latencies, drops, top clients, backends
    ///
    /// While somebody watches, workers count which clients do most; they stop fifteen seconds after the last look.
    #[command(after_help = TOP_EXAMPLES)]
    Top(TopArguments),
    /// Follow what happens to a client: accept, handshake, queries, responses, refusals, end
    ///
    /// Events of a client's whole prefix, or of one session as `dotd explain` names it. A reader that is too slow loses events,
    /// which are counted; dotd waits for nobody.
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(TraceArguments),
    /// Show what the running dotd knows of a client, and which keys would change it
    ///
    /// Lists, ban, handshake budget, rates (of the kernel half too), connections, sessions, and what was refused to it
    /// lately.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain {
        /// An address, or a prefix
        #[arg(value_name = "CLIENT")]
        client: String,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Print the address of the running dotd's page, with the token by which its reader may act
    ///
    /// The page is on `control.http`. Whoever has the token may read it, drain dotd, ban clients and lift bans; each start of dotd has
    /// another token.
    #[command(after_help = PAGE_EXAMPLES)]
    Page {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Have the running dotd read its config and certificates again
    ///
    /// Says what is in effect now, and which keys wait for a restart. When the new config, or a certificate that it names,
    /// cannot be used, the old one stays, the reason is printed, and the exit status is 1.
    #[command(after_help = RELOAD_EXAMPLES)]
    Reload {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Have another dotd take the running one's place, while clients stay served
    ///
    /// The program that is installed, or `--binary`, is tried first: it looks at config and certificates, and loads its XDP
    /// programs. Then it takes the listening sockets, XDP, bans, counters of packets and ticket keys over; once it serves, the
    /// old one answers what it was asked, ends its sessions and leaves. No connection is refused. Where the new one cannot
    /// serve, the old one serves on, the reason is printed, and the exit status is 1. The config file is read again.
    #[command(after_help = UPGRADE_EXAMPLES)]
    Upgrade(UpgradeArguments),
    /// TLS with backends: since when, by which key, how it fails, and whether somebody strips it
    Upstream {
        #[command(subcommand)]
        verb: UpstreamVerb,
    },
    /// Ban clients for a while, and lift bans
    ///
    /// XDP drops a banned client's packets to our ports before they cost anything; clients in `xdp.allow` are let in
    /// all the same. Bans live in the kernel: they survive a reload and a crash; an orderly stop ends them. For a
    /// permanent ban use `xdp.deny`.
    Ban {
        #[command(subcommand)]
        verb: BanVerb,
    },
    /// The caches of the running dotd
    Cache {
        #[command(subcommand)]
        verb: CacheVerb,
    },
    /// The policy zones of the running dotd: which names and addresses are answered otherwise
    #[command(after_help = POLICY_EXAMPLES, args_conflicts_with_subcommands = true)]
    Policy {
        #[command(subcommand)]
        verb: Option<PolicyVerb>,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// The session tickets of the running dotd
    Tickets {
        #[command(subcommand)]
        verb: TicketsVerb,
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
    /// Turn the config of stunnel, HAProxy or nginx into a dotd.toml
    ///
    /// Prints TOML that `dotd check` accepts, with the place in the old file behind each value. A line of the old file
    /// that has no counterpart becomes a comment that says why. Nothing is written or changed.
    #[command(after_help = IMPORT_EXAMPLES)]
    Import {
        /// Program that the files belong to
        program: Program,
        /// Its config files; those that they include are named here too
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    #[command(flatten)]
    Switch(SwitchVerb),
    /// Print a manual page, where no package installed it
    #[command(after_help = MAN_EXAMPLES)]
    Man {
        /// The verb, such as `query` or `ban add`; without one the page of dotd itself
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

/// What to do with bans.
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
    /// XDP drops every packet of the client, and its open sessions end at once. Holds also where `xdp.limit.mode` is
    /// "count".
    #[command(after_help = BAN_ADD_EXAMPLES)]
    Add {
        /// An address, whose client prefix is banned, or exactly such a prefix
        #[arg(value_name = "CLIENT")]
        client: String,
        /// How long, up to 7d [default: xdp.limit.ban_seconds, or 1min where that is 0]
        #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
        length: Option<Duration>,
        /// Why, for the list of bans
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Lift a ban, whether dotd or an operator made it
    #[command(after_help = BAN_DEL_EXAMPLES)]
    Del {
        /// As in `dotd ban list`
        #[arg(value_name = "CLIENT")]
        client: String,
        #[command(flatten)]
        control: ControlArguments,
    },
}

/// What to do with the caches.
#[derive(Debug, Subcommand)]
pub(super) enum CacheVerb {
    /// Forget cached answers: of a name, of all names below it, of a type, or all
    ///
    /// Queries that are at a backend go on, and their answers are cached. `dotd stats` shows how many answers are
    /// cached.
    #[command(after_help = CACHE_FLUSH_EXAMPLES)]
    Flush {
        /// Forget the answers for this name; without it, for every name
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// Also those for every name below it
        #[arg(long, requires = "name")]
        suffix: bool,
        /// Only answers of this type, such as AAAA or TYPE65
        #[arg(long = "type", value_name = "TYPE")]
        qtype: Option<String>,
        #[command(flatten)]
        control: ControlArguments,
    },
}

/// What to do with the kernel half.
#[derive(Debug, Subcommand)]
pub(super) enum XdpVerb {
    /// Show interfaces, steering and programs; what is degraded, and why
    #[command(after_help = XDP_EXAMPLES)]
    Show {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Take the kernel half off every interface
    ///
    /// Removes what a dotd that crashed left attached and pinned in this network namespace, of any version; needs root.
    /// It is refused while a dotd runs here, because that one would attach again. With --force the running dotd
    /// detaches, and serves on without XDP until it is restarted.
    #[command(after_help = DETACH_EXAMPLES)]
    Detach {
        /// Take XDP from a running dotd
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        control: ControlArguments,
    },
}

/// How to reach a running dotd and how to print its answer.
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

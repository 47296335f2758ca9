//! The scene: two namespaces, two backends, dotd with XDP, and the clients.
//!
//! Before: duration and rate. After: the results of clients, changes and ledger. Holds: addresses and the config.
//! Never: outlives its namespaces.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Parser;
use dot_tests::harness::{
    backends::{Backend, dnsperf_queries},
    config::Config,
    netns::{CLIENT_V4, Network, SERVER_INTERFACE, SERVER_V4},
    pki::Authority,
    scratch::Scratch,
    server::Server,
    stats::Stats,
};

use super::{
    Options,
    changes::{self, Changed, Changes},
};
use crate::{
    load::{
        client::Clients,
        options::Options as LoadOptions,
        queries,
        threads::{self, Outcome},
    },
    peers::process::Keeper,
};

/// Both NSDs, on loopback in the server's namespace.
pub(super) const BACKENDS: [SocketAddr; 2] = [
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 5300),
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3)), 5300),
];
/// Addresses of clients: 198.18.0.0/15 is for such measurements (RFC 2544).
const CLIENTS: &str = "198.18.0.0/15";
const CLIENT_BASE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Connections, one in five of which is opened for each query.
const CONNECTIONS: u32 = 100;
/// Names that are asked for in turn.
const NAMES: usize = 1000;
/// The time for queries in flight when the load ends.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// The results of a run.
pub(super) struct Seen {
    pub(super) outcome: Outcome,
    pub(super) changes: Changes,
    /// The line that dotd printed about its kernel half at its start.
    pub(super) xdp: String,
    /// The remainders of the ledger's three equations; 0 is right.
    pub(super) difference: [i128; 3],
    /// Resident memory of the engine in KiB, before and after.
    pub(super) resident_kib: [u64; 2],
}

/// The config, in one of two forms that a reload changes between.
pub(super) fn config(options: &Options, folder: &Path, is_other: bool) -> Config {
    let (idle, policy, weight) =
        if is_other { ("\"60s\"", "\"round-robin\"", 2) } else { ("\"30s\"", "\"least-outstanding\"", 1) };
    let transport = format!("transport = \"{}\"", options.transport.name());
    Config::new()
        .certificate(&folder.join("live/cert.pem"), &folder.join("live/key.pem"))
        .set("session", "idle_timeout", idle)
        .set("balance", "policy", policy)
        .backend_with(BACKENDS[0], &transport)
        .backend_with(BACKENDS[1], &format!("{transport}\nweight = {weight}"))
}

/// Starts everything, asks, changes, and checks the ledger.
pub(super) fn run(options: &Options, keeper: &Keeper) -> Result<Seen> {
    let network = Network::new();
    network.client.ip(&format!("route add local {CLIENTS} dev lo"));
    network.server.ip(&format!("route add {CLIENTS} via {CLIENT_V4} dev {SERVER_INTERFACE}"));
    let backends = BACKENDS.map(|address| Some(Backend::nsd_at(&network, address)));
    let (authority, scratch) = (Authority::new(), Scratch::new());
    keeper.remove_at_signal(scratch.path());
    let dotd = options.programs.dotd.canonicalize();
    let dotd = dotd.with_context(|| format!("no {}", options.programs.dotd.display()))?;
    std::fs::copy(&dotd, scratch.path().join("dotd"))?;
    changes::renew_certificate(scratch.path(), &authority, 0);
    let names = scratch.write("names", dnsperf_queries(NAMES));
    let config = config(options, scratch.path(), false);
    let dotd = Server::attempt(&network, &config, scratch, &[])
        .map_err(|ended| anyhow::anyhow!("dotd did not start: {}", ended.stderr.trim()))?;
    let before = dotd.memory_kib("VmRSS");
    let (load, is_over) = (load(options, &names)?, AtomicBool::new(false));
    let (outcome, changes) = thread::scope(|scope| {
        let changed = Changed { network: &network, dotd: &dotd, backends, authority: &authority };
        let changes = scope.spawn(|| changes::make(options, changed, &is_over));
        let outcome = network.client.run(move || -> Result<Outcome> {
            threads::run(&load, queries::load(&load)?, &Clients::new(&load)?)
        });
        is_over.store(true, Relaxed);
        let changes = changes.join();
        (outcome, changes)
    });
    let changes = changes.map_err(|_| anyhow::anyhow!("a change could not be made; see above"))?;
    let settled = settled(&dotd);
    Ok(Seen {
        outcome: outcome?,
        changes,
        xdp: dotd.xdp(),
        difference: settled.difference(),
        resident_kib: [before, dotd.memory_kib("VmRSS")],
    })
}

/// The ledger once its equations hold, or as it is after a time that every query and session has ended in.
fn settled(dotd: &Server) -> Stats {
    let end = Instant::now() + SETTLE_MAX;
    loop {
        let stats = dotd.stats();
        if stats.difference() == [0; 3] || Instant::now() > end {
            return stats;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Clients for the time of the run.
fn load(options: &Options, names: &Path) -> Result<LoadOptions> {
    let std::net::IpAddr::V4(address) = SERVER_V4 else { anyhow::bail!("the pair has no IPv4 address") };
    let words = [
        "dotload".to_owned(),
        format!("{address}:853"),
        "--depth=100".to_owned(),
        "--mix=chatty=4,one-shot=1".to_owned(),
        "--pause=0.5".to_owned(),
        format!("--file={}", names.display()),
        format!("--rate={}", options.rate),
        format!("--connections={CONNECTIONS}"),
        format!("--sources={CONNECTIONS}"),
        format!("--source-base={CLIENT_BASE}"),
        format!("--seconds={}", options.seconds),
    ];
    Ok(LoadOptions::try_parse_from(words)?)
}

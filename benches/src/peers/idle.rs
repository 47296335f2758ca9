//! Sessions that are only held: the first right answer of a peer, and the memory of an idle connection.
//!
//! Before: a peer that runs. After: kibibytes a connection, by three measures.
//! Never: measures a peer that has served a load: memory that it freed would hide the cost of a connection.
//!
//! Source: proc(5), `/proc/PID/smaps_rollup`. Sockets' memory in the kernel is not in it.

use std::{fs, net::SocketAddr, rc::Rc, thread, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;
use dot_tests::harness::response::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
    task::LocalSet,
    time::timeout,
};

use super::{catalog::Backend, machine::kib, options::Options, stage::Peer};
use crate::load::{
    client::{Client, Clients},
    connection::Stream,
    cpu::descendants,
    options::Options as LoadOptions,
    queries::Query,
};

const TYPE_A: u16 = 1;
/// The zone's apex.
const NAME: &str = "dotd.test.";
const ADDRESS: [u8; 4] = [192, 0, 2, 53];
const PATIENCE: Duration = Duration::from_secs(5);
/// Handshakes at once.
const CONNECTING_MAX: usize = 32;
/// Connections that open and close before the measurement: memory that a server allocates for its first client is not a
/// cost of each connection.
const WARM_UP: u32 = 32;
const SETTLE: Duration = Duration::from_millis(300);
/// How long connections rest before they are weighed: dotd gives up what an idle one does not need after some seconds, and others may.
const REST: Duration = Duration::from_secs(10);

/// A peer's weight for each of `connections`, in KiB.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Idle {
    pub(crate) peer: &'static str,
    pub(crate) connections: usize,
    pub(crate) pss_kib: f64,
    pub(crate) rss_kib: f64,
    pub(crate) anonymous_kib: f64,
}

/// Connects, asks for the apex, and checks the answer against the zone.
///
/// # Errors
/// No connection, no response, or a wrong one.
pub(crate) fn ask_once(address: SocketAddr, is_answering: bool) -> Result<()> {
    let clients = clients(address)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (_, response) = runtime.block_on(ask(&clients.client(0)))?;
    if is_answering {
        let message = Message::parse(&response).context("its response is malformed")?;
        let is_right = message.records.iter().any(|record| record.rtype == TYPE_A && record.rdata == ADDRESS);
        if !is_right {
            bail!("its response holds no A record of the zone: {message:?}");
        }
    }
    Ok(())
}

/// Weighs each peer; those that refuse connections are missing, with a word on stderr.
pub(crate) fn weigh_all(options: &Options, peers: &[Peer]) -> Vec<Idle> {
    if options.idle == 0 {
        return Vec::new();
    }
    let mut weighed = Vec::new();
    for peer in peers.iter().filter(|peer| peer.backend == Backend::Nsd) {
        match weigh(peer, options.idle) {
            Ok(idle) => {
                eprintln!("idle    {:<16}{:8.1} KiB a connection", peer.entry.name, idle.pss_kib);
                weighed.push(idle);
            }
            Err(why) => eprintln!("peers: {}: cannot be weighed: {why:#}", peer.entry.name),
        }
    }
    weighed
}

fn weigh(peer: &Peer, connections: u32) -> Result<Idle> {
    let clients = clients(peer.address)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    drop(local.block_on(&runtime, open(&clients, WARM_UP))?);
    thread::sleep(SETTLE);
    let before = Memory::of(peer.process.pid());
    let open = local.block_on(&runtime, open(&clients, connections))?;
    thread::sleep(REST);
    let after = Memory::of(peer.process.pid());
    let each = |after: u64, before: u64| after.saturating_sub(before) as f64 / open.len() as f64;
    Ok(Idle {
        peer: peer.entry.name,
        connections: open.len(),
        pss_kib: each(after.pss, before.pss),
        rss_kib: each(after.rss, before.rss),
        anonymous_kib: each(after.anonymous, before.anonymous),
    })
}

fn clients(address: SocketAddr) -> Result<Clients> {
    let address = address.to_string();
    Clients::new(&LoadOptions::try_parse_from(["dotload", &address, "--no-resumption"])?)
}

/// Opens sessions, each with one query answered: some servers close those that never ask.
async fn open(clients: &Clients, count: u32) -> Result<Vec<Stream>> {
    let permits = Rc::new(Semaphore::new(CONNECTING_MAX));
    let mut pending = Vec::new();
    for number in 0..count {
        let (client, permits) = (clients.client(number), Rc::clone(&permits));
        pending.push(tokio::task::spawn_local(async move {
            let _permit = permits.acquire().await;
            ask(&client).await.map(|(stream, _)| stream)
        }));
    }
    let mut streams = Vec::new();
    for pending in pending {
        streams.push(pending.await??);
    }
    Ok(streams)
}

async fn ask(client: &Client) -> Result<(Stream, Vec<u8>)> {
    let exchange = async {
        let mut stream = client.connect().await?;
        let mut query = Vec::new();
        Query::new(NAME, "A", false)?.write(7, &mut query);
        stream.write_all(&query).await?;
        stream.flush().await?;
        let octets = stream.read_u16().await?;
        let mut response = vec![0; usize::from(octets)];
        stream.read_exact(&mut response).await?;
        Ok((stream, response))
    };
    timeout(PATIENCE, exchange).await.context("no response in time")?
}

/// A process and its descendants, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) pss: u64,
    rss: u64,
    anonymous: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Self {
        descendants(pid).into_iter().chain([pid]).fold(Self::default(), |sum, pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            Self {
                pss: sum.pss + kib(&text, "Pss"),
                rss: sum.rss + kib(&text, "Rss"),
                anonymous: sum.anonymous + kib(&text, "Anonymous"),
            }
        })
    }
}

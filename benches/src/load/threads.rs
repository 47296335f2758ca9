//! Spreads connections over threads, starts all clocks at once, and adds up.
//!
//! Before: options, queries and clients. After: an [`Outcome`] for `report`.
//! Holds: each thread's share of the queries. Never: counts the first handshakes as load if connections are lasting:
//! every session is open before the clock starts.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use tokio::{sync::Semaphore, task::LocalSet};

use super::{
    calls::Calls,
    client::{Client, Clients},
    connection::{Stream, drive, open},
    cpu::Usage,
    options::Options,
    pacer::{Lane, pace},
    population::{Population, wander},
    progress::Progress,
    queries::{Query, Wrong, rcode_of},
    tally::Tally,
};

/// Handshakes of one thread at once while sessions are set up: a listen queue is often 128 long.
const CONNECTING_MAX: usize = 32;
/// How often the main thread checks whether everything is done.
const LOOK: Duration = Duration::from_millis(20);

/// The state that one thread's connections share.
pub struct Share {
    /// Everything that can be asked.
    pub queries: Arc<[Query]>,
    /// Queries in flight on a connection.
    pub depth: u16,
    /// Queries on one connection; the largest number for no limit.
    pub per_connection: u64,
    /// Time for a handshake or a response.
    pub patience: Duration,
    /// Between queries of clients that are not chatty, on average.
    pub pause: Duration,
    /// The counts.
    pub tally: RefCell<Tally>,
    expected: u16,
    left: Cell<u64>,
    deadline: Cell<Option<Instant>>,
    cursor: Cell<usize>,
    progress: Arc<AtomicU64>,
}

/// The result of a run.
pub struct Outcome {
    /// All threads' counts.
    pub tally: Tally,
    /// From the common start to the last response.
    pub elapsed: Duration,
    /// The CPU of the load generator.
    pub own: Usage,
    /// The server's CPU, with `--server-pid`.
    pub server: Option<Usage>,
    /// The server's system calls, with `--server-calls`.
    pub calls: Option<u64>,
}

impl Share {
    fn new(options: &Options, queries: Arc<[Query]>, number: u16, progress: Arc<AtomicU64>) -> Result<Self> {
        let threads = u64::from(options.threads);
        let number = u64::from(number);
        // Split without remainder: the first threads take one more.
        let left = options.queries.map(|all| all / threads + u64::from(number < all % threads));
        let mut expected = 0;
        for rcode in &options.expect {
            expected |= 1 << rcode_of(rcode)?;
        }
        let cursor = queries.len() * usize::try_from(number)? / usize::from(options.threads);
        Ok(Self {
            queries,
            depth: options.depth,
            per_connection: if options.per_connection == 0 { u64::MAX } else { options.per_connection },
            patience: options.patience(),
            pause: options.pause,
            tally: RefCell::default(),
            expected,
            left: Cell::new(left.unwrap_or(u64::MAX)),
            deadline: Cell::new(None),
            cursor: Cell::new(cursor),
            progress,
        })
    }

    /// The next query to send; none when the share is used up or the time is over.
    pub fn next(&self, now: Instant) -> Option<usize> {
        let is_over = self.deadline.get().is_some_and(|deadline| now >= deadline);
        let left = self.left.get().checked_sub(1).filter(|_| !is_over)?;
        self.left.set(left);
        self.tally.borrow_mut().sent += 1;
        let query = self.cursor.get();
        self.cursor.set((query + 1) % self.queries.len());
        Some(query)
    }

    /// Whether there is a query left to send, and time for it.
    pub fn may_send(&self) -> bool {
        self.left.get() > 0 && self.deadline.get().is_none_or(|deadline| Instant::now() < deadline)
    }

    /// Time until the end; none when queries bound the run.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.get().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Counts a response that has its query.
    pub fn answered(&self, population: Population, checked: Result<u8, Wrong>, latency: Duration) {
        let mut tally = self.tally.borrow_mut();
        tally.response(population, checked, |rcode| self.expected & (1 << rcode) != 0, latency);
        // One writer; the main thread only shows it.
        self.progress.store(tally.answered, Relaxed);
    }
}

/// Runs the whole load.
///
/// # Errors
/// The server's process is not there, a thread could not start, or no session could be opened at all.
pub fn run(options: &Options, queries: Vec<Query>, clients: &Clients) -> Result<Outcome> {
    let queries: Arc<[Query]> = queries.into();
    let barrier = Arc::new(Barrier::new(usize::from(options.threads) + 1));
    let mut threads = Vec::new();
    let mut progress = Vec::new();
    for number in 0..options.threads {
        let (options, clients, queries) = (options.clone(), clients.clone(), Arc::clone(&queries));
        let (barrier, counter) = (Arc::clone(&barrier), Arc::new(AtomicU64::new(0)));
        progress.push(Arc::clone(&counter));
        let share = move || Share::new(&options, queries, number, counter).map(|share| (options, share));
        let work = move || -> Result<(Tally, Instant)> {
            let prepared = share();
            // This comes also after a failure, because the other threads wait here.
            let Ok((options, share)) = prepared else {
                barrier.wait();
                return prepared.map(|_| (Tally::default(), Instant::now()));
            };
            one_thread(&options, &clients, share, number, &barrier)
        };
        threads.push(thread::Builder::new().name(format!("load-{number}")).spawn(work)?);
    }
    barrier.wait();
    let (begun, bar) = (Instant::now(), Progress::begin(options));
    let own = Usage::of(std::process::id())?;
    let server = options.server_pid.map(Usage::of).transpose()?;
    let mut calls = options.server_pid.filter(|_| options.server_calls).map(Calls::of).transpose()?;
    while threads.iter().any(|thread| !thread.is_finished()) {
        thread::sleep(LOOK);
        let answered = progress.iter().map(|counter| counter.load(Relaxed)).sum();
        bar.show(answered, begun.elapsed());
    }
    drop(bar);
    let own = Usage::of(std::process::id())?.since(&own);
    let calls = calls.as_mut().map(Calls::count).transpose()?;
    let server = match (options.server_pid, server) {
        (Some(pid), Some(before)) => {
            Some(Usage::of(pid).context("the server ended during the run")?.since(&before))
        }
        _ => None,
    };
    let mut outcome = Outcome { tally: Tally::default(), elapsed: Duration::ZERO, own, server, calls };
    for thread in threads {
        let (tally, ended) = thread.join().map_err(|_| anyhow!("a load thread panicked"))??;
        outcome.tally.add(&tally);
        outcome.elapsed = outcome.elapsed.max(ended.saturating_duration_since(begun));
    }
    Ok(outcome)
}

/// One thread: its sessions, the common start, its share.
fn one_thread(
    options: &Options,
    clients: &Clients,
    share: Share,
    number: u16,
    barrier: &Barrier,
) -> Result<(Tally, Instant)> {
    let numbers = (0..options.connections).filter(|n| n % u32::from(options.threads) == u32::from(number));
    let clients: Vec<Party> = numbers.map(|number| Party::new(options, clients, number)).collect();
    let share = Rc::new(share);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else {
        barrier.wait();
        return Err(runtime.err().map_or_else(|| anyhow!("no runtime"), Into::into));
    };
    let local = LocalSet::new();
    let sessions = local.block_on(&runtime, connect_all(Rc::clone(&share), clients));
    barrier.wait();
    share.deadline.set(options.duration().map(|duration| Instant::now() + duration));
    local.block_on(&runtime, async {
        let (mut lanes, mut connections) = (Vec::<Rc<Lane>>::new(), Vec::new());
        for (Party { client, population, seed, .. }, first) in sessions {
            let share = Rc::clone(&share);
            connections.push(if population == Population::Chatty {
                let lane = options.rate.map(|_| Rc::default());
                lanes.extend(lane.clone());
                tokio::task::spawn_local(drive(share, client, first, lane))
            } else {
                tokio::task::spawn_local(wander(share, client, population, first, seed))
            });
        }
        if let Some(rate) = options.rate.filter(|_| !lanes.is_empty()) {
            let rate = f64::from(rate) / f64::from(options.threads);
            pace(Rc::clone(&share), lanes.clone(), rate, number.into()).await?;
        }
        for connection in connections {
            connection.await?;
        }
        // A connection that failed too often took no further queries.
        share.tally.borrow_mut().lost += lanes.iter().map(|lane| lane.left()).sum::<u64>();
        Ok::<_, anyhow::Error>(())
    })?;
    let tally = share.tally.borrow().clone();
    Ok((tally, Instant::now()))
}

/// One client and what it is like.
struct Party {
    client: Client,
    population: Population,
    seed: u64,
    /// Whether its connection lasts longer than a query.
    is_lasting: bool,
}

impl Party {
    fn new(options: &Options, clients: &Clients, number: u32) -> Self {
        let population = options.mix.map_or(Population::Chatty, |mix| mix.of(number));
        let is_lasting = options.per_connection == 0 && population != Population::OneShot;
        Self { client: clients.client(number), population, seed: number.into(), is_lasting }
    }
}

/// Opens every session that lasts, a few at a time.
async fn connect_all(share: Rc<Share>, clients: Vec<Party>) -> Vec<(Party, Option<Stream>)> {
    let permits = Rc::new(Semaphore::new(CONNECTING_MAX));
    let mut pending = Vec::new();
    for party in clients {
        let (share, permits) = (Rc::clone(&share), Rc::clone(&permits));
        pending.push(tokio::task::spawn_local(async move {
            let _permit = permits.acquire().await;
            let first = if party.is_lasting { open(&share, &party.client).await } else { None };
            (party, first)
        }));
    }
    let mut sessions = Vec::new();
    for pending in pending {
        // A task that panicked has said so on stderr; its connection is missing from the report.
        sessions.extend(pending.await);
    }
    sessions
}

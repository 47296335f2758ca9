//! Unit tests of the folder: a task of a backend that starts again after a panic, a reload's limits, one backend in another's place.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    sync::Notify,
    task::LocalSet,
};

use super::{
    BackendConfig, Backends, Broken, Failure, Health, Receiver, Sink, TlsMemory, pool::Pool, sweep, transfer,
};
use crate::{
    config::{ClientSubnet, Policy, Transport},
    dns::{Asked, Query},
    ledger::{BackendLines, Counter, TlsFault, WorkerCounters},
};

/// `. IN NS`, RD.
pub(super) const QUERY: [u8; 17] = [0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// A sink that ignores its outcome.
pub(super) struct Ignores;

impl Sink for Ignores {
    fn response(&self, _: Asked, _: &[u8]) -> Result<(), Broken> {
        Ok(())
    }

    fn failure(&self, _: Asked, _: &[u8], _: Failure) {}
}

impl Receiver for Ignores {
    fn has_room(&self) -> bool {
        true
    }

    fn is_open(&self) -> bool {
        true
    }

    fn changes(&self) -> Rc<Notify> {
        Rc::default()
    }

    fn message(&self, _: &[u8], _: bool) {}

    fn end(&self, _: Asked, _: &[u8], _: bool) {}
}

/// A sink for an answer that never comes.
struct Nobody;

impl Sink for Nobody {
    fn response(&self, _: Asked, _: &[u8]) -> Result<(), Broken> {
        Ok(())
    }

    fn failure(&self, _: Asked, _: &[u8], failure: Failure) {
        panic!("{failure:?}");
    }
}

/// A backend without queries yet, with an hour's timeout.
pub(super) fn backend_at(address: std::net::SocketAddr, transport: Transport) -> BackendConfig {
    BackendConfig {
        name: "scripted".into(),
        address,
        transport,
        tls: None,
        stands_in: None,
        proxy_v2: false,
        pads: false,
        outstanding_max: 0,
        timeout: Duration::from_secs(3600),
        weight: 1,
        health_interval: Duration::from_secs(3600),
        health: Health::default(),
        lines: BackendLines::default(),
    }
}

/// A worker's backends with one query that waits at the only one; a sender that is gone has consumed the wake-up.
async fn waiting(address: std::net::SocketAddr, transport: Transport) -> Rc<Pool> {
    let config = backend_at(address, transport);
    let counters = WorkerCounters::default();
    let pool = Pool::new(&[config], Policy::First, 0, ClientSubnet::Pass, &counters);
    let query = Query::parse(&QUERY).unwrap();
    pool.submit(&QUERY, &query, Rc::new(Nobody)).unwrap();
    let backend = pool.backend(0).unwrap();
    match transport {
        Transport::Udp => backend.datagram_queue.work.notified().await,
        _ => backend.stream_queue.work.notified().await,
    }
    sweep::start(&pool);
    pool
}

/// Goal: a reload changes the limits of a backend with queries. Method: none, one and two queries at a time;
/// another timeout.
///
#[test]
fn limits_change_while_queries_are_in_flight() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let config = backend_at("127.0.0.1:9".parse().unwrap(), Transport::Tcp);
        let counters = WorkerCounters::default();
        let pool = Pool::new(std::slice::from_ref(&config), Policy::First, 0, ClientSubnet::Pass, &counters);
        let query = Query::parse(&QUERY).unwrap();
        let submit = || pool.submit(&QUERY, &query, Rc::new(Nobody));
        let limit = |outstanding_max, seconds| {
            let config =
                BackendConfig { outstanding_max, timeout: Duration::from_secs(seconds), ..config.clone() };
            pool.reload(Policy::RoundRobin, &[config]);
        };
        assert_eq!(submit(), Ok(()));
        limit(1, 3600);
        assert_eq!(submit(), Err(Failure::Full));
        limit(2, 7200);
        assert_eq!((submit(), submit()), (Ok(()), Err(Failure::Full)));
        let now = tokio::time::Instant::now();
        let late = pool.flights.borrow().find(|flight| flight.deadline - now > Duration::from_secs(7000));
        assert_eq!(late.len(), 1, "the second");
    });
}

/// Goal: whatever goes in clear to a backend that stands in for another is counted, a transfer too. Method: a query and a
/// transfer to a server of which no TLS is known and whose TLS fails.
#[test]
fn what_goes_in_clear_is_counted() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let memory = TlsMemory::default();
        let config = BackendConfig {
            stands_in: Some(memory.clone()),
            ..backend_at("127.0.0.1:9".parse().unwrap(), Transport::Udp)
        };
        let counters = WorkerCounters::default();
        let pool = Pool::new(&[config], Policy::First, 0, ClientSubnet::Pass, &counters);
        let query = Query::parse(&QUERY).unwrap();
        assert_eq!(pool.submit(&QUERY, &query, Rc::new(Ignores)), Err(Failure::Full), "nothing has failed");
        memory.note_failure("one", TlsFault::Closed);
        pool.submit(&QUERY, &query, Rc::new(Ignores)).unwrap();
        let mut axfr = QUERY;
        axfr[14] = 252;
        transfer::begin(&pool, &axfr, &Query::parse(&axfr).unwrap(), Rc::new(Ignores)).unwrap();
        assert_eq!(counters.get(Counter::BackendInClear), 2);
    });
}

/// Goal: queries that waited when their sender panicked leave as soon as there is a sender again, not only with
/// the next query. Method: a query whose wake-up went to a sender that is gone; over UDP and TCP.
#[test]
fn queries_leave_with_a_new_sender() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let mut heard = [0; 64];
        let datagrams = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let _pool = waiting(datagrams.local_addr().unwrap(), Transport::Udp).await;
        let count = datagrams.recv(&mut heard).await.unwrap();
        assert_eq!(heard.get(2..count), QUERY.get(2..));

        let streams = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _pool = waiting(streams.local_addr().unwrap(), Transport::Tcp).await;
        let (mut stream, _) = streams.accept().await.unwrap();
        let mut heard = [0; 2 + QUERY.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!((&heard[..2], &heard[4..]), (&[0, 17][..], &QUERY[2..]));
    });
}

/// A sink that counts responses.
#[derive(Default)]
struct Counts(Cell<usize>);

impl Sink for Counts {
    fn response(&self, _: Asked, _: &[u8]) -> Result<(), Broken> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }

    fn failure(&self, _: Asked, _: &[u8], failure: Failure) {
        panic!("{failure:?}");
    }
}

/// Reads a query from a backend's end of a connection.
async fn heard(stream: &mut tokio::net::TcpStream) -> [u8; 2 + QUERY.len()] {
    let mut query = [0; 2 + QUERY.len()];
    stream.read_exact(&mut query).await.unwrap();
    query
}

/// Answers it.
async fn answer(stream: &mut tokio::net::TcpStream, mut query: [u8; 2 + QUERY.len()]) {
    query[4] |= 0x80;
    stream.write_all(&query).await.unwrap();
}

/// Goal: another address of one backend leaves the connection of the other one open, and the query that the old address has is answered
/// there; what has left is forgotten. Method: two servers over TCP, in turn; one is replaced while it has a query; then a thousand other
/// addresses.
#[test]
fn one_backend_takes_the_place_of_another() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let configs: Vec<_> =
            servers.iter().map(|one| backend_at(one.local_addr().unwrap(), Transport::Tcp)).collect();
        let counters = WorkerCounters::default();
        let backends = Backends::start(&configs[..2], Policy::RoundRobin, 0, ClientSubnet::Pass, &counters);
        let (query, answered) = (Query::parse(&QUERY).unwrap(), Rc::new(Counts::default()));
        let submit = || backends.submit(&QUERY, &query, Rc::clone(&answered) as Rc<dyn Sink>).unwrap();
        let until = |count| {
            let answered = Rc::clone(&answered);
            async move {
                while answered.0.get() < count {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        (0..2).for_each(|_| submit());
        let (mut stays, mut leaves) =
            (servers[0].accept().await.unwrap().0, servers[1].accept().await.unwrap().0);
        let (first, late) = (heard(&mut stays).await, heard(&mut leaves).await);
        answer(&mut stays, first).await;
        until(1).await;
        assert!(backends.replace(&[configs[0].clone(), configs[2].clone()]));
        (0..2).for_each(|_| submit());
        // Over the connection that there was.
        let again = heard(&mut stays).await;
        answer(&mut stays, again).await;
        let mut comes = servers[2].accept().await.unwrap().0;
        let new = heard(&mut comes).await;
        answer(&mut comes, new).await;
        until(3).await;
        answer(&mut leaves, late).await;
        until(4).await;
        assert_eq!(
            leaves.read(&mut [0; 1]).await.unwrap_or_default(),
            0,
            "its connection ends with its last query"
        );
        let indexes = || backends.pool.roster.borrow().indexes();
        for port in 1..=1000 {
            let other = backend_at(([127, 0, 0, 1], port).into(), Transport::Tcp);
            assert!(backends.replace(&[configs[0].clone(), other]));
            backends.tasks.end_those_that_left();
        }
        assert!(indexes() <= 4, "{}", indexes());
        submit();
        let query = heard(&mut stays).await;
        answer(&mut stays, query).await;
        until(5).await;
    });
}

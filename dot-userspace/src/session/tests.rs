//! Unit tests of a session as part of its worker: it is small, its turns are bounded, and it gives up its place.

mod rest;

use std::{
    cell::Cell,
    future::Future,
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use tokio::{task::LocalSet, time::Instant};

use super::{
    Carried, EVICTED_LINGERING_MAX, Guest, IdleProbe, Inbox, Link, Moving, Outcome, Wanted,
    scripted::{Read, Scripted, found, worker_shared},
    serve,
    shared_answers::Asker as _,
};
use crate::{
    dns::{Asked, Query},
    ledger::{Counter, WorkerCounters},
    proxy::Client,
    tls::{self, ReadEnd, Stream},
};

/// Goal: an idle session is a small future; buffers that it needs while it works belong to its worker. C-24 asks for
/// many sessions.
#[test]
fn a_session_is_small() {
    fn octets_of<A, B, C, F>(_: impl Fn(Stream, A, B, C, Carried, fn(Outcome)) -> F) -> usize {
        size_of::<F>()
    }
    let octets = octets_of(serve::<Stream>);
    assert!(octets <= 448, "{octets}");
    assert!(size_of::<IdleProbe>() <= 64);
}

/// Opcode 2, which dotd answers by itself, framed.
const STATUS: [u8; 14] = [0, 12, 0, 1, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A client with this many reads ready, each as full as possible.
fn endless(mut reads_left: usize, asked: Rc<Cell<u64>>) -> impl Link {
    Scripted::new(move |scratch: &mut [u8]| {
        let Some(left) = reads_left.checked_sub(1) else { return Poll::Pending };
        reads_left = left;
        let whole =
            scratch.chunks_exact_mut(STATUS.len()).map(|place| place.copy_from_slice(&STATUS)).count();
        asked.set(asked.get() + whole as u64);
        found(whole * STATUS.len())
    })
}

/// Counts wake-ups.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Lets the worker begin a turn, if a session waits for one.
async fn next_turn() {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

fn client() -> Guest {
    let address = "192.0.2.1:853".parse().unwrap();
    Guest::from(Client { source: address, destination: address, is_datagram: false, tls: None, tlvs: None })
}

/// Goal: a client that asks as fast as it can, with queries that dotd answers by itself, has bounded turns: other
/// sessions run between them, and all its queries are answered. Method: a client with half a million queries ready,
/// polled by hand: each turn answers some hundreds and asks for another, until all are answered.
#[test]
fn a_turn_is_bounded() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (counters, asked) = (WorkerCounters::default(), Rc::new(Cell::new(0)));
        let link = endless(100, Rc::clone(&asked));
        let mut session =
            pin!(serve(link, worker_shared(&counters), client(), Rc::default(), Carried::begun(), |_| ()));
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        let (mut turns, mut before) = (0, 0);
        while bell.0.swap(0, Relaxed) > 0 || turns == 0 {
            assert!(session.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            next_turn().await;
            let answered = counters.get(Counter::Responded);
            assert!(answered - before <= 1024, "{} answers in a turn", answered - before);
            (turns, before) = (turns + 1, answered);
        }
        assert!(turns > 100 && asked.get() > 400_000, "{turns} turns for {} queries", asked.get());
        assert_eq!(before, asked.get());
    });
}

/// Goal: a session that stopped reading in order to leave for another process reads again while that process has no
/// room, because it may have to stay.
/// Method: a session with a response that its client has not taken, which keeps it here; the reads of each turn.
///
#[test]
fn a_session_that_cannot_leave_is_read_again() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (counters, reads) = (WorkerCounters::default(), Rc::new(Cell::new(0)));
        let counted = Rc::clone(&reads);
        let link = Scripted::taking(Rc::default(), move |scratch: &mut [u8]| {
            counted.set(counted.get() + 1);
            if counted.get() > 1 {
                return Poll::Pending;
            }
            scratch[..STATUS.len()].copy_from_slice(&STATUS);
            found(STATUS.len())
        });
        let shared = worker_shared(&counters);
        let mut session =
            pin!(serve(link, Rc::clone(&shared), client(), Rc::default(), Carried::begun(), |_| ()));
        let mut reads_of_turn = |moving| {
            shared.move_sessions(moving);
            let before = reads.get();
            assert!(session.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            reads.get() - before
        };
        let now = Moving::Now(Instant::now());
        assert_eq!([now, now, Moving::Paused, now].map(&mut reads_of_turn), [2, 0, 1, 1]);
        assert_eq!(reads_of_turn(now), 0);
    });
}

/// Goal: a client that sends records of one octet, empty records, or octets that never form a message, as fast as it
/// can, has bounded turns and delays no other. Method: reads that are always ready, of one octet in one record, of 64
/// KiB in the smallest records, and of empty records; polled by hand, each poll reads a bounded number of times,
/// records and octets, and asks for another.
#[test]
fn a_turn_is_bounded_by_reads_records_and_octets() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let kinds = [
        ("octets", tls::Read { plaintext: 0..1, octets: 23, records: 1 }, 32),
        ("small records", tls::Read { plaintext: 0..2849, octets: 65_527, records: 2849 }, 1),
        ("empty records", tls::Read { plaintext: 0..0, octets: 22 * 100, records: 100 }, 11),
        ("large records", tls::Read { plaintext: 0..65_440, octets: 65_536, records: 4 }, 4),
    ];
    for (name, read, reads_max) in kinds {
        LocalSet::new().block_on(&runtime, async {
            let (counters, reads) = (WorkerCounters::default(), Rc::new(Cell::new(0)));
            let counted = Rc::clone(&reads);
            let link = Scripted::new(move |scratch: &mut [u8]| {
                counted.set(counted.get() + 1);
                assert!(counted.get() <= 1000, "{name}: a turn without end");
                // The beginning of a message of 65,535 octets; whenever it would be whole, it starts again.
                scratch.fill(0xff);
                Poll::Ready(Ok(read.clone()))
            });
            let mut session = pin!(serve(
                link,
                worker_shared(&counters),
                client(),
                Rc::default(),
                Carried::begun(),
                |_| ()
            ));
            let bell = Arc::new(Bell::default());
            let waker = Waker::from(Arc::clone(&bell));
            for turn in 0..5 {
                assert!(session.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                assert_eq!(reads.replace(0), reads_max, "{name}, turn {turn}");
                next_turn().await;
                assert!(bell.0.swap(0, Relaxed) > 0, "{name}: it is woken again");
            }
        });
    }
}

/// A query for the longest name, framed: the failure response is as long.
fn longest_query() -> Vec<u8> {
    let label = |octets: u8| std::iter::once(octets).chain(std::iter::repeat_n(b'x', octets.into()));
    let name: Vec<u8> = [63, 63, 63, 61, 0].into_iter().flat_map(label).collect();
    let header = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let message = [&header[..], &name, &[0, 1, 0, 1]].concat();
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat()
}

/// Goal: a session that was held because its client read nothing goes on when the client reads everything at once:
/// nothing else would wake it, because no query is in flight and no response waits. Method: more queries at once than
/// responses may wait, without a backend, so each is answered in its turn; the client then reads all of them. Covers:
///
#[test]
fn a_client_that_takes_all_at_once_is_heard_again() {
    const QUERIES: u64 = 600;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (counters, is_taking) = (WorkerCounters::default(), Rc::new(Cell::new(false)));
        let mut queries = longest_query().repeat(usize::try_from(QUERIES).unwrap());
        let link = Scripted::taking(Rc::clone(&is_taking), move |scratch: &mut [u8]| {
            let octets = queries.len().min(scratch.len());
            if octets == 0 {
                return Poll::Pending;
            }
            scratch.iter_mut().zip(queries.drain(..octets)).for_each(|(place, octet)| *place = octet);
            found(octets)
        });
        let mut session =
            pin!(serve(link, worker_shared(&counters), client(), Rc::default(), Carried::begun(), |_| ()));
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        let mut rung = async || {
            assert!(session.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            next_turn().await;
            while bell.0.swap(0, Relaxed) > 0 {
                assert!(session.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                next_turn().await;
            }
        };
        rung().await;
        let held_at = counters.get(Counter::Responded);
        assert!((1..QUERIES).contains(&held_at), "{held_at}");
        is_taking.set(true);
        // The socket becomes writable: this one wake-up is by hand.
        rung().await;
        assert_eq!(counters.get(Counter::Responded), QUERIES);
    });
}

/// Goal: an answer that fits into no message because of dotd's additions becomes SERVFAIL with the client's question,
/// and not silence (RFC 5625 §6.3). Method: an answer of 65,535 octets and one more. Covers: A-276, C-256
#[test]
fn an_answer_that_no_message_holds_is_servfail() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let counters = WorkerCounters::default();
        let inbox = Inbox::open(worker_shared(&counters), client(), std::time::Instant::now());
        let question = [1, b'x', 0, 0, 16, 0, 1];
        let query = [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &question].concat();
        let asked = Asked::by(&Query::parse(&query).unwrap());
        for (octets, rcode) in [(65_535, 0), (65_536, 2)] {
            let record = [0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60];
            let mut response = [&[0, 9, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0][..], &question].concat();
            // Two records, because one holds no more than 65,535 octets.
            let rdata = octets - response.len() - 2 * 12;
            for part in [rdata / 2, rdata - rdata / 2] {
                response.extend(record);
                response.extend(u16::try_from(part).unwrap().to_be_bytes());
                response.resize(response.len() + part, 0);
            }
            assert_eq!(response.len(), octets);
            let sink = inbox.expect();
            sink.response(asked, &response).unwrap();
            assert!(!inbox.is_quiet(), "it waits to be written");
            let framed = inbox.take().unwrap();
            assert_eq!((framed[5] & 0x0f, &framed[2..4]), (rcode, &[0, 7][..]), "{octets} octets");
            assert_eq!(framed.get(14..21), Some(&question[..]));
            assert!(inbox.is_quiet());
        }
    });
}

/// Goal: a lingering session gives up its place like others. It is then one of the few that linger without a place, of
/// which the longest ends; if its descriptor is needed, it ends at once. So there are never more open descriptors than
/// places plus those few. Method: clients that close and acknowledge nothing, two more than allowed; each is asked for
/// its place, while it lingers or just before; then one is asked for its descriptor. Covers: A-274, C-26
#[test]
fn a_lingering_session_gives_way() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for is_asked_first in [false, true] {
        LocalSet::new().block_on(&runtime, async {
            let counters = WorkerCounters::default();
            let shared = worker_shared(&counters);
            let begin = |_| {
                let (probe, link) = (Rc::new(IdleProbe::default()), Scripted::lingering(closed));
                (
                    Rc::clone(&probe),
                    Box::pin(serve(link, Rc::clone(&shared), client(), probe, Carried::begun(), |_| ())),
                )
            };
            let mut sessions: Vec<_> = (0..EVICTED_LINGERING_MAX + 2).map(begin).collect();
            let probes: Vec<_> = sessions.iter().map(|(probe, _)| Rc::clone(probe)).collect();
            let mut poll = |at: usize| {
                let mut context = Context::from_waker(Waker::noop());
                sessions[at].1.as_mut().poll(&mut context).is_ready()
            };
            let ask = || probes.iter().for_each(|probe| probe.ask_to_leave(Wanted::Place));
            if is_asked_first {
                ask();
            }
            assert!(!(0..probes.len()).any(&mut poll), "the clients have not taken what they are owed");
            assert!(probes.iter().all(|probe| probe.idle_since().is_some()), "each can be found");
            assert_eq!(counters.get(Counter::Lingering), probes.len() as u64);
            if !is_asked_first {
                ask();
            }
            let left: Vec<_> = (0..probes.len()).filter(|at| poll(*at)).collect();
            assert_eq!(left, [0, 1], "as many stay as may");
            assert_eq!(counters.get(Counter::Lingering), EVICTED_LINGERING_MAX as u64);
            probes[7].ask_to_leave(Wanted::Descriptor);
            let left: Vec<_> = (2..probes.len()).filter(|at| poll(*at)).collect();
            assert_eq!(left, [7]);
        });
    }
}

/// A read that finds that the client has closed.
fn closed(_: &mut [u8]) -> Read {
    Poll::Ready(Err(ReadEnd::Closed))
}

/// Goal: a lingering session whose descriptor is needed ends at once, also one that ended by an error of the client,
/// after a last turn that did not mark it as idle. Method: as above, for each way in which the client ended. Covers:
///
#[test]
fn a_lingering_session_gives_its_descriptor() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for end in [ReadEnd::Closed, ReadEnd::Tls] {
        LocalSet::new().block_on(&runtime, async {
            let counters = WorkerCounters::default();
            let (probe, mut end) = (Rc::new(IdleProbe::default()), Some(end));
            let link = Scripted::lingering(move |_: &mut [u8]| {
                end.take().map_or(Poll::Pending, |end| Poll::Ready(Err(end)))
            });
            let mut session = pin!(serve(
                link,
                worker_shared(&counters),
                client(),
                Rc::clone(&probe),
                Carried::begun(),
                |_| ()
            ));
            let mut context = Context::from_waker(Waker::noop());
            assert!(session.as_mut().poll(&mut context).is_pending());
            assert!(probe.idle_since().is_some(), "it can be found");
            probe.ask_to_leave(Wanted::Descriptor);
            assert!(session.as_mut().poll(&mut context).is_ready());
            assert_eq!(counters.get(Counter::Lingering), 0);
        });
    }
}

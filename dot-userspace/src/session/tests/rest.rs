//! An idle session frees the memory of its keys, once, and a busy one does not.

use std::time::Duration;

use super::*;

/// A session that has been idle for `idle`, with `reads` for its first turns; returns whether its link still has memory to
/// free after the first, and how often sessions have rested.
fn polled(idle: Duration, mut reads: Vec<&'static [u8]>) -> (bool, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (counters, may_rest) = (WorkerCounters::default(), Rc::new(Cell::new(true)));
        let link = Scripted::resting(&may_rest, move |scratch: &mut [u8]| {
            let Some(octets) = reads.pop() else { return Poll::Pending };
            scratch[..octets.len()].copy_from_slice(octets);
            found(octets.len())
        });
        let began = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let idle_since = Some(Instant::now().checked_sub(idle).unwrap());
        let carried = Carried { began, idle_since, ..Carried::begun() };
        let shared = worker_shared(&counters);
        let mut session = pin!(serve(link, Rc::clone(&shared), client(), Rc::default(), carried, |_| ()));
        let mut poll = || session.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
        assert!(poll() && poll(), "it goes on");
        (may_rest.get(), counters.get(Counter::Rested))
    })
}

/// Goal: a session that has been idle for five seconds frees what its link needs only while it is used, once; one that has
/// been idle for less keeps it, and so does one whose message came now, or has come in part: such a client could make it
/// free and make its keys for each octet. Method: sessions that continue with these times, polled by hand.
///
#[test]
fn a_session_rests_when_it_has_been_idle() {
    let [short, long] = [Duration::from_secs(1), Duration::from_secs(10)];
    assert_eq!(polled(long, vec![]), (false, 1), "once, however often it is polled");
    assert_eq!(polled(short, vec![]), (true, 0));
    assert_eq!(polled(long, vec![&STATUS]), (true, 0), "a message");
    assert_eq!(polled(long, vec![&STATUS[..5]]), (true, 0), "a part of one");
    assert_eq!(polled(long, vec![&[]]), (false, 1), "a record without content is no message");
}

/// Goal: a connection without memory to free, such as one in clear, or one that is at rest already, does not rest again.
/// Method: as above.
#[test]
fn a_session_at_rest_stays_so() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let counters = WorkerCounters::default();
        let link = Scripted::new(|_: &mut [u8]| Poll::Pending);
        let idle_since = Instant::now().checked_sub(Duration::from_secs(10));
        let carried = Carried { began: idle_since.unwrap(), idle_since, ..Carried::begun() };
        let mut session =
            pin!(serve(link, worker_shared(&counters), client(), Rc::default(), carried, |_| ()));
        assert!(session.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(counters.get(Counter::Rested), 0);
    });
}

//! Tests of DNS over UDP: an answer leaves whatever happens to the task that sends it.

use tokio::task::LocalSet;

use super::*;
use crate::{ledger::WorkerCounters, session::scripted::worker_shared};

/// Goal: an answer that waited when its sender panicked leaves as soon as there is a sender again, not only with
/// the next query's. Method: an answer whose wake-up went to a sender that is gone.
#[test]
fn what_waits_leaves_with_a_new_sender() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Rc::new(Endpoint {
            address: socket.local_addr().unwrap(),
            socket,
            shared: worker_shared(&WorkerCounters::default()),
            waiting: RefCell::default(),
            bell: Notify::new(),
            spare: RefCell::default(),
        });
        let ends = Ends { client: client.local_addr().unwrap(), ours: None };
        // Opcode 2, which dotd answers by itself.
        endpoint.take(&[0xab, 0xcd, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0], ends, false);
        endpoint.bell.notified().await;
        spawn_local(send_all(Rc::clone(&endpoint)));
        let mut answer = [0; 64];
        assert_eq!(client.recv(&mut answer).await.unwrap(), 12);
        assert_eq!(answer[..2], [0xab, 0xcd]);
    });
}

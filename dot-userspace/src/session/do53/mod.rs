//! DNS over UDP, in clear: one system call each way for a turn's datagrams, and the same steps as for a session
//! between.
//!
//! Before: the kernel chose this worker's socket for a datagram. After: its answer left from the address that was
//! asked. TCP on the same port is [`super::serve`] over a [`Plain`].
//! Holds: answers that the kernel has not taken, up to [`WAITING_OCTETS_MAX`]; senders whose answers have left, for
//! reuse, so that a query allocates nothing once the socket is warm.
//! Never: pads (RFC 8467 is for encrypted transports), sends keepalive (RFC 7828 §3.2.1), answers a response or port 0,
//! or sends more than the client accepts and a path carries: a longer answer is TC=1.
//!
//! Source: RFC 1035 §4.2.1, RFC 6891 §6.2, RFC 9715, RFC 9210 §3.

mod addressee;
mod batch;
mod plain;
mod sender;
mod waiting;

use std::{
    cell::RefCell, convert::Infallible, io, net::SocketAddr, ops::Range, os::fd::AsRawFd, rc::Rc,
    time::Instant,
};

use tokio::{io::Interest, net::UdpSocket, sync::Notify, task::spawn_local, time};

use addressee::Addressee;
use batch::{BATCH_MAX, Ends, Inbound, Outbound};
pub use plain::Plain;
use sender::{Asking, Sender};
use waiting::Waiting;

use super::{
    WorkerShared,
    discovery::describe,
    disposition::{Recipient, Refusal, act_on},
    fate_guard::FateGuard,
    notified::notified,
    screening::ask,
    traced,
};
use crate::{
    backend::Broken,
    dns::{self, Asked, Hop, Query, Rcode, Reply, triage},
    events::{Effort, What},
    ledger::{Counter, Disposal, QueryTransport, turn_time},
    moment::Moment,
    policy::{Denial, Member, TenantId},
    proxy::{Client, header},
    supervise::supervise,
};

/// Octets of answers that may wait for the kernel; further answers are dropped, as on any full path.
const WAITING_OCTETS_MAX: usize = 4 << 20;
/// This hop adds no EDNS option: there is no padding in clear, and no keepalive over UDP.
const HOP: Hop = Hop { padding: false, keepalive_100ms: None };

/// Answers the datagrams of one socket until the task is aborted; queries in flight are answered even then.
///
/// # Errors
/// The socket's error.
pub async fn serve_datagrams(socket: UdpSocket, shared: Rc<WorkerShared>) -> io::Result<()> {
    let address = socket.local_addr()?;
    if address.ip().is_unspecified() {
        batch::tell_destination(socket.as_raw_fd(), address.is_ipv6())?;
    }
    let endpoint = Rc::new(Endpoint {
        socket,
        address,
        shared,
        waiting: RefCell::default(),
        bell: Notify::new(),
        spare: RefCell::default(),
    });
    let own = Rc::clone(&endpoint);
    spawn_local(supervise("sender of datagrams", move || send_all(Rc::clone(&own))));
    supervise("receiver of datagrams", || receive_all(&endpoint)).await
}

/// Receives all datagrams, a batch at a time.
async fn receive_all(endpoint: &Rc<Endpoint>) -> io::Result<()> {
    let mut inbound = Inbound::default();
    loop {
        endpoint.socket.readable().await?;
        let mut got = 0;
        let _ = endpoint.socket.try_io(Interest::READABLE, || {
            got = inbound.receive(endpoint.socket.as_raw_fd())?;
            // Fewer than one batch: the kernel's queue is empty, so wait without another call.
            if got < BATCH_MAX { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        turn_time::begin(time::Instant::now());
        for (octets, ends, is_cut) in inbound.datagrams(got) {
            endpoint.take(octets, ends, is_cut);
        }
        if got == BATCH_MAX {
            // A flood must not starve the sessions.
            tokio::task::yield_now().await;
        }
    }
}

/// When a query was read, if it is measured, and how it was answered.
type Measured = (Option<Moment>, Disposal);

/// One socket, and the answers that wait to leave over it.
struct Endpoint {
    socket: UdpSocket,
    /// Its bound address.
    address: SocketAddr,
    shared: Rc<WorkerShared>,
    waiting: RefCell<Waiting>,
    bell: Notify,
    /// Senders for reuse. None of them holds the endpoint, which could never close otherwise.
    spare: RefCell<Vec<Rc<Sender>>>,
}

/// A datagram whose message is being judged.
struct Datagram<'a> {
    endpoint: &'a Rc<Endpoint>,
    ends: Ends,
    /// The client that a load balancer named.
    client: Option<Client>,
    /// The client's address.
    source: SocketAddr,
    /// Its client does too much: the query is told to come over TCP.
    is_sent_to_tcp: bool,
    /// Its client's tenant.
    tenant: TenantId,
}

impl<'a> Datagram<'a> {
    fn addressee(&self) -> Addressee<'_> {
        Addressee { ends: self.ends, named: self.client.as_ref() }
    }

    fn asking(self, message: &[u8], query: &Query) -> Asking<'a> {
        let Self { endpoint, ends, client, source, tenant, .. } = self;
        let octets_max = dns::datagram_octets_max(message, query);
        Asking { endpoint, ends, row: endpoint.shared.row_of(source.ip()), tenant, client, octets_max }
    }
}

impl Recipient for Datagram<'_> {
    fn answer(&self, message: &[u8], reply: &Reply) {
        self.endpoint.answer(self.addressee(), message, reply);
    }

    fn forward(self, message: &[u8], query: &Query) {
        let endpoint = self.endpoint;
        if self.is_sent_to_tcp {
            return endpoint.send_to_tcp(self.addressee(), message, query);
        }
        ask(&endpoint.shared, message, query, &self.asking(message, query));
    }

    fn describe(self, message: &[u8], query: &Query) {
        let endpoint = self.endpoint;
        describe(&endpoint.shared, message, query, &self.asking(message, query));
    }

    fn notify(self, message: &[u8], query: &Query) {
        let endpoint = self.endpoint;
        notified(&endpoint.shared, message, query, &self.asking(message, query));
    }

    /// Only a stream has room for a zone (RFC 1995 §4, RFC 5936 §4.2): TC=1.
    fn transfer(self, message: &[u8], query: &Query) {
        self.endpoint.send_to_tcp(self.addressee(), message, query);
    }
}

impl Endpoint {
    /// Handles one datagram. Counted once, here.
    fn take(self: &Rc<Self>, message: &[u8], ends: Ends, is_cut: bool) {
        let counters = &self.shared.counters;
        let _fate = FateGuard::of(counters);
        counters.add(Counter::ReceivedDatagram, 1);
        if is_cut || !ends.are_answerable() {
            return counters.add(Counter::DroppedUnanswerable, 1);
        }
        if !self.shared.trusts(ends.client.ip()) {
            return self.take_from(message, ends, None);
        }
        match header::parse(message) {
            Ok(Some((named, octets))) => {
                let client = named.addresses.map(|(source, destination)| Client {
                    source,
                    destination,
                    is_datagram: named.is_datagram,
                    tls: None,
                    tlvs: named.tlvs,
                });
                self.take_from(message.get(octets..).unwrap_or_default(), ends, client);
            }
            // The header is incomplete, and no more octets of it will come.
            Ok(None) | Err(_) => counters.add(Counter::DroppedProxyHeader, 1),
        }
    }

    /// The tenant of a client, which shows no names here.
    fn member_of(&self, client: SocketAddr) -> Member {
        self.shared.member_of(Some(self.address), client.ip(), None)
    }

    /// Whether the sender of a datagram may not ask; a dropped datagram is counted here.
    fn denies(&self, client: SocketAddr) -> Option<Denial> {
        let denial = self.shared.denies(self.address, client.ip())?;
        let counters = &self.shared.counters;
        counters.add(denial.reason.counter(), 1);
        counters.add(Counter::DroppedDenied, u64::from(denial.is_silent));
        self.shared.events.refused(client, denial.reason.counter());
        Some(denial)
    }

    /// Handles the message of a datagram, for the client that a load balancer named, if one did.
    fn take_from(self: &Rc<Self>, message: &[u8], ends: Ends, client: Option<Client>) {
        let counters = &self.shared.counters;
        let source = client.as_ref().map_or(ends.client, |client| client.source);
        let denial = self.denies(source);
        if denial.is_some_and(|denial| denial.is_silent) {
            return;
        }
        self.shared.events.heavy.add_query(source.ip(), message, dns::asked_name);
        self.shared.events.trace.tell(source, None, |names| traced::query(message, names));
        let tell = |what, refused| self.tell_misuse(source, what, refused);
        let misused = self.shared.judge_message(source.ip(), true, tell).unwrap_or_default();
        let member = self.member_of(source);
        let by_tenant = self.shared.judge_member(member);
        by_tenant.inspect(|refusal| self.shared.events.refused(source, refusal.counter));
        let refusal = denial.map(|_| Refusal::ACCESS).or(misused.refusal).or(by_tenant);
        let disposition = triage(message, self.shared.limits().allowed);
        let named = client.as_ref();
        traced::tap_query(&disposition, message, || Addressee { ends, named }.way(self));
        let is_sent_to_tcp = misused.is_sent_to_tcp;
        let datagram =
            Datagram { endpoint: self, ends, client, source, is_sent_to_tcp, tenant: member.tenant };
        act_on(disposition, message, refusal, datagram, counters);
    }

    /// Tells operators that a client's query is misuse, and why it is refused.
    fn tell_misuse(&self, client: SocketAddr, what: What, refused: Option<Counter>) {
        self.shared.events.trace.tell(client, None, |_| what.clone());
        refused.into_iter().for_each(|reason| self.shared.events.refused(client, reason));
    }

    /// Makes the client ask over TCP (TC=1).
    fn send_to_tcp(&self, to: Addressee<'_>, message: &[u8], query: &Query) {
        let reply = Reply::to(query, Rcode::NO_ERROR, None);
        self.answer_within(0, to, message, &reply, (Some(turn_time::moment()), Disposal::Responded));
        self.shared.counters.add(Counter::Responded, 1);
    }

    /// Queues a response of dotd's own to a query that was read in this turn.
    fn answer(&self, to: Addressee<'_>, message: &[u8], reply: &Reply) {
        self.answer_as(to, message, reply, (Some(turn_time::moment()), Disposal::Responded));
    }

    /// Queues a response of dotd's own, which is never too long for a client.
    fn answer_as(&self, to: Addressee<'_>, message: &[u8], reply: &Reply, measured: Measured) {
        self.answer_within(usize::MAX, to, message, reply, measured);
    }

    fn answer_within(
        &self,
        octets_max: usize,
        to: Addressee<'_>,
        message: &[u8],
        reply: &Reply,
        measured: Measured,
    ) {
        let write = |out: &mut Vec<u8>| {
            dns::synthesize(message, reply, HOP, out);
            Ok::<_, Infallible>(())
        };
        let limits = (octets_max, usize::from(reply.asked.question_end));
        let _ = self.push((to, measured), limits, reply.rcode.high() != 0, write);
    }

    /// Queues a backend's response.
    fn pass(
        &self,
        to: Addressee<'_>,
        octets_max: usize,
        asked: Asked,
        response: &[u8],
        disposal: Disposal,
    ) -> Result<(), Broken> {
        let write = |out: &mut Vec<u8>| {
            let edit = dns::respond(response, asked, HOP, out).map_err(|_| Broken)?;
            self.shared.note_edit(edit);
            Ok(())
        };
        self.push((to, (asked.since, disposal)), (octets_max, usize::from(asked.question_end)), false, write)
    }

    fn push<E>(
        &self,
        (to, measured): (Addressee<'_>, Measured),
        (octets_max, question_end): (usize, usize),
        is_extended: bool,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut waiting = self.waiting.borrow_mut();
        let waiting = &mut *waiting;
        let start = waiting.octets.len();
        write(&mut waiting.octets)?;
        if waiting.octets.len() - start > octets_max {
            dns::truncate(&mut waiting.octets, start, question_end);
            self.shared.counters.add(Counter::TruncatedDatagram, 1);
        }
        if waiting.octets.len() > WAITING_OCTETS_MAX {
            waiting.octets.truncate(start);
            self.shared.counters.add(Counter::DroppedClientGone, 1);
            return Ok(());
        }
        let response = waiting.octets.get(start..).unwrap_or_default();
        self.shared.count_response(response, is_extended);
        let (since, disposal) = measured;
        self.shared.watch_answer(to.source().ip(), true, response, disposal);
        self.shared.events.trace.tell(to.source(), None, |_| traced::response(response, since, disposal));
        traced::tap_response(since, response, || to.way(self));
        waiting.datagrams.push((start..waiting.octets.len(), to.ends, measured));
        self.shared.owe(1);
        self.bell.notify_one();
        Ok(())
    }

    /// Sends one batch. `Ok(false)`: no answer waits any more.
    fn send_batch(&self, outbound: &mut Outbound) -> io::Result<bool> {
        let mut waiting = self.waiting.borrow_mut();
        let waiting = &mut *waiting;
        let rest = waiting.datagrams.get(waiting.sent..).unwrap_or_default();
        if rest.is_empty() {
            waiting.clear(time::Instant::now);
            return Ok(false);
        }
        let octets = &waiting.octets;
        let datagrams =
            rest.iter().map(|(range, ends, _)| (octets.get(range.clone()).unwrap_or_default(), *ends));
        let sent =
            self.socket.try_io(Interest::WRITABLE, || outbound.send(self.socket.as_raw_fd(), datagrams));
        let gone = match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            // The first one cannot leave (no route to its client, or a filter forbids it): the others may.
            Err(_) => {
                self.shared.counters.add(Counter::DatagramSendFailed, 1);
                1
            }
            Ok(sent) => {
                self.measure(rest.get(..sent).unwrap_or_default());
                sent
            }
        };
        waiting.sent += gone;
        self.shared.settle(gone);
        Ok(true)
    }
}

impl Endpoint {
    /// The kernel has these answers now.
    fn measure(&self, sent: &[(Range<usize>, Ends, Measured)]) {
        let now = Moment::of(Instant::now());
        for (range, ends, (since, disposal)) in sent {
            self.shared.events.heavy.add(ends.client.ip(), Effort::Octets, range.len() as u64);
            if let Some(since) = since {
                let took = now.nanoseconds_since(*since);
                self.shared.counters.stages().record_times(disposal.of(QueryTransport::Udp), took, 1);
            }
        }
    }
}

/// Sends waiting answers, those of a turn together: the first answer wakes this task, and it runs after the turn. It
/// begins by sending, because after a panic nothing else would wake it for answers that already wait.
async fn send_all(endpoint: Rc<Endpoint>) {
    let mut outbound = Outbound::default();
    loop {
        loop {
            match endpoint.send_batch(&mut outbound) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    if endpoint.socket.writable().await.is_err() {
                        return;
                    }
                }
            }
        }
        let look_again = endpoint.waiting.borrow_mut().shrink(time::Instant::now);
        match look_again {
            Some(until) => drop(time::timeout_at(until, endpoint.bell.notified()).await),
            None => endpoint.bell.notified().await,
        }
    }
}

#[cfg(test)]
mod tests;

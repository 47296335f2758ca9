//! `--trace-on`: what the dotd of this machine saw of this query's connections.
//!
//! Before: `plan` has the control socket of that dotd. After: the events of our own connections, for `text` and `json`.
//! Never: adds an octet to a query, which would change how it is answered: what is traced is what any client would send. Keeps the
//! events of others at the same address, or waits for more than [`PATIENCE`] once the answers are there.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    sync::mpsc::{self, Receiver, TrySendError},
    thread,
    time::{Duration, Instant},
};

use super::{
    plan::Plan,
    used::{Used, canonical},
};
use crate::{
    cli::{ask, error::CliError},
    control::TraceRequest,
    events::{TraceEvent, What},
};

/// Events that wait here; others at the same address may have many.
const EVENTS_MAX: usize = 16_384;
/// How long dotd may take to begin.
const BEGIN: Duration = Duration::from_secs(10);
/// How long the last events may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The events of a trace.
#[derive(Debug, Default)]
pub(super) struct Traced {
    /// In the order in which it happened.
    pub(super) events: Vec<TraceEvent>,
    /// Events that dotd, or we, had no room for.
    pub(super) lost: u64,
}

/// A trace that runs.
pub(super) struct Watch(Receiver<Result<TraceEvent, CliError>>);

impl Watch {
    /// Begins a trace of the address by which the server knows us, and returns when every worker tells of it.
    pub(super) fn begin(plan: &Plan, socket: PathBuf) -> Result<Self, CliError> {
        let client = own_address(plan).map_err(CliError::System)?;
        let bits = if client.is_ipv4() { 32 } else { 128 };
        let request = TraceRequest { subject: format!("{client}/{bits}"), sample: 1, names: true };
        let (teller, events) = mpsc::sync_channel(EVENTS_MAX);
        thread::spawn(move || {
            let mut lost = 0;
            let ended = ask::follow(&socket, "/trace", &request, None, |line| {
                let Ok(mut event) = serde_json::from_str::<TraceEvent>(line) else { return Ok(true) };
                if let What::Lost { events } = &mut event.what {
                    *events += lost;
                }
                match teller.try_send(Ok(event)) {
                    Ok(()) => {}
                    Err(TrySendError::Full(_)) => lost += 1,
                    Err(TrySendError::Disconnected(_)) => return Ok(false),
                }
                Ok(true)
            });
            // The receiver is gone when the query is over.
            if let Err(error) = ended {
                let _ = teller.send(Err(error));
            }
        });
        match events.recv_timeout(BEGIN) {
            Ok(first) => first.map(|_| Self(events)),
            Err(_) => Err(CliError::Query(format!("--trace-on: dotd began no trace within {BEGIN:?}"))),
        }
    }

    /// The events of these sockets; waits until dotd has told of the end of each.
    pub(super) fn collect(self, used: &[Used]) -> Traced {
        let clients: BTreeSet<SocketAddr> = used.iter().map(|one| one.client).collect();
        let of = |event: &TraceEvent| event.client.parse().ok().map(canonical);
        let (mut traced, until) = (Traced::default(), Instant::now() + PATIENCE);
        while !traced.is_whole(used) {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(Ok(event)) = self.0.recv_timeout(left) else { break };
            match event.what {
                What::Lost { events } => traced.lost = traced.lost.max(events),
                _ if of(&event).is_some_and(|client| clients.contains(&client)) => traced.events.push(event),
                _ => {}
            }
        }
        traced.events.sort_by_key(|event| event.at_us);
        traced
    }
}

impl Traced {
    /// Each stream has ended, and each datagram has its response.
    fn is_whole(&self, used: &[Used]) -> bool {
        let count = |is_it: fn(&What) -> bool| self.events.iter().filter(|event| is_it(&event.what)).count();
        let streams = used.iter().filter(|one| one.is_stream).count();
        count(|what| matches!(what, What::Ended { .. })) >= streams
            && count(|what| matches!(what, What::Response { .. })) >= used.len() - streams
    }
}

/// The address that the server sees: that of the PROXY header, or the one from which this machine reaches the server.
fn own_address(plan: &Plan) -> io::Result<IpAddr> {
    if let Some(client) = &plan.proxy {
        return Ok(client.source.ip().to_canonical());
    }
    let any = if plan.address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    // No octet is sent.
    socket.connect(plan.address)?;
    Ok(socket.local_addr()?.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at_us: u64, client: &str, what: What) -> Result<TraceEvent, CliError> {
        Ok(TraceEvent { at_us, worker: Some(0), client: client.into(), session: None, what })
    }

    /// Goal: only the events of our own sockets are kept, in their order, also those of an IPv4 client of a socket of both families;
    /// lost ones are counted. Method: events of two clients at one address. Covers: C-661
    #[test]
    fn events_of_others_are_not_kept() {
        let (teller, events) = mpsc::sync_channel(16);
        let ended = || What::Ended { end: "client".into(), queries: 1, open_us: 1 };
        for event in [
            event(3, "[::ffff:192.0.2.7]:1000", What::Session),
            event(1, "192.0.2.7:1000", What::Accepted { listener: "192.0.2.1:853".into(), syn_us: None }),
            event(2, "192.0.2.7:1001", ended()),
            event(2, "", What::Lost { events: 4 }),
            event(9, "192.0.2.7:1000", ended()),
            event(10, "192.0.2.7:1000", What::Session),
        ] {
            teller.send(event).unwrap();
        }
        let used = Used { client: "192.0.2.7:1000".parse().unwrap(), is_stream: true };
        let traced = Watch(events).collect(&[used]);
        assert_eq!(traced.events.iter().map(|event| event.at_us).collect::<Vec<_>>(), [1, 3, 9]);
        assert_eq!(traced.lost, 4);
    }
}

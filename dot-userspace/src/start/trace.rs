//! Begins and ends traces of clients, on every worker and in the kernel half's notices.
//!
//! Before: an operator names a client or a session. After: workers tell of it, until the reader has gone.
//! Holds: the traces that there are, for what the kernel half refuses. Never: waits.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use dot_common::prefix::ClientPrefix;
use tokio::sync::mpsc;

use super::{explain::meant, process::Process};
use crate::{
    control::{TraceRequest, Traced},
    events::{EVENTS_MAX, Subject, TRACES_MAX, Trace, TraceEvent, What, now_us},
    worker::Line,
    xdp::Refusal,
};

/// Every trace.
#[derive(Clone, Default)]
pub(super) struct Traces {
    running: Arc<Mutex<Vec<Trace>>>,
    next: Arc<AtomicU64>,
}

impl Traces {
    /// Tells what the kernel half refused.
    pub(super) fn tell(&self, refusals: &[Refusal]) {
        let traces = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for trace in traces.iter() {
            let Subject::Clients(net) = trace.subject else { continue };
            let is_meant = |client: ClientPrefix| net.contains::<&IpAddr>(&client.address());
            for one in refusals.iter().filter(|one| is_meant(one.client)) {
                let (verdict, reason) = (one.verdict.action.name().into(), one.verdict.reason.name().into());
                trace.send(TraceEvent {
                    at_us: now_us(),
                    worker: None,
                    client: one.client.to_string(),
                    session: None,
                    what: What::Packets { verdict, reason },
                });
            }
        }
    }
}

/// Ends a trace everywhere.
struct End {
    traces: Traces,
    number: u64,
    lines: Vec<Line>,
}

impl Drop for End {
    fn drop(&mut self) {
        let mut running = self.traces.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|trace| trace.number != self.number);
        drop(running);
        let number = self.number;
        for line in &self.lines {
            line.look(Box::new(move |shared| shared.events.trace.end(number)));
        }
    }
}

impl Process {
    /// Has every worker tell of a client.
    pub(super) fn begin_trace(&self, request: &TraceRequest) -> Result<Traced, String> {
        let config = self.config();
        let bits = (config.xdp.limit.prefix_v4, config.xdp.limit.prefix_v6);
        let subject = match session(&request.subject) {
            Some((worker, number)) => Subject::Session(worker, number),
            None => Subject::Clients(meant(&request.subject, bits)?.1),
        };
        let lines = &self.engine().ok_or("dotd is starting; try again")?.workers;
        let traces = self.traces().clone();
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let number = traces.next.fetch_add(1, Relaxed);
        let (sample, with_names) = (request.sample, request.names);
        let trace = Trace { number, subject, sample, with_names, events, lost: Arc::default() };
        {
            let mut running = traces.running.lock().unwrap_or_else(PoisonError::into_inner);
            if running.len() >= TRACES_MAX {
                return Err(format!("{TRACES_MAX} traces run already: end one first"));
            }
            running.push(trace.clone());
        }
        let lost = Arc::clone(&trace.lost);
        for (worker, line) in lines.iter().enumerate() {
            let trace = trace.clone();
            line.look(Box::new(move |shared| shared.events.trace.begin(worker, trace)));
        }
        let end = Box::new(End { traces, number, lines: lines.clone() });
        Ok(Traced { events: receiver, lost, end })
    }
}

/// A session as `dotd explain` calls it: two numbers.
fn session(text: &str) -> Option<(usize, u64)> {
    let (worker, number) = text.split_once('.')?;
    Some((worker.parse().ok()?, number.parse().ok()?))
}

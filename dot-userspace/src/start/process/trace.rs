//! Starts and ends traces of clients, on every worker and in the kernel half.
//!
//! Before: an operator names a client or a session. After: workers and the kernel half report its events, until the
//! reader closes.
//! Holds: the running traces, for reports of the kernel half. Never: waits.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use dot_common::{traced::Seen, verdict::Action};
use ipnet::IpNet;
use tokio::sync::mpsc;

use super::{
    super::otlp::{Exporting, OtlpCounts},
    Process,
    explain::meant,
};
use crate::{
    config::Otlp,
    control::{TraceRequest, Traced},
    events::{EVENTS_MAX, Subject, TRACES_MAX, Trace, TraceEvent, What, key_of_packets, now_us},
    worker::Line,
    xdp::{ToldPacket, ToldPackets, Xdp},
};

/// The running traces.
#[derive(Clone, Default)]
pub(in crate::start) struct Traces {
    running: Arc<Mutex<Vec<Trace>>>,
    next: Arc<AtomicU64>,
    exporting: Arc<Mutex<Option<Exporting>>>,
    otlp: OtlpCounts,
}

/// What a trace is to tell.
pub(in crate::start) struct Wanted {
    pub(in crate::start) subject: Subject,
    pub(in crate::start) sample: u32,
    pub(in crate::start) with_names: bool,
    pub(in crate::start) option: Option<u16>,
}

impl Traces {
    /// The export of spans.
    pub(in crate::start) fn exporting(&self) -> MutexGuard<'_, Option<Exporting>> {
        self.exporting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spans so far.
    pub(in crate::start) fn otlp(&self) -> &OtlpCounts {
        &self.otlp
    }

    /// Reports packets that the kernel half judged.
    fn tell(&self, packets: &[ToldPacket]) {
        let (now_us, traces) = (now_us(), self.running.lock().unwrap_or_else(PoisonError::into_inner));
        for trace in traces.iter() {
            for packet in packets.iter().filter(|packet| trace.is_about(packet.client)) {
                trace.send(event(packet, now_us));
            }
        }
    }

    /// Counts packets that the kernel half could not report.
    fn lose(&self, packets: u64) {
        let traces = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let of_clients = traces.iter().filter(|trace| matches!(trace.subject, Subject::Clients(_)));
        for trace in of_clients {
            trace.lost.fetch_add(packets, Relaxed);
        }
    }

    /// The clients that are traced.
    fn clients(&self) -> Vec<IpNet> {
        let traces = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let net = |trace: &Trace| match trace.subject {
            Subject::Clients(net) => Some(net),
            Subject::Session(..) => None,
        };
        traces.iter().filter_map(net).collect()
    }
}

fn event(packet: &ToldPacket, now_us: u64) -> TraceEvent {
    let (verdict, reason) = (packet.verdict.action, packet.verdict.reason.name());
    let is_refused = !matches!(verdict, Action::Pass);
    TraceEvent {
        at_us: now_us.saturating_sub(packet.age_ns / 1000),
        worker: None,
        client: packet.client.to_string(),
        session: None,
        what: What::Packet {
            to: packet.server.to_string(),
            verdict: verdict.name().to_owned(),
            reason: reason.to_owned(),
            key: key_of_packets(reason).filter(|_| is_refused).map(str::to_owned),
            left: packet.rate.as_ref().map(|rate| rate.left),
            burst: packet.rate.as_ref().map(|rate| rate.burst),
        },
    }
}

/// Waits for packets of traced clients; forever if none are reported.
///
/// # Cancel safety
/// Yes.
pub(in crate::start) async fn told(packets: &mut Option<ToldPackets>) -> Vec<Seen> {
    let Some(listener) = packets else { return std::future::pending().await };
    match listener.next().await {
        Ok(seen) => seen,
        Err(error) => {
            tracing::warn!("the kernel half's reports about traced clients have ended: {error}");
            *packets = None;
            Vec::new()
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
    /// Makes every worker report the events of a client.
    pub(in crate::start) fn begin_trace(&self, request: &TraceRequest) -> Result<Traced, String> {
        let config = self.config();
        let bits = (config.xdp.limit.prefix_v4, config.xdp.limit.prefix_v6);
        let subject = match session(&request.subject) {
            Some((worker, number)) => Subject::Session(worker, number),
            None => Subject::Clients(meant(&request.subject, bits)?.1),
        };
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let (lost, option) = (Arc::<AtomicU64>::default(), None);
        let wanted = Wanted { subject, sample: request.sample, with_names: request.names, option };
        let (end, begun) = self.subscribe(wanted, events, Arc::clone(&lost))?;
        Ok(Traced { events: receiver, begun, lost, end })
    }

    /// Has every worker and the kernel half tell of clients, until the first part of the result is dropped. The second one ends
    /// when all of them do.
    ///
    /// # Errors
    /// Too many traces run, or no worker yet.
    pub(in crate::start) fn subscribe(
        &self,
        wanted: Wanted,
        events: mpsc::Sender<TraceEvent>,
        lost: Arc<AtomicU64>,
    ) -> Result<(Box<dyn Send>, mpsc::Receiver<Infallible>), String> {
        let Wanted { subject, sample, with_names, option } = wanted;
        let lines = &self.engine().ok_or("dotd is starting; try again")?.workers;
        let traces = self.traces().clone();
        let number = traces.next.fetch_add(1, Relaxed);
        let trace = Trace { number, subject, sample, with_names, option, events, lost };
        {
            let mut running = traces.running.lock().unwrap_or_else(PoisonError::into_inner);
            if running.len() >= TRACES_MAX {
                return Err(format!("{TRACES_MAX} traces run already: end one first"));
            }
            running.push(trace.clone());
        }
        self.trace_packets();
        let (beginning, begun) = mpsc::channel(1);
        for (worker, line) in lines.iter().enumerate() {
            let (trace, beginning) = (trace.clone(), beginning.clone());
            line.look(Box::new(move |shared| {
                shared.events.trace.begin(worker, trace);
                drop(beginning);
            }));
        }
        Ok((Box::new(End { traces, number, lines: lines.clone() }), begun))
    }

    /// Exports spans by `config` from now on: as before, if nothing has changed, or if that fails.
    ///
    /// # Errors
    /// There is no thread to be had, or too many traces run.
    pub(in crate::start) fn export(&self, config: &Otlp) -> anyhow::Result<()> {
        let counts = self.traces().otlp();
        Exporting::renew(&mut self.traces().exporting(), config, |config| {
            let option = Some(config.traceparent_option).filter(|option| *option != 0);
            let (sample, with_names) = (config.sample, config.names);
            let wanted = |net| Wanted { subject: Subject::Clients(net), sample, with_names, option };
            Exporting::start(config, counts, &|net, events, lost| {
                self.subscribe(wanted(net), events, lost).map(|(end, _)| end)
            })
        })
    }

    /// Ends the export of spans; what is whole is sent.
    pub(in crate::start) async fn end_export(&self) {
        let running = self.traces().exporting().take();
        if let Some(running) = running {
            running.end().await;
        }
    }

    /// Takes the channel of packets of traced clients.
    pub(in crate::start) fn told_packets(&self) -> Option<ToldPackets> {
        let packets = self.kernel_half().0.as_mut().map_or(Ok(None), Xdp::told_packets);
        packets.unwrap_or_else(|error| {
            tracing::warn!("the kernel half does not report the packets of traced clients: {error}");
            None
        })
    }

    /// Reports packets that the kernel half judged.
    pub(in crate::start) fn tell_packets(&self, seen: &[Seen]) {
        let told = self.kernel_half().0.as_ref().map(|xdp| xdp.told(seen)).unwrap_or_default();
        self.traces().tell(&told);
    }

    /// Makes the kernel half report the packets of the clients that are traced now. Call it every second or so.
    pub(in crate::start) fn trace_packets(&self) {
        let clients = self.traces().clients();
        let lost = {
            let mut kernel = self.kernel_half();
            let Some(xdp) = kernel.0.as_mut() else { return };
            if let Err(error) = xdp.trace(&clients) {
                tracing::warn!("the kernel half does not report the packets of traced clients: {error}");
            }
            xdp.newly_lost()
        };
        if lost > 0 {
            self.traces().lose(lost);
        }
    }
}

/// Parses a session's name as `dotd explain` shows it: two numbers.
fn session(text: &str) -> Option<(usize, u64)> {
    let (worker, number) = text.split_once('.')?;
    Some((worker.parse().ok()?, number.parse().ok()?))
}

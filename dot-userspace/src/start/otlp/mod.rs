//! Exports spans of traced clients to an OpenTelemetry collector, by a thread of its own.
//!
//! Before: `[otlp]` names a collector and clients. After: the collector has spans, or they are lost and counted.
//! Holds: the traces of those clients, and the thread: once a second it sends the complete spans, in one request.
//! Never: makes a worker wait, or delays the end of dotd beyond [`GRACE`].
//!
//! Written by hand, because requests are few and have one form: the crates of OpenTelemetry would bring a second HTTP client.

mod json;
mod spans;

use std::{
    collections::BTreeMap,
    io, mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use ipnet::IpNet;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use self::spans::{Seen, Span, Spans};
use crate::{
    config::{Otlp, OtlpEndpoint},
    control::Exemplar,
    events::{EVENTS_MAX, TraceEvent},
};

/// Time between two requests.
const PERIOD: Duration = Duration::from_secs(1);
/// Most spans that wait: with more the next request is early.
const SPANS_MAX: usize = 512;
/// Time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the last request when dotd stops.
const GRACE: Duration = Duration::from_secs(2);
/// Octets of a response that are read: its first line has the status.
const RESPONSE_OCTETS_MAX: usize = 1024;

/// Spans and exemplars so far. Cloning shares them.
#[derive(Clone, Default)]
pub(super) struct OtlpCounts(Arc<Counts>);

#[derive(Default)]
struct Counts {
    written: AtomicU64,
    lost: AtomicU64,
    exemplars: Mutex<Exemplars>,
}

#[derive(Default)]
struct Exemplars {
    /// The number of the export that they belong to.
    export: u64,
    /// By transport, disposition and the upper bound of the bucket as a power of two of a second.
    rows: BTreeMap<(&'static str, String, i32), Seen>,
}

impl OtlpCounts {
    /// Spans that a collector accepted, and spans that were lost.
    pub(super) fn spans(&self) -> (u64, u64) {
        (self.0.written.load(Relaxed), self.0.lost.load(Relaxed))
    }

    /// The last traced query of each bucket.
    pub(super) fn exemplars(&self) -> Vec<Exemplar> {
        let exemplars = self.0.exemplars.lock().unwrap_or_else(PoisonError::into_inner);
        let row =
            |((transport, disposition, bound_log2), seen): (&(&'static str, String, i32), &Seen)| Exemplar {
                transport: (*transport).to_owned(),
                disposition: disposition.clone(),
                bound_log2: *bound_log2,
                trace: format!("{:032x}", seen.trace),
                seconds: seen.took_us as f64 / 1e6,
                at_seconds: seen.at_us as f64 / 1e6,
            };
        exemplars.rows.iter().map(row).collect()
    }

    /// Begins another export: exemplars of the one before are forgotten, also those that its thread still holds. Returns its number.
    fn begin(&self) -> u64 {
        let mut exemplars = self.0.exemplars.lock().unwrap_or_else(PoisonError::into_inner);
        *exemplars = Exemplars { export: exemplars.export + 1, ..Exemplars::default() };
        exemplars.export
    }

    fn note(&self, export: u64, seen: Seen) {
        let Some(bound_log2) = Exemplar::bound_log2(seen.took_us) else { return };
        let mut exemplars = self.0.exemplars.lock().unwrap_or_else(PoisonError::into_inner);
        if exemplars.export == export {
            exemplars.rows.insert((seen.transport, seen.disposition.clone(), bound_log2), seen);
        }
    }

    fn lose(&self, spans: u64) {
        self.0.lost.fetch_add(spans, Relaxed);
    }
}

/// A running export.
pub(super) struct Exporting {
    config: Otlp,
    /// Dropped: the traces end.
    traces: Vec<Box<dyn Send>>,
    /// Dropped: the thread ends.
    stop: watch::Sender<()>,
    /// Closed: it has ended.
    done: oneshot::Receiver<()>,
}

/// Begins the trace of a prefix and sends its events there; events without room are counted. Dropping the result ends the trace.
pub(super) type Subscribe<'a> =
    &'a dyn Fn(IpNet, mpsc::Sender<TraceEvent>, Arc<AtomicU64>) -> Result<Box<dyn Send>, String>;

impl Exporting {
    /// Exports by this config from now on. If nothing has changed, or if that fails, the export stays as it was. `start` starts an export.
    ///
    /// # Errors
    /// Those of `start`.
    pub(super) fn renew(
        running: &mut Option<Self>,
        config: &Otlp,
        start: impl Fn(&Otlp) -> anyhow::Result<Option<Self>>,
    ) -> anyhow::Result<()> {
        if running.as_ref().is_some_and(|running| running.config == *config) {
            return Ok(());
        }
        // Its traces make room for the new ones.
        let before = running.take().map(|running| running.config.clone());
        let started = start(config);
        *running = match (&started, before) {
            (Err(_), Some(before)) => start(&before)?,
            _ => None,
        };
        if let Some(started) = started? {
            *running = Some(started);
        }
        Ok(())
    }

    /// Starts the export, if there is a collector.
    ///
    /// # Errors
    /// No thread can be started, or too many traces run.
    pub(super) fn start(
        config: &Otlp,
        counts: &OtlpCounts,
        subscribe: Subscribe<'_>,
    ) -> anyhow::Result<Option<Self>> {
        let export = counts.begin();
        let Some(endpoint) = config.endpoint.clone() else { return Ok(None) };
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let (stop, stopped) = watch::channel(());
        let (is_done, done) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("the otlp thread has no runtime")?;
        let lost = Arc::<AtomicU64>::default();
        let mut exporter = Exporter {
            endpoint,
            service_name: config.service_name.clone(),
            export,
            has_exemplars: config.exemplars,
            events: receiver,
            events_lost: Arc::clone(&lost),
            counts: counts.clone(),
            spans: Spans::default(),
            is_failing: false,
        };
        let export = move || {
            runtime.block_on(exporter.run(stopped));
            drop(is_done);
        };
        thread::Builder::new()
            .name("otlp".to_owned())
            .spawn(export)
            .context("the otlp thread cannot start")?;
        let begun =
            config.clients.iter().map(|net| subscribe(net.trunc(), events.clone(), Arc::clone(&lost)));
        let traces = begun.collect::<Result<_, _>>().map_err(anyhow::Error::msg).context("otlp.clients")?;
        Ok(Some(Self { config: config.clone(), traces, stop, done }))
    }

    /// Ends it, after the complete spans are sent.
    pub(super) async fn end(self) {
        drop(self.traces);
        drop(self.stop);
        let _ = timeout(GRACE + Duration::from_millis(500), self.done).await;
    }
}

/// The state of the thread.
struct Exporter {
    endpoint: OtlpEndpoint,
    service_name: String,
    export: u64,
    has_exemplars: bool,
    events: mpsc::Receiver<TraceEvent>,
    /// Events that were lost before they reached the thread.
    events_lost: Arc<AtomicU64>,
    counts: OtlpCounts,
    spans: Spans,
    /// The last request failed; the log says it once.
    is_failing: bool,
}

impl Exporter {
    async fn run(&mut self, mut stopped: watch::Receiver<()>) {
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.spans.take(event),
                    None => break,
                },
                _ = period.tick() => self.send().await,
                // The collector sends nothing: the connection is dropped.
                _ = stopped.changed() => break,
            }
            if self.spans.done.len() >= SPANS_MAX {
                self.send().await;
            }
        }
        while let Ok(event) = self.events.try_recv() {
            self.spans.take(event);
        }
        if timeout(GRACE, self.send()).await.is_err() {
            tracing::warn!("the collector of spans did not take the last ones in time");
        }
    }

    /// Sends the complete spans.
    async fn send(&mut self) {
        let events_lost = self.events_lost.swap(0, Relaxed);
        self.counts.lose(mem::take(&mut self.spans.lost) + events_lost);
        let seen = mem::take(&mut self.spans.seen);
        if self.has_exemplars {
            seen.into_iter().for_each(|seen| self.counts.note(self.export, seen));
        }
        let done = mem::take(&mut self.spans.done);
        if done.is_empty() {
            return;
        }
        let sending = Sending { counts: &self.counts, spans: done.len() as u64 };
        match timeout(REQUEST_TIMEOUT, post(&self.endpoint, &body(&done, &self.service_name))).await {
            Ok(Ok(())) => {
                sending.done();
                self.is_failing = false;
            }
            failed => {
                let error = match failed {
                    Ok(Err(error)) => error,
                    _ => io::ErrorKind::TimedOut.into(),
                };
                if !mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(%error, endpoint = %self.endpoint, "no collector takes spans: they are lost and counted");
                }
            }
        }
    }
}

fn body(spans: &[Span], service_name: &str) -> Vec<u8> {
    json::request(spans, service_name)
}

/// Spans that are being sent: lost, unless they are [`Sending::done`].
struct Sending<'a> {
    counts: &'a OtlpCounts,
    spans: u64,
}

impl Sending<'_> {
    fn done(mut self) {
        self.counts.0.written.fetch_add(mem::take(&mut self.spans), Relaxed);
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.counts.lose(self.spans);
    }
}

/// One request; its connection ends with it.
///
/// # Errors
/// The connection failed, or the collector refused.
async fn post(endpoint: &OtlpEndpoint, body: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect(endpoint.address).await?;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        endpoint.path,
        endpoint.address,
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    let mut response = Vec::new();
    let mut limited = stream.take(RESPONSE_OCTETS_MAX as u64);
    while !response.contains(&b'\n') {
        if limited.read_buf(&mut response).await? == 0 {
            break;
        }
    }
    let line = String::from_utf8_lossy(response.split(|octet| *octet == b'\n').next().unwrap_or_default())
        .into_owned();
    // Any status of the form 2xx: "HTTP/1.1 200 OK".
    match line.split(' ').nth(1) {
        Some(status) if status.len() == 3 && status.starts_with('2') => Ok(()),
        _ => Err(io::Error::other(format!("the collector said \"{}\"", line.trim().escape_debug()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// Goal: a scrape names no trace of an export that a reload has ended or changed. Method: a query of one export, a config without
    /// a collector, and a late query of the first one's thread. Covers: C-704
    #[test]
    fn exemplars_end_with_their_export() {
        let counts = OtlpCounts::default();
        let seen = || Seen {
            transport: "dot",
            disposition: "cached".to_owned(),
            trace: 7,
            took_us: 500,
            at_us: 1_000_000,
        };
        let first = counts.begin();
        counts.note(first, seen());
        assert_eq!(counts.exemplars().len(), 1);
        let off = config::parse("", "f").expect("a sound config").otlp;
        assert!(
            Exporting::start(&off, &counts, &|_, _, _| Err("no trace is begun".to_owned()))
                .is_ok_and(|exporting| exporting.is_none())
        );
        counts.note(first, seen());
        assert!(counts.exemplars().is_empty());
        counts.note(counts.begin(), seen());
        assert_eq!(counts.exemplars().len(), 1);
    }

    /// Goal: after a reload that cannot export, spans are exported as before. Method: a config with one prefix, then one with another
    /// that finds no room for its trace.
    #[test]
    fn an_export_that_cannot_change_goes_on() {
        let config = |prefix: &str| {
            let text =
                format!("[otlp]\nendpoint = \"http://127.0.0.1:9/v1/traces\"\nclients = [\"{prefix}\"]\n");
            config::parse(&text, "f").expect("a sound config").otlp
        };
        let (first, other) = (config("192.0.2.0/25"), config("192.0.2.128/25"));
        let (counts, mut running) = (OtlpCounts::default(), None);
        let mut renew = |config: &Otlp| {
            let has_room = |net: IpNet| first.clients.contains(&net);
            let renewed = Exporting::renew(&mut running, config, |config| {
                Exporting::start(config, &counts, &|net, _, _| match has_room(net) {
                    true => Ok(Box::new(()) as Box<dyn Send>),
                    false => Err("too many traces run".to_owned()),
                })
            });
            let by = running.as_ref().map(|running| running.config.clone());
            (renewed.is_ok(), by)
        };
        assert_eq!(renew(&first), (true, Some(first.clone())));
        assert_eq!(renew(&other), (false, Some(first.clone())));
        assert_eq!(renew(&config::parse("", "f").expect("a sound config").otlp), (true, None));
        assert_eq!(renew(&other), (false, None));
    }
}

//! `/trace` on the control socket: the events of a client, one line of JSON for each, until the reader closes.
//!
//! Before: an operator names a client or a session. After: events are written as they happen.
//! Holds: the events that wait to be written: for some milliseconds, because events of the kernel half and of several
//! workers arrive in another order than they happened. Never: waits for a reader: an event that finds no room is
//! lost, and the next line says how many were lost.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body as AnyBody,
    extract::{DefaultBodyLimit, State as Shared},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use hyper::body::{Body as HttpBody, Bytes, Frame};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, Sleep, interval, sleep},
};

use super::{Body, Source};
use crate::events::{TraceEvent, What, now_us};

/// The request of `dotd trace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// An address, a prefix, or a session as `dotd explain` names it.
    pub subject: String,
    /// One connection in this many.
    pub sample: u32,
    /// Whether events may contain qnames.
    pub names: bool,
}

/// A running trace.
pub struct Traced {
    /// The events.
    pub events: mpsc::Receiver<TraceEvent>,
    /// Closes when every worker tells of it.
    pub begun: mpsc::Receiver<Infallible>,
    /// The number of events that found no room.
    pub lost: Arc<AtomicU64>,
    /// Ends the trace when it is dropped.
    pub end: Box<dyn Send>,
}

type AnySource = Arc<dyn Source>;

/// The route.
pub(super) fn route() -> Router<AnySource> {
    Router::new().route(PATH, post(trace)).layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
}

async fn trace(Shared(source): Shared<AnySource>, request: Body<TraceRequest>) -> Response {
    let traced = match request {
        Ok(Json(request)) => source.trace(&request),
        Err(error) => Err(error.body_text()),
    };
    match traced {
        Ok(traced) => {
            let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
            (kind, AnyBody::new(Lines::of(traced))).into_response()
        }
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": error }))).into_response(),
    }
}

/// Events as lines.
struct Lines {
    traced: Traced,
    /// Events that wait to be sorted.
    waiting: Vec<TraceEvent>,
    /// When they are written.
    due: Pin<Box<Sleep>>,
    said_lost: u64,
    beat: Interval,
    is_new: bool,
}

impl Lines {
    fn of(traced: Traced) -> Self {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let due = Box::pin(sleep(Duration::ZERO));
        Self { traced, waiting: Vec::new(), due, said_lost: 0, beat, is_new: true }
    }

    /// Takes events that have arrived. `false`: there will be no more.
    fn collect(&mut self, context: &mut Context<'_>) -> bool {
        while self.waiting.len() < WAITING_MAX {
            match self.traced.events.poll_recv(context) {
                Poll::Ready(Some(event)) => {
                    if self.waiting.is_empty() {
                        self.due.as_mut().reset(Instant::now() + ORDER);
                    }
                    self.waiting.push(event);
                }
                Poll::Ready(None) => return false,
                Poll::Pending => break,
            }
        }
        true
    }

    /// Writes the events that wait, the earliest first.
    fn write_waiting(&mut self, octets: &mut Vec<u8>) {
        self.waiting.sort_by_key(|event| event.at_us);
        self.waiting.drain(..).for_each(|event| write_line(&event, octets));
    }

    /// A line that says how many events were lost.
    fn lost_line(&mut self, octets: &mut Vec<u8>) {
        let lost = self.traced.lost.load(Relaxed);
        self.said_lost = lost;
        let event = TraceEvent {
            at_us: now_us(),
            worker: None,
            client: String::new(),
            session: None,
            what: What::Lost { events: lost },
        };
        write_line(&event, octets);
    }
}

fn write_line(event: &TraceEvent, octets: &mut Vec<u8>) {
    // Numbers and strings only: JSON can represent all of them.
    if serde_json::to_writer(&mut *octets, event).is_ok() {
        octets.push(b'\n');
    }
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // The first line tells the reader that every worker tells of the client.
        if self.is_new && self.traced.begun.poll_recv(context).is_pending() {
            return Poll::Pending;
        }
        let mut octets = Vec::new();
        // The first tick comes at once, which tells the reader that the trace has begun.
        let is_beat = self.beat.poll_tick(context).is_ready();
        let goes_on = self.collect(context);
        if !goes_on && self.waiting.is_empty() {
            return Poll::Ready(None);
        }
        let is_full = self.waiting.len() >= WAITING_MAX;
        if !self.waiting.is_empty() && (!goes_on || is_full || self.due.as_mut().poll(context).is_ready()) {
            self.write_waiting(&mut octets);
        }
        let has_lost = self.traced.lost.load(Relaxed) > self.said_lost;
        if std::mem::take(&mut self.is_new) || has_lost || (is_beat && octets.is_empty()) {
            self.lost_line(&mut octets);
        }
        if octets.is_empty() {
            return if is_beat { self.poll_frame(context) } else { Poll::Pending };
        }
        Poll::Ready(Some(Ok(Frame::data(octets.into()))))
    }
}

/// The path.
pub(super) const PATH: &str = "/trace";
/// Room for an address and two numbers.
const BODY_OCTETS_MAX: usize = 256;
/// Most octets of events in one write.
const WAITING_MAX: usize = 256;
/// How long an event waits for earlier ones: after this time the control thread has the events of the kernel half.
const ORDER: Duration = Duration::from_millis(20);
/// The interval of lines while nothing happens: they show whether the reader has left, and keep its connection from
/// being idle.
const BEAT: Duration = Duration::from_secs(5);

//! `/explain` on the control socket: the state of one client.
//!
//! Before: an operator names a client. After: its lists, ban, budget, rates, sessions and last refusals, with the keys
//! that would change each. Never: waits longer than [`WAIT`] for a worker: one that does not answer is reported as
//! silent.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, State as Shared},
    response::Response,
    routing::post,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{Body, Source, answer};
use crate::{
    session::{MisuseRow, SessionReport},
    xdp::{ClientReport, RateState},
};

/// What `dotd explain` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// An address, or a prefix.
    pub client: String,
}

/// The state of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The prefix that limits count as one client.
    pub prefix: String,
    /// Lists of the config that it is on, or that exclude it.
    pub lists: Vec<Listed>,
    /// The kernel half's state; absent where it is not loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xdp: Option<ClientReport>,
    /// Its connections, and their cap (`session.connections_per_prefix_max`).
    pub connections: u32,
    /// See [`Explanation::connections`].
    pub connections_max: u32,
    /// Rates of the engine.
    pub rates: Vec<RateState>,
    /// Its sessions, on all workers.
    pub sessions_open: usize,
    /// The first of them.
    pub sessions: Vec<SessionReport>,
    /// The misuses found at it now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub misuses: Vec<MisuseRow>,
    /// Its last refusals, the latest first.
    pub refusals: Vec<RefusalRow>,
    /// Workers that did not answer in time.
    pub workers_silent: usize,
}

/// A list of the config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// The entry that contains the client; absent: no entry contains it, and therefore it may not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// The consequence.
    pub effect: String,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalRow {
    /// "engine" or "xdp".
    pub by: String,
    /// The reason, as it is counted.
    pub reason: String,
    /// How often since it was first noted; for the kernel half, the number of minutes with a refusal.
    pub count: u64,
    /// Seconds since the last one.
    pub seconds_ago: u64,
    /// The key that would change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The state that is known at once, and the workers' answers about sessions: the number of sessions, the first
/// ones, and the misuses.
pub struct Explaining {
    /// Without sessions.
    pub known: Explanation,
    /// One answer from each worker.
    pub sessions: mpsc::Receiver<(usize, Vec<SessionReport>, Vec<MisuseRow>)>,
    /// The number of workers that were asked.
    pub workers: usize,
}

impl Explaining {
    /// Waits for the workers.
    async fn wait(mut self) -> Explanation {
        let (until, mut silent) = (Instant::now() + WAIT, self.workers);
        while let Ok(Some((count, sessions, misuses))) = timeout_at(until, self.sessions.recv()).await {
            self.known.sessions_open += count;
            self.known.sessions.extend(sessions);
            self.known.misuses.extend(misuses);
            silent = silent.saturating_sub(1);
        }
        Explanation { workers_silent: silent, ..self.known }
    }
}

type AnySource = Arc<dyn Source>;

/// The route.
pub(super) fn route() -> Router<AnySource> {
    Router::new().route(PATH, post(explain)).layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
}

async fn explain(Shared(source): Shared<AnySource>, request: Body<ExplainRequest>) -> Response {
    let explaining = match request {
        Ok(axum::Json(request)) => source.explain(&request),
        Err(error) => Err(error.body_text()),
    };
    let explained = match explaining {
        Ok(explaining) => Ok(explaining.wait().await),
        Err(error) => Err(error),
    };
    answer(Ok(axum::Json(())), |()| explained)
}

/// The path.
pub(super) const PATH: &str = "/explain";
/// Room for an address.
const BODY_OCTETS_MAX: usize = 256;
/// A worker answers in its next turn.
const WAIT: Duration = Duration::from_secs(2);

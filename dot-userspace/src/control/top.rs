//! `/top` on the control socket: which clients do most at the moment, and the histograms for quantiles of a span.
//!
//! Before: `dotd top` asks, again and again. After: each worker counts for a while longer, and the answer has what they counted
//! so far. Never: holds a name that was asked for unless the request wants names; waits longer than [`WAIT`] for a worker.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{RawQuery, State as Shared},
    response::{IntoResponse, Response},
    routing::get,
};
use dot_common::prefix::ClientPrefix;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::Source;
use crate::{
    dns,
    events::{Effort, Heaviest, merge},
    ledger::Sparse,
};

/// What the request says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopRequest {
    /// Names that were asked for are wanted too.
    pub names: bool,
}

/// The clients that do most.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Top {
    /// For so long it has been counted.
    pub seconds: f64,
    /// Clients that are among the first in anything.
    pub clients: Vec<TopClient>,
    /// Names, where they are wanted, the most frequent in front.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<TopName>>,
    /// Every histogram.
    pub durations: Vec<Sparse>,
    /// Workers that did not answer in time.
    pub workers_silent: usize,
}

/// What a client did since the counting began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopClient {
    /// Its prefix, with the length that limits count by.
    pub prefix: String,
    /// By [`Effort::name`]; what is not there is less than that of every client that has it.
    pub counts: BTreeMap<String, u64>,
    /// By how much a count may be too high, where it may.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub excess: BTreeMap<String, u64>,
}

/// How often a name was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopName {
    /// In lower case.
    pub name: String,
    /// At most too high by `excess`.
    pub queries: u64,
    /// See [`TopName::queries`].
    pub excess: u64,
}

/// What workers have still to say.
pub struct Counting {
    /// One answer of each worker.
    pub answers: mpsc::Receiver<Heaviest>,
    /// How many workers were asked.
    pub workers: usize,
    /// Lengths of client prefixes.
    pub bits: (u8, u8),
    /// Every histogram.
    pub durations: Vec<Sparse>,
}

impl Counting {
    async fn wait(mut self) -> Top {
        let (until, mut parts) = (Instant::now() + WAIT, Vec::new());
        while let Ok(Some(part)) = timeout_at(until, self.answers.recv()).await {
            parts.push(part);
        }
        let workers_silent = self.workers.saturating_sub(parts.len());
        Top { workers_silent, durations: self.durations, ..whole(&parts, self.bits) }
    }
}

/// The workers' counts as one.
fn whole(parts: &[Heaviest], bits: (u8, u8)) -> Top {
    let mut clients: BTreeMap<ClientPrefix, TopClient> = BTreeMap::new();
    for (place, effort) in Effort::ALL.into_iter().enumerate() {
        let of_workers: Vec<_> = parts.iter().filter_map(|part| part.clients.get(place).cloned()).collect();
        for (client, estimate) in merge(&of_workers, ROWS_MAX) {
            let row = clients.entry(client).or_default();
            row.counts.insert(effort.name().to_owned(), estimate.count);
            if estimate.excess > 0 {
                row.excess.insert(effort.name().to_owned(), estimate.excess);
            }
        }
    }
    let named = |(client, row): (ClientPrefix, TopClient)| {
        let length = if client.is_v6() { bits.1 } else { bits.0 };
        TopClient { prefix: format!("{client}/{length}"), ..row }
    };
    let of_workers: Vec<_> = parts.iter().filter_map(|part| part.names.clone()).collect();
    let names = merge(&of_workers, ROWS_MAX).into_iter().map(|(name, estimate)| TopName {
        name: dns::name_in_words(&name),
        queries: estimate.count,
        excess: estimate.excess,
    });
    Top {
        seconds: parts.iter().map(|part| part.counted_for.as_secs_f64()).fold(0.0, f64::max),
        clients: clients.into_iter().map(named).collect(),
        names: (!of_workers.is_empty()).then(|| names.collect()),
        ..Top::default()
    }
}

type AnySource = Arc<dyn Source>;

/// The route.
pub(super) fn route() -> Router<AnySource> {
    Router::new().route(PATH, get(top))
}

async fn top(Shared(source): Shared<AnySource>, RawQuery(query): RawQuery) -> Response {
    let request = TopRequest { names: query.as_deref() == Some("names") };
    Json(source.top(request).wait().await).into_response()
}

/// Where.
pub(super) const PATH: &str = "/top";
/// Rows of an answer, for each thing that clients are compared by.
const ROWS_MAX: usize = 100;
/// A worker answers in its next turn.
const WAIT: Duration = Duration::from_secs(2);

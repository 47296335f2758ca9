//! `/top` on the control socket: the busiest clients at present, and histograms for quantiles over an interval.
//!
//! Before: `dotd top` asks repeatedly. After: each worker continues to count for a while, and the answer contains the
//! counts so far. Never: contains qnames unless the request asks for them; waits longer than [`WAIT`] for a worker.

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

/// The request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopRequest {
    /// Whether the names of queries are wanted too.
    pub names: bool,
}

/// The busiest clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Top {
    /// The time for which the workers have counted.
    pub seconds: f64,
    /// The clients that are among the first by any count.
    pub clients: Vec<TopClient>,
    /// Names, if they are wanted, the most frequent first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<TopName>>,
    /// Every histogram.
    pub durations: Vec<Sparse>,
    /// Workers that did not answer in time.
    pub workers_silent: usize,
}

/// The counts of a client since the counting began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopClient {
    /// Its prefix, with the length that limits count by.
    pub prefix: String,
    /// Counts by [`Effort::name`]; a missing count is smaller than that of every client that has it.
    pub counts: BTreeMap<String, u64>,
    /// The amount by which a count may be too high.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub excess: BTreeMap<String, u64>,
}

/// A name and how often it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopName {
    /// In lower case.
    pub name: String,
    /// The count, which may be too high by up to `excess`.
    pub queries: u64,
    /// See [`TopName::queries`].
    pub excess: u64,
}

/// The answers of workers that are still to come.
pub struct Counting {
    /// One answer from each worker.
    pub answers: mpsc::Receiver<Heaviest>,
    /// The number of workers that were asked.
    pub workers: usize,
    /// Lengths of client prefixes.
    pub bits: (u8, u8),
    /// Every histogram.
    pub durations: Vec<Sparse>,
}

impl Counting {
    pub(super) async fn wait(mut self) -> Top {
        let (until, mut parts) = (Instant::now() + WAIT, Vec::new());
        while let Ok(Some(part)) = timeout_at(until, self.answers.recv()).await {
            parts.push(part);
        }
        let workers_silent = self.workers.saturating_sub(parts.len());
        Top { workers_silent, durations: self.durations, ..whole(&parts, self.bits) }
    }
}

/// Adds the counts of the workers.
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

/// The path.
pub(super) const PATH: &str = "/top";
/// The number of rows in an answer for each kind of count.
const ROWS_MAX: usize = 100;
/// A worker answers in its next turn.
const WAIT: Duration = Duration::from_secs(2);

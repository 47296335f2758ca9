//! `/misuse` on the control socket: the misuses that workers find now.
//!
//! Before: an operator asks. After: each worker has said what it finds.
//! Never: waits longer than [`WAIT`] for a worker.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State as Shared,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::Source;
use crate::session::MisuseRow;

/// What is found now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misuses {
    /// Whether anything is looked for.
    pub is_on: bool,
    /// Each misuse, of each worker that found it.
    pub rows: Vec<MisuseRow>,
    /// Workers that did not answer in time.
    #[serde(default)]
    pub workers_silent: usize,
}

/// The answers of workers that are still to come.
pub struct Misusing {
    /// Whether anything is looked for.
    pub is_on: bool,
    /// One answer from each worker.
    pub answers: mpsc::Receiver<Vec<MisuseRow>>,
    /// The number of workers that were asked.
    pub workers: usize,
}

impl Misusing {
    async fn wait(mut self) -> Misuses {
        let (until, mut found) = (Instant::now() + WAIT, Misuses { is_on: self.is_on, ..Misuses::default() });
        found.workers_silent = self.workers;
        while let Ok(Some(rows)) = timeout_at(until, self.answers.recv()).await {
            found.rows.extend(rows);
            found.workers_silent = found.workers_silent.saturating_sub(1);
        }
        found.rows.sort_by_key(|row| std::cmp::Reverse(row.hits));
        found
    }
}

type AnySource = Arc<dyn Source>;

/// The route.
pub(super) fn route() -> Router<AnySource> {
    Router::new().route(PATH, get(misuse))
}

async fn misuse(Shared(source): Shared<AnySource>) -> Response {
    Json(source.misuse().wait().await).into_response()
}

/// The path.
pub(super) const PATH: &str = "/misuse";
/// A worker answers in its next turn.
const WAIT: Duration = Duration::from_secs(2);

//! `/bans` on the control socket: list, make, lift.
//!
//! Before: `router` has the request. After: the [`Source`] did it, and the answer shows the ban.
//! Never: takes a body beyond [`BODY_OCTETS_MAX`]; decides whether a ban is lawful (`xdp` does).

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State as Shared},
    response::Response,
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{Body, Source, answer};
use crate::xdp::BanRow;

/// What `dotd ban add` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanRequest {
    /// An address, or a prefix that limits count by.
    pub client: String,
    /// Its duration; absent: `xdp.limit.ban_seconds`, or a minute if that is 0.
    pub seconds: Option<u64>,
    /// The reason, for the list of bans.
    pub reason: String,
}

/// What `dotd ban del` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnbanRequest {
    /// As in [`BanRequest::client`].
    pub client: String,
}

/// A ban that was made, and what it did to sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Banned {
    /// The ban.
    #[serde(flatten)]
    pub ban: BanRow,
    /// Sessions of the client that ended with it.
    #[serde(default)]
    pub sessions_ended: usize,
    /// Workers that did not answer in time: their sessions end too, but are not counted.
    #[serde(default)]
    pub workers_silent: usize,
}

/// A ban that was made, and the workers' answers.
pub struct Banning {
    /// The ban.
    pub ban: BanRow,
    /// How many sessions each worker ends.
    pub ended: mpsc::Receiver<usize>,
    /// How many workers were asked.
    pub workers: usize,
}

impl Banning {
    /// Waits for the workers.
    async fn wait(mut self) -> Banned {
        let (until, mut silent, mut sessions_ended) = (Instant::now() + WAIT, self.workers, 0);
        while let Ok(Some(ended)) = timeout_at(until, self.ended.recv()).await {
            sessions_ended += ended;
            silent = silent.saturating_sub(1);
        }
        Banned { ban: self.ban, sessions_ended, workers_silent: silent }
    }
}

type AnySource = Arc<dyn Source>;

/// The route.
pub(super) fn route() -> Router<AnySource> {
    let bans = get(async |Shared(source): Shared<AnySource>| Json(source.bans())).post(ban).delete(unban);
    Router::new().route(PATH, bans).layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
}

pub(super) async fn ban(Shared(source): Shared<AnySource>, request: Body<BanRequest>) -> Response {
    let banning = match request {
        Ok(Json(request)) => source.ban(&request).map_err(|error| error.to_string()),
        Err(error) => Err(error.body_text()),
    };
    let banned = match banning {
        Ok(banning) => Ok(banning.wait().await),
        Err(error) => Err(error),
    };
    answer(Ok(Json(())), |()| banned)
}

pub(super) async fn unban(Shared(source): Shared<AnySource>, request: Body<UnbanRequest>) -> Response {
    answer(request, |request| source.unban(&request))
}

/// The path.
pub(super) const PATH: &str = "/bans";
/// An address, a number and a reason need a quarter of it.
const BODY_OCTETS_MAX: usize = 2048;
/// A worker answers in its next turn.
const WAIT: Duration = Duration::from_secs(2);

//! Module `control`: the process seen and asked from outside, over a Unix socket and, when configured, HTTP.
//!
//! Before: `start` gives it listeners and a [`Source`]. After: `cli` verbs and Prometheus read it.
//! Never: stands on the query path, or holds state of its own: every answer is made from the [`Source`], which also
//! does what an operator asks for.

#[cfg(debug_assertions)]
mod acts;
mod bans;
mod cache;
mod drain;
mod explain;
mod log;
mod metrics;
mod places;
mod policy;
mod reload;
mod router;
mod serve;
mod status;
mod tickets;
mod top;
mod trace;

#[cfg(test)]
mod tests;

pub use bans::{BanRequest, Banned, Banning, UnbanRequest};
pub use cache::{FlushRequest, Flushed};
pub use drain::{DrainRequest, DrainStatus};
pub use explain::{ExplainRequest, Explaining, Explanation, Listed, RefusalRow};
pub use log::LogRequest;
pub use reload::{Outcome, Reloaded};
pub use serve::{serve_http, serve_unix};
pub use status::{
    BackendStatus, CertificateStatus, ListenerStatus, PolicyStatus, State, Status, UnmatchedStatus,
};

pub use tickets::{RotateRequest, Rotated};
pub use top::{Counting, Top, TopClient, TopName, TopRequest};
pub use trace::{TraceRequest, Traced};

use axum::{
    Json,
    extract::rejection::JsonRejection,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::json;

use crate::{
    ledger::{Measured, Snapshot},
    policy as zones, xdp,
};

/// Where answers come from. Each call is quick and never blocks: it runs on the control thread's runtime.
pub trait Source: Send + Sync + 'static {
    /// The process as it stands.
    fn status(&self) -> Status;
    /// Every counter at this moment.
    fn snapshot(&self) -> Snapshot;
    /// Every histogram at this moment.
    fn measured(&self) -> Vec<Measured>;
    /// The kernel half.
    fn xdp(&self) -> xdp::Report;
    /// Takes the kernel half off every interface until a restart; how it stands then.
    fn leave_xdp(&self) -> xdp::Report;
    /// Every ban, the one that ends first in front.
    fn bans(&self) -> Vec<xdp::BanRow>;
    /// Bans a client, and has the workers end its sessions; the ban as it stands.
    ///
    /// # Errors
    /// What is wrong with the request, or why it cannot be had.
    fn ban(&self, request: &BanRequest) -> Result<Banning, xdp::XdpError>;
    /// Lifts a ban; as it stood.
    ///
    /// # Errors
    /// There is none.
    fn unban(&self, request: &UnbanRequest) -> Result<xdp::BanRow, xdp::XdpError>;
    /// Has config and certificates read again.
    ///
    /// # Errors
    /// Too many have asked already.
    fn reload(&self) -> Result<Outcome, String>;
    /// Writes other log lines until the next reload; which ones then.
    ///
    /// # Errors
    /// The level holds back the lines that are asked for.
    fn log(&self, request: LogRequest) -> Result<LogRequest, String>;
    /// Withdraws readiness for a while, or gives it back; what is so then.
    ///
    /// # Errors
    /// The time is too long.
    fn drain(&self, request: DrainRequest) -> Result<DrainRequest, String>;
    /// What dotd knows of a client.
    ///
    /// # Errors
    /// It is no address and no prefix.
    fn explain(&self, request: &ExplainRequest) -> Result<Explaining, String>;
    /// Which clients do most: the workers have been asked, and count for a while longer.
    fn top(&self, request: TopRequest) -> Counting;
    /// Has everybody tell what happens to a client.
    ///
    /// # Errors
    /// It is no client, or too many traces run.
    fn trace(&self, request: &TraceRequest) -> Result<Traced, String>;
    /// Has every worker forget what its cache keeps.
    ///
    /// # Errors
    /// There is no cache, or the name is invalid.
    fn flush_cache(&self, request: &FlushRequest) -> Result<Flushed, String>;
    /// Which rule of the policy zones decides about a name.
    ///
    /// # Errors
    /// There is no zone, or the name is invalid.
    fn explain_policy(&self, question: &zones::Question) -> Result<zones::Explained, String>;
    /// Begins the next rotation of session tickets now.
    ///
    /// # Errors
    /// The keys are a fleet's, or there are no random numbers.
    fn rotate_tickets(&self, request: RotateRequest) -> Result<Rotated, String>;
}

/// A request's body, or what is wrong with it.
type Body<T> = Result<Json<T>, JsonRejection>;

/// Does what a request asks for; its answer is what was done, or 422 and why not.
fn answer<T, D: Serialize, E: ToString>(request: Body<T>, act: impl FnOnce(T) -> Result<D, E>) -> Response {
    let outcome = match request {
        Ok(Json(request)) => act(request).map_err(|error| error.to_string()),
        Err(error) => Err(error.body_text()),
    };
    match outcome {
        Ok(done) => Json(done).into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": error }))).into_response(),
    }
}

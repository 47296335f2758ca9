//! Module `control`: the interface for operators and monitoring, over a Unix socket and, when configured, HTTP.
//!
//! Before: `start` gives it listeners and a [`Source`]. After: `cli` verbs and Prometheus read it.
//! Never: is on the query path, or holds state of its own: every answer is made from the [`Source`], which also carries
//! out an operator's requests.

mod acme;
#[cfg(debug_assertions)]
mod acts;
mod bans;
mod cache;
mod certificates;
mod config;
mod drain;
mod explain;
mod log;
mod metrics;
mod misuse;
mod page;
mod places;
mod policy;
mod refused;
mod reload;
mod router;
mod serve;
mod status;
mod switch;
mod tickets;
mod top;
mod trace;
mod upstream;
mod whole;

#[cfg(test)]
mod tests;

pub use bans::{BanRequest, Banned, Banning, UnbanRequest};
pub use cache::{FlushRequest, Flushed};
pub use certificates::UnusableCertificate;
pub use config::ConfigStatus;
pub use drain::{DrainRequest, DrainStatus};
pub use explain::{ExplainRequest, Explaining, Explanation, Listed, RefusalRow};
pub use log::LogRequest;
pub use metrics::Exemplar;
pub use misuse::{Misuses, Misusing};
pub use page::{PageAccess, PageAddress};
pub use policy::{RefreshRequest, Refreshed};
pub use refused::{RefusedTotal, refused};
pub use reload::{Outcome, Reloaded};
pub use serve::{serve_http, serve_unix};
pub use status::{
    BackendStatus, CertificateStatus, DnstapStatus, ListenerStatus, OtlpStatus, PolicyStatus, State, Status,
    TenantStatus, TransferStatus, UnmatchedStatus,
};

pub use switch::{BackendRequest, BackendSwitch, OffStatus, SwitchRequest};
pub use tickets::{RotateRequest, Rotated};
pub use top::{Counting, Top, TopClient, TopName, TopRequest};
pub use trace::{TraceRequest, Traced};
pub use upstream::{ForgiveRequest, TlsRow};

use std::net::SocketAddr;

use axum::{
    Json,
    extract::rejection::JsonRejection,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::json;

use crate::{
    acme::Standing,
    config::ConfigRow,
    ledger::{Measured, Snapshot},
    policy as zones, xdp,
};

/// The source of all answers. Each call is quick and never blocks: it runs on the control thread's runtime.
pub trait Source: Send + Sync + 'static {
    /// The state of the process.
    fn status(&self) -> Status;
    /// Every counter at this moment.
    fn snapshot(&self) -> Snapshot;
    /// Every histogram at this moment.
    fn measured(&self) -> Vec<Measured>;
    /// The kernel half.
    fn xdp(&self) -> xdp::Report;
    /// What the ACME process has reached. `None`: `[acme]` is off.
    fn acme(&self) -> Option<Standing>;
    /// Makes the ACME process get a certificate now; the state before.
    ///
    /// # Errors
    /// There is no such process.
    fn renew_acme(&self) -> Result<Standing, String>;
    /// Detaches the kernel half from every interface until a restart; returns the resulting state.
    fn leave_xdp(&self) -> xdp::Report;
    /// Every ban, sorted by its end.
    fn bans(&self) -> Vec<xdp::BanRow>;
    /// Bans a client, and has the workers end its sessions; the ban as it stands.
    ///
    /// # Errors
    /// The request is invalid, or the kernel half cannot ban.
    fn ban(&self, request: &BanRequest) -> Result<Banning, xdp::XdpError>;
    /// Lifts a ban; as it stood.
    ///
    /// # Errors
    /// There is no such ban.
    fn unban(&self, request: &UnbanRequest) -> Result<xdp::BanRow, xdp::XdpError>;
    /// Reads config and certificates again.
    ///
    /// # Errors
    /// Too many reloads wait already.
    fn reload(&self) -> Result<Outcome, String>;
    /// Changes which log lines are written until the next reload; returns the resulting state.
    ///
    /// # Errors
    /// The level suppresses the lines that were asked for.
    fn log(&self, request: LogRequest) -> Result<LogRequest, String>;
    /// Withdraws readiness for a while, or gives it back; returns the resulting state.
    ///
    /// # Errors
    /// The time is too long.
    fn drain(&self, request: DrainRequest) -> Result<DrainRequest, String>;
    /// Makes the first worker hang, for a test of the watchdog.
    #[cfg(debug_assertions)]
    fn stick(&self);
    /// The config in effect.
    fn config(&self) -> ConfigStatus;
    /// Switches DNS over TLS on or off; returns the resulting state.
    ///
    /// # Errors
    /// There is no listener for it, or the state cannot be saved.
    fn switch(&self, request: SwitchRequest) -> Result<SwitchRequest, String>;
    /// Drains a backend or changes its weight, until a restart; returns the resulting state.
    ///
    /// # Errors
    /// There is no backend of that name, or the weight is out of range.
    fn switch_backend(&self, request: BackendRequest) -> Result<BackendRequest, String>;
    /// Everything that dotd knows about a client.
    ///
    /// # Errors
    /// `client` is neither an address nor a prefix.
    fn explain(&self, request: &ExplainRequest) -> Result<Explaining, String>;
    /// The busiest clients: asks the workers, which continue to count for a while.
    fn top(&self, request: TopRequest) -> Counting;
    /// The misuses that workers find now: asks them.
    fn misuse(&self) -> Misusing;
    /// Makes every worker report the events of a client.
    ///
    /// # Errors
    /// The text names no client, or too many traces run.
    fn trace(&self, request: &TraceRequest) -> Result<Traced, String>;
    /// The rights to read the page and to act from it.
    fn page_access(&self) -> PageAccess;
    /// Where HTTP is served.
    fn http_address(&self) -> Option<SocketAddr>;
    /// Traces of queries, for the histograms.
    fn exemplars(&self) -> Vec<Exemplar>;
    /// Every key of the config that runs.
    fn config_rows(&self) -> Vec<ConfigRow>;
    /// Makes every worker remove answers from its cache.
    ///
    /// # Errors
    /// There is no cache, or the name is invalid.
    fn flush_cache(&self, request: &FlushRequest) -> Result<Flushed, String>;
    /// The rule of the policy zones that decides about a name.
    ///
    /// # Errors
    /// There are no zones, or the name is invalid.
    fn explain_policy(&self, question: &zones::Question) -> Result<zones::Explained, String>;
    /// Asks the primary servers of policy zones at once.
    ///
    /// # Errors
    /// No such zone is transferred.
    fn refresh_policy(&self, request: &RefreshRequest) -> Result<Refreshed, String>;
    /// Starts the next rotation of session tickets now.
    ///
    /// # Errors
    /// Several nodes share the keys, or there are no random numbers.
    fn rotate_tickets(&self, request: RotateRequest) -> Result<Rotated, String>;
    /// The history of TLS with each backend, those of the config first.
    fn upstreams(&self) -> Vec<TlsRow>;
    /// Ends the suspicion that an attacker strips a backend's TLS; returns the history afterwards.
    ///
    /// # Errors
    /// There is no such backend, or its TLS does not fail.
    fn forgive(&self, request: &ForgiveRequest) -> Result<TlsRow, String>;
}

/// A request's body, or its fault.
type Body<T> = Result<Json<T>, JsonRejection>;

/// Carries out a request; the answer says what was done, or has status 422 with the reason.
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

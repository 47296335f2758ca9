//! Sends a request to the running dotd over its control socket: one request, one JSON answer.
//!
//! Before: a verb knows the path. After: it prints the answer.
//! Never: waits longer than the limit of the request, or accepts an answer that is not from a dotd.

use std::{io, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, task::JoinSet};

use super::error::CliError;
use crate::effective;

/// The answer to `GET path`, as text and decoded.
pub(super) fn ask<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<(String, T), CliError> {
    send(socket, Method::GET, path, None)
}

/// The answer to `method path` with `request` as its body.
pub(super) fn tell<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    request: &impl Serialize,
) -> Result<(String, T), CliError> {
    let body = serde_json::to_string(request).map_err(|error| no_answer(socket, error.to_string()))?;
    send(socket, method, path, Some(body))
}

fn send<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<String>,
) -> Result<(String, T), CliError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::System)?;
    let body = runtime.block_on(async {
        let limit = if path == "/reload" { RELOAD_TIMEOUT } else { ANSWER_TIMEOUT };
        let fetched = tokio::time::timeout(limit, fetch(socket, method, path, body)).await;
        fetched.unwrap_or_else(|_| Err(CliError::Late { socket: socket.into(), limit }))
    })?;
    let meaning = serde_json::from_str(&body).map_err(|error| no_answer(socket, error.to_string()))?;
    Ok((body, meaning))
}

/// The answer to a request that may wait longer, while another engine starts: the kernel holds it until that engine accepts. `late` is
/// called once, after the usual time.
pub(super) fn tell_patiently<T: DeserializeOwned>(
    socket: &Path,
    (method, path): (Method, &str),
    late: impl FnOnce(),
) -> Result<T, CliError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::System)?;
    let body = runtime.block_on(async {
        let mut fetched = Box::pin(fetch(socket, method, path, None));
        if let Ok(fetched) = tokio::time::timeout(ANSWER_TIMEOUT, &mut fetched).await {
            return fetched;
        }
        late();
        let limit = START_TIMEOUT;
        let fetched = tokio::time::timeout(limit, fetched).await;
        fetched.unwrap_or_else(|_| Err(CliError::Late { socket: socket.into(), limit }))
    })?;
    serde_json::from_str(&body).map_err(|error| no_answer(socket, error.to_string()))
}

/// Sends a request and passes each line of the answer to `each` as it comes, until `each` returns that it has enough,
/// the time has passed, or the answer ends.
pub(super) fn follow(
    socket: &Path,
    path: &str,
    request: &impl Serialize,
    length: Option<Duration>,
    mut each: impl FnMut(&str) -> Result<bool, CliError>,
) -> Result<(), CliError> {
    let body = serde_json::to_string(request).map_err(|error| no_answer(socket, error.to_string()))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::System)?;
    runtime.block_on(async {
        let begun = begin(socket, Method::POST, path, Some(body));
        let begun = tokio::time::timeout(ANSWER_TIMEOUT, begun).await;
        let late = |_| Err(CliError::Late { socket: socket.into(), limit: ANSWER_TIMEOUT });
        let (mut body, _driver) = begun.unwrap_or_else(late)?;
        let until = length.map(|length| tokio::time::Instant::now() + length);
        let mut rest = Vec::new();
        loop {
            let frame = match until {
                Some(until) => match tokio::time::timeout_at(until, body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => return Ok(()),
                },
                None => body.frame().await,
            };
            let Some(frame) = frame else { return Ok(()) };
            let frame = frame.map_err(|_| CliError::CutOff(socket.into()))?;
            rest.extend_from_slice(frame.data_ref().map_or(&[], |octets| octets));
            while let Some(end) = rest.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if !each(String::from_utf8_lossy(&line).trim_end())? {
                    return Ok(());
                }
            }
        }
    })
}

async fn fetch(socket: &Path, method: Method, path: &str, body: Option<String>) -> Result<String, CliError> {
    let (body, _driver) = begin(socket, method, path, body).await?;
    text_of(socket, body).await
}

/// Sends a request. Returns the answer's body, and the future that drives the connection and ends with it.
async fn begin(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<String>,
) -> Result<(Incoming, JoinSet<()>), CliError> {
    let failed = |error: &dyn std::error::Error| no_answer(socket, error.to_string());
    let connected = match UnixStream::connect(socket).await {
        // Root without CAP_DAC_OVERRIDE, as ExecReload= of the packaged unit, connects as the socket's owner.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            effective::connect_as_owner(socket).and_then(UnixStream::from_std)
        }
        connected => connected,
    };
    let stream = connected.map_err(|error| not_connected(socket, &error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let mut driver = JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    let request = Request::builder().method(method).uri(path).header(HOST, "dotd");
    let request = request.header(CONTENT_TYPE, "application/json");
    let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())));
    let request = request.map_err(|error| failed(&error))?;
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    match response.status() {
        StatusCode::OK => Ok((response.into_body(), driver)),
        StatusCode::UNPROCESSABLE_ENTITY => {
            let text = text_of(socket, response.into_body()).await?;
            let Refusal { error } = serde_json::from_str(&text).map_err(|error| failed(&error))?;
            Err(CliError::Refused(error))
        }
        status => Err(no_answer(socket, format!("answers {path} with {status}"))),
    }
}

/// A whole body.
async fn text_of(socket: &Path, body: Incoming) -> Result<String, CliError> {
    let body = Limited::new(body, ANSWER_OCTETS_MAX).collect().await;
    let body = body.map_err(|error| no_answer(socket, error.to_string()))?.to_bytes();
    String::from_utf8(body.into()).map_err(|error| no_answer(socket, error.to_string()))
}

/// The reason why dotd refused the request.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

fn not_connected(socket: &Path, error: &io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::NotFound => CliError::NotRunning(socket.into()),
        io::ErrorKind::ConnectionRefused => CliError::NobodyListens(socket.into()),
        io::ErrorKind::PermissionDenied => CliError::NotPermitted(socket.into()),
        _ => no_answer(socket, error.to_string()),
    }
}

fn no_answer(socket: &Path, reason: String) -> CliError {
    CliError::NoAnswer { socket: socket.into(), reason }
}

/// 5 s: dotd answers in microseconds; a machine under attack needs a little more.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A minute: the next engine after a crash loads its program, certificates and XDP on a machine that is busy.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// 60 s: thousands of certificates from a slow disk, whose keys must be checked.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// 16 MiB: a thousand interfaces and certificates need less than one.
const ANSWER_OCTETS_MAX: usize = 16 << 20;

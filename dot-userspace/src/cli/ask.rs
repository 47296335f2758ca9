//! Asks the running dotd over its control socket: one GET, one JSON answer.
//!
//! Before: a verb knows the path. After: it prints the answer.
//! Never: waits longer than [`ANSWER_TIMEOUT`], or takes an answer that is not from a dotd.

use std::{io, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::error::CliError;

/// The answer to `GET path`, as it came and as what it means.
pub(super) fn ask<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<(String, T), CliError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::System)?;
    let body = runtime.block_on(async {
        tokio::time::timeout(ANSWER_TIMEOUT, fetch(socket, path))
            .await
            .unwrap_or_else(|_| Err(no_answer(socket, format!("no answer within {ANSWER_TIMEOUT:?}"))))
    })?;
    let meaning = serde_json::from_str(&body).map_err(|error| no_answer(socket, error.to_string()))?;
    Ok((body, meaning))
}

async fn fetch(socket: &Path, path: &str) -> Result<String, CliError> {
    let failed = |error: &dyn std::error::Error| no_answer(socket, error.to_string());
    let stream = UnixStream::connect(socket).await.map_err(|error| not_connected(socket, &error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let driver = tokio::spawn(connection);
    let request = Request::get(path).header(HOST, "dotd").body(Empty::<Bytes>::new());
    let request = request.map_err(|error| failed(&error))?;
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let status = response.status();
    if status != StatusCode::OK {
        return Err(no_answer(socket, format!("answers {path} with {status}")));
    }
    let body = Limited::new(response.into_body(), ANSWER_OCTETS_MAX).collect().await;
    let body = body.map_err(|error| no_answer(socket, error.to_string()))?.to_bytes();
    driver.abort();
    String::from_utf8(body.into()).map_err(|error| failed(&error))
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
/// 16 MiB: a thousand interfaces and certificates need less than one.
const ANSWER_OCTETS_MAX: usize = 16 << 20;

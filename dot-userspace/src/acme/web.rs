//! Requests to the authority: HTTP/1.1 over TLS, a connection for each.
//!
//! Before: the library has a request. After: the whole response, or one line that says what failed.
//! Holds: how long the authority last asked to wait.
//! Never: follows a redirect, speaks in clear, or reads more than [`BODY_OCTETS_MAX`]; waits longer than [`REQUEST_TIMEOUT`].
//!
//! Source: RFC 8555 §6.1 and §6.6, RFC 9110 §10.2.3 (Retry-After).

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Response, Uri,
    body::Bytes,
    client::conn::http1,
    header::{HOST, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use super::resolver;
use crate::tls::{WebStream, WebTls};

/// Time for a request and its response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a connection to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// The longest response. A chain has some thousand octets.
const BODY_OCTETS_MAX: usize = 1 << 20;
/// The port of HTTPS.
const PORT: u16 = 443;
/// RFC 8555 §6.1: a client says its name.
const AGENT: &str = concat!("dotd/", env!("CARGO_PKG_VERSION"), " instant-acme");

/// The client. Clones share what the authority said.
#[derive(Clone)]
pub(super) struct Web {
    tls: WebTls,
    asked: Arc<Mutex<Option<Duration>>>,
    was_reached: Arc<AtomicBool>,
}

impl Web {
    /// By these authorities.
    pub(super) fn new(tls: WebTls) -> Self {
        Self { tls, asked: Arc::default(), was_reached: Arc::default() }
    }

    /// How long the authority asked to wait when it last refused something; forgets it.
    pub(super) fn take_asked(&self) -> Option<Duration> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the authority has answered anything.
    pub(super) fn was_reached(&self) -> bool {
        self.was_reached.load(Relaxed)
    }

    async fn exchange(
        &self,
        mut request: Request<BodyWrapper<Bytes>>,
    ) -> Result<Response<Full<Bytes>>, String> {
        let url = request.uri().clone();
        let (host, port) = place(&url)?;
        let stream = self.connect(&host, port).await?;
        let failed = |error: hyper::Error| format!("{host}: {error}");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| format!("{url}: no URL"))?;
        let authority = url.authority().map(ToString::to_string).unwrap_or_default();
        let named = HeaderValue::from_str(&authority).map_err(|_| format!("{url}: no URL"))?;
        request.headers_mut().insert(HOST, named);
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let (parts, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
        self.was_reached.store(true, Relaxed);
        if !parts.status.is_success() {
            let asked =
                parts.headers.get(RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::now()));
            *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        }
        let body = Limited::new(body, BODY_OCTETS_MAX).collect().await;
        let body = body.map_err(|error| format!("{host}: {error}"))?.to_bytes();
        Ok(Response::from_parts(parts, Full::new(body)))
    }

    /// A connection to the first address that takes one.
    async fn connect(&self, host: &str, port: u16) -> Result<WebStream, String> {
        let mut why = String::new();
        for address in resolver::addresses(host).await? {
            let tcp = match timeout(CONNECT_TIMEOUT, TcpStream::connect((address, port))).await {
                Ok(Ok(tcp)) => tcp,
                Ok(Err(error)) => {
                    why = format!("{host} ({address}) port {port}: {error}");
                    continue;
                }
                Err(_) => {
                    why = format!("{host} ({address}) port {port}: no connection within {CONNECT_TIMEOUT:?}");
                    continue;
                }
            };
            return self.tls.connect(host, tcp).await.map_err(|error| {
                format!(
                    "{host} ({address}): TLS fails: {error}; acme.ca names the authorities of its certificate"
                )
            });
        }
        Err(why)
    }
}

impl HttpClient for Web {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let web = self.clone();
        Box::pin(async move {
            let exchanged = timeout(REQUEST_TIMEOUT, web.exchange(request)).await;
            let exchanged =
                exchanged.unwrap_or_else(|_| Err(format!("no response within {REQUEST_TIMEOUT:?}")));
            exchanged.map(BytesResponse::from).map_err(|text| Error::Other(text.into()))
        })
    }
}

/// Host and port of an https URL.
fn place(url: &Uri) -> Result<(String, u16), String> {
    if url.scheme_str() != Some("https") {
        return Err(format!("{url}: the authority names a URL that is not https"));
    }
    let host = url.host().ok_or_else(|| format!("{url}: no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((host.to_owned(), url.port_u16().unwrap_or(PORT)))
}

/// Seconds, or a date.
fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(now).ok()
}

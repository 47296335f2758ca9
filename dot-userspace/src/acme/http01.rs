//! Answers the authority's request for `http-01`: at a port of its own, which is open only while an order is under way.
//!
//! Before: `start` has bound the sockets, because port 80 needs a right. After: the authority has read the answer, and the port is
//! closed again.
//! Holds: the answers of this order.
//! Never: reads a body, sends a file, or answers anything but a token of this order; serves more than [`CONNECTIONS_MAX`] connections,
//! [`PER_CLIENT_MAX`] of them for one address, or one for longer than [`CONNECTION_TIMEOUT`].
//!
//! Source: RFC 8555 §8.3, listen(2), shutdown(2).

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{IpAddr, Shutdown, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use super::words::Failure;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 256;
/// Connections of one address at a time, so that one client cannot keep the authority out.
const PER_CLIENT_MAX: usize = 4;
/// Time for a connection from its beginning to its end.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Octets of a request that are kept.
const REQUEST_OCTETS_MAX: usize = 8192;
/// Connections that may wait for `accept`.
const BACKLOG: i32 = 128;
/// The path of a token.
const PATH: &str = "/.well-known/acme-challenge/";

/// Tokens, and what is answered for each.
type Answers = Arc<Mutex<BTreeMap<String, String>>>;

/// The sockets, which are bound and do not listen.
pub(super) struct Door(Vec<TcpListener>);

/// The port is open until this is dropped.
pub(super) struct Open<'d> {
    door: &'d Door,
    answers: Answers,
    tasks: JoinSet<()>,
}

impl Door {
    /// With these sockets.
    pub(super) fn new(sockets: Vec<TcpListener>) -> Self {
        Self(sockets)
    }

    /// Listens from now on.
    pub(super) fn open(&self) -> Result<Open<'_>, Failure> {
        if self.0.is_empty() {
            return Err(Failure::new(
                "dotd has no port for http-01, because acme.http_listen was not bound at the start; restart dotd",
            ));
        }
        let mut open = Open { door: self, answers: Answers::default(), tasks: JoinSet::new() };
        for socket in &self.0 {
            open.listen(socket).map_err(|error| explain(socket, &error))?;
        }
        Ok(open)
    }
}

impl Open<'_> {
    fn listen(&mut self, socket: &TcpListener) -> io::Result<()> {
        SockRef::from(socket).listen(BACKLOG)?;
        let listener = tokio::net::TcpListener::from_std(socket.try_clone()?)?;
        self.tasks.spawn(accept(listener, Arc::clone(&self.answers)));
        Ok(())
    }

    /// Answers for this token.
    pub(super) fn answer(&self, token: &str, text: &str) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(token.to_owned(), text.to_owned());
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.tasks.abort_all();
        for socket in &self.door.0 {
            // It stays bound, and refuses connections (tcp(7): the socket is in state CLOSE again).
            let _ = SockRef::from(socket).shutdown(Shutdown::Read);
        }
    }
}

fn explain(socket: &TcpListener, error: &io::Error) -> Failure {
    let at = socket.local_addr().map(|at| at.to_string()).unwrap_or_default();
    Failure::new(match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "{at} is in use by another program, so that http-01 cannot be answered; stop it, or change acme.http_listen"
            )
        }
        _ => format!("{at} cannot be listened on: {error}"),
    })
}

/// Connections by address.
type Clients = Arc<Mutex<BTreeMap<IpAddr, usize>>>;

async fn accept(listener: tokio::net::TcpListener, answers: Answers) {
    let clients = Clients::default();
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            // No descriptor is left: one comes free soon.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let Some(place) = Place::take(&clients, from.ip()) else { continue };
        if connections.len() < CONNECTIONS_MAX {
            connections.spawn(serve(stream, Arc::clone(&answers), place));
        }
    }
}

/// A place among the connections of an address.
struct Place {
    clients: Clients,
    client: IpAddr,
}

impl Place {
    fn take(clients: &Clients, client: IpAddr) -> Option<Self> {
        let mut all = clients.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(client).or_default();
        if *count >= PER_CLIENT_MAX {
            return None;
        }
        *count += 1;
        Some(Self { clients: Arc::clone(clients), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.client);
            }
        }
    }
}

async fn serve(stream: TcpStream, answers: Answers, _place: Place) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let response = respond(&request, &answers);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).max_buf_size(REQUEST_OCTETS_MAX).keep_alive(false);
    // hyper would take a client that sends nothing after its request for one that has gone.
    http.header_read_timeout(CONNECTION_TIMEOUT).half_close(true);
    // What goes wrong with a client's connection is the client's own affair.
    let _ = timeout(CONNECTION_TIMEOUT, http.serve_connection(TokioIo::new(stream), answer)).await;
}

fn respond<B>(request: &Request<B>, answers: &Answers) -> Response<Full<Bytes>> {
    let token = request.uri().path().strip_prefix(PATH).unwrap_or_default();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    let found = answers.get(token).filter(|_| is_read);
    let mut response = Response::new(Full::new(Bytes::from(found.cloned().unwrap_or_default())));
    if found.is_none() {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(at: std::net::SocketAddr, head: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(format!("{head}\r\nHost: x\r\n\r\n").as_bytes()).await?;
        // As an authority may: it has nothing more to send.
        stream.shutdown().await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    /// A socket that is bound to a port by its number: one that the kernel chose would be another one at the next listen(2).
    fn bound() -> TcpListener {
        use std::net::SocketAddr;
        let bind = |port: u16| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).ok()?;
            socket.set_nonblocking(true).unwrap();
            Some(TcpListener::from(socket))
        };
        loop {
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(socket) = bind(free) {
                return socket;
            }
        }
    }

    /// Goal: the port is open only while an order is under way, twice, and only its tokens are answered. Method: a bound socket: before,
    /// during, after and again; another path, another token, another method.
    #[tokio::test]
    async fn only_tokens_of_an_order_are_answered() {
        let door = Door::new(vec![bound()]);
        let at = door.0[0].local_addr().unwrap();
        for round in ["one", "two"] {
            assert!(TcpStream::connect(at).await.is_err(), "{round}: closed before");
            let open = door.open().unwrap();
            open.answer(round, &format!("{round}.thumb"));
            let got = ask(at, &format!("GET {PATH}{round} HTTP/1.1")).await.unwrap();
            assert!(
                got.starts_with("HTTP/1.1 200") && got.ends_with(&format!("\r\n\r\n{round}.thumb")),
                "{got}"
            );
            for head in [
                "GET / HTTP/1.1",
                &format!("GET {PATH} HTTP/1.1"),
                &format!("GET {PATH}../{round} HTTP/1.1"),
                &format!("POST {PATH}{round} HTTP/1.1"),
            ] {
                let got = ask(at, head).await.unwrap();
                assert!(got.starts_with("HTTP/1.1 404"), "{head}: {got}");
            }
            if round == "two" {
                let got = ask(at, &format!("GET {PATH}one HTTP/1.1")).await.unwrap();
                assert!(got.starts_with("HTTP/1.1 404"), "the token of an earlier order: {got}");
            }
            drop(open);
        }
        assert!(TcpStream::connect(at).await.is_err(), "closed after");
    }

    /// Goal: one client cannot keep the authority out. Method: idle connections of 127.0.0.1 up to its share and beyond; another address
    /// is answered.
    #[tokio::test]
    async fn one_client_has_its_share_alone() {
        let door = Door::new(vec![bound()]);
        let at = door.0[0].local_addr().unwrap();
        let open = door.open().unwrap();
        open.answer("token", "answer");
        let mut idle = Vec::new();
        for _ in 0..PER_CLIENT_MAX {
            idle.push(TcpStream::connect(at).await.unwrap());
        }
        let mut over = TcpStream::connect(at).await.unwrap();
        assert_eq!(over.read(&mut [0; 9]).await.unwrap_or_default(), 0, "one more is closed");
        let other = tokio::net::TcpSocket::new_v4().unwrap();
        other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut other = other.connect(at).await.unwrap();
        other.write_all(format!("GET {PATH}token HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut got = String::new();
        other.read_to_string(&mut got).await.unwrap();
        assert!(got.ends_with("answer"), "{got}");
    }

    /// Goal: without a socket the failure says what to do.
    #[test]
    fn without_a_port_the_failure_says_so() {
        assert!(Door::new(Vec::new()).open().err().unwrap().text.contains("restart dotd"));
    }
}

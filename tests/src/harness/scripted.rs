//! A backend that does what a test tells it: silent, late, lying, truncating, closing.
//!
//! Before: a test gives a function from the received query to the reply. After: the test reads which queries came.
//! Holds: one UDP socket and one TCP listener at the same port, on loopback in the server's namespace. dotd's health
//! checks are answered without the script, and do not count as received.
//! Never: uses time to order things: a held reply is sent when the test releases it.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{
    message::{NS, REFUSED, bare_error, framed, reply_to},
    netns::Network,
    proxied::{Header, take_header},
    uninterrupted,
};

/// Room for a burst of some thousand queries.
const BUFFER_OCTETS: usize = 8 << 20;

/// One query as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// Whether it came over TCP; otherwise over UDP.
    pub is_tcp: bool,
    /// The sender.
    pub from: SocketAddr,
    /// The PROXY header of its datagram or connection.
    pub proxy: Option<Header>,
    /// The message, without a length prefix.
    pub octets: Vec<u8>,
}

/// An action of the backend.
#[derive(Clone, Debug)]
pub enum Act {
    /// Send these octets from where the query arrived.
    Send(Vec<u8>),
    /// Send them from another port, as an off-path attacker would (UDP only).
    SendFromElsewhere(Vec<u8>),
    /// Keep them until [`Scripted::release`].
    Hold(Vec<u8>),
    /// Send them without a length prefix (TCP only).
    SendRaw(Vec<u8>),
    /// Close the connection (TCP only).
    Close,
}

/// The backend's behaviour before the script is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    /// Follows the script.
    Willing,
    /// Reads everything and answers nothing, not even health checks: a black hole.
    Deaf,
    /// Closes each new connection as soon as it is accepted, and answers nothing over UDP.
    Curt,
    /// Follows the script, and refuses health checks with a header alone, as Unbound does for clients that none of its
    /// lists allow.
    Terse,
    /// Follows the script, and answers health checks with another question.
    Distracted,
}

type Script = dyn Fn(&Received) -> Vec<Act> + Send + Sync;

/// The running backend.
#[derive(Debug)]
pub struct Scripted {
    /// Its address, for UDP and TCP.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    script: Box<Script>,
    tls: Option<Arc<ServerConfig>>,
    received: Mutex<Vec<Received>>,
    held: Mutex<VecDeque<(Reply, Vec<u8>)>>,
    elsewhere: UdpSocket,
    is_over: AtomicBool,
    mood: Mutex<Mood>,
    accepted: AtomicUsize,
}

/// The way back to the sender of a query.
#[derive(Debug)]
enum Reply {
    Datagram(UdpSocket, SocketAddr),
    Stream(Stream),
}

impl Scripted {
    /// Starts it at a port of the kernel's choice.
    ///
    /// # Panics
    /// When loopback has no port that is free for both.
    #[must_use]
    pub fn start(network: &Network, script: impl Fn(&Received) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self::start_with(network, None, script)
    }

    /// The same, with TLS on its connections.
    ///
    /// # Panics
    /// As [`Scripted::start`].
    #[must_use]
    pub fn start_over_tls(
        network: &Network,
        tls: Arc<ServerConfig>,
        script: impl Fn(&Received) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(network, Some(tls), script)
    }

    fn start_with(
        network: &Network,
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(&Received) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp, elsewhere) = network.server.run(|| {
            let tcp = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
            let udp = UdpSocket::bind(tcp.local_addr().expect("bound")).expect("free for UDP too");
            (udp, tcp, UdpSocket::bind(("127.0.0.1", 0)).expect("a free port"))
        });
        let address = udp.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            script: Box::new(script),
            tls,
            received: Mutex::default(),
            held: Mutex::default(),
            elsewhere,
            is_over: AtomicBool::new(false),
            mood: Mutex::new(Mood::Willing),
            accepted: AtomicUsize::new(0),
        });
        udp.set_read_timeout(Some(Duration::from_millis(50))).expect("not zero");
        // A script must see every query of a burst; queries that the kernel drops would look like losses of dotd.
        setsockopt(&udp, RcvBufForce, &BUFFER_OCTETS).expect("root may");
        tcp.set_nonblocking(true).expect("a plain socket");
        let (for_udp, for_tcp) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            thread::spawn(move || serve_udp(&udp, &for_udp)),
            thread::spawn(move || serve_tcp(&tcp, &for_tcp)),
        ];
        Self { address, shared, threads }
    }

    /// All queries received so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().expect("no script panics").clone()
    }

    /// TCP connections accepted so far, including those of health checks.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Relaxed)
    }

    /// Changes its behaviour before the script is called.
    pub fn be(&self, mood: Mood) {
        *self.shared.mood.lock().expect("no script panics") = mood;
    }

    /// Number of replies held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shared.held.lock().expect("no script panics").len()
    }

    /// Sends the oldest reply that is held.
    ///
    /// # Panics
    /// When nothing is held.
    pub fn release_one(&self) {
        let oldest = self.shared.held.lock().expect("no script panics").pop_front();
        let (reply, octets) = oldest.expect("something is held");
        reply.send(&octets);
    }

    /// Sends all replies that were held, in their order.
    pub fn release(&self) {
        let held: Vec<_> = self.shared.held.lock().expect("no script panics").drain(..).collect();
        for (reply, octets) in held {
            reply.send(&octets);
        }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, form: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        form.debug_struct("Shared").field("received", &self.received).finish_non_exhaustive()
    }
}

impl Shared {
    fn mood(&self) -> Mood {
        *self.mood.lock().expect("no script panics")
    }

    fn answer(&self, query: Received, way_back: impl Fn() -> Reply) {
        let is_willing = match self.mood() {
            Mood::Willing | Mood::Terse | Mood::Distracted => true,
            Mood::Deaf => false,
            Mood::Curt => query.is_tcp,
        };
        if is_health_check(&query.octets) {
            match self.mood() {
                Mood::Terse => way_back().send(&bare_error(&query.octets, REFUSED)),
                Mood::Distracted => {
                    let mut reply = reply_to(&query.octets, NS, &[]);
                    reply[14] = 1;
                    way_back().send(&reply);
                }
                _ if is_willing => way_back().send(&reply_to(&query.octets, NS, &[])),
                _ => {}
            }
            return;
        }
        self.received.lock().expect("no script panics").push(query.clone());
        if !is_willing {
            return;
        }
        for act in (self.script)(&query) {
            match act {
                Act::SendRaw(octets) => way_back().send_raw(&octets),
                Act::Close => way_back().close(),
                Act::Send(octets) => way_back().send(&octets),
                Act::SendFromElsewhere(octets) => {
                    let _ = self.elsewhere.send_to(&octets, query.from);
                }
                Act::Hold(octets) => {
                    self.held.lock().expect("no script panics").push_back((way_back(), octets));
                }
            }
        }
    }
}

/// `. NS IN`, which no test asks through dotd.
fn is_health_check(query: &[u8]) -> bool {
    query.len() == 17 && query[12..] == [0, 0, 2, 0, 1]
}

impl Reply {
    fn send_raw(self, octets: &[u8]) {
        let Self::Stream(mut stream) = self else { panic!("a datagram has no length prefix") };
        let _ = stream.write_all(octets);
    }

    fn close(self) {
        let Self::Stream(stream) = self else { panic!("UDP has no connection to close") };
        stream.close();
    }

    fn send(self, octets: &[u8]) {
        // The peer may be gone; that is no error here.
        let _ = match self {
            Self::Datagram(socket, to) => socket.send_to(octets, to).map(|_| ()),
            Self::Stream(mut stream) => stream.write_all(&framed(octets)),
        };
    }
}

fn serve_udp(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = vec![0; 65_535];
    while !shared.is_over.load(Relaxed) {
        if let Ok((length, from)) = uninterrupted(|| socket.recv_from(&mut buffer)) {
            let mut octets = buffer[..length].to_vec();
            let query = Received { is_tcp: false, from, proxy: take_header(&mut octets), octets };
            shared.answer(query, || Reply::Datagram(socket.try_clone().expect("a descriptor is free"), from));
        }
    }
}

fn serve_tcp(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut sessions = Vec::new();
    while !shared.is_over.load(Relaxed) {
        match listener.accept() {
            Ok((stream, from)) => {
                shared.accepted.fetch_add(1, Relaxed);
                if shared.mood() == Mood::Curt {
                    continue;
                }
                let shared = Arc::clone(shared);
                sessions.push(thread::spawn(move || serve_stream(stream, from, &shared)));
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    for session in sessions {
        let _ = session.join();
    }
}

fn serve_stream(tcp: TcpStream, from: SocketAddr, shared: &Shared) {
    let _ = tcp.set_nonblocking(false);
    let _ = tcp.set_read_timeout(Some(Duration::from_millis(50)));
    let mut stream = match &shared.tls {
        None => Stream::Clear(tcp),
        Some(config) => {
            let tls = ServerConnection::new(Arc::clone(config)).expect("a sound config");
            Stream::Secure(Arc::new(Mutex::new(StreamOwned::new(tls, tcp))))
        }
    };
    let (mut proxy, mut buffer) = (None, Vec::new());
    while !shared.is_over.load(Relaxed) {
        let mut chunk = [0; 4096];
        match uninterrupted(|| stream.read(&mut chunk)) {
            Ok(0) => return,
            Ok(count) => buffer.extend(&chunk[..count]),
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
        proxy = take_header(&mut buffer).or(proxy);
        while let Some(octets) = take_message(&mut buffer) {
            let query = Received { is_tcp: true, from, proxy: proxy.clone(), octets };
            shared.answer(query, || Reply::Stream(stream.clone()));
        }
    }
}

/// A connection in the clear or within TLS; clones share it.
#[derive(Debug)]
enum Stream {
    Clear(TcpStream),
    Secure(Arc<Mutex<StreamOwned<ServerConnection, TcpStream>>>),
}

impl Clone for Stream {
    fn clone(&self) -> Self {
        match self {
            Self::Clear(tcp) => Self::Clear(tcp.try_clone().expect("a descriptor is free")),
            Self::Secure(tls) => Self::Secure(Arc::clone(tls)),
        }
    }
}

impl Stream {
    fn read(&mut self, chunk: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Clear(tcp) => uninterrupted(|| tcp.read(chunk)),
            Self::Secure(tls) => tls.lock().expect("no reader panics").read(chunk),
        }
    }

    fn write_all(&mut self, octets: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Clear(tcp) => tcp.write_all(octets),
            Self::Secure(tls) => {
                let mut tls = tls.lock().expect("no writer panics");
                tls.write_all(octets).and_then(|()| tls.flush())
            }
        }
    }

    fn close(&self) {
        let _ = match self {
            Self::Clear(tcp) => tcp.shutdown(Shutdown::Both),
            Self::Secure(tls) => tls.lock().expect("nobody panics").sock.shutdown(Shutdown::Both),
        };
    }
}

/// Takes one whole message from the front, if it is there.
pub(super) fn take_message(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes([*buffer.first()?, *buffer.get(1)?]));
    (buffer.len() >= 2 + length).then(|| buffer.drain(..2 + length).skip(2).collect())
}

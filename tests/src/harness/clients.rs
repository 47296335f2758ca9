//! Clients of other projects: kdig, dig, getdns_query, openssl s_client (while it runs: `s_client`), dnsperf. And a
//! bare TCP socket.
//!
//! Before: a namespace and an address. After: what the client printed, and the few facts that tests need from it.
//! Never: takes a client's silence for success.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::Output,
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use super::{DEADLINE, netns::Namespace, process::bounded, uninterrupted};

/// The port of DNS over TLS.
pub const DOT_PORT: u16 = 853;

/// The output of a client program.
#[derive(Clone, Debug)]
pub struct Said {
    /// Whether it exited with 0.
    pub is_success: bool,
    /// stdout, then stderr.
    pub text: String,
}

impl Said {
    pub(super) fn from(output: &Output) -> Self {
        let text = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
        Self { is_success: output.status.success(), text }
    }

    /// Whether the output contains `part`.
    #[must_use]
    pub fn has(&self, part: &str) -> bool {
        self.text.contains(part)
    }

    /// The number that follows `label`, for example dnsperf's `Queries lost:`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn number_after(&self, label: &str) -> u64 {
        let rest = self.text.split_once(label).map(|(_, rest)| rest.trim_start()).unwrap_or_default();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or_else(|_| panic!("no number after {label:?} in {}", self.text))
    }
}

/// Runs a program with these arguments in a namespace.
#[must_use]
pub fn tool(namespace: &Namespace, program: &str, words: &[&str]) -> Said {
    let mut command = bounded(program);
    command.args(words);
    Said::from(&namespace.output(command))
}

/// `kdig @server -p 853` with these arguments.
#[must_use]
pub fn kdig(namespace: &Namespace, server: IpAddr, words: &str) -> Said {
    let at = format!("@{server}");
    let mut all = vec![&*at, "-p", "853", "+timeout=5", "+retry=0"];
    all.extend(words.split_whitespace());
    tool(namespace, "kdig", &all)
}

/// Whether kdig got NOERROR over TLS.
#[must_use]
pub fn is_answered_over_tls(said: &Said) -> bool {
    said.is_success && said.has("TLS session (TLS1.") && said.has("status: NOERROR")
}

/// getdns as a stub resolver with TLS as its only transport.
#[must_use]
pub fn getdns(namespace: &Namespace, server: IpAddr, words: &[&str]) -> Said {
    let at = format!("@{server}");
    let mut all = vec![&*at, "-s", "-l", "L", "-t", "5000"];
    all.extend(words);
    tool(namespace, "getdns_query", &all)
}

/// `openssl s_client` to port 853 with these arguments; its stdin is empty, so it ends after the handshake.
#[must_use]
pub fn s_client(namespace: &Namespace, server: IpAddr, words: &[&str]) -> Said {
    let address = SocketAddr::new(server, DOT_PORT).to_string();
    let mut all = vec!["s_client", "-connect", &*address];
    all.extend(words);
    tool(namespace, "openssl", &all)
}

/// dnsperf over TLS against port 853 with a file of queries.
#[must_use]
pub fn dnsperf(namespace: &Namespace, server: IpAddr, queries: &Path, words: &str) -> Said {
    let (server, queries) = (server.to_string(), queries.display().to_string());
    let mut all = vec!["-m", "dot", "-s", &*server, "-p", "853", "-d", &*queries];
    all.extend(words.split_whitespace());
    tool(namespace, "dnsperf", &all)
}

/// A TCP connection from a namespace; reads give up after [`DEADLINE`].
///
/// # Panics
/// When it is not accepted.
#[must_use]
pub fn tcp(namespace: &Namespace, server: SocketAddr) -> TcpStream {
    let stream = namespace.run(move || TcpStream::connect_timeout(&server, DEADLINE));
    let stream = stream.unwrap_or_else(|error| panic!("{server}: {error}"));
    stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

/// The same from one of the client's addresses.
///
/// # Panics
/// When it is not accepted.
#[must_use]
pub fn tcp_from(namespace: &Namespace, client: IpAddr, server: SocketAddr) -> TcpStream {
    let stream = namespace.run(move || {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(client, 0).into())?;
        socket.connect_timeout(&server.into(), DEADLINE)?;
        Ok::<TcpStream, std::io::Error>(socket.into())
    });
    let stream = stream.unwrap_or_else(|error| panic!("{server} from {client}: {error}"));
    stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

/// The same, where the client's kernel buffers at most about so many unread octets.
///
/// # Panics
/// When it is not accepted.
#[must_use]
pub fn tcp_with_window(namespace: &Namespace, server: SocketAddr, octets: usize) -> TcpStream {
    let stream = namespace.run(move || {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        socket.set_recv_buffer_size(octets)?;
        socket.connect_timeout(&server.into(), DEADLINE)?;
        Ok::<TcpStream, std::io::Error>(socket.into())
    });
    let stream = stream.unwrap_or_else(|error| panic!("{server}: {error}"));
    stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

/// A UDP socket of a namespace, connected to `server`.
///
/// # Panics
/// When the namespace has no address of that family.
#[must_use]
pub fn udp(namespace: &Namespace, server: SocketAddr) -> UdpSocket {
    namespace.run(move || {
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).expect("a free port");
        socket.connect(server).expect("an address of that family");
        socket
    })
}

/// Reads until the peer closes or resets, and returns all octets.
///
/// # Panics
/// When the peer does neither within [`DEADLINE`].
#[must_use]
pub fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match uninterrupted(|| stream.read(&mut chunk)) {
            Ok(0) => return octets,
            Ok(count) => octets.extend(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                return octets;
            }
            Err(error) => panic!("the server does not close: {error}"),
        }
    }
}

/// The answer of `control.http` on 127.0.0.1:8853: head and body.
///
/// # Panics
/// When there is no answer in UTF-8.
#[must_use]
pub fn http(namespace: &Namespace, path: &str) -> String {
    let mut stream = tcp(namespace, SocketAddr::from(([127, 0, 0, 1], 8853)));
    write!(stream, "GET {path} HTTP/1.1\r\nHost: dotd\r\nConnection: close\r\n\r\n").expect("open");
    String::from_utf8(read_to_close(&mut stream)).expect("HTTP in UTF-8")
}

/// Level and description, if the octets are one TLS alert record in clear and nothing else.
#[must_use]
pub fn alert(octets: &[u8]) -> Option<[u8; 2]> {
    (octets.len() == 7 && octets[0] == 0x15).then(|| [octets[5], octets[6]])
}

/// Whether a peer that does not speak TLS got at most what it may get: nothing, or one fatal alert.
#[must_use]
pub fn is_nothing_but_an_alert(octets: &[u8]) -> bool {
    octets.is_empty() || alert(octets).is_some_and(|[level, _]| level == 2)
}

/// Whether a socket has nothing to read now. Call it after a sign that the server has done its part.
///
/// # Panics
/// When the socket is broken.
#[must_use]
pub fn is_silent(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).expect("not zero");
    let is_silent = match uninterrupted(|| stream.read(&mut [0; 1])) {
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        Ok(_) => false,
    };
    stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
    is_silent
}

//! A front of pebble with what pebble 2.4 lacks: renewal information (RFC 9773) and profiles.
//!
//! Before: a pebble. After: another directory, whose requests go to pebble; renewal information is answered here, and what an order says of
//! the certificate that it replaces and of its profile is kept and said back, as RFC 9773 §5 asks.
//! Never: touches what a client has signed.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use socket2::SockRef;

use super::{
    acme::Pebble,
    netns::{CLIENT_V4, Network},
    pki::Authority,
};

/// The port of the directory.
const PORT: u16 = 14_001;
/// The port of pebble's own.
const BEHIND: u16 = 14_000;

/// A running front.
#[derive(Debug)]
pub struct Front {
    listener: TcpListener,
    asked: Arc<Mutex<Asked>>,
    /// PEM of the authority of its certificate.
    pub ca: String,
}

/// What its clients have asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Certificates about which renewal information was asked for.
    pub renewals: Vec<String>,
    /// `replaces` and `profile` of each order.
    pub orders: Vec<(Option<String>, Option<String>)>,
}

/// What each connection needs.
struct Way {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    window: (u64, u64),
    asked: Arc<Mutex<Asked>>,
}

type Secure = StreamOwned<ServerConnection, TcpStream>;

impl Front {
    /// Starts one that suggests to renew in this window, in seconds since 1970.
    ///
    /// # Panics
    /// When its port is in use.
    #[must_use]
    pub fn start(network: &Network, pebble: &Pebble, window: (u64, u64)) -> Self {
        let authority = Authority::new();
        let mut server = (*authority.issue(&CLIENT_V4.to_string()).serving()).clone();
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pebble.ca.as_bytes()).expect("PEM")).expect("an authority");
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let client = client.with_safe_default_protocol_versions().expect("versions");
        let client = Arc::new(client.with_root_certificates(roots).with_no_client_auth());
        let asked = Arc::new(Mutex::new(Asked::default()));
        let way = Arc::new(Way { server: Arc::new(server), client, window, asked: Arc::clone(&asked) });
        let listener = network.client.run(move || {
            let listener = TcpListener::bind((CLIENT_V4, PORT)).expect("the port is free");
            let own = listener.try_clone().expect("a descriptor");
            // In the namespace of this thread.
            thread::spawn(move || {
                while let Ok((stream, _)) = own.accept() {
                    let way = Arc::clone(&way);
                    thread::spawn(move || drop(way.serve(stream)));
                }
            });
            listener
        });
        Self { listener, asked, ca: authority.pem() }
    }

    /// The URL of its directory.
    #[must_use]
    pub fn directory() -> String {
        format!("https://{CLIENT_V4}:{PORT}/dir")
    }

    /// What was asked for so far.
    ///
    /// # Panics
    /// When a thread of it has panicked.
    #[must_use]
    pub fn asked(&self) -> Asked {
        self.asked.lock().expect("no thread panics").clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

impl Way {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let connection = ServerConnection::new(Arc::clone(&self.server)).map_err(io::Error::other)?;
        let mut stream = Secure::new(connection, stream);
        let (head, body) = message(&mut stream)?;
        let path = head.split(' ').nth(1).unwrap_or_default();
        let answer = match path.strip_prefix("/ari/") {
            Some(certificate) => self.window_of(certificate),
            None => self.pass(path, &head, &body)?,
        };
        stream.write_all(&answer)?;
        stream.conn.send_close_notify();
        stream.flush()
    }

    fn window_of(&self, certificate: &str) -> Vec<u8> {
        self.asked.lock().expect("no thread panics").renewals.push(certificate.to_owned());
        let (start, end) = self.window;
        let body = json!({ "suggestedWindow": { "start": rfc3339(start), "end": rfc3339(end) } }).to_string();
        response(
            "HTTP/1.1 200 OK\r\nRetry-After: 21600\r\nContent-Type: application/json\r\n",
            body.as_bytes(),
        )
    }

    /// Passes a request on to pebble. HTTP/1.0, so that the response is not in chunks.
    fn pass(&self, path: &str, head: &str, body: &[u8]) -> io::Result<Vec<u8>> {
        let name = ServerName::from(CLIENT_V4);
        let connection = ClientConnection::new(Arc::clone(&self.client), name).map_err(io::Error::other)?;
        let tcp = TcpStream::connect(SocketAddr::new(CLIENT_V4, BEHIND))?;
        let mut behind = StreamOwned::new(connection, tcp);
        behind.write_all(&[head.replacen("HTTP/1.1", "HTTP/1.0", 1).as_bytes(), body].concat())?;
        let mut all = Vec::new();
        behind.read_to_end(&mut all)?;
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").ok_or(io::ErrorKind::InvalidData)? + 4;
        let (front, content) = all.split_at(end);
        let lines = String::from_utf8_lossy(front);
        let is_kept =
            |line: &&str| !line.is_empty() && !line.to_ascii_lowercase().starts_with("content-length");
        let lines: String = lines.split("\r\n").filter(is_kept).map(|line| format!("{line}\r\n")).collect();
        let lines = lines.replacen("HTTP/1.0", "HTTP/1.1", 1);
        let Ok(mut value) = serde_json::from_slice::<Value>(content) else {
            return Ok(response(&lines, content));
        };
        if path == "/dir" {
            value["renewalInfo"] = json!(format!("https://{CLIENT_V4}:{PORT}/ari"));
            value["meta"]["profiles"] = json!({ "shortlived": "six days", "classic": "ninety" });
        }
        if path == "/order-plz" {
            self.note(body, &mut value);
        }
        Ok(response(&lines, value.to_string().as_bytes()))
    }

    /// Keeps what an order says, and says it back.
    fn note(&self, signed: &[u8], order: &mut Value) {
        let signed: Value = serde_json::from_slice(signed).unwrap_or_default();
        let payload = URL_SAFE_NO_PAD.decode(signed["payload"].as_str().unwrap_or_default());
        let payload: Value = serde_json::from_slice(&payload.unwrap_or_default()).unwrap_or_default();
        // Not an order, but a problem such as a nonce that is refused.
        if order["identifiers"].is_null() {
            return;
        }
        let said = ["replaces", "profile"].map(|key| payload[key].as_str().map(str::to_owned));
        for (key, value) in ["replaces", "profile"].iter().zip(&said) {
            if let Some(value) = value {
                order[key] = json!(value);
            }
        }
        let [replaces, profile] = said;
        self.asked.lock().expect("no thread panics").orders.push((replaces, profile));
    }
}

/// A whole HTTP message: its lines, and its body.
fn message(stream: &mut Secure) -> io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet)?;
        head.extend_from_slice(&octet);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or_default()];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}

fn response(lines: &str, body: &[u8]) -> Vec<u8> {
    let length = format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [lines.as_bytes(), length.as_bytes(), body].concat()
}

/// Seconds since 1970 as RFC 3339 writes them (the days by the algorithm of Hinnant's `civil_from_days`).
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// The present time, in seconds since 1970.
///
/// # Panics
/// Before 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

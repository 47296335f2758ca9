//! Counts a worker's allocations for a query, which must be zero once it is warm, and the memory of an idle session, before
//! and after its keys rest.
//!
//! Before: dotd in this process with one worker, a backend over UDP, a client of a tenant over TLS and one of no tenant over UDP; each
//! on threads of their own.
//! After: an exact number, and, if it is not zero, the place of the first allocation.
//! Holds: an allocator that counts on threads named `worker-…`. Never: measures time.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    backtrace::Backtrace,
    cell::Cell,
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use dot_userspace::{config, start};
use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// Queries in one write: as many as a busy session has in a turn.
const BATCH: u16 = 100;
/// Queries until every buffer has its size.
const WARM_UP: usize = 3000;
/// Queries of each client that are counted in a round.
const COUNTED: usize = 10_000;
/// Rounds until one is without any; all queries of both clients are fewer than eight ports last (16,384 each).
const ROUNDS_MAX: usize = 4;
/// Queries by UDP at once: fewer than a socket's buffer holds.
const DATAGRAMS: u16 = 50;

/// The number of idle sessions.
const SESSIONS: i64 = 100;
/// Octets that each of them may hold in Rust's memory. The total, as the kernel counts it, is in benches/report/peers.md.
const SESSION_OCTETS_MAX: i64 = 2304;
/// Octets of C's memory that each frees when its keys rest, at least: those of two keys.
const KEYS_OCTETS_MIN: usize = 1150;
/// The time in which they all do: longer than a busy machine takes.
const REST_MAX: Duration = Duration::from_secs(60);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations and growths on worker threads while [`IS_COUNTING`].
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static IS_COUNTING: AtomicBool = AtomicBool::new(false);
/// Whether [`HELD`] alone is kept.
static IS_WEIGHING: AtomicBool = AtomicBool::new(false);
/// Octets that worker threads have allocated and not freed.
static HELD: AtomicI64 = AtomicI64::new(0);
/// The same by the size of an allocation; the last place has all longer ones.
static HELD_BY_SIZE: [AtomicI64; SIZES] = [const { AtomicI64::new(0) }; SIZES];
const SIZES: usize = 1024;
/// The place of the first one.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

thread_local! {
    /// Whether this thread is a worker; unknown until it is asked for the first time. No destructor, no allocation.
    static IS_WORKER: Cell<Option<bool>> = const { Cell::new(None) };
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

impl Counting {
    /// Whether a worker made this call.
    fn is_worker() -> bool {
        if IS_INSIDE.get() {
            return false;
        }
        // Asking the thread's name allocates.
        IS_INSIDE.set(true);
        let is_worker = IS_WORKER.get().unwrap_or_else(|| {
            let name = prctl::get_name().unwrap_or_default();
            name.to_bytes().starts_with(b"worker-")
        });
        IS_WORKER.set(Some(is_worker));
        IS_INSIDE.set(false);
        is_worker
    }

    fn note(more: usize, less: usize) {
        let octets = |octets: usize| i64::try_from(octets).unwrap_or(i64::MAX);
        if (IS_COUNTING.load(Relaxed) || IS_WEIGHING.load(Relaxed)) && Self::is_worker() {
            HELD.fetch_add(octets(more) - octets(less), Relaxed);
            for (size, change) in [(more, 1), (less, -1)] {
                HELD_BY_SIZE[size.min(SIZES - 1)].fetch_add(change, Relaxed);
            }
            if more > 0 && IS_COUNTING.load(Relaxed) && ALLOCATIONS.fetch_add(1, Relaxed) == 0 {
                IS_INSIDE.set(true);
                *FIRST.lock().expect("one worker") = Some(Backtrace::force_capture().to_string());
                IS_INSIDE.set(false);
            }
        }
    }
}

// SAFETY: every call goes to the system's allocator unchanged; counting beside it touches no memory of theirs.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note(layout.size(), 0);
        // SAFETY: the caller's promises are `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::note(0, layout.size());
        // SAFETY: as above; `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, octets: usize) -> *mut u8 {
        Self::note(octets, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, octets) }
    }
}

/// Takes any certificate: this is about memory.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

type Client = StreamOwned<ClientConnection, TcpStream>;

fn connect(port: u16) -> Client {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has both")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let tls = ClientConnection::new(Arc::new(config), name).expect("a plain offer");
    let deadline = Instant::now() + Duration::from_secs(30);
    let tcp = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(tcp) => break tcp,
            Err(error) if Instant::now() > deadline => panic!("dotd does not listen: {error}"),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    };
    tcp.set_nodelay(true).expect("a TCP socket");
    tcp.set_read_timeout(Some(Duration::from_secs(30))).expect("not zero");
    StreamOwned::new(tls, tcp)
}

/// `www.dotd.test` A with an OPT record, keepalive and padding: every edit of the query path is made.
fn query(id: u16) -> Vec<u8> {
    let mut message = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]].concat();
    message.extend(b"\x03www\x04dotd\x04test\0\0\x01\0\x01");
    message.extend([0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 12, 0, 11, 0, 0, 0, 12, 0, 4, 0, 0, 0, 0]);
    message
}

/// Asks `count` queries, a batch at a time, and reads as many responses.
fn ask(client: &mut Client, count: usize) {
    let batch: Vec<u8> = (0..BATCH)
        .flat_map(|id| {
            let message = query(id);
            [&u16::try_from(message.len()).expect("short").to_be_bytes()[..], &message].concat()
        })
        .collect();
    for _ in 0..count / usize::from(BATCH) {
        client.write_all(&batch).expect("dotd reads");
        for _ in 0..BATCH {
            let mut length = [0; 2];
            client.read_exact(&mut length).expect("a response");
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            client.read_exact(&mut message).expect("a whole response");
            assert!(message[3] & 15 == 0 && message.len() == 468, "NOERROR, padded: {message:02x?}");
        }
    }
}

/// Asks one query and reads its response.
fn ask_one(client: &mut Client) {
    let message = query(1);
    let length = u16::try_from(message.len()).expect("short").to_be_bytes();
    client.write_all(&[&length[..], &message].concat()).expect("dotd reads");
    client.read_exact(&mut [0; 2 + 468]).expect("a padded response");
}

/// Asks `count` queries by UDP, some at once, and takes as many responses.
fn ask_by_datagram(socket: &UdpSocket, count: usize) {
    let mut message = [0; 2048];
    for _ in 0..count / usize::from(DATAGRAMS) {
        for id in 0..DATAGRAMS {
            socket.send(&query(id)).expect("dotd is there");
        }
        for _ in 0..DATAGRAMS {
            let octets = socket.recv(&mut message).expect("a response");
            assert!(message[3] & 15 == 0 && octets > 12, "NOERROR: {:02x?}", &message[..octets]);
        }
    }
}

/// A backend that answers each query with itself and QR: an answer without records.
fn answer_all(socket: &UdpSocket) {
    let mut message = [0; 2048];
    while let Ok((octets, from)) = socket.recv_from(&mut message) {
        message[2] |= 0x80;
        let _ = socket.send_to(&message[..octets], from);
    }
}

/// Runs `ask` to warm up, then counts calls of the allocator: none, or the place of the first.
///
/// How many answers share a buffer is a matter of timing, so that one may grow once more after the warm-up: it doubles,
/// which ends within a round or two. Code that allocates for each query, or each thousand, does so in every round.
fn counted(what: &str, mut ask: impl FnMut(usize)) -> Result<(), String> {
    IS_COUNTING.store(true, Relaxed);
    ask(WARM_UP);
    let warming_up = ALLOCATIONS.swap(0, Relaxed);
    assert!(warming_up > 0, "{what}: cold buffers allocate: what counts none of it proves nothing");
    println!("{what}: {warming_up} allocations for {WARM_UP} queries at first");
    let mut round = |_| {
        drop(FIRST.lock().expect("one worker").take());
        ask(COUNTED);
        let counted = ALLOCATIONS.swap(0, Relaxed);
        println!("{what}: then {counted} for {COUNTED}");
        counted
    };
    let is_steady = (0..ROUNDS_MAX).any(|number| round(number) == 0);
    IS_COUNTING.store(false, Relaxed);
    let first = FIRST.lock().expect("one worker").take().unwrap_or_default();
    if is_steady {
        Ok(())
    } else {
        Err(format!("{what}: in each of {ROUNDS_MAX} rounds; the last one's first:\n{first}"))
    }
}

/// Octets of this process that are in use. Its allocator is the C library's, which also has the memory of aws-lc.
fn in_use() -> usize {
    // SAFETY: it adds up numbers of the heap under the heap's own locks.
    unsafe { libc::mallinfo2() }.uordblks
}

/// Octets that each of these sessions frees when it rests: they ask once more, and then nothing else happens here.
fn freed(clients: &mut [Client]) -> usize {
    clients.iter_mut().for_each(ask_one);
    let (before, end) = (in_use(), Instant::now() + REST_MAX);
    loop {
        let freed = before.saturating_sub(in_use()) / clients.len();
        if freed >= KEYS_OCTETS_MIN || Instant::now() > end {
            return freed;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Octets that a worker holds for each session that has asked once and is idle, and those that it frees when it rests.
fn weighed(port: u16) -> (i64, usize) {
    IS_WEIGHING.store(true, Relaxed);
    let asked = |_| {
        let mut client = connect(port);
        ask_one(&mut client);
        client
    };
    // The first sessions grow buffers that all of them share.
    let first: Vec<Client> = (0..SESSIONS).map(asked).collect();
    let sizes = || HELD_BY_SIZE.iter().map(|count| count.load(Relaxed)).collect::<Vec<_>>();
    let (before, sizes_before) = (HELD.load(Relaxed), sizes());
    let clients: Vec<Client> = (0..SESSIONS).map(asked).collect();
    let held = (HELD.load(Relaxed) - before) / SESSIONS;
    for (size, (after, before)) in sizes().into_iter().zip(sizes_before).enumerate().skip(1) {
        if after - before >= SESSIONS {
            println!("{} of {size} octets", (after - before) / SESSIONS);
        }
    }
    IS_WEIGHING.store(false, Relaxed);
    let mut clients: Vec<Client> = first.into_iter().chain(clients).collect();
    (held, freed(&mut clients))
}

/// Goal: no allocation for a forwarded query in steady state: framing, triage, both edits of the OPT record, the table
/// of queries, datagrams in batches, the session's inbox, TLS records; and DNS in clear by UDP, where each datagram's
/// sender is owed an answer. Method: rounds of 10,000 queries over one connection, after 3,000 to warm up,
/// and as many datagrams; calls of the allocator on the worker's thread, counted exactly. And an idle session that has asked
/// once holds neither buffer nor a large future: what the worker holds more with a hundred of them than without; and after some
/// seconds no key: what the process holds less.
#[test]
fn a_forwarded_query_allocates_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = backend.local_addr().expect("bound");
    thread::Builder::new().name("backend".into()).spawn(move || answer_all(&backend)).expect("a thread");
    let free = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let [port, clear] = [free(), free()].map(|free| free.local_addr().expect("bound").port());
    let text = format!(
        "[server]\nworkers = 1\nuser = \"\"\nstate_dir = \"{0}\"\nrun_dir = \"{0}\"\n[listen]\n\
         dot = [\"127.0.0.1:{port}\"]\ndo53 = [\"127.0.0.1:{clear}\"]\n[xdp]\nmode = \"off\"\n\
         [[backend]]\naddress = \"{address}\"\n[[tenant]]\nname = \"over-tls\"\nlisteners = [\"127.0.0.1:{port}\"]\n\
         queries_per_second = 1000000\nqueries_burst = 1000000\n",
        folder.path().display()
    );
    let config = config::parse(&text, "allocations.toml").expect("a sound config");
    let dotd = thread::spawn(move || start::run_alone(config));
    let mut client = connect(port);
    let over_tls = counted("over TLS", |count| ask(&mut client, count));
    drop(client);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.connect(("127.0.0.1", clear)).expect("loopback");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("not zero");
    let by_udp = counted("by UDP", |count| ask_by_datagram(&socket, count));
    // This comes last, because sessions that end may allocate for their last record, which belongs to no query.
    let (held, freed) = weighed(port);
    println!("{held} octets a session that is idle, and {freed} for its keys until they rest");
    kill(Pid::this(), Signal::SIGTERM).expect("our own process");
    dotd.join().expect("no panic").expect("an orderly end");
    assert_eq!([over_tls, by_udp], [Ok(()), Ok(())]);
    assert!((1..=SESSION_OCTETS_MAX).contains(&held), "{held} octets a session that is idle");
    assert!(freed >= KEYS_OCTETS_MIN, "{freed} octets are free after a rest");
}

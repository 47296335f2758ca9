//! A box on the way to a TLS server that lies: it passes, resets, answers in clear, keeps silent, or drops what begins.
//!
//! Before: a test names the server behind it. After: dotd connects to the box and meets what the test has it do.
//! Holds: one TCP listener on loopback in the server's namespace; a change of what it does ends every connection.
//! Never: waits by the clock to order things.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use super::{
    message::{A, framed, reply_to, www},
    netns::Network,
    uninterrupted,
};

/// Connections that may wait for the box.
const BACKLOG: i32 = 8;

/// What the box does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Passes octets both ways, to this server.
    Pass(SocketAddr),
    /// Resets the connection when the first octets have come.
    Reset,
    /// Answers the first octets by a DNS message in clear.
    Clear,
    /// Takes octets and says nothing.
    Silent,
    /// Lets the kernel drop each SYN.
    Drop,
}

/// The running box.
#[derive(Debug)]
pub struct Middlebox {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    network_ends: Mutex<Vec<TcpStream>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    deed: Mutex<Deed>,
    open: Mutex<Vec<TcpStream>>,
    is_over: AtomicBool,
}

impl Middlebox {
    /// Starts it at a port of the kernel's choice.
    ///
    /// # Panics
    /// When loopback has no free port.
    #[must_use]
    pub fn start(network: &Network, deed: Deed) -> Self {
        let listener: TcpListener = network.server.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
            socket.listen(BACKLOG).expect("bound");
            socket.into()
        });
        let address = listener.local_addr().expect("bound");
        listener.set_nonblocking(true).expect("a plain socket");
        let shared = Arc::new(Shared {
            deed: Mutex::new(Deed::Silent),
            open: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        // What it connects to is in the server's namespace, and so are its clients.
        let thread = network.server.run(move || thread::spawn(move || serve(&listener, &serving)));
        let started = Self { address, shared, network_ends: Mutex::default(), thread: Some(thread) };
        started.be(network, deed);
        started
    }

    /// Changes what it does, and ends every connection.
    ///
    /// # Panics
    /// When the backlog cannot be filled.
    pub fn be(&self, network: &Network, deed: Deed) {
        *self.shared.deed.lock().expect("nobody panics") = deed;
        self.network_ends.lock().expect("nobody panics").clear();
        for stream in self.shared.open.lock().expect("nobody panics").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if deed == Deed::Drop {
            let address = self.address;
            let ends = network.server.run(move || fill(address));
            self.network_ends.lock().expect("nobody panics").extend(ends);
        }
    }
}

impl Drop for Middlebox {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        for stream in self.shared.open.lock().expect("nobody panics").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Connects until the kernel drops further SYNs, because no connection is accepted.
fn fill(address: SocketAddr) -> Vec<TcpStream> {
    let mut ends = Vec::new();
    while let Ok(end) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        ends.push(end);
        assert!(ends.len() < 100, "the kernel drops nothing");
    }
    ends
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections = Vec::new();
    while !shared.is_over.load(Relaxed) {
        let deed = *shared.deed.lock().expect("nobody panics");
        if deed == Deed::Drop {
            thread::sleep(Duration::from_millis(5));
            continue;
        }
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = Arc::clone(shared);
                connections.push(thread::spawn(move || {
                    let _ = act(stream, deed, &shared);
                }));
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    for connection in connections {
        let _ = connection.join();
    }
}

fn act(mut client: TcpStream, deed: Deed, shared: &Shared) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let keep = |stream: &TcpStream| {
        stream.try_clone().map(|clone| shared.open.lock().expect("nobody panics").push(clone))
    };
    keep(&client)?;
    let mut octets = [0; 4096];
    match deed {
        Deed::Pass(server) => {
            let server = TcpStream::connect(server)?;
            keep(&server)?;
            let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
            let back = thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            let mut to = server;
            let _ = io::copy(&mut client, &mut to);
            let _ = to.shutdown(Shutdown::Both);
            let _ = back.join();
        }
        Deed::Reset => {
            let _ = uninterrupted(|| client.read(&mut octets))?;
            SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
            shared.open.lock().expect("nobody panics").clear();
        }
        Deed::Clear => {
            let _ = uninterrupted(|| client.read(&mut octets))?;
            client.write_all(&framed(&reply_to(&www(1), A, &[vec![192, 0, 2, 66]])))?;
            while uninterrupted(|| client.read(&mut octets))? > 0 {}
        }
        Deed::Silent | Deed::Drop => while uninterrupted(|| client.read(&mut octets))? > 0 {},
    }
    Ok(())
}

//! `openssl s_client` while it runs: its input, and its output so far.
//!
//! Before: a namespace and an address. After: a test sends the next input after it has read the effect of the previous
//! one.
//! Never: takes the passing of time as a sign of progress.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Child, ChildStdin, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use super::{clients::DOT_PORT, eventually, netns::Namespace, process::bounded, scripted::take_message};

/// A running s_client.
#[derive(Debug)]
pub struct SClient {
    child: Child,
    stdin: ChildStdin,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: [JoinHandle<()>; 2],
}

impl SClient {
    /// Starts it towards port 853 with these arguments.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn start(namespace: &Namespace, server: IpAddr, words: &[&str]) -> Self {
        let address = SocketAddr::new(server, DOT_PORT).to_string();
        let mut command = bounded("openssl");
        command.args(["s_client", "-connect", &*address]).args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = namespace.spawn(command);
        let stdin = child.stdin.take().expect("piped");
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = [
            collect(child.stdout.take().expect("piped"), &stdout),
            collect(child.stderr.take().expect("piped"), &stderr),
        ];
        Self { child, stdin, stdout, stderr, readers }
    }

    /// Writes octets to its stdin. s_client reads them when its handshake is done.
    pub fn write(&mut self, octets: &[u8]) {
        // It may have ended; tests look at its output.
        let _ = self.stdin.write_all(octets);
    }

    /// Waits until its output contains this that many times.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn await_said(&self, part: &[u8], times: usize) {
        eventually(&format!("s_client says {part:02x?} {times} times"), || {
            let count = |said: &Mutex<Vec<u8>>| {
                said.lock().expect("no reader panics").windows(part.len()).filter(|at| *at == part).count()
            };
            (count(&self.stdout) + count(&self.stderr) >= times).then_some(())
        });
    }

    /// Waits until one whole framed message is on stdout, or s_client has ended.
    fn await_message(&mut self) {
        eventually("s_client has a response, or ends", || {
            let mut stdout = self.stdout.lock().expect("no reader panics").clone();
            let has_ended = self.child.try_wait().expect("our own child").is_some();
            (take_message(&mut stdout).is_some() || has_ended).then_some(())
        });
    }

    /// Waits for its own end.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn await_end(&mut self) {
        self.child.wait().expect("our own child");
    }

    /// Closes its stdin, which ends it, and returns its stdout, then its stderr.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn finish(mut self) -> [Vec<u8>; 2] {
        drop(self.stdin);
        self.child.wait().expect("our own child");
        self.readers.into_iter().for_each(|reader| reader.join().expect("no reader panics"));
        [self.stdout, self.stderr].map(|said| std::mem::take(&mut *said.lock().expect("no reader panics")))
    }

    /// The same, as text.
    ///
    /// # Panics
    /// As [`SClient::finish`].
    #[must_use]
    pub fn finish_text(self) -> String {
        String::from_utf8_lossy(&self.finish().concat()).into_owned()
    }
}

fn collect(mut pipe: impl Read + Send + 'static, into: &Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut chunk) {
            into.lock().expect("nobody panics here").extend(&chunk[..count]);
        }
    })
}

/// Sends `input` over TLS, waits for one whole response or the server's close, and returns what arrived. Tickets of TLS
/// 1.3 arrive before any response.
///
/// # Panics
/// When the program cannot be started.
#[must_use]
pub fn s_client_sending(namespace: &Namespace, server: IpAddr, words: &[&str], input: &[u8]) -> Vec<u8> {
    let mut client = SClient::start(namespace, server, &[&["-quiet", "-no_ign_eof"], words].concat());
    client.write(input);
    client.await_message();
    let [octets, _] = client.finish();
    octets
}

/// A TLS 1.3 session that OpenSSL saved in `file`; s_client waits for the answer to `query`, because tickets follow the
/// handshake.
///
/// # Panics
/// When there was no answer, or no ticket.
pub fn save_session(namespace: &Namespace, server: IpAddr, file: &str, query: &[u8]) {
    let octets = s_client_sending(namespace, server, &["-tls1_3", "-sess_out", file], query);
    assert!(octets.len() > 14 && Path::new(file).exists(), "no ticket");
}

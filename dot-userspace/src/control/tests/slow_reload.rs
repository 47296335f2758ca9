//! A reload that takes longer than a request may take to arrive.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::mpsc::unbounded_channel,
};

use super::{super::serve_unix, Arc, Reloaded, State, Still, runtime};

/// Goal: a reload that takes longer than a request may take to arrive is answered with 200. Method: a source whose
/// reload waits for the test; the test lets it go on after the time of half a request that began later has run out.
///
#[test]
fn a_slow_reload_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (reloads, mut asked) = unbounded_channel();
    let (state, degraded) = (State::Serving.into(), None.into());
    let source = Arc::new(Still { state, degraded, reloads: Some(reloads) });
    runtime().block_on(async {
        tokio::spawn(serve_unix(listener, source));
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream
            .write_all(
                b"POST /reload HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 4\r\n\r\nnull",
            )
            .await
            .unwrap();
        let told = asked.recv().await.unwrap();
        // The time of this request began later, and ends here.
        let mut half = UnixStream::connect(&path).await.unwrap();
        half.write_all(b"GET /xdp HTTP/1.1\r\n").await.unwrap();
        assert_eq!(half.read(&mut [0; 64]).await.unwrap_or(0), 0, "half a request ends");
        told.send(Ok(Reloaded::default())).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    });
}

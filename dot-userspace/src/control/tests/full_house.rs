//! Connections that ask nothing, as many as there are places: a client that asks is still answered.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UnixStream},
};

use super::{super::places, ask, ask_tcp, ask_unix, beside_http, beside_socket, still};

/// Goal: control connections cannot use up dotd's file descriptors, nor keep one another from an answer. Method: with
/// every place taken by half a request and one that was answered, one more client is answered in the place of the first
/// one that has asked nothing; the one that was answered keeps its place.
#[test]
fn the_next_connection_is_answered_in_a_full_house() {
    const REQUEST: &[u8] = b"GET /xdp HTTP/1.1\r\nhost: x\r\n\r\n";
    beside_socket(async |path| {
        let mut answered = UnixStream::connect(&path).await.unwrap();
        answered.write_all(REQUEST).await.unwrap();
        assert_ne!(answered.read(&mut [0; 4096]).await.unwrap(), 0);
        let mut waiting = Vec::new();
        for _ in 1..places::CONNECTIONS_MAX {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(b"GET /xdp HTTP/1.1\r\n").await.unwrap();
            waiting.push(stream);
        }
        for first in &mut waiting[..3] {
            assert_eq!(ask_unix(&path, "GET /xdp").await.0, 200);
            let mut next = UnixStream::connect(&path).await.unwrap();
            next.write_all(b"GET").await.unwrap();
            assert_eq!(first.read(&mut [0; 4096]).await.unwrap_or(0), 0, "it gave way");
        }
        answered.write_all(REQUEST).await.unwrap();
        assert_ne!(answered.read(&mut [0; 4096]).await.unwrap(), 0);
    });
}

/// Goal: `/health` always has room for another host, and for the same one. Method: half requests from one address, more
/// than there are places; `/health` from it and from another one.
#[test]
fn half_requests_do_not_hang_health() {
    beside_http(still(), async |address| {
        let mut half = Vec::new();
        for _ in 0..2 * places::CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /health HTTP/1.1\r\n").await.unwrap();
            half.push(stream);
        }
        assert_eq!(ask_tcp(address, "GET /health").await.0, 200);
        let other = TcpSocket::new_v4().unwrap();
        other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        assert_eq!(ask(other.connect(address).await.unwrap(), "GET /health").await.0, 200);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), async {
            for stream in &mut half {
                let _ = stream.read(&mut [0; 64]).await;
            }
        });
        assert!(ended.await.is_ok(), "half a request ends");
    });
}

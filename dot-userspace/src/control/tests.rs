//! Tests of the control module: both listeners over real sockets, with requests like a client's.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

use still::{FIRST_COUNT, Still, still};

use super::*;
use crate::ledger::Counter;

mod full_house;
mod histograms;
mod slow_reload;
mod still;

/// Runs `client` beside a control socket, on one thread.
fn beside_socket<F: Future>(client: impl FnOnce(std::path::PathBuf) -> F) -> F::Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    runtime().block_on(async {
        tokio::select! {
            result = serve_unix(listener, still()) => panic!("stopped serving: {result:?}"),
            output = client(path) => output,
        }
    })
}

/// Runs `client` beside the HTTP listener, on one thread.
fn beside_http<F: Future>(source: Arc<Still>, client: impl FnOnce(std::net::SocketAddr) -> F) -> F::Output {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    runtime().block_on(async {
        tokio::select! {
            result = serve_http(listener, source) => panic!("stopped serving: {result:?}"),
            output = client(address) => output,
        }
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// One request on a connection of its own: status, head and body.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, request: &str) -> (u16, String, String) {
    let request = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
}

async fn ask_unix(path: &Path, request: &str) -> (u16, String, String) {
    ask(UnixStream::connect(path).await.unwrap(), request).await
}

async fn ask_tcp(address: std::net::SocketAddr, request: &str) -> (u16, String, String) {
    ask(TcpStream::connect(address).await.unwrap(), request).await
}

/// Goal: the three answers are JSON with the values of the source. Method: deserialize and compare.
#[test]
fn socket_answers_what_the_source_says() {
    beside_socket(async |path| {
        let (code, head, body) = ask_unix(&path, "GET /status").await;
        assert!(code == 200 && head.contains("content-type: application/json"), "{head}");
        assert_eq!(serde_json::from_str::<Status>(&body).unwrap(), still().status());
        let (_, _, body) = ask_unix(&path, "GET /stats").await;
        assert_eq!(serde_json::from_str::<Snapshot>(&body).unwrap(), still().snapshot());
        let (_, _, body) = ask_unix(&path, "GET /xdp").await;
        assert_eq!(serde_json::from_str::<xdp::Report>(&body).unwrap(), still().xdp());
    });
}

/// Goal: the answer for a wrong path lists the right ones; a wrong method and garbage are refused; the server goes on.
#[test]
fn refuses_the_rest() {
    beside_socket(async |path| {
        let (code, _, body) = ask_unix(&path, "GET /metrics").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (code, &body["paths"]),
            (
                404,
                &json!([
                    "/acme",
                    "/bans",
                    "/cache",
                    "/config",
                    "/drain",
                    "/explain",
                    "/log",
                    "/misuse",
                    "/page",
                    "/policy",
                    "/reload",
                    "/status",
                    "/stats",
                    "/backend",
                    "/dot",
                    "/tickets",
                    "/top",
                    "/trace",
                    "/upstream",
                    "/upstream/forgive",
                    "/xdp"
                ])
            )
        );
        assert_eq!(ask_unix(&path, "POST /status").await.0, 405);
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"\0\x01garbage\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // The server may close before it has read everything, which is a reset here.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
        assert_eq!(ask_unix(&path, "GET /status").await.0, 200);
    });
    beside_http(still(), async |address| {
        let (code, _, body) = ask_tcp(address, "GET /status").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (code, &body["paths"]),
            (404, &json!(["/", "/health", "/health/live", "/health/ready", "/metrics"]))
        );
    });
}

/// Goal: bans are listed, made and lifted by the source; an invalid request is refused with its reason. Method: one
/// request of each kind, as the command line sends it, and three that are invalid.
#[test]
fn bans_are_asked_of_the_source() {
    async fn send(path: &Path, method: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        let request = format!(
            "{method} /bans HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (answer[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
    }
    beside_socket(async |path| {
        let (code, rows) = send(&path, "GET", "").await;
        assert_eq!((code, &rows[0]["prefix"], &rows[0]["hits"]), (200, &json!("192.0.2.7/32"), &json!(5)));
        let (code, row) =
            send(&path, "POST", r#"{"client": "192.0.2.8", "seconds": 9, "reason": "x"}"#).await;
        assert_eq!((code, &row["prefix"], &row["seconds_left"]), (200, &json!("192.0.2.8"), &json!(9)));
        assert_eq!((&row["sessions_ended"], &row["workers_silent"]), (&json!(7), &json!(1)));
        let (code, said) = send(&path, "DELETE", r#"{"client": "192.0.2.8"}"#).await;
        assert_eq!((code, &said["error"]), (422, &json!("192.0.2.8 is not banned")));
        let long = format!(r#"{{"client": "x", "reason": "{}"}}"#, "y".repeat(3000));
        for body in ["", "{", r#"{"client": "x", "reason": "y", "for": 1}"#, &long] {
            let (code, said) = send(&path, "POST", body).await;
            assert!(code == 422 && said["error"].is_string(), "{body}: {code} {said}");
        }
    });
}

/// Goal: a load balancer learns of a drain. Method: 200, then 503 once the source drains.
#[test]
fn health_follows_the_state() {
    let source = still();
    beside_http(source.clone(), async |address| {
        let (code, _, body) = ask_tcp(address, "GET /health").await;
        assert_eq!((code, body.as_str()), (200, r#"{"state":"serving"}"#));
        *source.state.lock().unwrap() = State::Draining;
        let (code, _, body) = ask_tcp(address, "GET /health").await;
        assert_eq!((code, body.as_str()), (503, r#"{"state":"draining"}"#));
    });
}

/// Goal: if XDP is required and lost, `/health` fails; otherwise the loss is reported, and `/health` stays 200.
#[test]
fn health_follows_xdp_where_it_is_demanded() {
    let source = still();
    beside_http(source.clone(), async |address| {
        for (required, expected) in [(false, 200), (true, 503)] {
            *source.degraded.lock().unwrap() = Some(("eth0: gone", required));
            let (code, _, body) = ask_tcp(address, "GET /health").await;
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((code, body), (expected, json!({ "state": "serving", "degraded": "eth0: gone" })));
            let (_, _, text) = ask_tcp(address, "GET /metrics").await;
            assert!(text.contains("\ndotd_xdp_degraded 1\n"), "{text}");
        }
    });
}

/// Goal: Prometheus can parse the text: its type, its end, each family once, labels escaped.
#[test]
fn metrics_are_openmetrics() {
    let (code, head, text) = beside_http(still(), async |address| ask_tcp(address, "GET /metrics").await);
    assert_eq!(code, 200);
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.contains(kind), "{head}");
    assert!(text.ends_with("# EOF\n"));
    let types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let names: BTreeSet<_> = types.iter().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(names.len(), types.len(), "a family stands twice: {types:?}");
    for line in [
        "dotd_build_info{version=\"1.2.3\"} 1",
        "dotd_serving 1",
        "dotd_uptime_seconds 7",
        "dotd_packets_total{verdict=\"drop\",reason=\"cleartext_853\"} 9",
        "dotd_xdp_degraded 0",
        "dotd_xdp_repairs_total 6",
        "dotd_xdp_state{interface=\"eth0\",mode=\"native\"} 1",
        "dotd_backend_state{backend=\"embedded\",transport=\"embedded\",state=\"unchecked\"} 1",
        "dotd_backend_up{backend=\"embedded\"} 1",
        "dotd_reloads_total{result=\"failed\"} 4",
        "dotd_log_lines_lost_total 5",
        "dotd_charges_lost_total 6",
        "dotd_events_lost_total 7",
        "dotd_dnstap_written_total 8",
        "dotd_dnstap_lost_total 9",
        "dotd_dnstap_connected 1",
        "dotd_otlp_spans_written_total 10",
        "dotd_otlp_spans_lost_total 11",
        "dotd_clients_spent 4",
        "dotd_budgets_spent_total 9",
        "dotd_notices_total{fate=\"sent\"} 11",
        "dotd_notices_total{fate=\"held_back\"} 12",
        "dotd_notices_total{fate=\"lost\"} 13",
        "dotd_syn_proxy_total{fate=\"answered\"} 14",
        "dotd_syn_proxy_total{fate=\"completed\"} 15",
        "dotd_syn_proxy_total{fate=\"refused\"} 16",
        "dotd_bans 3",
        "dotd_bans_made_total{cause=\"operator\"} 6",
        "dotd_bans_displaced_total 8",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let expiry = text.lines().find(|line| line.starts_with("dotd_certificate_expiry_seconds{")).unwrap();
    assert!(expiry.starts_with(r#"dotd_certificate_expiry_seconds{name="a \"name\"\n"} -"#), "{expiry}");
}

/// Goal: no counter is missing, and each has its own labels. Method: every counter has a different value, and each
/// value is in the text once, at the end of a line.
#[test]
fn metrics_hold_every_counter() {
    let text = beside_http(still(), async |address| ask_tcp(address, "GET /metrics").await.2);
    for (counter, count) in Counter::ALL.iter().zip(FIRST_COUNT..) {
        let end = format!(" {count}");
        let lines: Vec<_> = text.lines().filter(|line| line.ends_with(&end)).collect();
        assert_eq!(lines.len(), 1, "{counter:?}: {lines:?}");
    }
    let value_of = |counter: Counter| {
        FIRST_COUNT + Counter::ALL.iter().position(|found| *found == counter).unwrap() as u64
    };
    for (series, counter) in [
        (r#"dotd_connections_open"#, Counter::Open),
        (r#"dotd_connections_total{end="idle"}"#, Counter::EndIdle),
        (r#"dotd_connections_total{end="refused_prefix_cap"}"#, Counter::RefusedPrefix),
        (r#"dotd_handshakes_total{kind="resumed",version="1.3",result="ok"}"#, Counter::HandshakeResumed13),
        (r#"dotd_handshakes_total{kind="none",version="none",result="not_tls"}"#, Counter::HandshakeNotTls),
        (r#"dotd_queries_received_total{transport="dot"}"#, Counter::Received),
        (r#"dotd_queries_total{transport="dot",disposition="forwarded"}"#, Counter::Forwarded),
        (r#"dotd_responses_total{rcode="NXDOMAIN"}"#, Counter::RcodeNxDomain),
        (r#"dotd_responses_unsent_total"#, Counter::DroppedClientGone),
        (r#"dotd_backend_sent_total"#, Counter::BackendSent),
        (r#"dotd_backend_outstanding"#, Counter::BackendOutstanding),
    ] {
        let line = format!("{series} {}", value_of(counter));
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

/// Goal: `dotd status` and the socket use the same format. Method: the command line's own client asks, from another
/// thread.
#[test]
fn is_what_the_command_line_asks() {
    let status = beside_socket(async |path| {
        tokio::task::spawn_blocking(move || crate::cli::ask_for_tests::<Status>(&path, "/status"))
            .await
            .unwrap()
    });
    assert_eq!(status, Ok(still().status()));
    let refused = beside_socket(async |path| {
        tokio::task::spawn_blocking(move || crate::cli::ask_for_tests::<Status>(&path, "/absent"))
            .await
            .unwrap()
    });
    let line = refused.unwrap_err();
    assert!(line.contains("answers /absent with 404") && line.contains("control.sock"), "{line}");
}

//! Tests of the control module: both listeners over real sockets, with requests like a client's.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

use super::*;
use crate::{
    backend::Remembered,
    ledger::{
        BackendLines, ControlCounters, Counter, Measured, PacketCount, Stage, Traffic, WorkerCounters,
        latency,
    },
    policy::{Explained, Question},
    xdp::{BanRow, InterfaceReport, XdpError},
};

mod full_house;
mod histograms;
mod slow_reload;

/// A source whose values do not change.
struct Still {
    state: Mutex<State>,
    /// The reason why XDP is degraded, and whether the config requires it.
    degraded: Mutex<Option<(&'static str, bool)>>,
    /// Gets a sender when a reload is requested; the reload then waits for that.
    reloads: Option<tokio::sync::mpsc::UnboundedSender<Told>>,
}

/// TLS with a backend, with something of each kind.
fn tls_row() -> TlsRow {
    let failures = [("closed".to_owned(), 3)].into();
    let remembered = Remembered { last_success: 1, failures, suspected_since: 2, ..Remembered::default() };
    TlsRow { name: "one".into(), is_configured: true, remembered, suspicions: 4, ..TlsRow::default() }
}

/// The channel for the outcome of a reload.
type Told = tokio::sync::oneshot::Sender<Result<Reloaded, String>>;

/// The first count of [`Still`]; each counter has the next one, so that no two have the same value.
const FIRST_COUNT: u64 = 1_000_001;

/// What is said of a zone that comes by zone transfer.
fn transfer() -> TransferStatus {
    TransferStatus {
        state: "current".to_owned(),
        confirmed_seconds: Some(3),
        next_seconds: Some(4),
        transfers: 5,
        failures: 6,
        server: Some("192.0.2.9:53".to_owned()),
        method: Some("ixfr".to_owned()),
        records: Some(7),
        octets: Some(4096),
        error: None,
    }
}

impl Source for Still {
    fn status(&self) -> Status {
        Status {
            version: "1.2.3".into(),
            pid: 42,
            engine_pid: 43,
            state: *self.state.lock().unwrap(),
            drain: None,
            uptime_seconds: 7,
            workers: 2,
            listeners: vec![ListenerStatus {
                address: "127.0.0.1:853".parse().unwrap(),
                transport: "dot".into(),
                fast_open: None,
            }],
            backends: vec![BackendStatus {
                name: "embedded".into(),
                address: "embedded".into(),
                transport: "embedded".into(),
                state: "unchecked".into(),
                reason: None,
                answered_percent: None,
                servfail_percent: None,
                unmatched: None,
                tls: Some(tls_row()),
            }],
            servfail_percent: None,
            certificates: vec![CertificateStatus {
                name: "a \"name\"\n".into(),
                spki_pin: "PIN=".into(),
                not_after_unix: 0,
                is_stapled: false,
                dns_names: vec![],
                warnings: vec![],
            }],
            unusable_certificates: vec![],
            is_strict: false,
            access: None,
            policy: vec![PolicyStatus {
                name: "rpz.example".into(),
                file: "/etc/dotd/rpz.example".into(),
                format: "rpz".into(),
                action: "given".into(),
                mode: "enforce".into(),
                rules: 17,
                hits: 5,
                left_out: 0,
                first_left_out: None,
                serial: Some(7),
                age_seconds: 60,
                read_milliseconds: 1,
                octets: 4096,
                transfer: Some(transfer()),
                error: None,
            }],
            dnstap: Some(DnstapStatus {
                reader: "/run/tap.sock".into(),
                is_connected: true,
                written: 8,
                lost: 9,
            }),
            xdp: self.xdp(),
        }
    }

    fn snapshot(&self) -> Snapshot {
        let worker = WorkerCounters::default();
        for (&counter, count) in Counter::ALL.iter().zip(FIRST_COUNT..) {
            worker.add(counter, count);
        }
        let packets = vec![PacketCount { verdict: "drop".into(), reason: "cleartext_853".into(), count: 9 }];
        let control = ControlCounters {
            reloads_ok: 3,
            reloads_failed: 4,
            log_lines_lost: 5,
            charges_lost: 6,
            events_lost: 7,
            dnstap_written: 8,
            dnstap_lost: 9,
        };
        let counts = Traffic::ALL.iter().zip(1001..).map(|(what, count)| (what.label().to_owned(), count));
        Snapshot {
            backends: [("embedded".to_owned(), counts.collect())].into(),
            latency: self.measured().iter().filter_map(Measured::latency).collect(),
            ..Snapshot::collect(packets, &[worker], control)
        }
    }

    fn measured(&self) -> Vec<Measured> {
        let worker = WorkerCounters::default();
        worker.stages().record(Stage::Queue, Duration::from_micros(20));
        worker.stages().record(Stage::Queue, Duration::from_secs(100));
        let lines = BackendLines::default();
        lines.open().answered(2, true, 3_000_000);
        let stages = latency::stages(std::slice::from_ref(&worker));
        [stages, latency::of_backend("embedded", "embedded", &lines.sum())].concat()
    }

    fn xdp(&self) -> xdp::Report {
        let eth0 = InterfaceReport {
            name: "eth0".into(),
            mode: "native".into(),
            reason: None,
            learner: "tcx".into(),
            degraded: false,
        };
        let bans = xdp::BanCounts {
            current: 3,
            made: [("operator".to_owned(), 6), ("garbage".to_owned(), 7)].into(),
            displaced: 8,
        };
        let degraded = *self.degraded.lock().unwrap();
        xdp::Report {
            state: "native".into(),
            degraded: degraded.map(|(why, _)| why.to_owned()),
            required: degraded.is_some_and(|(_, required)| required),
            repairs: 6,
            interfaces: vec![eth0],
            bans,
            workers: vec![xdp::WorkerReport { open: 1, share: 2, backlog: 3, accepting: true }],
            costs: xdp::CostCounts { spent: 4, spent_total: 9 },
            notices: xdp::NoticeCounts { sent: 11, held_back: 12, lost: 13 },
            ..Default::default()
        }
    }

    fn leave_xdp(&self) -> xdp::Report {
        xdp::Report { state: "off".into(), ..self.xdp() }
    }

    fn bans(&self) -> Vec<BanRow> {
        vec![BanRow { prefix: "192.0.2.7/32".into(), hits: 5, ..BanRow::default() }]
    }

    fn ban(&self, request: &BanRequest) -> Result<Banning, XdpError> {
        let seconds_left = request.seconds.unwrap_or(60);
        let ban = BanRow {
            prefix: request.client.clone(),
            reason: request.reason.clone(),
            seconds_left,
            ..BanRow::default()
        };
        // Two of three workers answer.
        let (tell, ended) = tokio::sync::mpsc::channel(3);
        tell.try_send(2).unwrap();
        tell.try_send(5).unwrap();
        Ok(Banning { ban, ended, workers: 3 })
    }

    fn unban(&self, request: &UnbanRequest) -> Result<BanRow, XdpError> {
        Err(XdpError::Ban { reason: format!("{} is not banned", request.client) })
    }

    fn reload(&self) -> Result<Outcome, String> {
        let (tell, told) = tokio::sync::oneshot::channel();
        if let Some(reloads) = &self.reloads {
            reloads.send(tell).unwrap();
            return Ok(told);
        }
        let _ = tell.send(Err("dotd.toml:1:1: unknown key `x`".to_owned()));
        Ok(told)
    }

    fn drain(&self, request: DrainRequest) -> Result<DrainRequest, String> {
        Ok(request)
    }

    fn log(&self, request: LogRequest) -> Result<LogRequest, String> {
        Ok(request)
    }

    fn explain(&self, request: &ExplainRequest) -> Result<Explaining, String> {
        let (tell, sessions) = tokio::sync::mpsc::channel(1);
        tell.try_send((3, Vec::new())).unwrap();
        let known = Explanation { prefix: request.client.clone(), ..Explanation::default() };
        Ok(Explaining { known, sessions, workers: 2 })
    }

    fn explain_policy(&self, question: &Question) -> Result<Explained, String> {
        Ok(Explained { asked: question.clone(), decides: None, counted: Vec::new() })
    }

    fn refresh_policy(&self, request: &RefreshRequest) -> Result<Refreshed, String> {
        Ok(Refreshed { zones: request.zone.clone().into_iter().collect() })
    }

    fn top(&self, _request: TopRequest) -> Counting {
        let (_, answers) = tokio::sync::mpsc::channel(1);
        Counting { answers, workers: 0, bits: (32, 56), durations: Vec::new() }
    }

    fn trace(&self, _request: &TraceRequest) -> Result<Traced, String> {
        Err("nobody is here".to_owned())
    }

    fn page_access(&self) -> PageAccess {
        PageAccess { page: crate::config::Page::Token, hosts: vec!["x".into()], token: Some("secret".into()) }
    }

    fn http_address(&self) -> Option<std::net::SocketAddr> {
        Some("0.0.0.0:8853".parse().unwrap())
    }

    fn config_rows(&self) -> Vec<crate::config::ConfigRow> {
        crate::config::rows(None, &[])
    }

    fn rotate_tickets(&self, request: RotateRequest) -> Result<Rotated, String> {
        Ok(Rotated { end_old: request.end_old })
    }

    fn upstreams(&self) -> Vec<TlsRow> {
        Vec::new()
    }

    fn forgive(&self, request: &ForgiveRequest) -> Result<TlsRow, String> {
        Err(format!("no backend is called {}", request.name))
    }

    fn flush_cache(&self, request: &FlushRequest) -> Result<Flushed, String> {
        Ok(Flushed { asked: request.clone(), workers: 2 })
    }
}

fn still() -> Arc<Still> {
    Arc::new(Still { state: Mutex::new(State::Serving), degraded: Mutex::new(None), reloads: None })
}

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
                    "/bans",
                    "/cache",
                    "/drain",
                    "/explain",
                    "/log",
                    "/page",
                    "/policy",
                    "/reload",
                    "/status",
                    "/stats",
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
        "dotd_clients_spent 4",
        "dotd_budgets_spent_total 9",
        "dotd_notices_total{fate=\"sent\"} 11",
        "dotd_notices_total{fate=\"held_back\"} 12",
        "dotd_notices_total{fate=\"lost\"} 13",
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

/// Goal: `dotd status` and the socket use the same format. Method: the command line's own client asks, from a thread as
/// another process would.
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

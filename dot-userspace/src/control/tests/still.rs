//! A source for the tests of the control module: each of its values is fixed, and differs from the others.
//!
//! Before: a test starts a listener. After: every request has an answer that the test can foresee.
//! Never: does what a request asks.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::super::*;
use crate::{
    acme::Standing,
    backend::Remembered,
    ledger::{
        BackendLines, ControlCounters, Counter, KernelQueues, Measured, PacketCount, Stage, Traffic,
        WorkerCounters, latency,
    },
    policy::{Explained, Question},
    session::MisuseRow,
    xdp::{BanRow, InterfaceReport, XdpError},
};

/// A source whose values do not change.
pub(super) struct Still {
    pub(super) state: Mutex<State>,
    /// The reason why XDP is degraded, and whether the config requires it.
    pub(super) degraded: Mutex<Option<(&'static str, bool)>>,
    /// Gets a sender when a reload is requested; the reload then waits for that.
    pub(super) reloads: Option<tokio::sync::mpsc::UnboundedSender<Told>>,
}

/// TLS with a backend, with something of each kind.
fn tls_row() -> TlsRow {
    let failures = [("closed".to_owned(), 3)].into();
    let remembered = Remembered { last_success: 1, failures, suspected_since: 2, ..Remembered::default() };
    TlsRow { name: "one".into(), is_configured: true, remembered, suspicions: 4, ..TlsRow::default() }
}

/// The channel for the outcome of a reload.
pub(super) type Told = tokio::sync::oneshot::Sender<Result<Reloaded, String>>;

/// The first count of [`Still`]; each counter has the next one, so that no two have the same value.
pub(super) const FIRST_COUNT: u64 = 1_000_001;

fn tenant() -> TenantStatus {
    TenantStatus { name: "family".into(), queries: 17, backends: vec!["filtered".into()] }
}

/// The transfer state of a zone.
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

fn standing() -> Standing {
    Standing { issued: 2, failed: 1, failures: 1, last_success: Some(7), ..Standing::default() }
}

impl Source for Still {
    fn status(&self) -> Status {
        Status {
            version: "1.2.3".into(),
            pid: 42,
            engine_pid: 43,
            state: *self.state.lock().unwrap(),
            drain: None,
            off: None,
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
                is_drained: false,
                weight: None,
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
            acme: Some(standing()),
            access: None,
            tenants: vec![tenant()],
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
            otlp: None,
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
            otlp_written: 10,
            otlp_lost: 11,
        };
        let counts = Traffic::ALL.iter().zip(1001..).map(|(what, count)| (what.label().to_owned(), count));
        Snapshot {
            backends: [("embedded".to_owned(), counts.collect())].into(),
            latency: self.measured().iter().filter_map(Measured::latency).collect(),
            queues: Some(KernelQueues { waiting: 2, dropped: 1 }),
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
            proxied: xdp::ProxyCounts { answered: 14, completed: 15, refused: 16 },
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

    fn stick(&self) {}

    fn config(&self) -> ConfigStatus {
        ConfigStatus { file: None, text: None, config: crate::config::Config::default() }
    }

    fn switch(&self, request: SwitchRequest) -> Result<SwitchRequest, String> {
        Ok(request)
    }

    fn switch_backend(&self, request: BackendRequest) -> Result<BackendRequest, String> {
        Ok(request)
    }

    fn explain(&self, request: &ExplainRequest) -> Result<Explaining, String> {
        let (tell, sessions) = tokio::sync::mpsc::channel(1);
        tell.try_send((3, Vec::new(), Vec::new())).unwrap();
        let known = Explanation { prefix: request.client.clone(), ..Explanation::default() };
        Ok(Explaining { known, sessions, workers: 2 })
    }

    fn explain_policy(&self, question: &Question) -> Result<Explained, String> {
        Ok(Explained { asked: question.clone(), decides: None, counted: Vec::new() })
    }

    fn acme(&self) -> Option<Standing> {
        self.status().acme
    }

    fn renew_acme(&self) -> Result<Standing, String> {
        Err("the ACME process does not run at this moment".into())
    }

    fn refresh_policy(&self, request: &RefreshRequest) -> Result<Refreshed, String> {
        Ok(Refreshed { zones: request.zone.clone().into_iter().collect() })
    }

    fn top(&self, _request: TopRequest) -> Counting {
        let (_, answers) = tokio::sync::mpsc::channel(1);
        Counting { answers, workers: 0, bits: (32, 56), durations: Vec::new() }
    }

    fn misuse(&self) -> Misusing {
        let (tell, answers) = tokio::sync::mpsc::channel(1);
        let row = MisuseRow { kind: "tunnel".into(), hits: 3, ..MisuseRow::default() };
        tell.try_send(vec![row]).unwrap();
        Misusing { is_on: true, answers, workers: 2 }
    }

    fn trace(&self, _request: &TraceRequest) -> Result<Traced, String> {
        Err("no such client".to_owned())
    }

    fn page_access(&self) -> PageAccess {
        PageAccess { page: crate::config::Page::Token, hosts: vec!["x".into()], token: Some("secret".into()) }
    }

    fn http_address(&self) -> Option<std::net::SocketAddr> {
        Some("0.0.0.0:8853".parse().unwrap())
    }

    fn exemplars(&self) -> Vec<Exemplar> {
        Vec::new()
    }

    fn config_rows(&self) -> Vec<crate::config::ConfigRow> {
        crate::config::rows(&crate::config::Config::default(), None, &[])
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

pub(super) fn still() -> Arc<Still> {
    Arc::new(Still { state: Mutex::new(State::Serving), degraded: Mutex::new(None), reloads: None })
}

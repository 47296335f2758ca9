//! The answers and actions of the control socket.
//!
//! Before: a request of `control`. After: its answer, or the result of the action.
//! Holds: nothing. Never: waits.

use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed, time::Duration};

use super::{BAN_SECONDS, Process, config_text::Runs, lock};
use crate::{
    acme::{self, Standing},
    config::{self, ConfigRow},
    control::{
        BackendRequest, BanRequest, Banning, ConfigStatus, Counting, DnstapStatus, DrainRequest, Exemplar,
        ExplainRequest, Explaining, FlushRequest, Flushed, ForgiveRequest, LogRequest, Misusing, OtlpStatus,
        Outcome, PageAccess, RefreshRequest, Refreshed, RotateRequest, Rotated, Source, State, Status,
        SwitchRequest, TlsRow, TopRequest, TraceRequest, Traced, UnbanRequest,
    },
    ledger::{ControlCounters, Measured, Snapshot, latency},
    policy::{Explained, Question},
    start::logging,
    xdp::{BanRow, Report, Xdp, XdpError},
};

impl Source for Process {
    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: u32::try_from(self.keeper.pid().as_raw()).unwrap_or_default(),
            engine_pid: std::process::id(),
            state: if self.is_draining.load(Relaxed) { State::Draining } else { State::Serving },
            drain: self.drain_status(),
            off: self.off(),
            uptime_seconds: self.started.elapsed().as_secs(),
            workers: self.counters.len(),
            listeners: self.listeners.clone(),
            backends: self.switched_statuses(),
            servfail_percent: lock(&self.responses).percent(),
            certificates: lock(&self.certificates).clone(),
            unusable_certificates: self.unusable_certificates(),
            is_strict: self.config().tls.strict,
            acme: self.acme(),
            access: lock(&self.access).clone(),
            policy: lock(&self.policy).statuses(&self.standings),
            tenants: lock(&self.tenants).statuses(),
            dnstap: self.dnstap_status(),
            otlp: self.otlp_status(),
            xdp: self.xdp(),
        }
    }

    fn snapshot(&self) -> Snapshot {
        let packets = lock(&self.kernel).0.as_ref().map(Xdp::packets).unwrap_or_default();
        let control = ControlCounters {
            reloads_ok: self.reloads_ok.load(Relaxed),
            reloads_failed: self.reloads_failed.load(Relaxed),
            log_lines_lost: logging::lines_lost(),
            charges_lost: self.sink.lost(),
            events_lost: self.events.lost(),
            dnstap_written: self.taps.written(),
            dnstap_lost: self.taps.lost(),
            otlp_written: self.traces().otlp().spans().0,
            otlp_lost: self.traces().otlp().spans().1,
        };
        // A separate statement, because the lock is taken again below.
        let backends = lock(&self.backends).counts();
        let latency = self.measured().iter().filter_map(Measured::latency).collect();
        let queues = self.engine().and_then(|engine| engine.queues.as_ref()?.counts().ok());
        let mut snapshot =
            Snapshot { backends, latency, queues, ..Snapshot::collect(packets, &self.counters, control) };
        lock(&self.past).add_to(&mut snapshot);
        snapshot
    }

    fn measured(&self) -> Vec<Measured> {
        let backends = lock(&self.backends).measured();
        [latency::stages(&self.counters), backends].concat()
    }

    fn xdp(&self) -> Report {
        lock(&self.kernel).0.as_ref().map(Xdp::report).unwrap_or_default()
    }

    fn acme(&self) -> Option<Standing> {
        let Runs { config, .. } = &*lock(&self.runs);
        let folder = config::Acme::folder(&config.server.state_dir);
        config.acme.is_on().then(|| acme::standing_in(&folder).unwrap_or_default())
    }

    fn renew_acme(&self) -> Result<Standing, String> {
        let before = self.acme().unwrap_or_default();
        self.keeper.renew().map(|()| before).map_err(|error| error.to_string())
    }

    fn leave_xdp(&self) -> Report {
        if let Some(xdp) = lock(&self.kernel).0.as_mut() {
            xdp.leave();
        }
        self.xdp()
    }

    fn bans(&self) -> Vec<BanRow> {
        lock(&self.kernel).0.as_ref().map(Xdp::bans).unwrap_or_default()
    }

    fn ban(&self, request: &BanRequest) -> Result<Banning, XdpError> {
        let seconds = match (request.seconds, self.ban_seconds.load(Relaxed)) {
            (Some(seconds), _) => seconds,
            (None, 0) => BAN_SECONDS,
            (None, seconds) => seconds.into(),
        };
        let length = Duration::from_secs(seconds);
        let ban = self.with_xdp(|xdp| xdp.ban(&request.client, length, &request.reason))?;
        Ok(self.end_sessions(ban))
    }

    fn unban(&self, request: &UnbanRequest) -> Result<BanRow, XdpError> {
        self.with_xdp(|xdp| xdp.unban(&request.client))
    }

    fn reload(&self) -> Result<Outcome, String> {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.reloads.try_send(tell).map_err(|_| "too many at once; try again".to_owned())?;
        Ok(told)
    }

    fn log(&self, request: LogRequest) -> Result<LogRequest, String> {
        logging::change(request, &self.events)
    }

    fn drain(&self, request: DrainRequest) -> Result<DrainRequest, String> {
        self.drain_by(request)
    }

    #[cfg(debug_assertions)]
    fn stick(&self) {
        let first = self.engine().and_then(|engine| engine.workers.first());
        if let Some(worker) = first {
            worker.look(Box::new(|_| {
                loop {
                    std::thread::park();
                }
            }));
        }
    }

    fn config(&self) -> ConfigStatus {
        self.running_config()
    }

    fn switch(&self, request: SwitchRequest) -> Result<SwitchRequest, String> {
        self.switch_by(request)
    }

    fn switch_backend(&self, request: BackendRequest) -> Result<BackendRequest, String> {
        self.switch_backend_by(request)
    }

    fn explain(&self, request: &ExplainRequest) -> Result<Explaining, String> {
        self.explain_client(request)
    }

    fn top(&self, request: TopRequest) -> Counting {
        self.count_clients(request)
    }

    fn misuse(&self) -> Misusing {
        self.ask_for_misuse()
    }

    fn trace(&self, request: &TraceRequest) -> Result<Traced, String> {
        self.begin_trace(request)
    }

    fn flush_cache(&self, request: &FlushRequest) -> Result<Flushed, String> {
        if self.cache_entries.load(Relaxed) == 0 {
            return Err("there is no cache: dns.cache_entries is 0".to_owned());
        }
        self.flushes.try_send(request.meant()?).map_err(|_| "too many at once; try again".to_owned())?;
        Ok(Flushed { asked: request.clone(), workers: self.counters.len() })
    }

    fn explain_policy(&self, question: &Question) -> Result<Explained, String> {
        // A separate statement, so that the zones are searched without the lock.
        let screen = lock(&self.policy).screen();
        let screen = screen.ok_or("there is no policy zone: see [[policy.zone]] in docs/config.md")?;
        let tenant = question.tenant.as_deref();
        lock(&self.tenants).has(tenant)?;
        match screen.of_tenant(tenant) {
            Some(screen) => screen.explain(question),
            None => Ok(Explained { asked: question.clone(), decides: None, counted: Vec::new() }),
        }
    }

    fn upstreams(&self) -> Vec<TlsRow> {
        // A separate statement, because the lock of the backends must not be held with another.
        let configured: Vec<_> = lock(&self.backends).statuses(&self.history);
        let of_config = configured.into_iter().filter_map(|backend| backend.tls);
        let others = self.history.rows().into_iter().filter(|row| !row.is_configured);
        of_config.chain(others).collect()
    }

    fn forgive(&self, request: &ForgiveRequest) -> Result<TlsRow, String> {
        let row = self.history.forgive(request)?;
        // The history does not know whether it is asked in clear now.
        let is_it = |one: &TlsRow| (&one.address, &one.server_name) == (&row.address, &row.server_name);
        Ok(self.upstreams().into_iter().find(is_it).unwrap_or(row))
    }

    fn page_access(&self) -> PageAccess {
        let control = &self.config().control;
        PageAccess {
            page: control.page,
            hosts: control.page_hosts.clone(),
            token: self.page_token.get().cloned(),
        }
    }

    fn http_address(&self) -> Option<SocketAddr> {
        self.config().control.http
    }

    fn exemplars(&self) -> Vec<Exemplar> {
        self.traces().otlp().exemplars()
    }

    fn config_rows(&self) -> Vec<ConfigRow> {
        self.running_rows()
    }

    fn refresh_policy(&self, request: &RefreshRequest) -> Result<Refreshed, String> {
        let zones = self.standings.ring(request.zone.as_deref().map(|zone| zone.trim_end_matches('.')));
        match (zones.is_empty(), &request.zone) {
            (true, Some(zone)) => {
                Err(format!("{zone}: no policy zone with this name is transferred from a server"))
            }
            (true, None) => Err("no policy zone is transferred from a server".to_owned()),
            (false, _) => Ok(Refreshed { zones }),
        }
    }

    fn rotate_tickets(&self, request: RotateRequest) -> Result<Rotated, String> {
        self.tickets.rotate(request.end_old)?;
        tracing::info!(end_old = request.end_old, "session tickets have a new key");
        Ok(Rotated { end_old: request.end_old })
    }
}

impl Process {
    fn otlp_status(&self) -> Option<OtlpStatus> {
        let (written, lost) = self.traces().otlp().spans();
        let collector = self.config().otlp.endpoint.as_ref()?.to_string();
        Some(OtlpStatus { collector, written, lost })
    }

    fn dnstap_status(&self) -> Option<DnstapStatus> {
        let dnstap = &self.config().dnstap;
        dnstap.is_on().then(|| DnstapStatus {
            reader: dnstap.target(),
            is_connected: self.taps.is_connected(),
            written: self.taps.written(),
            lost: self.taps.lost(),
        })
    }
}

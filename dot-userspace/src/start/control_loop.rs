//! The control thread while dotd serves: reports that it is ready, handles signals, reloads, drains, cleans up.
//!
//! Before: workers run. After: sessions are drained, the kernel half is detached, the socket is removed.
//! Never: replaces a good config or certificate by a bad one: after any failure the old one stays.

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
    time::{interval, sleep},
};

use super::{
    acme, announce, asked, dialer,
    drain::{Why, drain},
    engine_refusals::EngineRefusals,
    families,
    files::{Files, Seen},
    heartbeat::{Heartbeat, feel},
    in_a_line,
    listeners::ControlSocket,
    logging, page_token, plan, policies,
    process::{Flush, Process, Running, trace},
    proofs,
    refusals::{self, Refusals},
    renew::{renew, staples_until, tickets},
    restart,
    tap::Tapping,
    transfers, xdp_watchdog,
};
use crate::{
    config::{self, Config, Read},
    control::{self, Reloaded, Source},
    keeper,
    tls::{self, certificate},
    worker::Command,
};

/// How often the workers are checked, and expired bans removed.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Serves until TERM or INT.
///
/// # Errors
/// A signal handler cannot be set up, or a worker died.
pub(super) fn run(
    runtime: &Runtime,
    process: Arc<Process>,
    mut running: Running,
    [certificates, zones, proofs]: [Seen; 3],
    (mut socket, http): (ControlSocket, Option<TcpListener>),
    began: Instant,
) -> anyhow::Result<()> {
    let result = runtime.block_on(async {
        process.tickets.resume_by(&running.tickets);
        process.tenants_by(running.tenants.clone());
        let source = Arc::clone(&process) as Arc<dyn Source>;
        let unix = socket.listener().context("the control socket was removed")?;
        let mut doors = JoinSet::new();
        if http.is_some() {
            match page_token::make(&running.config.server.run_dir) {
                Ok(token) => drop(process.page_token.set(token)),
                Err(error) => {
                    tracing::warn!(%error, "server.run_dir: no token for the page, so it permits no actions")
                }
            }
        }
        doors.spawn(control::serve_unix(unix, Arc::clone(&source)));
        if let Some(http) = http {
            doors.spawn(control::serve_http(http, source));
        }
        // Before dotd reports that it is ready: a signal that follows must not find its default action.
        let signals = Signals::hear()?;
        process.export(&running.config.otlp)?;
        let files = Watched {
            certificates: Files::watch(certificates),
            zones: Files::watch(zones),
            proofs: Files::watch(proofs),
        };
        proofs::tell(&running.config, &running.workers);
        keeper::hear().context("signals cannot be unblocked")?;
        socket.serve();
        // Before any other report: from now on the keeper starts another engine if this one crashes.
        running.keeper.notify(keeper::State::Ready);
        announce::announce(&process.status(), running.config.log.format, running.path.as_deref());
        tracing::info!(
            milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "ready"
        );
        tokio::spawn(xdp_watchdog::look_after_xdp(Arc::clone(&process)));
        running.checks = asked::check_all(&running.backends);
        let (why, running) = hear_signals(&process, running, signals, files).await?;
        if why == Why::Succeeded {
            doors.abort_all();
            tracing::info!("another engine serves; this one moves its sessions there, or ends them");
        } else {
            running.keeper.notify(keeper::State::Stopping);
        }
        let drained = drain(&process, running, why).await.map(|()| why);
        process.end_export().await;
        drained
    });
    // This runs also if a worker died or was stuck.
    if matches!(result, Ok(Why::Succeeded)) {
        process.pass_xdp_on();
        socket.leave();
    } else {
        // A successor reads the file before this engine ends, and writes it from then on.
        process.history().save();
        process.keep_bans();
        process.detach_xdp();
        drop(socket);
    }
    result.map(drop)
}

/// The signals that dotd handles.
struct Signals {
    hup: Signal,
    usr1: Signal,
    usr2: Signal,
    term: Signal,
    int: Signal,
}

impl Signals {
    fn hear() -> anyhow::Result<Self> {
        let hear = |kind: SignalKind| signal(kind).context("a signal handler cannot be installed");
        Ok(Self {
            hup: hear(SignalKind::hangup())?,
            usr1: hear(SignalKind::user_defined1())?,
            usr2: hear(SignalKind::user_defined2())?,
            term: hear(SignalKind::terminate())?,
            int: hear(SignalKind::interrupt())?,
        })
    }
}

/// Files that take effect when they change.
struct Watched {
    certificates: Files,
    zones: Files,
    /// Records of `dns-01`.
    proofs: Files,
}

/// HUP reloads, TERM and INT end this loop. USR1 has a handler so that a log rotation does not end the process: dotd
/// logs to standard error and has no file to reopen. After USR2 the keeper may have another engine in place of this
/// one.
async fn hear_signals(
    process: &Process,
    mut running: Running,
    signals: Signals,
    mut files: Watched,
) -> anyhow::Result<(Why, Running)> {
    let Signals { mut hup, mut usr1, mut usr2, mut term, mut int } = signals;
    let (mut watch, mut is_pressed) = (interval(WATCH_INTERVAL), false);
    let (mut notices, mut refusals) = (process.notices(), Refusals::default());
    let (mut engine_refusals, mut told) = (EngineRefusals::default(), process.told_packets());
    let mut reading = policies::Reading::default();
    let mut heartbeat = Heartbeat::of(running.workers.len());
    loop {
        tokio::select! {
            _ = hup.recv() => {
                coalesce(&mut hup).await;
                let _ = reload(process, &mut running, &mut files, &mut reading).await;
            }
            Some(asker) = running.asked.reloads.recv() => {
                // An operator that has closed the connection finds the result in the log.
                let _ = asker.send(reload(process, &mut running, &mut files, &mut reading).await);
            }
            () = files.certificates.settled() => {
                if files.certificates.have_changed() {
                    // Before the files are read: a change during the read counts as another change.
                    files.certificates.note(&running.config);
                    renew(process, &mut running);
                }
            }
            () = files.zones.settled(), if !reading.is_busy() => reading.look(&mut files.zones, &running),
            () = files.proofs.settled() => proofs::tell_again(&mut files.proofs, &running),
            read = reading.done(), if reading.is_busy() => policies::take(process, &mut running, read),
            Some(arrival) = running.transfers.arrived() => policies::arrive(process, &mut running, &arrival),
            _ = usr1.recv() => {}
            _ = usr2.recv() => {
                running.successor = running.keeper.successor();
                if running.successor.is_some() {
                    running.transfers.follow(&[], &[]);
                    return Ok((Why::Succeeded, running));
                }
            }
            _ = term.recv() => return Ok((Why::Stopped, running)),
            _ = int.recv() => return Ok((Why::Stopped, running)),
            Some(charges) = running.charges.recv() => process.charge(&charges),
            Some(refused) = running.refused.recv() => {
                let (now, limit) = (Instant::now(), &running.config.xdp.limit);
                process.recent().note(&refused, (limit.prefix_v4, limit.prefix_v6), now);
                engine_refusals.say(&refused, running.config.log.client_address, now);
            }
            heard = refusals::heard(&mut notices) => {
                process.recent().note_packets(&heard, Instant::now());
                refusals.say(&heard, running.config.log.client_address, Instant::now());
            }
            seen = trace::told(&mut told) => process.tell_packets(&seen),
            Some(()) = running.asked.weighings.recv() => weigh(process, &mut running),
            Some(forget) = running.asked.flushes.recv() => flush(&running, &forget),
            Some(news) = running.sought.heard() => asked::hear(process, &mut running, news),
            _ = watch.tick() => {
                engine_refusals.say_more(Instant::now());
                is_pressed = tell_pressure(&running, is_pressed);
                look_around(process, &mut running)?;
                feel(process, &running, &mut heartbeat);
            }
        }
    }
}

/// Makes every worker remove these cached answers, or all of them.
fn flush(running: &Running, forget: &Flush) {
    running.workers.iter().for_each(|worker| worker.tell(Command::Flush(forget.clone())));
}

/// Makes every worker use backends as an operator has switched them.
fn weigh(process: &Process, running: &mut Running) {
    process.weigh(&running.config, &mut running.backends);
    asked::tell(running);
}

/// The periodic work.
///
/// # Errors
/// A worker has died.
fn look_around(process: &Process, running: &mut Running) -> anyhow::Result<()> {
    process.resume_late_switches();
    process.sweep();
    process.trace_packets();
    process.tickets.keep_rotated();
    process.history().look(&running.backends);
    if process.has_no_xdp() {
        // With XDP its watchdog asks for the lines.
        running.keeper.hear_log(logging::pass_on);
    }
    if running.workers.iter().any(crate::worker::Worker::is_finished) {
        anyhow::bail!("a worker thread died; see the lines before this one");
    }
    if running.staples_until.is_some_and(|until| until <= SystemTime::now()) {
        renew(process, running);
    }
    Ok(())
}

/// A worker learns the number of connections when it opens or ends one. Near the cap, and once after that, every
/// worker is told.
fn tell_pressure(running: &Running, was_pressed: bool) -> bool {
    let is_pressed = running.admission.fill().is_pressed();
    if is_pressed || was_pressed {
        running.workers.iter().for_each(|worker| worker.tell(Command::NoteFill));
    }
    is_pressed
}

/// A thousand HUPs at once are one reload.
async fn coalesce(hup: &mut Signal) {
    sleep(Duration::from_millis(20)).await;
    while tokio::time::timeout(Duration::ZERO, hup.recv()).await.is_ok() {}
}

/// Reads everything again; after any error the old config stays and one line says why. Policy zones whose files have
/// changed are read even then.
async fn reload(
    process: &Process,
    running: &mut Running,
    files: &mut Watched,
    reading: &mut policies::Reading,
) -> Result<Reloaded, String> {
    *reading = policies::Reading::default();
    running.keeper.notify(keeper::State::Reloading);
    files.certificates.note(&running.config);
    files.zones.note(&running.config);
    let outcome = try_reload(process, running).await.map_err(|error| in_a_line(&error));
    // Before it is watched.
    acme::make_folder(&running.config);
    files.certificates.name(&running.config);
    files.proofs.name(&running.config);
    proofs::tell(&running.config, &running.workers);
    files.zones.name(&running.config);
    match &outcome {
        Ok(_) => tracing::info!("reloaded"),
        Err(error) => {
            process.reload_failed();
            running.sought.stay();
            asked::settle(process, running);
            reading.begin(running);
            for line in error.lines() {
                tracing::error!("reload failed, and the old config stays: {line}");
            }
        }
    }
    running.keeper.notify(keeper::State::Ready);
    outcome
}

async fn try_reload(process: &Process, running: &mut Running) -> anyhow::Result<Reloaded> {
    let (mut written, read) = read_config(running)?;
    families::leave_out(&mut written, families::is_here);
    let config = running.sought.look(&written, process.history()).await;
    let state_dir = &running.config.server.state_dir;
    let loaded = certificate::load_all(&config.tls, state_dir, &process.identities())?;
    let identities = &loaded.identities;
    let secured = dialer::all(&config, process.history())?;
    let transferred = transfers::prepare(&config, state_dir)?;
    let zones = policies::load_aside(&config, running).await?;
    let tickets = tickets(running, &config.tls, identities)?;
    let doubt = tickets.warning.clone();
    let serving = tls::serving(identities, &config.tls, &tickets)?;
    if plan::needs_embedded(&config) && !plan::needs_embedded(&running.config) {
        anyhow::bail!("backend: the embedded backend can only be added at a start; restart dotd");
    }
    let embedded = plan::needs_embedded(&config)
        .then(|| asked::embedded_address(&running.config, &running.backends))
        .flatten();
    process.apply_xdp(&plan::xdp(&config, &running.config.listen.do53))?;
    process.export(&config.otlp)?;
    // The last step that can fail: up to here `running` has what the workers have.
    let tap = Tapping::renew(&mut running.tapping, &config.dnstap, process.taps())?;
    let waiting = restart::needed_for(&running.config, &config);
    for key in &waiting {
        tracing::warn!("{key} has changed in the file; it takes effect when dotd is restarted");
    }
    let config = restart::as_it_runs(&running.config, config);
    running.backends = plan::backends(&config, embedded, secured, &running.backends);
    process.weigh(&config, &mut running.backends);
    running.checks = asked::check_all(&running.backends);
    running.tenants.renew(&config);
    let (workers, backends) = (running.workers.len(), running.tenants.count_backends(&running.backends));
    running.admission.reload(plan::caps(&config.session, running.descriptors, workers, backends));
    let policies = running.transfers.policies(&transferred, zones);
    (running.screen, running.notified) = (policies.screen, policies.notified);
    let settings = plan::settings(&config, serving, running.backends.clone(), &running.policies(), tap);
    process.tickets.resume_by(&tickets);
    process.history().serve(&config);
    for worker in &running.workers {
        worker.tell(Command::Reload(Box::new(settings.clone())));
    }
    running.staples_until = staples_until(identities);
    process.reloaded(&config, &running.backends, loaded);
    process.screen_by(running.screen.clone(), &[]);
    process.tenants_by(running.tenants.clone());
    if let Some(doubt) = doubt {
        tracing::warn!("{doubt}");
    }
    running.tickets = tickets;
    logging::set_level(config.log.level);
    running.config = config;
    running.sought.adopt(written);
    process.keep_addresses(&running.sought.addresses());
    process.serve_file(running.sought.written(), read, &waiting);
    running.keeper.adopt();
    let waiting = waiting.into_iter().map(str::to_owned).collect();
    Ok(Reloaded { waiting, unusable_certificates: process.unusable_certificates() })
}

/// The config as the keeper reads it, which may have the right if the engine has not.
fn read_config(running: &Running) -> anyhow::Result<(Config, Option<Read>)> {
    let Some(text) = running.keeper.config()? else { return Ok((Config::default(), None)) };
    let read = Read::of(text, running.path.as_deref());
    Ok((config::parse(&read.text, &read.file)?, Some(read)))
}

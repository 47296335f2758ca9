//! Room `start`: the order of things. What needs rights is done first, then they are given up for good.
//!
//! Before: `cli` has a checked config. After: workers serve until a signal, then everything is undone.
//! The line: identities → listeners → XDP → privileges → workers → control → signals → drain → detach.
//! Never: serves before every part has reported its state, or holds a right once it serves.

mod caretaker;
mod dialer;
mod fast_open;
mod files;
mod listeners;
pub mod logging;
mod plan;
pub mod privileges;
mod process;
mod refusals;
mod renew;
mod restart;
mod serve;

use std::{path::PathBuf, sync::Arc, time::Instant};

use anyhow::Context;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    backend::Embedded,
    config::{Config, Workers},
    session::Rates,
    tls::{self, Tickets, certificate},
    worker::{ChargesSink, Plan, Worker},
    xdp,
};
use process::{Kernel, Process, Running};

/// Flushes of the cache that wait for the control thread.
const FLUSHES_MAX: usize = 16;

/// Serves by `config` until TERM or INT. `path` is read again at HUP.
///
/// # Errors
/// One line that names the thing that cannot be had and the way out. Nothing is left behind.
pub fn run(config: Config, path: Option<PathBuf>) -> anyhow::Result<()> {
    let (began, user) = (Instant::now(), privileges::user(&config.server.user)?);
    let descriptors = privileges::raise_descriptors();
    let seen = files::Seen::now(&config);
    let identities = certificate::load_all(&config.tls, &config.server.state_dir)?;
    let tickets = Tickets::new(&config.tls.ticket_secret, config.tls.ticket_rotation)?;
    let serving = tls::serving(&identities, &config.tls, &tickets)?;
    let cpus = privileges::usable_cpus();
    let workers = worker_count(config.server.workers, cpus.len());
    let (groups, listeners) = listeners::bind(&config, workers)?;
    let http = listeners::bind_http(config.control.http)?;
    let control_socket = listeners::ControlSocket::bind(&config.server.run_dir, user)?;
    let embedded = plan::needs_embedded(&config).then(Embedded::bind).transpose();
    let embedded = embedded.context("the embedded backend finds no free loopback port")?;
    let upstreams =
        plan::upstreams(&config, embedded.as_ref().map(Embedded::address), dialer::all(&config)?, &[]);
    let sockets: Vec<_> = groups.iter().map(listeners::Group::for_xdp).collect();
    let kernel = Kernel(Some(xdp::start(&config.xdp.beside(&config.listen.do53), &sockets, user)?));
    drop(sockets);
    drop(groups);
    privileges::hand_over_state(&config.server.state_dir, user)?;
    privileges::drop_all(user)?;
    // From here on nothing has rights, and every thread made inherits that.
    logging::write_from_now_on().context("the log thread cannot start")?;
    if let Some(embedded) = embedded {
        embedded.spawn().context("the embedded backend cannot start its thread")?;
    }
    let admission = plan::admission(&config, descriptors, workers, upstreams.len());
    let rates = Arc::new(Rates::default());
    let settings = plan::settings(&config, serving, upstreams.clone());
    // A start that fails says one thing; this one has not.
    let warnings = [privileges::warning(user), tickets.warning.as_deref()];
    warnings.iter().flatten().for_each(|warning| tracing::warn!("{warning}"));
    let (sink, charges) = ChargesSink::new(config.xdp.limit.prefix_v4, config.xdp.limit.prefix_v6);
    let (flusher, flushes) = mpsc::channel(FLUSHES_MAX);
    let process = Process::new(&config, &upstreams, workers, &identities, kernel, sink.clone(), flusher);
    let mut running = Vec::with_capacity(workers);
    for (index, listeners) in listeners.into_iter().enumerate() {
        let plan = Plan {
            index,
            cpu: cpus.get(index % cpus.len().max(1)).copied().filter(|_| workers <= cpus.len()),
            listeners,
            settings: settings.clone(),
            counters: process.counters(index),
            admission: Arc::clone(&admission),
            rates: Arc::clone(&rates),
            charges: sink.clone(),
            line: process.line(index)?,
        };
        running.push(Worker::spawn(plan).with_context(|| format!("worker {index} cannot start"))?);
    }
    let running = Running {
        path,
        config,
        tickets,
        spki_pins: serve::spki_pins(&identities),
        staples_until: renew::staples_until(&identities),
        upstreams,
        admission,
        descriptors,
        workers: running,
        checks: JoinSet::new(),
        charges,
        flushes,
    };
    serve::serve(Arc::new(process), running, seen, control_socket, http, began)
}

/// What failed and every cause of it, in a line; what a cause says that was said already is said once.
#[must_use]
pub fn in_a_line(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        _ if said.contains(&cause) => said,
        _ => format!("{said}: {cause}"),
    })
}

fn worker_count(asked: Workers, cpus: usize) -> usize {
    match asked {
        Workers::Auto => cpus.max(1),
        Workers::Count(count) => usize::from(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a line says each cause once, also where an error's own words hold its cause. Method: a file that is not there.
    #[test]
    fn a_cause_is_said_once() {
        let missing = crate::tls::client_verifier("/nowhere/ca.pem".as_ref()).expect_err("it is not there");
        let once = missing.to_string();
        let error =
            anyhow::Error::new(missing).context(format!("tls.client_ca: {once}")).context("not started");
        assert_eq!(in_a_line(&error), format!("not started: tls.client_ca: {once}"));
    }
}

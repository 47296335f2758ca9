//! Loads new certificates, keys, backends' authorities and the files that belong to them without a new config: a
//! renewal needs no signal.
//!
//! Before: `files` found that some have changed, or a stapled response has expired. After: new handshakes use them.
//! Never: reads the config again, or replaces a good file by a bad one: the old one stays, and a line says why.

use std::time::SystemTime;

use super::{
    asked, dialer, in_a_line, plan,
    process::{Process, Running},
    restart,
};
use crate::{
    backend::BackendConfig,
    config,
    tls::{
        self, Tickets, TicketsError,
        certificate::{self, Identity, Loaded},
    },
    worker::Command,
};

/// Loads the files that the served config names. A certificate that cannot be used is replaced by the previous one;
/// after any other error everything stays.
pub(super) fn renew(process: &Process, running: &mut Running) {
    match load(process, running) {
        Ok(loaded) => {
            if loaded.has_new() {
                tracing::info!("certificates and keys were loaded again");
            }
            for warning in loaded.identities.iter().flat_map(|identity| &identity.warnings) {
                tracing::warn!("{warning}");
            }
            process.reloaded(&running.config, &running.backends, loaded);
        }
        Err(error) => {
            process.reload_failed();
            // Its expiry was handled: the old responses are used until the next change.
            running.staples_until = None;
            let error = in_a_line(&error).replace('\n', "; ");
            tracing::error!("certificates or keys cannot be used, and the old ones stay: {error}");
        }
    }
}

/// Everything is loaded and checked before the first worker gets it.
fn load(process: &Process, running: &mut Running) -> anyhow::Result<Loaded> {
    let tls = &running.config.tls;
    let state_dir = &running.config.server.state_dir;
    let loaded = certificate::load_again(tls, state_dir, &process.identities())?;
    let identities = &loaded.identities;
    let tickets = tickets(running, tls, identities)?;
    let serving = tls::serving(identities, tls, &tickets)?;
    let mut backends = backends(process, running)?;
    process.weigh(&running.config, &mut backends);
    process.tickets.resume_by(&tickets);
    if backends == running.backends {
        running.workers.iter().for_each(|worker| worker.tell(Command::Serve(serving.clone())));
    } else {
        running.backends = backends;
        running.checks = asked::check_all(&running.backends);
        let tap = running.tapping.as_ref().map(|tapping| tapping.sink.clone());
        let (backends, policies) = (running.backends.clone(), running.policies());
        let settings = plan::settings(&running.config, serving, backends, &policies, tap);
        for worker in &running.workers {
            worker.tell(Command::Reload(Box::new(settings.clone())));
        }
    }
    if let Some(warning) = &tickets.warning {
        tracing::warn!("{warning}");
    }
    running.tickets = tickets;
    running.staples_until = staples_until(identities);
    Ok(loaded)
}

/// The backends by the same config, with their present authorities.
fn backends(process: &Process, running: &Running) -> anyhow::Result<Vec<BackendConfig>> {
    let config = &running.config;
    let embedded = asked::embedded_address(config, &running.backends);
    Ok(plan::backends(config, embedded, dialer::all(config, process.history())?, &running.backends))
}

/// Ticket keys that nodes share come from their file, which may have changed; the process's own keys stay, because
/// clients could not resume otherwise. Keys of a secret that the config no longer names end here.
/// If a certificate has another key, or the clients' authorities have changed, the process's own keys end too: a
/// client must not resume a session that was established under the old key.
pub(super) fn tickets(
    running: &Running,
    tls: &config::Tls,
    identities: &[Identity],
) -> Result<Tickets, TicketsError> {
    let (runs, trust) = (&running.config.tls, trust(tls, identities));
    if restart::keeps_own_keys(runs, tls) {
        if running.tickets.is_given_under(&trust) {
            return Ok(running.tickets.clone());
        }
        tracing::info!(
            "a certificate's key or tls.client_ca has changed: older session tickets are rejected"
        );
        return Ok(Tickets::new(&tls.ticket_secret, runs.ticket_rotation)?.given_under(trust));
    }
    Ok(Tickets::new(&tls.ticket_secret, tls.ticket_rotation)?.given_under(trust))
}

/// The keys and authorities under which tickets are issued: a client must not resume a session that was established
/// under a replaced key of a certificate, or with a certificate of an authority that was removed.
pub(super) fn trust(tls: &config::Tls, identities: &[Identity]) -> Vec<String> {
    let mut trust: Vec<_> = identities.iter().map(|identity| identity.spki_pin.clone()).collect();
    trust.sort_unstable();
    trust.push(tls.client_ca.display().to_string());
    trust
}

/// When the first of the stapled responses expires. A previous certificate with an expired response keeps it.
pub(super) fn staples_until(identities: &[Identity]) -> Option<SystemTime> {
    let now = SystemTime::now();
    let ends = identities.iter().filter_map(|identity| identity.staple.as_ref()?.until);
    ends.filter(|until| *until > now).min()
}

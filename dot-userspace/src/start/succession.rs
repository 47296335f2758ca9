//! Continues the work of a previous program in its process: after a crash of its engine, and at an upgrade.
//!
//! Before: a keeper ran this program with a list of its state. After: two processes, as after a start; clients that
//! connected meanwhile are accepted. If this program cannot serve and an engine still does, it becomes that engine's
//! keeper.
//! Never: binds an address, or removes the state of the previous engine: sockets, pins, bans, counters and ticket
//! keys are kept.

use std::{os::fd::OwnedFd, path::PathBuf};

use anyhow::Context;

use super::{
    become_two, dialer, families, in_a_line, logging, open, plan, policies, privileges, renew,
    tls_history::TlsHistory, transfers,
};
use crate::{
    config::{self, Config, Workers},
    confine, effective,
    keeper::{self, Groups, Inheritance, Sockets},
    tls::{self, Tickets, certificate},
    xdp,
};

/// Continues the work of a previous program. `read`: the config to serve by and its text, or why there is none.
/// Returns twice, as [`super::run`].
///
/// # Errors
/// As [`super::run`]; if an engine still serves, it continues, and its operator learns why.
pub fn succeed(
    read: Result<(Config, Option<String>), String>,
    inherited: &Inheritance,
    places: (Option<PathBuf>, Option<PathBuf>),
) -> anyhow::Result<u8> {
    confine::leave_no_dump().context("core dumps cannot be turned off")?;
    inherited.lines.iter().for_each(|line| logging::pass_on(line.clone().into_bytes()));
    tracing::warn!("{}", inherited.note);
    let sockets = inherited.take().context("a listening socket is lost")?;
    let opened = read.and_then(|(config, text)| {
        let config = as_bound(config, &sockets);
        let opened = open(&config, Some((&sockets, inherited))).map_err(|error| in_a_line(&error))?;
        Ok((opened, config, text))
    });
    match opened {
        Ok((opened, config, text)) => {
            become_two(opened, config, inherited.estate(places, text), Some(inherited))
        }
        Err(reason) if inherited.is_served() => {
            let text = inherited.text.as_deref();
            let config = text.and_then(|text| config::parse(text, "").ok()).unwrap_or_default();
            let mut estate = inherited.estate(places, inherited.text.clone());
            estate.sockets = Some(sockets);
            let duty = keeper::stay(inherited, &config, estate, reason)?;
            Ok(duty.keep(None, logging::take_lines))
        }
        Err(reason) => Err(anyhow::anyhow!(reason)),
    }
}

/// Checks whether [`succeed`] would come to serve, and changes nothing.
///
/// # Errors
/// The reason why not.
pub fn could_succeed(mut config: Config) -> anyhow::Result<()> {
    families::leave_out(&mut config, families::is_here);
    effective::may_act_as(privileges::user(&config.server.user)?);
    let identities = certificate::load_all(&config.tls, &config.server.state_dir, &[])?.identities;
    let tickets = Tickets::new(&config.tls.ticket_secret, config.tls.ticket_rotation)?;
    tls::serving(&identities, &config.tls, &tickets.given_under(renew::trust(&config.tls, &identities)))?;
    dialer::all(&config, &TlsHistory::default())?;
    transfers::prepare(&config, &config.server.state_dir)?;
    policies::load(&config, &config.server.state_dir, &[])?;
    xdp::try_load(&plan::xdp(&config, &config.listen.do53), &config.listen.dot)?;
    Ok(())
}

/// The config with the addresses that its sockets are bound to; logs the keys that wait for a restart.
fn as_bound(mut config: Config, sockets: &Sockets<OwnedFd>) -> Config {
    families::leave_out(&mut config, families::is_here);
    let addresses =
        |groups: &Groups<OwnedFd>| -> Vec<_> { groups.iter().map(|(address, _)| *address).collect() };
    let (dot, do53) = (addresses(&sockets.dot), addresses(&sockets.do53));
    let http = sockets.http.as_ref().map(|(address, _)| *address);
    let changed = [
        ("listen.dot", config.listen.dot != dot),
        ("listen.do53", config.listen.do53 != do53),
        ("control.http", config.control.http != http),
        (
            "acme.http_listen",
            !config.acme.listens().iter().eq(sockets.acme.iter().map(|(address, _)| address)),
        ),
        ("server.run_dir", config.server.run_dir != sockets.control.0),
    ];
    for (key, _) in changed.iter().filter(|(_, has_changed)| *has_changed) {
        tracing::warn!("{key} has changed in the file; it takes effect when dotd is restarted");
    }
    (config.listen.dot, config.listen.do53, config.control.http) = (dot, do53, http);
    config.server.run_dir.clone_from(&sockets.control.0);
    config.server.workers = Workers::Count(u16::try_from(sockets.workers()).unwrap_or(u16::MAX));
    config
}

//! Collects the state of one client: from the config, the kernel half's maps, caps, rates, and the last refusals.
//!
//! Before: an operator names a client. After: `control` waits for the workers' reports of its sessions.
//! Never: changes anything, or waits.

use std::{net::IpAddr, sync::Arc, time::Instant};

use dot_common::{prefix::ClientPrefix, rate::Rate};
use ipnet::IpNet;
use tokio::sync::mpsc;

use super::Process;
use crate::{
    config::{Access, Config, Denied, LimitMode},
    control::{ExplainRequest, Explaining, Explanation, Listed},
    session::Rates,
    worker::{Admission, Line},
    xdp::{Queues, RateState},
};

/// Most sessions of a worker in an answer.
const SESSIONS_MAX: usize = 20;

/// The parts of the engine that answer questions about clients.
pub(in crate::start) struct Engine {
    /// The channel to each worker.
    pub(in crate::start) workers: Vec<Line>,
    /// Caps.
    pub(in crate::start) admission: Arc<Admission>,
    /// The rates of messages.
    pub(in crate::start) rates: Arc<Rates>,
    /// What waits for an accept; `None`: the kernel does not say.
    pub(in crate::start) queues: Option<Queues>,
}

/// The client in an operator's request: one address of it, and the whole prefix.
pub(in crate::start) fn meant(text: &str, bits: (u8, u8)) -> Result<(IpAddr, IpNet), String> {
    let wrong = || format!("\"{text}\" is neither an address nor a prefix");
    if let Ok(address) = text.parse::<IpAddr>() {
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { bits.0 } else { bits.1 };
        return IpNet::new(address, bits).map(|net| (address, net.trunc())).map_err(|_| wrong());
    }
    let net: IpNet = text.parse().map_err(|_| wrong())?;
    Ok((net.addr(), net.trunc()))
}

impl Process {
    /// The state that is known at once; the workers have been asked for the rest.
    pub(in crate::start) fn explain_client(&self, request: &ExplainRequest) -> Result<Explaining, String> {
        let config = self.config();
        let bits = (config.xdp.limit.prefix_v4, config.xdp.limit.prefix_v6);
        let (client, net) = meant(&request.client, bits)?;
        let engine = self.engine().ok_or("dotd is starting; try again")?;
        let own = ClientPrefix::of(client, bits.0, bits.1);
        let own_bits = if own.is_v6() { bits.1 } else { bits.0 };
        let known = Explanation {
            prefix: format!("{own}/{own_bits}"),
            lists: lists(&config, client),
            xdp: self.client_of_xdp(client),
            connections: engine.admission.connections_of(client),
            connections_max: config.session.connections_per_prefix_max,
            rates: rates(&config, engine, client, bits),
            refusals: self.refusals_of(net, own),
            ..Explanation::default()
        };
        let (tell, sessions) = mpsc::channel(engine.workers.len().max(1));
        for (worker, line) in engine.workers.iter().enumerate() {
            let tell = tell.clone();
            line.look(Box::new(move |shared| {
                // The operator may have closed the connection.
                let (count, sessions) = shared.sessions_of(net, worker, SESSIONS_MAX);
                let _ = tell.try_send((count, sessions, shared.misuses(worker, Some(net))));
            }));
        }
        Ok(Explaining { known, sessions, workers: engine.workers.len() })
    }

    /// Rows of `dotd explain`.
    fn refusals_of(&self, net: IpNet, own: ClientPrefix) -> Vec<crate::control::RefusalRow> {
        self.recent().of(net, own, Instant::now())
    }
}

/// The rates that the engine keeps for a client.
fn rates(config: &Config, engine: &Engine, client: IpAddr, bits: (u8, u8)) -> Vec<RateState> {
    let session = &config.session;
    let now = tokio::time::Instant::now();
    let queries = Rate::new(session.queries_per_second, session.queries_burst);
    let handshakes = engine.admission.handshake_rate();
    let of_queries = engine.rates.ahead_ns(client, bits, now);
    let of_handshakes = engine.admission.handshakes_ahead_ns(client, now);
    [
        RateState::of("handshakes", "session.handshakes_per_second", handshakes, of_handshakes),
        RateState::of("messages over connections", "session.queries_per_second", queries, of_queries),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The lists that decide about a client.
fn lists(config: &Config, client: IpAddr) -> Vec<Listed> {
    let Access { allow, deny, denied, listener, .. } = &config.access;
    let silent = *denied == Denied::Close;
    let closed = if silent { "its connections are closed" } else { "its queries are REFUSED" };
    let mut found = Vec::new();
    let find = |list: &[IpNet]| {
        list.iter().filter(|net| net.contains(&client)).max_by_key(|net| net.prefix_len()).copied()
    };
    let mut note = |key: &str, entry: Option<IpNet>, effect: String| {
        found.push(Listed { key: key.to_owned(), entry: entry.map(|net| net.to_string()), effect });
    };
    if let Some(net) = find(&config.xdp.deny) {
        note("xdp.deny", Some(net), "its packets are dropped on every port".to_owned());
    }
    if let Some(net) = find(&config.xdp.allow) {
        note("xdp.allow", Some(net), "no limit of [xdp.limit] applies to it".to_owned());
    }
    for (at, allow, deny) in std::iter::once((None, allow, deny))
        .chain(listener.iter().map(|own| (Some(own.address), &own.allow, &own.deny)))
    {
        let (prefix, at) = match at {
            None => ("access", String::new()),
            Some(address) => ("access.listener", format!(" at {address}")),
        };
        if let Some(net) = find(deny) {
            note(&format!("{prefix}.deny"), Some(net), format!("{closed}{at}"));
        } else if let Some(net) = find(allow) {
            note(&format!("{prefix}.allow"), Some(net), format!("it may ask{at}"));
        } else if !allow.is_empty() {
            note(&format!("{prefix}.allow"), None, format!("it is not on the list: {closed}{at}"));
        }
    }
    if config.xdp.limit.mode == LimitMode::Count {
        note("xdp.limit.mode", None, "limits of XDP only count, and refuse nothing".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    /// Goal: a list that decides is shown with its matching entry, also if the client is missing from it; an
    /// IPv4-mapped address counts as IPv4. Method: one config, four clients. Covers: C-521
    #[test]
    fn the_list_that_decides_is_named() {
        let text = "[access]\nallow = [\"192.0.2.0/24\", \"192.0.2.0/28\", \"203.0.113.0/24\"]\ndeny = [\"203.0.113.7/32\"]\n\
                    [xdp]\nallow = [\"2001:db8::/32\"]";
        let config = parse(text, "f").unwrap();
        let of = |client: &str| {
            let (client, _) = meant(client, (32, 56)).unwrap();
            lists(&config, client).into_iter().map(|list| (list.key, list.entry)).collect::<Vec<_>>()
        };
        let row = |key: &str, entry: Option<&str>| (key.to_owned(), entry.map(str::to_owned));
        assert_eq!(of("192.0.2.1"), [row("access.allow", Some("192.0.2.0/28"))]);
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("203.0.113.7"), [row("access.deny", Some("203.0.113.7/32"))]);
        assert_eq!(of("2001:db8::1"), [row("xdp.allow", Some("2001:db8::/32")), row("access.allow", None)]);
        assert_eq!(meant("2001:db8:1:2::3", (32, 56)).unwrap().1.to_string(), "2001:db8:1::/56");
        assert!(meant("www.example", (32, 56)).is_err());
    }
}

//! The backends that workers ask: by the config, with addresses in the place of names, and TLS servers in the place of backends in
//! clear that designate them.
//!
//! Before: a start, a reload, another address of a name, or a TLS server that was verified. After: workers, checks, status and the
//! memories of TLS have the same backends.
//! Never: replaces backends by some that cannot be had: the old ones stay, and a line says why.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::{runtime::Runtime, task::JoinSet};

use super::{
    dialer, in_a_line, kept_addresses, plan,
    process::{Process, Running, weigh_as_switched},
    sought::{News, Sought},
    tls_history::TlsHistory,
};
use crate::{
    backend::{BackendConfig, health},
    config::{self, BackendAddress, Config},
    worker::Command,
};

/// Asks each backend whether it is there, until this is dropped.
pub(super) fn check_all(backends: &[BackendConfig]) -> JoinSet<()> {
    backends.iter().cloned().map(health::watch).collect()
}

/// Where the embedded backend of this process answers, if `config`, whose backends these are, needs one.
pub(super) fn embedded_address(config: &Config, backends: &[BackendConfig]) -> Option<SocketAddr> {
    if !plan::needs_embedded(config) {
        return None;
    }
    let is_embedded = |backend: &&config::Backend| backend.address == BackendAddress::Embedded;
    match config.backend.iter().find(is_embedded).map(config::Backend::called) {
        Some(name) => backends.iter().find(|backend| *backend.name == *name),
        None => backends.first(),
    }
    .map(|backend| backend.address)
}

/// The runtime of the control thread, what is looked for, the config that can be served, and its backends.
type Begun = (Runtime, Sought, Config, Vec<BackendConfig>);

/// At a start, before a worker may send a query: without an address it would fail, and past a TLS server that was verified it would go in
/// clear. `opened`: the backends of the config as it is written. What the previous engine
/// knew of addresses, and what an operator has switched there, holds.
pub(super) fn begin(
    config: &Config,
    history: &TlsHistory,
    opened: Vec<BackendConfig>,
) -> anyhow::Result<Begun> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("the control thread has no runtime")?;
    let mut sought = Sought::of(config, kept_addresses::read(&config.server.run_dir));
    let (config, mut backends) = runtime.block_on(look_first(&mut sought, history, opened));
    weigh_as_switched(&config, &mut backends);
    Ok((runtime, sought, config, backends))
}

async fn look_first(
    sought: &mut Sought,
    history: &TlsHistory,
    opened: Vec<BackendConfig>,
) -> (Config, Vec<BackendConfig>) {
    sought.begin().await;
    let config = sought.served(history);
    if config == *sought.written() {
        return (config, opened);
    }
    let embedded = embedded_address(sought.written(), &opened);
    match dialer::all(&config, history) {
        Ok(secured) => {
            let backends = plan::backends(&config, embedded, secured, &opened);
            history.serve(&config);
            (config, backends)
        }
        Err(error) => {
            tracing::error!("backends are asked as the config says: {}", in_a_line(&error));
            (sought.written().clone(), opened)
        }
    }
}

/// A look is over; if it found something else, the workers get it.
pub(super) fn hear(process: &Process, running: &mut Running, news: News) {
    if running.sought.take(news) {
        process.keep_addresses(&running.sought.addresses());
        settle(process, running);
    }
}

/// Gives the workers other backends if the config can be served in another way.
pub(super) fn settle(process: &Process, running: &mut Running) {
    let config = running.sought.served(process.history());
    if config == running.config {
        return;
    }
    let secured = match dialer::all(&config, process.history()) {
        Ok(secured) => secured,
        Err(error) => {
            return tracing::error!("backends keep their old addresses: {}", in_a_line(&error));
        }
    };
    let embedded = embedded_address(&running.config, &running.backends);
    running.backends = plan::backends(&config, embedded, secured, &running.backends);
    process.weigh(&config, &mut running.backends);
    running.config = config;
    running.checks = check_all(&running.backends);
    let (workers, backends) = (running.workers.len(), running.tenants.count_backends(&running.backends));
    running.admission.reload(plan::caps(&running.config.session, running.descriptors, workers, backends));
    // Before a worker may ask whether cleartext is permitted.
    process.history().serve(&running.config);
    tell(running);
    process.has_other_backends(&running.config, &running.backends);
}

/// Tells each worker its backends, and those of each tenant.
pub(super) fn tell(running: &Running) {
    let (tenancy, backends) = running.tenants.plan(running.backends.clone());
    for worker in &running.workers {
        worker.tell(Command::Backends(backends.clone(), tenancy.own.clone()));
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, MessageType},
        rr::{RData, Record, RecordType, rdata::A},
    };
    use tokio::net::UdpSocket;

    use super::*;
    use crate::{
        backend::Remembered,
        config::{Transport, parse},
    };

    async fn resolve(socket: UdpSocket) {
        let mut octets = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut octets).await {
            let mut message = Message::from_vec(&octets[..length]).unwrap();
            message.metadata.message_type = MessageType::Response;
            let question = message.queries[0].clone();
            if question.query_type() == RecordType::A {
                let data = RData::A(A::new(192, 0, 2, 1));
                message.add_answer(Record::from_rdata(question.name().clone(), 60, data));
            }
            socket.send_to(&message.to_vec().unwrap(), from).await.unwrap();
        }
    }

    /// Goal: workers start with the addresses of backends' names, and with the TLS servers that were verified before: after a crash or an
    /// upgrade no query fails for want of an address, or goes in clear. Method: a resolver, and a history with a handshake.
    ///
    #[tokio::test]
    async fn workers_start_with_what_is_known() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let text = format!(
            "[balance]\nbootstrap = [\"{}\"]\n[[backend]]\naddress = \"ns.example:53\"\nallow_cleartext = true\n\
             [[backend]]\nname = \"office\"\naddress = \"127.0.0.9:53\"\ndiscover = true\n",
            socket.local_addr().unwrap()
        );
        tokio::spawn(resolve(socket));
        let config = parse(&text, "dotd.toml").unwrap();
        let (history, secure) = (TlsHistory::default(), "127.0.0.9:853".parse().unwrap());
        let proof = Remembered { version: "1.3".into(), ..Remembered::default() };
        history.memory_of("office", secure, "127.0.0.9").learn("office", &proof);
        let opened = plan::backends(&config, None, dialer::all(&config, &history).unwrap(), &[]);
        assert_eq!(opened.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["office"]);
        let mut sought = Sought::of(&config, kept_addresses::Addresses::new());
        let (served, backends) = look_first(&mut sought, &history, opened).await;
        let rows: Vec<_> = backends.iter().map(|one| (&*one.name, one.transport, one.address)).collect();
        let named = ("ns.example:53/192.0.2.1", Transport::Udp, "192.0.2.1:53".parse().unwrap());
        let clear = ("office:clear", Transport::Udp, "127.0.0.9:53".parse().unwrap());
        assert_eq!(rows, [named, ("office", Transport::Tls, secure), clear]);
        assert_eq!((sought.written(), served.backend.len()), (&config, 2));
    }
}

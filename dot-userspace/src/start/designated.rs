//! Backends in clear that speak TLS too: they are asked which TLS server they designate, and that one is asked in their place once
//! it has proved that it is theirs.
//!
//! Before: a backend with `discover = true`. After: a TLS backend in its place, which the one in clear stands in for.
//! Holds: for each such backend the TLS server that was verified last. That stays when the answer is gone: discovery only upgrades.
//! Never: believes a designation whose certificate does not hold the address of the backend in clear (RFC 9462 §4.2); asks more
//! often than each [`PAUSE_MIN`].
//!
//! DNSSEC has no say here: `resolver.arpa` is answered by each resolver for itself and is not signed (RFC 9462 §6.4); the
//! certificate is the proof.
//!
//! Source: RFC 9462 §4 (discovery by address, verified discovery), RFC 9461 §4 and §5 (alpn, port).

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use super::{dialer, plan, tls_history::TlsHistory};
use crate::{
    backend::{self, BackendConfig},
    config::{self, Backend, BackendAddress, Config, OnTlsFailure, Transport},
    dns::{self, Designated, Family},
};

/// Between two questions, in seconds: the TTL of the answer within these bounds.
const PAUSE_MIN: u32 = 5;
const PAUSE_MAX: u32 = 86_400;
/// After an answer without a TLS server at least this: such a resolver seldom gets one.
const PAUSE_WITHOUT: u32 = 3600;
/// Time for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// TLS servers of one answer that are tried.
const TRIED_MAX: usize = 8;
/// News that wait for the control thread.
const NEWS_MAX: usize = 64;

/// A TLS server was verified.
pub(super) struct Found {
    clear: SocketAddr,
    secure: SocketAddr,
}

/// All backends that are asked.
pub(super) struct Discovered {
    verified: BTreeMap<SocketAddr, SocketAddr>,
    asked: Option<Config>,
    tasks: JoinSet<()>,
    teller: mpsc::Sender<Found>,
    news: mpsc::Receiver<Found>,
}

impl Default for Discovered {
    fn default() -> Self {
        let (teller, news) = mpsc::channel(NEWS_MAX);
        Self { verified: BTreeMap::new(), asked: None, tasks: JoinSet::new(), teller, news }
    }
}

impl Discovered {
    /// Asks the backends of `config` that are to be asked, and no others. What `history` knows of the TLS of one is taken as
    /// verified. Must run on a runtime.
    pub(super) fn follow(&mut self, config: &Config, history: &TlsHistory) {
        if self.asked.as_ref().is_some_and(|asked| is_as_before(asked, config)) {
            return;
        }
        // Those before end here.
        self.tasks = JoinSet::new();
        for (backend, clear) in wanted(config) {
            if let Some(known) = history.proved_for(clear.ip(), config.balance.downgrade_window) {
                self.verified.entry(clear).or_insert(known);
            }
            let inquiry = Inquiry { config: config.clone(), backend: backend.clone(), clear };
            self.tasks.spawn(follow(inquiry, history.clone(), self.teller.clone()));
        }
        self.asked = Some(config.clone());
    }

    /// Forgets the TLS servers of backends that are no longer asked. Until then a reload that fails finds what was verified.
    pub(super) fn forget_others(&mut self) {
        if let Some(config) = &self.asked {
            self.verified.retain(|clear, _| wanted(config).any(|(_, one)| one == *clear));
        }
    }

    /// The next TLS server that was verified.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn heard(&mut self) -> Option<Found> {
        self.news.recv().await
    }

    /// Takes it. `true`: it is another one.
    pub(super) fn take(&mut self, Found { clear, secure }: Found) -> bool {
        let is_asked =
            self.asked.as_ref().is_some_and(|config| wanted(config).any(|(_, address)| address == clear));
        let is_new = is_asked && self.verified.insert(clear, secure) != Some(secure);
        if is_new {
            tracing::info!(%clear, %secure, "a backend in clear speaks TLS, and proves that it does: it is asked over TLS");
        }
        is_new
    }

    /// `config` with the TLS servers that were verified in the place of those in clear.
    pub(super) fn upgrade(&self, config: &Config) -> Config {
        let mut upgraded = config.clone();
        for (index, backend) in config.backend.iter().enumerate() {
            let Some(clear) = in_clear(backend) else { continue };
            let Some(secure) = self.verified.get(&clear) else { continue };
            let place = at(backend, clear, *secure);
            let is_taken = upgraded.backend.iter().any(|other| other.address == place.address);
            if let Some(backend) = upgraded.backend.get_mut(index).filter(|_| !is_taken) {
                *backend = place;
            }
        }
        upgraded
    }
}

/// Looks at each backend of `config` once; the config with what was verified, and why a designated server is not used, by the name
/// of the backend.
pub(super) async fn look_once(config: &Config) -> (Config, BTreeMap<String, String>) {
    let mut discovered = Discovered::default();
    let mut unused = BTreeMap::new();
    for (backend, clear) in wanted(config) {
        let inquiry = Inquiry { config: config.clone(), backend: backend.clone(), clear };
        match inquiry.look(&TlsHistory::default()).await {
            Ok(Looked { secure: Some(secure), .. }) => drop(discovered.verified.insert(clear, secure)),
            Ok(Looked { unused: Some(why), .. }) | Err(why) => drop(unused.insert(backend.called(), why)),
            Ok(_) => {}
        }
    }
    (discovered.upgrade(config), unused)
}

/// Each backend that is to be asked, with its address.
fn wanted(config: &Config) -> impl Iterator<Item = (&Backend, SocketAddr)> {
    config.backend.iter().filter_map(|backend| Some((backend, in_clear(backend)?)))
}

/// Where a backend is that may be asked for its TLS server.
fn in_clear(backend: &Backend) -> Option<SocketAddr> {
    match backend.address {
        BackendAddress::Socket(address) if backend.discover => Some(address),
        _ => None,
    }
}

/// Whether all that a look depends on is the same.
fn is_as_before(old: &Config, new: &Config) -> bool {
    old.listen == new.listen && wanted(old).eq(wanted(new))
}

/// The backend over TLS: its certificate must hold the address that was configured.
fn at(backend: &Backend, clear: SocketAddr, secure: SocketAddr) -> Backend {
    Backend {
        name: backend.called(),
        address: BackendAddress::Socket(secure),
        transport: Transport::Tls,
        server_name: clear.ip().to_string(),
        on_tls_failure: OnTlsFailure::Cleartext,
        cleartext_address: Some(clear),
        ..backend.clone()
    }
}

/// Asks a backend until the task ends.
async fn follow(inquiry: Inquiry, history: TlsHistory, teller: mpsc::Sender<Found>) {
    let clear = inquiry.clear;
    let mut failures: u32 = 0;
    let mut said = None;
    loop {
        let looked = inquiry.look(&history).await;
        failures = if looked.is_err() { failures.saturating_add(1) } else { 0 };
        let (pause, why) = match looked {
            Ok(Looked { secure: Some(secure), ttl, .. }) => {
                if teller.send(Found { clear, secure }).await.is_err() {
                    return;
                }
                (ttl, None)
            }
            // RFC 9462 §4.2: no question again while the answer holds.
            Ok(Looked { unused: Some(why), ttl, .. }) => (ttl, Some(why)),
            Ok(Looked { ttl, .. }) => (ttl.max(PAUSE_WITHOUT), None),
            Err(why) => (PAUSE_WITHOUT.min(PAUSE_MIN << (failures - 1).min(10)), Some(why)),
        };
        if let (Some(why), true) = (&why, why != said) {
            tracing::warn!(%clear, "no TLS server is taken for a backend in clear: {why}");
        }
        said = why;
        sleep(Duration::from_secs(pause.clamp(PAUSE_MIN, PAUSE_MAX).into())).await;
    }
}

/// What is asked of one backend.
struct Inquiry {
    /// All of the config, which says what may not be asked.
    config: Config,
    backend: Backend,
    clear: SocketAddr,
}

/// What a look found.
struct Looked {
    /// The first TLS server by priority that proved to be the backend's own.
    secure: Option<SocketAddr>,
    /// Why the others are not used.
    unused: Option<String>,
    /// For how long that holds.
    ttl: u32,
}

impl Inquiry {
    async fn look(&self, history: &TlsHistory) -> Result<Looked, String> {
        let resolver = BackendConfig::over_udp(self.clear.to_string(), self.clear, ANSWER_TIMEOUT);
        let answer = ask(&resolver, dns::designation_query()).await?;
        let (designated, ttl) = dns::designations_in(&answer)?;
        let (mut tried, mut unused) = (0, None);
        for one in designated {
            for address in addresses(&resolver, self.clear.ip(), &one).await {
                tried += 1;
                if tried > TRIED_MAX {
                    return Ok(Looked { secure: None, unused, ttl });
                }
                let secure = SocketAddr::new(address, one.port);
                match self.prove(secure, history).await {
                    Ok(()) => return Ok(Looked { secure: Some(secure), unused, ttl }),
                    Err(why) => {
                        unused.get_or_insert(format!(
                            "{secure} is designated, and not proved to be the same server: {why}"
                        ));
                    }
                }
            }
        }
        Ok(Looked { secure: None, unused, ttl })
    }

    /// Whether the server at `secure` has a certificate for the address of the backend in clear, and answers. The handshake counts
    /// in `history`: from then on this server has to speak TLS.
    async fn prove(&self, secure: SocketAddr, history: &TlsHistory) -> Result<(), String> {
        let place = at(&self.backend, self.clear, secure);
        if let Some(why) = config::why_not_asked(&self.config, &place) {
            return Err(why.to_owned());
        }
        let (called, server_name) = (place.called(), place.server_name.clone());
        let alone = Config { backend: vec![place], ..self.config.clone() };
        let trial = TlsHistory::default();
        let secured = dialer::all(&alone, &trial).map_err(|error| super::in_a_line(&error))?;
        let backends = plan::backends(&alone, None, secured, &[]);
        let backend = backends.first().ok_or("no backend")?;
        backend::probe(backend).await.map_err(|missed| missed.to_string())?;
        let proved = trial.memory_of(&called, secure, &server_name).row();
        history.memory_of(&called, secure, &server_name).learn(&called, &proved);
        Ok(())
    }
}

/// By UDP, and over TCP where a datagram is too short.
async fn ask(resolver: &BackendConfig, query: Option<Vec<u8>>) -> Result<Vec<u8>, String> {
    let query = query.ok_or("it is no domain name")?;
    let answer = backend::ask(resolver, query.clone()).await.map_err(|missed| missed.to_string())?;
    if !dns::is_truncated(&answer) {
        return Ok(answer);
    }
    let over_tcp = BackendConfig { transport: Transport::Tcp, ..resolver.clone() };
    backend::ask(&over_tcp, query).await.map_err(|missed| missed.to_string())
}

/// The addresses of a designated server: its hints, those of its name, or the backend's own.
async fn addresses(resolver: &BackendConfig, own: IpAddr, designated: &Designated) -> Vec<IpAddr> {
    if !designated.hints.is_empty() {
        return designated.hints.clone();
    }
    let Some(name) = &designated.target else { return vec![own] };
    let family = if own.is_ipv4() { Family::V4 } else { Family::V6 };
    let answer = ask(resolver, dns::address_query(name, family, 0)).await;
    let found = answer.and_then(|message| dns::addresses_in(&message));
    found.map_or_else(|_| Vec::new(), |found| found.addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a verified server takes the place of the one in clear under its name, is proved by the address in the file, and may
    /// fall back to that one alone; one that is another backend already does not. Method: a config with three backends, one of
    /// which is to be asked. Covers: C-660
    #[test]
    fn a_verified_server_takes_the_place() {
        let text = "[[backend]]\nname = \"office\"\naddress = \"127.0.0.1:53\"\ndiscover = true\n\
                    [[backend]]\naddress = \"127.0.0.2:53\"\n\
                    [[backend]]\naddress = \"192.0.2.3:853\"\ntransport = \"tls\"\nserver_name = \"a.test\"\n";
        let config = crate::config::parse(text, "dotd.toml").unwrap();
        let mut discovered = Discovered { asked: Some(config.clone()), ..Discovered::default() };
        let [clear, secure, other] =
            ["127.0.0.1:53", "127.0.0.9:853", "192.0.2.3:853"].map(|text| text.parse().unwrap());
        assert!(discovered.take(Found { clear, secure }));
        assert!(!discovered.take(Found { clear, secure }), "the same");
        let stranger = "127.0.0.2:53".parse().unwrap();
        assert!(!discovered.take(Found { clear: stranger, secure }), "it is not to be asked");
        let upgraded = discovered.upgrade(&config);
        let one = &upgraded.backend[0];
        assert_eq!(
            (&*one.called(), one.transport, &*one.server_name),
            ("office", Transport::Tls, "127.0.0.1")
        );
        assert_eq!((&one.address, one.in_clear()), (&BackendAddress::Socket(secure), Some(clear)));
        assert_eq!(upgraded.backend[1..], config.backend[1..]);
        assert!(discovered.take(Found { clear, secure: other }));
        assert_eq!(discovered.upgrade(&config), config, "it is a backend already");
    }

    /// Goal: a reload that is refused sends nothing in clear to a server that was verified. Method: another config is followed, then the
    /// first again, without a history.
    #[tokio::test]
    async fn a_refused_config_costs_no_verified_server() {
        let config = |keys: &str| {
            let text = format!("[[backend]]\naddress = \"127.0.0.1:53\"\n{keys}");
            crate::config::parse(&text, "dotd.toml").unwrap()
        };
        let (served, refused) = (config("discover = true\n"), config(""));
        let [clear, secure] = ["127.0.0.1:53", "127.0.0.9:853"].map(|text| text.parse().unwrap());
        let (mut discovered, history) = (Discovered::default(), TlsHistory::default());
        discovered.follow(&served, &history);
        assert!(discovered.take(Found { clear, secure }));
        discovered.follow(&refused, &history);
        assert_eq!(discovered.upgrade(&refused), refused);
        discovered.follow(&served, &history);
        assert_eq!(discovered.upgrade(&served).backend[0].transport, Transport::Tls);
        discovered.follow(&refused, &history);
        discovered.forget_others();
        assert!(discovered.verified.is_empty());
    }

    /// Goal: a designation that leads to dotd itself, or to no host, is not even tried. Method: such addresses.
    #[tokio::test]
    async fn a_designation_makes_no_loop() {
        let text = "[listen]\ndot = [\"127.0.0.1:853\"]\n[[backend]]\naddress = \"127.0.0.1:5353\"\ndiscover = true\n";
        let config = crate::config::parse(text, "dotd.toml").unwrap();
        let clear = "127.0.0.1:5353".parse().unwrap();
        let inquiry = Inquiry { backend: config.backend[0].clone(), config, clear };
        for (secure, why) in
            [("127.0.0.1:853", "it is dotd itself"), ("0.0.0.0:853", "it is no host's address")]
        {
            let history = TlsHistory::default();
            let outcome = inquiry.prove(secure.parse().unwrap(), &history).await;
            assert_eq!(outcome, Err(why.to_owned()));
            assert!(history.rows().is_empty());
        }
    }
}

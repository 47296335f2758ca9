//! Names of backends become addresses, and follow them: asked for at the resolvers of `balance.bootstrap`, again at each TTL.
//!
//! Before: a config whose backends have names. After: one backend for each address; workers have other ones when an address comes
//! or leaves, without a reload.
//! Holds: the last addresses of each name; they stay while no resolver gives an answer, or one without an address. The next engine
//! begins with them ([`Names::remember`]).
//! Never: asks this machine's resolver, which may be dotd itself; asks more often than each second, or takes more than
//! [`ADDRESSES_MAX`] addresses of a name.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::kept_addresses::Addresses;
use crate::{
    backend,
    config::{self, Backend, BackendAddress, Config, Host},
    dns::{self, Family},
};

/// Addresses of a name that become backends. 8: more than any resolver service publishes.
const ADDRESSES_MAX: usize = 8;
/// Time for an answer of a bootstrap resolver.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a start or a reload waits for the first addresses.
const FIRST_TIMEOUT: Duration = Duration::from_secs(3);
/// A name is asked for again after its TTL, within these bounds…
const TTL_MIN: u32 = 1;
const TTL_MAX: u32 = 86_400;
/// …and after a failure at twice the time of the failure before, up to this.
const RETRY_MAX: u32 = 60;
/// News that wait for the control thread: each name has one.
const NEWS_MAX: usize = 64;

/// What is known of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    addresses: Vec<IpAddr>,
    /// Why the last look gave none.
    reason: Option<String>,
}

/// A look at a name is over.
pub(super) struct News {
    host: String,
    known: Known,
}

/// All names of a config.
pub(super) struct Names {
    known: BTreeMap<String, Known>,
    asked: (BTreeSet<String>, Vec<SocketAddr>),
    tasks: JoinSet<()>,
    teller: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
}

impl Default for Names {
    fn default() -> Self {
        let (teller, news) = mpsc::channel(NEWS_MAX);
        let asked = (BTreeSet::new(), Vec::new());
        Self { known: BTreeMap::new(), asked, tasks: JoinSet::new(), teller, news }
    }
}

impl Names {
    /// The addresses that the previous engine knew, which names have until they are found.
    pub(super) fn remember(&mut self, addresses: Addresses) {
        let known = addresses.into_iter().filter(|(_, addresses)| !addresses.is_empty());
        self.known = known
            .map(|(host, mut addresses)| {
                addresses.truncate(ADDRESSES_MAX);
                (host, Known { addresses, reason: None })
            })
            .collect();
    }

    /// The addresses that are known now, for the next engine.
    pub(super) fn addresses(&self) -> Addresses {
        let known = self.known.iter().filter(|(_, known)| !known.addresses.is_empty());
        known.map(|(host, known)| (host.clone(), known.addresses.clone())).collect()
    }

    /// Follows the names of `config` from now on, and no others. Must run on a runtime.
    pub(super) fn follow(&mut self, config: &Config) {
        let asked = (hosts(config), config.balance.bootstrap.clone());
        if asked == self.asked {
            return;
        }
        // Those before end here.
        self.tasks = JoinSet::new();
        for host in &asked.0 {
            let known = self.known.get(host).cloned().unwrap_or_default();
            self.tasks.spawn(follow(host.clone(), asked.1.clone(), known.addresses, self.teller.clone()));
        }
        self.asked = asked;
    }

    /// Forgets the names that are no longer followed. Until then a reload that fails finds what was known of them.
    pub(super) fn forget_others(&mut self) {
        self.known.retain(|host, _| self.asked.0.contains(host));
    }

    /// Waits until each name has been looked at once, or [`FIRST_TIMEOUT`] has passed.
    pub(super) async fn first(&mut self) {
        let all = async {
            while self.asked.0.iter().any(|host| !self.known.contains_key(host)) {
                let Some(news) = self.news.recv().await else { return };
                self.take(news);
            }
        };
        let _ = timeout(FIRST_TIMEOUT, all).await;
    }

    /// The next look that is over.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn heard(&mut self) -> Option<News> {
        self.news.recv().await
    }

    /// Takes news. `true`: addresses have changed.
    pub(super) fn take(&mut self, News { host, known }: News) -> bool {
        if !self.asked.0.contains(&host) {
            return false;
        }
        let before = self.known.insert(host.clone(), known.clone()).unwrap_or_default();
        if let (Some(reason), true) = (&known.reason, known.reason != before.reason) {
            tracing::warn!(name = host, "addresses of a backend are not found, the last ones stay: {reason}");
        }
        let has_changed = before.addresses != known.addresses;
        if has_changed {
            let (old, new) = (&before.addresses, &known.addresses);
            tracing::info!(name = host, ?old, ?new, "a backend has other addresses");
        }
        has_changed
    }

    /// `config` with a backend for each address in the place of one with a name. A name without an address stays, and no worker
    /// asks it. An address that no backend may have, or that another backend has, is left out.
    pub(super) fn expand(&self, config: &Config) -> Config {
        let mut expanded = Config { backend: Vec::new(), ..config.clone() };
        for backend in &config.backend {
            let places = match &backend.address {
                BackendAddress::Named(host) => self.places(config, backend, host),
                _ => Vec::new(),
            };
            let before = expanded.backend.len();
            for place in places {
                let mut others = config.backend.iter().chain(&expanded.backend);
                if !others.any(|other| other.address == place.address) {
                    expanded.backend.push(place);
                }
            }
            if expanded.backend.len() == before {
                expanded.backend.push(backend.clone());
            }
        }
        expanded
    }

    /// The backend at each address of its name.
    fn places(&self, config: &Config, backend: &Backend, host: &Host) -> Vec<Backend> {
        let known = self.known.get(&host.name).map(|known| known.addresses.as_slice());
        let places = known.unwrap_or_default().iter().filter_map(|address| {
            let place = at(backend, *address, host.port);
            match config::why_not_asked(config, &place) {
                None => Some(place),
                Some(why) => {
                    tracing::warn!(name = host.name, %address, "an address of a backend is not asked: {why}");
                    None
                }
            }
        });
        places.collect()
    }
}

/// Looks at each name of `config` once; the config with what was found, and why a name has no address.
pub(super) async fn look_once(config: &Config) -> (Config, BTreeMap<String, String>) {
    let mut names = Names::default();
    names.follow(config);
    names.first().await;
    let reason = |known: &Known| known.reason.clone();
    let lacking = hosts(config).into_iter().filter_map(|host| {
        let known = names.known.get(&host).cloned().unwrap_or_default();
        let why = reason(&known).unwrap_or_else(|| "no bootstrap resolver answers in time".to_owned());
        known.addresses.is_empty().then_some((host, why))
    });
    let lacking = lacking.collect();
    (names.expand(config), lacking)
}

fn hosts(config: &Config) -> BTreeSet<String> {
    let named = config.backend.iter().filter_map(|backend| match &backend.address {
        BackendAddress::Named(host) => Some(host.name.clone()),
        _ => None,
    });
    named.collect()
}

/// The backend at one of its addresses.
fn at(backend: &Backend, address: IpAddr, port: u16) -> Backend {
    Backend {
        name: format!("{}/{address}", backend.called()),
        address: BackendAddress::Socket(SocketAddr::new(address, port)),
        server_name: backend.proved_name().to_owned(),
        ..backend.clone()
    }
}

/// Looks at a name until the task ends.
async fn follow(host: String, servers: Vec<SocketAddr>, last: Vec<IpAddr>, teller: mpsc::Sender<News>) {
    let (v4, v6): (Vec<_>, Vec<_>) = last.into_iter().partition(IpAddr::is_ipv4);
    let mut families = [v4, v6];
    let mut failures: u32 = 0;
    loop {
        let found = tokio::join!(look(&servers, &host, Family::V4), look(&servers, &host, Family::V6));
        let is_any = [&found.0, &found.1]
            .iter()
            .any(|found| found.as_ref().is_ok_and(|found| !found.addresses.is_empty()));
        let (mut ttl, mut reason) = (TTL_MAX, None);
        for (family, found) in families.iter_mut().zip([found.0, found.1]) {
            match found {
                Ok(found) => {
                    ttl = ttl.min(found.ttl);
                    if is_any {
                        *family = found.addresses;
                    }
                }
                Err(why) => reason = Some(why),
            }
        }
        if !is_any && reason.is_none() {
            reason = Some("the name has no address".to_owned());
        }
        failures = if reason.is_some() { failures.saturating_add(1) } else { 0 };
        let known = Known { addresses: some_of(&families), reason };
        if teller.send(News { host: host.clone(), known }).await.is_err() {
            return;
        }
        let pause = match failures {
            0 => ttl,
            _ => ttl.min(1 << (failures - 1).min(6)).min(RETRY_MAX),
        };
        sleep(Duration::from_secs(pause.max(TTL_MIN).into())).await;
    }
}

/// [`ADDRESSES_MAX`] addresses at most, half of each family; where one has fewer, the other has the rest.
fn some_of([v4, v6]: &[Vec<IpAddr>; 2]) -> Vec<IpAddr> {
    let half = ADDRESSES_MAX / 2;
    let (of_v4, of_v6) =
        (half.max(ADDRESSES_MAX.saturating_sub(v6.len())), half.max(ADDRESSES_MAX.saturating_sub(v4.len())));
    v4.iter().take(of_v4).chain(v6.iter().take(of_v6)).copied().collect()
}

/// The addresses of one family, by the resolvers of the config.
async fn look(servers: &[SocketAddr], host: &str, family: Family) -> Result<dns::Addresses, String> {
    if servers.is_empty() {
        return Err("balance.bootstrap is empty".to_owned());
    }
    backend::lookup(servers, host, family, ANSWER_TIMEOUT).await
}

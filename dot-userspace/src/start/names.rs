//! Names of backends become addresses, and follow them: asked for at the resolvers of `balance.bootstrap`, again at each TTL.
//!
//! Before: a config whose backends have names. After: one backend for each address; workers have other ones when an address comes
//! or leaves, without a reload.
//! Holds: the last addresses of each name; they stay while no resolver gives an answer, or one without an address.
//! Never: asks this machine's resolver, which may be dotd itself; asks more often than each second, or takes more than
//! [`ADDRESSES_MAX`] addresses of a name.

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

use crate::{
    backend::{self, BackendConfig},
    config::{self, Backend, BackendAddress, Config, Host, Transport},
    dns::{self, Addresses, Family},
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
        let mut addresses = families.concat();
        addresses.truncate(ADDRESSES_MAX);
        let known = Known { addresses, reason };
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

/// Asks the resolvers in their order for one family, over TCP where a datagram is too short.
async fn look(servers: &[SocketAddr], host: &str, family: Family) -> Result<Addresses, String> {
    let mut why = "balance.bootstrap is empty".to_owned();
    for server in servers {
        let resolver = BackendConfig::over_udp(server.to_string(), *server, ANSWER_TIMEOUT);
        let query = dns::address_query(host, family, 0).ok_or("it is no domain name")?;
        let mut answer = backend::ask(&resolver, query.clone()).await;
        if answer.as_ref().is_ok_and(|message| dns::is_truncated(message)) {
            answer = backend::ask(&BackendConfig { transport: Transport::Tcp, ..resolver }, query).await;
        }
        let found =
            answer.map_err(|missed| missed.to_string()).and_then(|message| dns::addresses_in(&message));
        match found {
            Ok(found) => return Ok(found),
            Err(error) => why = format!("{server}: {error}"),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each address of a name is a backend of its own with the keys of the one in the file, and is proved by that name; a
    /// name without an address stays as it is. Method: a config with two names, one of them known.
    #[test]
    fn a_name_becomes_its_addresses() {
        let text = "[balance]\nbootstrap = [\"192.0.2.53:53\"]\n\
                    [[backend]]\naddress = \"ns.example:853\"\ntransport = \"tls\"\nweight = 7\n\
                    [[backend]]\nname = \"spare\"\naddress = \"other.example:53\"\nallow_cleartext = true\n";
        let config = crate::config::parse(text, "dotd.toml").unwrap();
        let mut names = Names::default();
        names.asked.0 = hosts(&config);
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap()).to_vec();
        let known = Known { addresses, reason: None };
        assert!(names.take(News { host: "ns.example".into(), known: known.clone() }));
        assert!(!names.take(News { host: "ns.example".into(), known: known.clone() }), "the same");
        assert!(!names.take(News { host: "gone.example".into(), known }), "no lookup was asked for");
        let expanded = names.expand(&config);
        let called: Vec<_> = expanded.backend.iter().map(Backend::called).collect();
        assert_eq!(called, ["ns.example:853/192.0.2.1", "ns.example:853/2001:db8::1", "spare"]);
        assert_eq!((&*expanded.backend[1].server_name, expanded.backend[1].weight), ("ns.example", 7));
        assert_eq!(expanded.backend[1].address, BackendAddress::Socket("[2001:db8::1]:853".parse().unwrap()));
        assert!(matches!(expanded.backend[2].address, BackendAddress::Named(_)));
        let served = super::super::plan::backends(&expanded, None, vec![None, None, None], &[]);
        assert_eq!(served.len(), 2, "no worker asks a name without an address");
    }

    fn expanded(text: &str, addresses: &[&str]) -> Vec<String> {
        let config = crate::config::parse(text, "dotd.toml").unwrap();
        let mut names = Names::default();
        names.asked.0 = hosts(&config);
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        names.take(News { host: "ns.example".into(), known: Known { addresses, reason: None } });
        names.expand(&config).backend.iter().map(Backend::called).collect()
    }

    /// Goal: what a resolver says makes no loop, no backend that cannot be, and no second one at an address; cleartext that is
    /// permitted comes back to dotd by no name. Method: answers that a config would be refused for.
    #[test]
    fn addresses_are_held_to_what_a_config_may_say() {
        let text = |keys: &str| {
            format!(
                "[listen]\ndot = [\"127.0.0.1:853\", \"192.0.2.9:853\"]\ndo53 = [\"192.0.2.9:53\"]\n\
                 [balance]\nbootstrap = [\"192.0.2.53:53\"]\n[[backend]]\naddress = \"ns.example:{keys}\n"
            )
        };
        let alone = [text("853\"\ntransport = \"tls\""), text("53\"\nallow_cleartext = true")];
        for (text, port) in alone.iter().zip([853, 53]) {
            let bad = ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "192.0.2.9"];
            let called = expanded(text, &[bad.as_slice(), &["192.0.2.1"]].concat());
            assert_eq!(called, [format!("ns.example:{port}/192.0.2.1")]);
            assert_eq!(expanded(text, &bad), [format!("ns.example:{port}")], "none is left");
        }
        let falls_back = text(
            "8853\"\ntransport = \"tls\"\nprofile = \"opportunistic\"\non_tls_failure = \"cleartext\"\nallow_cleartext = true",
        );
        assert_eq!(expanded(&falls_back, &["192.0.2.9", "192.0.2.1"]), ["ns.example:8853/192.0.2.1"]);
        let twice = text(
            "53\"\nallow_cleartext = true\n[[backend]]\naddress = \"192.0.2.1:53\"\nallow_cleartext = true",
        );
        assert_eq!(
            expanded(&twice, &["192.0.2.1", "192.0.2.2", "192.0.2.2"]),
            ["ns.example:53/192.0.2.2", "192.0.2.1:53"]
        );
    }

    /// Goal: a reload that is refused costs no address of the config that stays. Method: another config is followed, then the
    /// first again.
    #[tokio::test]
    async fn a_refused_config_costs_no_address() {
        let config = |name: &str| {
            let text = format!(
                "[balance]\nbootstrap = [\"192.0.2.53:53\"]\n[[backend]]\naddress = \"{name}:53\"\nallow_cleartext = true\n"
            );
            crate::config::parse(&text, "dotd.toml").unwrap()
        };
        let (served, refused) = (config("ns.example"), config("else.example"));
        let mut names = Names::default();
        names.follow(&served);
        let known = Known { addresses: vec![[192, 0, 2, 1].into()], reason: None };
        assert!(names.take(News { host: "ns.example".into(), known }));
        names.follow(&refused);
        names.follow(&served);
        assert_eq!(names.expand(&served).backend[0].called(), "ns.example:53/192.0.2.1");
        names.follow(&refused);
        names.forget_others();
        assert!(names.known.is_empty());
    }
}

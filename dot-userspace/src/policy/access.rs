//! Decides which clients may ask: by address, by the server name that they ask for, and by the name in their
//! certificate.
//!
//! Before: a connection or a datagram came, or a handshake is done. After: the client is served, refused or closed, and
//! counted by the reason.
//! Holds: `[access]`, and `xdp.deny`, which applies here too in case the kernel half does not run.
//! Never: has a side effect: the same client gets the same verdict until a reload.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::PrefixMap;
use crate::{
    config::{self, Denied},
    ledger::Counter,
    octets::{Octets, put_run},
};

/// Why a client may not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessReason {
    /// Its address is on `deny`, of `[access]` or of `[xdp]`.
    Denied,
    /// There is a list `allow`, and its address is not there.
    NotAllowed,
    /// It asked for a server name that is not in `server_names`, or for none.
    ServerName,
    /// No name of its certificate is in `client_names`.
    ClientName,
}

impl AccessReason {
    /// Its counter in the ledger.
    #[must_use]
    pub fn counter(self) -> Counter {
        match self {
            Self::Denied => Counter::AccessDenied,
            Self::NotAllowed => Counter::AccessNotAllowed,
            Self::ServerName => Counter::AccessServerName,
            Self::ClientName => Counter::AccessClientName,
        }
    }
}

/// The verdict on a client that may not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The reason.
    pub reason: AccessReason,
    /// It gets no response: its connection is closed, its datagram dropped. Otherwise each of its queries is REFUSED.
    pub is_silent: bool,
}

/// Names in a client's handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The server name that it asked for, in lower case.
    pub server_name: Option<Box<str>>,
    /// The names in its certificate, in lower case.
    pub client_names: Vec<String>,
}

/// Most names of a certificate that are kept with a session.
const KEPT_NAMES_MAX: usize = 32;
/// Most octets of a kept name: those of a domain name (RFC 1035 §2.3.4).
const KEPT_OCTETS_MAX: usize = 255;

impl Identity {
    /// Its names as they are kept with a session, which bounds their memory.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.server_name = self.server_name.filter(|name| name.len() <= KEPT_OCTETS_MAX);
        self.client_names.retain(|name| name.len() <= KEPT_OCTETS_MAX);
        self.client_names.truncate(KEPT_NAMES_MAX);
        self
    }

    /// Appends the names for the next engine.
    pub fn write(&self, out: &mut Vec<u8>) {
        put_run(out, self.server_name.as_deref().unwrap_or_default().as_bytes());
        out.push(u8::try_from(self.client_names.len()).unwrap_or(u8::MAX));
        self.client_names.iter().for_each(|name| put_run(out, name.as_bytes()));
    }

    /// Decodes the octets of [`Identity::write`]. `None`: they are invalid.
    #[must_use]
    pub fn read(octets: &mut Octets<'_>) -> Option<Self> {
        let name =
            |octets: &mut Octets<'_>| str::from_utf8(octets.run(KEPT_OCTETS_MAX)?).ok().map(str::to_owned);
        let server_name = name(octets)?;
        let count = usize::from(octets.u8()?);
        let client_names: Option<Vec<_>> =
            (0..count).map(|_| name(octets)).take(KEPT_NAMES_MAX + 1).collect();
        let client_names = client_names.filter(|names| names.len() <= KEPT_NAMES_MAX)?;
        Some(Self { server_name: (!server_name.is_empty()).then(|| server_name.into()), client_names })
    }
}

/// The access lists.
#[derive(Debug)]
pub struct Access {
    everywhere: Lists,
    listeners: Box<[(SocketAddr, Lists)]>,
    /// `xdp.deny`: these clients get no response.
    unheard: PrefixMap,
    is_silent: bool,
}

#[derive(Debug)]
struct Lists {
    /// Empty: every client may ask.
    allow: PrefixMap,
    deny: PrefixMap,
    /// Empty: any server name is allowed, and none too.
    server_names: Box<[Box<str>]>,
    client_names: Box<[Box<str>]>,
}

impl Access {
    /// The lists of the config. `None`: every client may ask.
    #[must_use]
    pub fn new(access: &config::Access, unheard: &[IpNet]) -> Option<Self> {
        let everywhere = Lists::new(&access.allow, &access.deny, &access.server_names, &access.client_names);
        let listeners: Box<[_]> = access
            .listener
            .iter()
            .map(|own| (own.address, Lists::new(&own.allow, &own.deny, &own.server_names, &own.client_names)))
            .collect();
        let is_empty = everywhere.is_empty() && listeners.is_empty() && unheard.is_empty();
        let is_silent = access.denied == Denied::Close;
        (!is_empty).then(|| Self { everywhere, listeners, unheard: set(unheard), is_silent })
    }

    /// Whether a client with this address may not ask at `listener`.
    #[must_use]
    pub fn denies_address(&self, listener: SocketAddr, client: IpAddr) -> Option<Denial> {
        if self.unheard.find(client).is_some() {
            return Some(Denial { reason: AccessReason::Denied, is_silent: true });
        }
        let reason = self.lists(listener).find_map(|lists| lists.denies_address(client))?;
        Some(Denial { reason, is_silent: self.is_silent })
    }

    /// Whether a client with these names in its handshake may not ask at `listener`.
    #[must_use]
    pub fn denies_names(&self, listener: SocketAddr, identity: &Identity) -> Option<Denial> {
        let reason = self.lists(listener).find_map(|lists| lists.denies_names(identity))?;
        Some(Denial { reason, is_silent: self.is_silent })
    }

    /// The lists for a listener.
    fn lists(&self, listener: SocketAddr) -> impl Iterator<Item = &Lists> {
        let own = self.listeners.iter().filter(move |(address, _)| *address == listener);
        std::iter::once(&self.everywhere).chain(own.map(|(_, lists)| lists))
    }
}

impl Lists {
    fn new(allow: &[IpNet], deny: &[IpNet], server_names: &[String], client_names: &[String]) -> Self {
        let names = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase().into()).collect();
        Self {
            allow: set(allow),
            deny: set(deny),
            server_names: names(server_names),
            client_names: names(client_names),
        }
    }

    fn is_empty(&self) -> bool {
        let has_names = !self.server_names.is_empty() || !self.client_names.is_empty();
        self.allow.is_empty() && self.deny.is_empty() && !has_names
    }

    fn denies_address(&self, client: IpAddr) -> Option<AccessReason> {
        if self.deny.find(client).is_some() {
            return Some(AccessReason::Denied);
        }
        let is_allowed = self.allow.is_empty() || self.allow.find(client).is_some();
        (!is_allowed).then_some(AccessReason::NotAllowed)
    }

    fn denies_names(&self, identity: &Identity) -> Option<AccessReason> {
        let has = |names: &[Box<str>], shown: &str| names.iter().any(|name| fits(name, shown));
        if !self.server_names.is_empty()
            && !identity.server_name.as_ref().is_some_and(|shown| has(&self.server_names, shown))
        {
            return Some(AccessReason::ServerName);
        }
        let is_known = self.client_names.is_empty()
            || identity.client_names.iter().any(|shown| has(&self.client_names, shown));
        (!is_known).then_some(AccessReason::ClientName)
    }
}

pub(super) fn set(prefixes: &[IpNet]) -> PrefixMap {
    PrefixMap::new(prefixes.iter().map(|prefix| (*prefix, 0)))
}

/// Whether a name of a list matches `shown`; a leading `*` stands for one label, as in certificates (RFC 6125 §6.4.3).
pub(super) fn fits(name: &str, shown: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => {
            shown.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
        }
        None => name == shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the names that are kept with a session, and that move with it, are few and short. Method: a certificate with more names
    /// than are kept, and longer ones; the encoding of the rest, cut at each octet, and one of more names.
    #[test]
    fn few_names_are_kept() {
        let long = "x".repeat(KEPT_OCTETS_MAX + 1);
        let names = (0..100).map(|number| format!("n{number}.example"));
        let client_names: Vec<_> = std::iter::once(long.clone()).chain(names).collect();
        let shown = Identity { server_name: Some(long.into()), client_names: client_names.clone() };
        let kept = shown.clone().kept();
        assert_eq!(kept.server_name, None);
        assert_eq!(kept.client_names, client_names[1..=KEPT_NAMES_MAX]);
        let mut form = Vec::new();
        kept.write(&mut form);
        assert_eq!(Identity::read(&mut Octets::new(&form)), Some(kept));
        for length in 0..form.len() {
            assert_eq!(Identity::read(&mut Octets::new(&form[..length])), None, "{length}");
        }
        let mut form = Vec::new();
        Identity { client_names: vec![String::new(); 100], ..Identity::default() }.write(&mut form);
        assert_eq!(Identity::read(&mut Octets::new(&form)), None);
    }

    const EVERYWHERE: &str = "127.0.0.1:853";
    const OWN: &str = "192.0.2.1:853";

    /// `[access]` of a config with these lines.
    fn section(text: &str) -> config::Access {
        let text = format!(
            "[tls]\nclient_ca = \"ca.pem\"\n[listen]\ndot = [\"127.0.0.1:853\", \"{OWN}\"]\n[access]\n{text}"
        );
        config::parse(&text, "f").expect("a sound config").access
    }

    fn access(text: &str, unheard: &[&str]) -> Option<Access> {
        let config = section(text);
        let unheard: Vec<IpNet> = unheard.iter().map(|prefix| prefix.parse().unwrap()).collect();
        Access::new(&config, &unheard)
    }

    fn verdict(access: &Access, listener: &str, client: &str) -> Option<Denial> {
        access.denies_address(listener.parse().unwrap(), client.parse().unwrap())
    }

    /// Goal: an address is judged by every list for its listener: deny has priority over allow, and an allow list
    /// excludes all others. Method: lists of both kinds, for all listeners and for one.
    #[test]
    fn an_address_meets_each_list() {
        let lists = "allow = [\"10.0.0.0/8\", \"2001:db8::/32\"]\ndeny = [\"10.1.0.0/16\"]\n\
                     [[access.listener]]\naddress = \"192.0.2.1:853\"\nallow = [\"10.2.0.0/16\"]\n";
        let access = access(lists, &[]).unwrap();
        let of = |listener, client| verdict(&access, listener, client).map(|denial| denial.reason);
        assert_eq!(of(EVERYWHERE, "10.2.3.4"), None);
        assert_eq!(of(EVERYWHERE, "::ffff:10.2.3.4"), None);
        assert_eq!(of(EVERYWHERE, "2001:db8:ffff::1"), None);
        assert_eq!(of(EVERYWHERE, "10.1.2.3"), Some(AccessReason::Denied));
        assert_eq!(of(EVERYWHERE, "11.0.0.0"), Some(AccessReason::NotAllowed));
        assert_eq!(of(OWN, "10.2.3.4"), None);
        assert_eq!(of(OWN, "10.3.3.4"), Some(AccessReason::NotAllowed));
    }

    /// Goal: `xdp.deny` applies without XDP, and silently; a config without lists judges no client.
    #[test]
    fn what_xdp_denies_is_not_heard() {
        let access = access("denied = \"refuse\"\ndeny = [\"192.0.2.9/32\"]", &["198.51.100.0/24"]).unwrap();
        let silent = |client| verdict(&access, EVERYWHERE, client).map(|denial| denial.is_silent);
        assert_eq!(
            (silent("198.51.100.7"), silent("192.0.2.9"), silent("192.0.2.8")),
            (Some(true), Some(false), None)
        );
        assert!(super::Access::new(&config::Access::default(), &[]).is_none());
    }

    /// Goal: names are compared whole, a wildcard stands for one label, and a client without a name is not let in.
    ///
    #[test]
    fn names_are_compared_whole() {
        let access = access(
            "server_names = [\"dns.example\", \"*.DOT.example\"]\nclient_names = [\"phone.example\"]",
            &[],
        );
        let access = access.unwrap();
        let of = |server: Option<&str>, clients: &[&str]| {
            let client_names = clients.iter().map(|name| (*name).to_owned()).collect();
            let identity = Identity { server_name: server.map(Into::into), client_names };
            access.denies_names(EVERYWHERE.parse().unwrap(), &identity).map(|denial| denial.reason)
        };
        assert_eq!(of(Some("dns.example"), &["other.example", "phone.example"]), None);
        assert_eq!(of(Some("anna.dot.example"), &["phone.example"]), None);
        for server in [
            None,
            Some("x.dns.example"),
            Some("a.anna.dot.example"),
            Some("dot.example"),
            Some(".dot.example"),
        ] {
            assert_eq!(of(server, &["phone.example"]), Some(AccessReason::ServerName), "{server:?}");
        }
        assert_eq!(of(Some("dns.example"), &[]), Some(AccessReason::ClientName));
        assert_eq!(of(Some("dns.example"), &["xphone.example"]), Some(AccessReason::ClientName));
    }
}

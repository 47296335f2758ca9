//! Chooses the tenant of a client: by the listener at which it came in, its address, and the names in its handshake.
//!
//! Before: a connection, a datagram or a handshake. After: the number of a tenant, by which `session` chooses backends, a cache and
//! policy zones.
//! Holds: the `[[tenant]]` list; counts of what each asked.
//! Never: has a side effect, except counting: the same client has the same tenant until a reload.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::{IpAddr, SocketAddr},
};

use super::{
    Identity, PrefixMap,
    access::{fits, set},
    hits::Hits,
};
use crate::config::{self, QueriesBy};

/// The number of a tenant; 0: no tenant's client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TenantId(u8);

impl TenantId {
    /// Clients that no tenant's conditions fit.
    pub const NOBODY: Self = Self(0);

    /// Its place in the config; `None`: no tenant.
    #[must_use]
    #[inline]
    pub fn place(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }

    /// The tenant at this place of the config.
    #[must_use]
    pub fn at(place: usize) -> Self {
        Self(u8::try_from(place + 1).unwrap_or_default())
    }
}

/// A client as its tenant sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its tenant.
    pub tenant: TenantId,
    /// The tenant does not let it ask from its address.
    pub is_refused: bool,
    /// The tenant limits each name for itself, in place of the rate of the client's address.
    pub is_by_name: bool,
    /// Its row in the table of the tenants' rates: equal for all who share a rate.
    pub row: u64,
}

/// The tenants of a config.
#[derive(Debug)]
pub struct Tenants(Box<[Tenant]>);

#[derive(Debug)]
struct Tenant {
    name: Box<str>,
    listeners: Box<[SocketAddr]>,
    server_names: Box<[Box<str>]>,
    client_names: Box<[Box<str>]>,
    prefixes: PrefixMap,
    allow: PrefixMap,
    queries_by: QueriesBy,
    queries: Hits,
}

impl Tenants {
    /// The tenants of the config; `None`: none.
    #[must_use]
    pub fn new(tenants: &[config::Tenant]) -> Option<Self> {
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase().into()).collect();
        let tenant = |tenant: &config::Tenant| Tenant {
            name: tenant.name.as_str().into(),
            listeners: tenant.listeners.as_slice().into(),
            server_names: lower(&tenant.server_names),
            client_names: lower(&tenant.client_names),
            prefixes: set(&tenant.prefixes),
            allow: set(&tenant.allow),
            queries_by: tenant.queries_by,
            queries: Hits::default(),
        };
        (!tenants.is_empty()).then(|| Self(tenants.iter().map(tenant).collect()))
    }

    /// The first tenant whose conditions all fit. A client without a handshake has no names.
    #[must_use]
    pub fn choose(&self, listener: Option<SocketAddr>, client: IpAddr, names: Option<&Identity>) -> Member {
        let mut each = self.0.iter().enumerate();
        match each.find(|(_, tenant)| tenant.has(listener, client, names)) {
            Some((place, tenant)) => Member {
                tenant: TenantId::at(place),
                is_refused: !tenant.allow.is_empty() && tenant.allow.find(client).is_none(),
                is_by_name: tenant.queries_by == QueriesBy::Name,
                row: tenant.row(names),
            },
            None => Member::default(),
        }
    }

    /// Whether a tenant is chosen by names.
    #[must_use]
    pub fn are_by_names(&self) -> bool {
        self.0.iter().any(|tenant| !tenant.server_names.is_empty() || !tenant.client_names.is_empty())
    }

    /// Counts a message of a tenant's client.
    pub fn note(&self, tenant: TenantId) {
        if let Some(tenant) = tenant.place().and_then(|place| self.0.get(place)) {
            tenant.queries.add();
        }
    }

    /// The name of a tenant.
    #[must_use]
    pub fn name(&self, tenant: TenantId) -> Option<&str> {
        Some(&self.0.get(tenant.place()?)?.name)
    }

    /// Each name, and how many messages its clients sent.
    pub fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|tenant| (&*tenant.name, tenant.queries.count()))
    }
}

impl Tenant {
    /// The same for two clients that share a rate, also after a reload that moves the tenant in the list.
    fn row(&self, names: Option<&Identity>) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        if self.queries_by == QueriesBy::Name {
            names.and_then(|names| self.shown(names)).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The name by which a client is this tenant's: of its certificate, or else the server name.
    fn shown<'n>(&self, names: &'n Identity) -> Option<&'n str> {
        let is_ours = |shown: &&String| self.client_names.iter().any(|name| fits(name, shown));
        let certified = names.client_names.iter().find(is_ours).map(String::as_str);
        certified.or(names.server_name.as_deref().filter(|_| self.client_names.is_empty()))
    }

    fn has(&self, listener: Option<SocketAddr>, client: IpAddr, names: Option<&Identity>) -> bool {
        let at_listener = || listener.is_some_and(|listener| self.listeners.contains(&listener));
        let by_server = |names: &Identity| {
            let shown = names.server_name.as_deref();
            shown.is_some_and(|shown| self.server_names.iter().any(|name| fits(name, shown)))
        };
        let by_client = |names: &Identity| {
            names.client_names.iter().any(|shown| self.client_names.iter().any(|name| fits(name, shown)))
        };
        (self.listeners.is_empty() || at_listener())
            && (self.prefixes.is_empty() || self.prefixes.find(client).is_some())
            && (self.server_names.is_empty() || names.is_some_and(by_server))
            && (self.client_names.is_empty() || names.is_some_and(by_client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the first tenant counts whose conditions all fit, each kind of condition alone and together; a client that shows nothing
    /// is nobody's.
    #[test]
    fn the_first_tenant_that_fits_counts() {
        let text = "[tls]\nclient_ca = \"ca.pem\"\n[listen]\ndot = [\"127.0.0.1:853\", \"192.0.2.1:853\"]\n\
                    [[tenant]]\nname = \"anna\"\nclient_names = [\"anna.example\"]\nprefixes = [\"10.0.0.0/8\"]\n\
                    [[tenant]]\nname = \"family\"\nserver_names = [\"*.Dot.example\"]\n\
                    [[tenant]]\nname = \"guests\"\nlisteners = [\"192.0.2.1:853\"]\n\
                    [[tenant]]\nname = \"office\"\nprefixes = [\"10.1.0.0/16\", \"2001:db8::/32\"]\n";
        let tenants = Tenants::new(&config::parse(text, "f").unwrap().tenant).unwrap();
        let of = |listener: &str, client: &str, server: Option<&str>, names: &[&str]| {
            let client_names = names.iter().map(|name| (*name).to_owned()).collect();
            let identity = Identity { server_name: server.map(Into::into), client_names };
            let member = tenants.choose(listener.parse().ok(), client.parse().unwrap(), Some(&identity));
            tenants.name(member.tenant).unwrap_or_default().to_owned()
        };
        let (one, two) = ("127.0.0.1:853", "192.0.2.1:853");
        assert_eq!(of(one, "10.1.2.3", Some("x.dot.example"), &["anna.example"]), "anna");
        assert_eq!(of(one, "11.1.2.3", Some("x.dot.example"), &["anna.example"]), "family");
        assert_eq!(of(two, "10.1.2.3", None, &["bert.example"]), "guests");
        assert_eq!(of(one, "::ffff:10.1.2.3", Some("dot.example"), &[]), "office");
        assert_eq!(of(one, "192.0.2.9", None, &[]), "");
        assert_eq!(tenants.choose(None, "2001:db8::1".parse().unwrap(), None).tenant, TenantId::at(3));
        tenants.note(TenantId::at(3));
        tenants.note(TenantId::NOBODY);
        assert_eq!(tenants.counts().map(|(_, count)| count).collect::<Vec<_>>(), [0, 0, 0, 1]);
    }

    /// Goal: clients behind one address that a tenant knows by name have a rate each; clients of one tenant without that share one;
    /// and a client outside `allow` is refused.
    #[test]
    fn names_have_rates_and_prefixes_may_ask() {
        let text = "[tls]\nclient_ca = \"ca.pem\"\n\
                    [[tenant]]\nname = \"staff\"\nclient_names = [\"*.staff.example\"]\nqueries_per_second = 9\nqueries_by = \"name\"\n\
                    [[tenant]]\nname = \"home\"\nserver_names = [\"home.example\"]\nallow = [\"10.0.0.0/8\"]\n";
        let tenants = Tenants::new(&config::parse(text, "f").unwrap().tenant).unwrap();
        let of = |client: &str, server: Option<&str>, names: &[&str]| {
            let client_names = names.iter().map(|name| (*name).to_owned()).collect();
            let identity = Identity { server_name: server.map(Into::into), client_names };
            tenants.choose(None, client.parse().unwrap(), Some(&identity))
        };
        let anna = of("192.0.2.1", None, &["x.example", "anna.staff.example"]);
        let bert = of("192.0.2.1", None, &["bert.staff.example"]);
        assert_eq!(anna, of("192.0.2.7", Some("y.example"), &["anna.staff.example", "z.example"]));
        assert_eq!((anna.tenant, anna.is_by_name), (bert.tenant, true));
        assert_ne!(anna.row, bert.row);
        let (inside, outside) =
            (of("10.0.0.1", Some("home.example"), &[]), of("192.0.2.1", Some("home.example"), &[]));
        assert_eq!((inside.row, inside.is_by_name), (outside.row, false));
        assert_eq!([inside.is_refused, outside.is_refused], [false, true]);
    }
}

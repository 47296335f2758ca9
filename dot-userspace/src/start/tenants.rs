//! The tenants of a config, as every worker has them.
//!
//! Before: a checked config and the backends. After: each worker knows whose clients are whose, and which backends are theirs.
//! Holds: the list that runs, so that a reload that changes no tenant keeps counts, connections and caches.
//! Never: gives a tenant's backend to a client of no tenant.

use std::sync::Arc;

use dot_common::rate::Rate;

use crate::{
    backend::BackendConfig,
    config::{self, Config},
    control::TenantStatus,
    policy::Tenants,
    session::Rates,
    worker::tenants::{Own, Plan},
};

/// The tenants that run. Cloning shares them.
#[derive(Clone, Default)]
pub(super) struct Running {
    config: Vec<config::Tenant>,
    tenants: Option<Arc<Tenants>>,
    rates: Arc<Rates>,
}

impl Running {
    /// The tenants of a config.
    pub(super) fn of(config: &Config) -> Self {
        let mut running = Self::default();
        running.renew(config);
        running
    }

    /// The tenants of a config; the list stays if it is the same.
    pub(super) fn renew(&mut self, config: &Config) {
        if self.config != config.tenant {
            self.config.clone_from(&config.tenant);
            self.tenants = Tenants::new(&config.tenant).map(Arc::new);
        }
    }

    /// What workers do, and the backends of clients that have no tenant with backends of its own.
    pub(super) fn plan(&self, backends: Vec<BackendConfig>) -> (Plan, Vec<BackendConfig>) {
        let own = |tenant: &config::Tenant| Own {
            name: tenant.name.as_str().into(),
            backends: (!tenant.backends.is_empty())
                .then(|| backends.iter().filter(|backend| is_named(tenant, backend)).cloned().collect()),
            client_subnet: tenant.client_subnet,
            rate: Rate::new(tenant.queries_per_second, tenant.queries_burst),
        };
        let own: Vec<_> = self.config.iter().map(own).collect();
        let plan = Plan { tenants: self.tenants.clone(), rates: Arc::clone(&self.rates), own };
        let is_free = |backend: &BackendConfig| !self.config.iter().any(|tenant| is_named(tenant, backend));
        (plan, backends.into_iter().filter(is_free).collect())
    }

    /// How many pools of ports and connections a worker has: one for each backend, and one more for each tenant that names it.
    pub(super) fn count_backends(&self, backends: &[BackendConfig]) -> usize {
        let of_tenants =
            self.config.iter().map(|tenant| backends.iter().filter(|one| is_named(tenant, one)).count());
        backends.len() + of_tenants.sum::<usize>()
    }

    /// Whether there is a tenant of this name; `None` is no tenant.
    ///
    /// # Errors
    /// There is none; the error lists the names.
    pub(super) fn has(&self, tenant: Option<&str>) -> Result<(), String> {
        let mut names = self.config.iter().map(|tenant| tenant.name.as_str());
        match tenant {
            Some(asked) if !names.clone().any(|name| name == asked) => {
                let names = names.by_ref().collect::<Vec<_>>().join(", ");
                Err(format!("there is no tenant \"{asked}\"; the tenants are: {names}"))
            }
            _ => Ok(()),
        }
    }

    /// The caches of a worker: each tenant's, and that of all other clients.
    pub(super) fn caches(&self) -> u32 {
        u32::try_from(self.config.len() + 1).unwrap_or(u32::MAX)
    }

    /// Each tenant, as an operator sees it.
    pub(super) fn statuses(&self) -> Vec<TenantStatus> {
        let counts = self.tenants.iter().flat_map(|tenants| tenants.counts());
        let status = |(tenant, (name, queries)): (&config::Tenant, (&str, u64))| TenantStatus {
            name: name.to_owned(),
            queries,
            backends: tenant.backends.clone(),
        };
        self.config.iter().zip(counts).map(status).collect()
    }
}

/// Whether a tenant names this backend, the host whose address it is, or the one that it stands in for in clear.
fn is_named(tenant: &config::Tenant, backend: &BackendConfig) -> bool {
    let name = backend.name.strip_suffix(config::Backend::IN_CLEAR).unwrap_or(&backend.name);
    let whole = name.rsplit_once('/').map_or(name, |(whole, _)| whole);
    tenant.backends.iter().any(|named| named == name || named == whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::parse,
        start::{dialer, plan, tls_history::TlsHistory},
    };

    /// Goal: a tenant's backends are its own, by name, by host name and in clear; one whose backends have no address yet has none, and
    /// not those of other clients; the same tenants are not made anew. Method: a backend with an address, one with a host name that is
    /// not known, and one as it is served when the name is known.
    #[test]
    fn a_tenant_without_addresses_asks_nobody() {
        let tenant = |backend: &str| {
            format!("[[tenant]]\nname = \"t\"\nprefixes = [\"10.0.0.0/8\"]\nbackends = [\"{backend}\"]\n")
        };
        let text = "[balance]\nbootstrap = [\"127.0.0.1:9\"]\n[[backend]]\nname = \"plain\"\naddress = \"127.0.0.1:5300\"\n\
                    [[backend]]\nname = \"far\"\naddress = \"ns.example:53\"\nallow_cleartext = true\n";
        let backends = |config: &Config| {
            plan::backends(config, None, dialer::all(config, &TlsHistory::default()).unwrap(), &[])
        };
        let config = parse(&(text.to_owned() + &tenant("far")), "f").unwrap();
        let mut running = Running::of(&config);
        let names =
            |backends: &[BackendConfig]| backends.iter().map(|one| one.name.to_string()).collect::<Vec<_>>();
        let (plan, rest) = running.plan(backends(&config));
        assert_eq!(
            (plan.own[0].backends.as_deref().map(names), names(&rest)),
            (Some(vec![]), vec!["plain".into()])
        );
        let tenants = plan.tenants.unwrap();
        running.renew(&config);
        assert!(Arc::ptr_eq(&tenants, &running.plan(vec![]).0.tenants.unwrap()));
        let mut served = backends(&config);
        served.push(BackendConfig { name: "far/192.0.2.1".into(), ..served[0].clone() });
        served.push(BackendConfig { name: "far:clear".into(), ..served[0].clone() });
        let (plan, rest) = running.plan(served);
        let own = plan.own[0].backends.as_deref().map(names);
        assert_eq!(
            (own, names(&rest)),
            (Some(vec!["far/192.0.2.1".into(), "far:clear".into()]), vec!["plain".into()])
        );
        assert_eq!(running.caches(), 2);
    }
}

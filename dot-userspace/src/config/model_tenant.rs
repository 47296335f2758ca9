//! The shape of `[[tenant]]` in `dotd.toml`: groups of clients that have backends, a cache and a rate of their own.
//!
//! Before: `config::load` has the file's text. After: `config::consistency_tenant`, then the `policy` module chooses.
//! Never: chooses a tenant for a client.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{ClientSubnet, limit};

/// One `[[tenant]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its name, in `dotd status` and in the list of a policy zone.
    pub name: String,
    /// Listen addresses at which its clients come in; empty: any.
    #[serde(default)]
    pub listeners: Vec<SocketAddr>,
    /// Names under which they ask for dotd (SNI); empty: any, and none.
    #[serde(default)]
    pub server_names: Vec<String>,
    /// Names (SAN) in their certificates; empty: any, and no certificate.
    #[serde(default)]
    pub client_names: Vec<String>,
    /// Prefixes that they come from; empty: anywhere.
    #[serde(default)]
    pub prefixes: Vec<IpNet>,
    /// Of those clients, the ones that may ask; empty: all.
    #[serde(default)]
    pub allow: Vec<IpNet>,
    /// Names of the backends that it asks; clients of other tenants do not ask them. Empty: the backends that no tenant names.
    #[serde(default)]
    pub backends: Vec<String>,
    /// What its backends learn of clients; absent: as `dns.client_subnet` says.
    #[serde(default)]
    pub client_subnet: Option<ClientSubnet>,
    /// Messages a second; 0: no limit.
    #[serde(default)]
    pub queries_per_second: u32,
    /// Messages at once.
    #[serde(default = "Tenant::default_burst")]
    pub queries_burst: u32,
    /// Whether the tenant has one rate, or each name that its clients show.
    #[serde(default)]
    pub queries_by: QueriesBy,
}

/// `tenant.queries_by`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QueriesBy {
    /// One rate for all clients of the tenant together.
    #[default]
    Tenant,
    /// A rate for each name of a certificate, or else for each server name, in place of `session.queries_per_second`.
    Name,
}

impl Tenant {
    fn default_burst() -> u32 {
        limit::QUERIES_BURST.default
    }

    /// Whether its clients are recognised by names in their handshake.
    #[must_use]
    pub fn is_by_names(&self) -> bool {
        !self.server_names.is_empty() || !self.client_names.is_empty()
    }
}

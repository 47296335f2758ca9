//! `[[tenant]]`: tenants without a name or a client, backends that are not there, and names that no client can show.
//!
//! Before: types and ranges fit. After: `policy` can choose a tenant, and each has a backend.
//! Never: asks the system.

use std::{collections::HashSet, net::SocketAddr};

use super::{Config, QueriesBy, Tenant, check::Check, limit};

/// Notes each mistake in `[[tenant]]`, and in what refers to tenants.
pub(super) fn check(check: &mut Check<'_, '_>, config: &Config) {
    let tenants = &config.tenant;
    if tenants.len() > limit::TENANTS_MAX {
        let message =
            format!("{} tenants are more than {}, the most permitted", tenants.len(), limit::TENANTS_MAX);
        check.note("tenant", message);
    }
    let mut seen = HashSet::new();
    for (index, tenant) in tenants.iter().enumerate() {
        let at = |key: &str| format!("tenant.{index}.{key}");
        let name = &tenant.name;
        if !super::names::is_name(name) || name.is_empty() {
            let max = limit::BACKEND_NAME_OCTETS_MAX;
            let message = format!(
                "\"{}\" is no name: 1 to {max} of a to z, A to Z, 0 to 9, - _ .",
                name.escape_debug()
            );
            check.note(&at("name"), message);
        } else if !seen.insert(name) {
            check.note(&at("name"), format!("\"{name}\" is another tenant's name; choose one for each"));
        }
        clients(check, config, index, tenant);
        backends(check, config, index, tenant);
        rate(check, index, tenant);
    }
    if !tenants.is_empty()
        && !config.backend.is_empty()
        && config.backend.iter().all(|one| is_taken(config, &one.called()))
    {
        let message =
            "each backend is named by a tenant, so that clients of no tenant have none; leave one to them";
        check.note("tenant.0.backends", message);
    }
    for (index, zone) in config.policy.zone.iter().enumerate() {
        for (number, name) in zone.tenants.iter().enumerate() {
            if !tenants.iter().any(|tenant| tenant.name == *name) {
                let path = format!("policy.zone.{index}.tenants.{number}");
                check.note(&path, format!("\"{}\" is no tenant's name", name.escape_debug()));
            }
        }
    }
}

/// Whether a tenant names this backend.
fn is_taken(config: &Config, backend: &str) -> bool {
    config.tenant.iter().any(|tenant| tenant.backends.iter().any(|name| name == backend))
}

/// Its clients.
fn clients(check: &mut Check<'_, '_>, config: &Config, index: usize, tenant: &Tenant) {
    let path = format!("tenant.{index}");
    let at = |key: &str| format!("{path}.{key}");
    if tenant.listeners.is_empty() && tenant.prefixes.is_empty() && !tenant.is_by_names() {
        let message = "has no client: write `listeners`, `server_names`, `client_names` or `prefixes`";
        check.note(&path, message);
    }
    let has = |listeners: &[SocketAddr], address: &SocketAddr| listeners.contains(address);
    for (number, address) in tenant.listeners.iter().enumerate() {
        let path = at(&format!("listeners.{number}"));
        if !has(&config.listen.dot, address) && !has(&config.listen.do53, address) {
            check.note(&path, format!("{address} is no address of listen.dot or listen.do53"));
        } else if tenant.is_by_names() && !has(&config.listen.dot, address) {
            check
                .note(&path, format!("clients of listen.do53 show no names, and none comes in at {address}"));
        }
    }
    check.prefixes(&at("prefixes"), &tenant.prefixes);
    check.prefixes(&at("allow"), &tenant.allow);
    super::consistency_access::names(check, &path, &tenant.server_names, &tenant.client_names);
    super::consistency_access::client_names(check, config, &path, &tenant.client_names);
}

/// How its messages are limited.
fn rate(check: &mut Check<'_, '_>, index: usize, tenant: &Tenant) {
    let path = format!("tenant.{index}.queries_burst");
    check.burst(&path, tenant.queries_per_second, tenant.queries_burst);
    if tenant.queries_by != QueriesBy::Name {
        return;
    }
    let path = format!("tenant.{index}.queries_by");
    if tenant.queries_per_second == 0 {
        check.note(&path, "limits nothing without `queries_per_second`; set that, or remove this key");
    }
    let is_open = tenant.server_names.iter().any(|name| name.starts_with("*."));
    if tenant.client_names.is_empty() && (tenant.server_names.is_empty() || is_open) {
        let message = "a client can show any name there, and would have a new rate with each; use `client_names`, or `server_names` \
                       without `*`";
        check.note(&path, message);
    }
}

/// The backends that it asks.
fn backends(check: &mut Check<'_, '_>, config: &Config, index: usize, tenant: &Tenant) {
    let mut seen = HashSet::new();
    if tenant.client_subnet.is_some() && tenant.backends.is_empty() {
        let message = "tells the tenant's own backends about clients, and it has none; set `backends`, or remove this key";
        check.note(&format!("tenant.{index}.client_subnet"), message);
    }
    for (number, name) in tenant.backends.iter().enumerate() {
        let path = format!("tenant.{index}.backends.{number}");
        if !config.backend.iter().any(|backend| backend.called() == *name) {
            check.note(
                &path,
                format!("\"{}\" is no backend; `name` or `address` of a [[backend]]", name.escape_debug()),
            );
        } else if !seen.insert(name) {
            check.note(&path, format!("\"{name}\" is listed twice; remove one"));
        }
    }
}

//! The tenants of a worker's settings.
//!
//! Before: the control thread has read a config. After: `tenancy` starts what each tenant has of its own.
//! Never: holds a connection or a cache.

use std::sync::Arc;

use dot_common::rate::Rate;

use crate::{backend::BackendConfig, config::ClientSubnet, policy::Tenants, session::Rates};

/// The tenants.
#[derive(Clone, Default)]
pub struct Plan {
    /// The clients of each; `None`: there are no tenants.
    pub tenants: Option<Arc<Tenants>>,
    /// Their rates, over all workers.
    pub rates: Arc<Rates>,
    /// In their order.
    pub own: Vec<Own>,
}

/// What one tenant has.
#[derive(Clone, Debug)]
pub struct Own {
    /// Its name.
    pub name: Box<str>,
    /// Its backends, of which none may have an address now; `None`: those that no tenant names.
    pub backends: Option<Vec<BackendConfig>>,
    /// What they learn of clients; `None`: as for all others.
    pub client_subnet: Option<ClientSubnet>,
    /// Messages of all its clients.
    pub rate: Rate,
}

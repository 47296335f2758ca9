//! The designation that a worker publishes of this resolver: the name and addresses of a certificate (RFC 9462).
//!
//! Before: `[discovery]`, the listen addresses and the certificates. After: `session` answers with it.
//! Never: names an address that no certificate covers.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    config::Discovery,
    dns::Designation,
    tls::{Certified, Serving},
};

/// The designation, by the certificates.
pub(super) fn designation(
    (discovery, listeners): &(Discovery, Vec<SocketAddr>),
    serving: &Serving,
) -> Option<Arc<Designation>> {
    let designated = Certified::designated(&serving.certified, &discovery.name);
    let (name, certified) = designated.filter(|_| discovery.ddr)?;
    Designation::new(name, &certified.addresses, listeners).map(Arc::new)
}

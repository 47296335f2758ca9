//! Joins `backend` and `tls`, which ignore each other: what secures connections to backends.
//!
//! Before: a checked config. After: each backend with `transport = "tls"` has what recognises it.
//! Never: opens a connection.

use std::sync::Arc;

use tokio::net::TcpStream;

use crate::{
    backend::{Connecting, Connector, Tls, Wire},
    config::Config,
    tls::{BackendTls, BackendTlsStream},
};

struct Dialer(BackendTls);

impl Connector for Dialer {
    fn connect(&self, tcp: TcpStream) -> Connecting<'_> {
        Box::pin(async move {
            let stream = self.0.connect(tcp).await?;
            Ok(Box::new(stream) as Box<dyn Wire>)
        })
    }

    fn fingerprint(&self) -> u64 {
        self.0.fingerprint()
    }
}

impl Wire for BackendTlsStream {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// The TLS of each backend, in the order of the config.
///
/// # Errors
/// One line: what of which backend cannot be had.
pub(super) fn all(config: &Config) -> anyhow::Result<Vec<Option<Tls>>> {
    let tls = config.backend.iter().map(|backend| {
        let tls = BackendTls::of(backend).map_err(anyhow::Error::msg)?;
        Ok(tls.map(|tls| Tls { connector: Arc::new(Dialer(tls)), on_failure: backend.on_tls_failure }))
    });
    tls.collect()
}

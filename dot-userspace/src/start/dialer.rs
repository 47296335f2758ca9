//! Joins `backend` and `tls`, which do not depend on each other: the TLS of connections to backends.
//!
//! Before: a checked config. After: each backend with `transport = "tls"` has its verification rules. Its history
//! gets its window when the config is served (`tls_history`).
//! Never: opens a connection.

use std::{io, sync::Arc};

use tokio::net::TcpStream;

use super::tls_history::TlsHistory;
use crate::{
    backend::{Connecting, Connector, Tls, Wire},
    config::{BackendAddress, Config, TlsVersion},
    ledger::TlsFault,
    tls::{self, BackendTls, BackendTlsStream},
};

struct Dialer(BackendTls);

impl Connector for Dialer {
    fn connect(&self, tcp: TcpStream) -> Connecting<'_> {
        Box::pin(async move {
            let stream = self.0.connect(tcp).await?;
            Ok(Box::new(stream) as Box<dyn Wire>)
        })
    }

    fn fault(&self, error: &io::Error) -> TlsFault {
        tls::fault_of(error)
    }

    fn fingerprint(&self) -> u64 {
        self.0.fingerprint()
    }
}

impl Wire for BackendTlsStream {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }

    fn shown(&self) -> (TlsVersion, Option<String>) {
        tls::shown_by(self)
    }
}

/// The TLS of each backend, in the order of the config, with its memory in `history`.
///
/// # Errors
/// One line: which file or key of which backend cannot be used.
pub(super) fn all(config: &Config, history: &TlsHistory) -> anyhow::Result<Vec<Option<Tls>>> {
    let tls = config.backend.iter().map(|backend| {
        let tls = BackendTls::of(backend).map_err(anyhow::Error::msg)?;
        let (Some(tls), BackendAddress::Socket(address)) = (tls, &backend.address) else { return Ok(None) };
        let address = *address;
        let memory = history.memory_of(&backend.called(), address, &backend.server_name);
        Ok(Some(Tls { connector: Arc::new(Dialer(tls)), on_failure: backend.on_tls_failure, memory }))
    });
    tls.collect()
}

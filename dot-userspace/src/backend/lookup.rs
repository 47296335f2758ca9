//! Asks resolvers for the addresses of a name: in their order, over UDP, and over TCP where a datagram is too short.
//!
//! Before: `start` has names of backends, or `acme` the name of an authority. After: the addresses of one family, or the reason why the
//! last resolver gave none.
//! Never: asks for a search list, or remembers an answer.
//!
//! Source: RFC 1035 §7.1, RFC 7766 §5.

use std::{net::SocketAddr, time::Duration};

use super::{BackendConfig, ask};
use crate::{
    config::Transport,
    dns::{self, Addresses, Family},
};

/// The addresses of `host` in this family. `patience`: time for an answer.
///
/// # Errors
/// The resolver that was asked last, and why it gave none.
///
/// # Cancel safety
/// Dropping the future closes the socket.
pub async fn lookup(
    servers: &[SocketAddr],
    host: &str,
    family: Family,
    patience: Duration,
) -> Result<Addresses, String> {
    let mut why = "no resolver is known".to_owned();
    for server in servers {
        let resolver = BackendConfig::over_udp(server.to_string(), *server, patience);
        let query = dns::address_query(host, family, 0).ok_or("it is no domain name")?;
        let mut answer = ask(&resolver, query.clone()).await;
        if answer.as_ref().is_ok_and(|message| dns::is_truncated(message)) {
            answer = ask(&BackendConfig { transport: Transport::Tcp, ..resolver }, query).await;
        }
        let found =
            answer.map_err(|missed| missed.to_string()).and_then(|message| dns::addresses_in(&message));
        match found {
            Ok(found) => return Ok(found),
            Err(error) => why = format!("resolver {server}: {error}"),
        }
    }
    Err(why)
}

//! The zone that dotd carries, so that a first run answers before anything is configured.
//!
//! Before: `backend.address = "embedded"`, or no backend at all. After: an ordinary DNS server on a
//! loopback port, which the workers ask like any other backend.
//! Never: listens beyond loopback, forwards, or reads a file: the zone is part of the binary.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};

use hickory_server::{
    Server,
    dnssec::NxProofKind,
    proto::{
        dnssec::{Algorithm, DnsSecError, DnssecSigner, SigningKey, crypto::EcdsaSigningKey, rdata::DNSKEY},
        rr::Name,
        serialize::txt::Parser,
    },
    store::in_memory::InMemoryZoneHandler,
    zone_handler::{AxfrPolicy, Catalog, ZoneHandler, ZoneType},
};

/// The zone, as any operator would write one.
const ZONE: &str = include_str!("dotd.test.zone");
/// Its name.
const ORIGIN: &str = "dotd.test.";
/// Lifetime of its signatures; they are made at every start.
const SIGNATURES_VALID: Duration = Duration::from_secs(90 * 86_400);
/// Ports tried until one is free for both UDP and TCP.
const BIND_TRIES: usize = 16;
/// Receive buffer: queries wait here for the server's thread.
const RECEIVE_OCTETS: usize = 4 << 20;
/// Idle time of a TCP connection to the embedded server.
const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Responses that may wait on one TCP connection.
const TCP_RESPONSES_MAX: usize = 32;

/// The embedded server, bound and not yet running.
pub struct Embedded {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
}

impl Embedded {
    /// Binds a loopback port, the same for UDP and TCP.
    ///
    /// # Errors
    /// When no port is free for both.
    pub fn bind() -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..BIND_TRIES {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = tcp.local_addr()?;
            match UdpSocket::bind(address) {
                Ok(udp) => {
                    // A turn's burst must fit; the kernel limits the size by net.core.rmem_max.
                    let _ = socket2::SockRef::from(&udp).set_recv_buffer_size(RECEIVE_OCTETS);
                    udp.set_nonblocking(true)?;
                    tcp.set_nonblocking(true)?;
                    return Ok(Self { udp, tcp, address });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves on a thread of its own until the process ends.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn spawn(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serve = move || {
            if let Err(error) = runtime.block_on(self.serve()) {
                tracing::error!(%error, "the embedded backend stopped; queries will be answered SERVFAIL");
            }
        };
        std::thread::Builder::new().name("embedded".into()).spawn(serve)?;
        Ok(())
    }

    async fn serve(self) -> io::Result<()> {
        let mut server = Server::new(catalog().map_err(io::Error::other)?);
        server.register_socket(tokio::net::UdpSocket::from_std(self.udp)?);
        let listener = tokio::net::TcpListener::from_std(self.tcp)?;
        server.register_listener(listener, TCP_IDLE_TIMEOUT, TCP_RESPONSES_MAX);
        server.block_until_done().await.map_err(io::Error::other)
    }
}

fn catalog() -> Result<Catalog, String> {
    let origin = Name::from_ascii(ORIGIN).map_err(|error| error.to_string())?;
    let parser = Parser::new(ZONE, None, Some(origin.clone()));
    let (_, records) = parser.parse().map_err(|error| error.to_string())?;
    let (kind, transfers, proof) = (ZoneType::Primary, AxfrPolicy::Deny, Some(NxProofKind::Nsec));
    let mut zone: InMemoryZoneHandler =
        InMemoryZoneHandler::new(origin.clone(), records, kind, transfers, proof)?;
    sign(&mut zone, &origin).map_err(|error| error.to_string())?;
    let mut catalog = Catalog::new();
    catalog.upsert(origin.into(), vec![Arc::new(zone) as Arc<dyn ZoneHandler>]);
    Ok(catalog)
}

/// Signs the zone with a key made for this run. No chain of trust leads to it, but a client sees what DO adds to
/// an answer.
fn sign(zone: &mut InMemoryZoneHandler, origin: &Name) -> Result<(), DnsSecError> {
    let algorithm = Algorithm::ECDSAP256SHA256;
    let key = EcdsaSigningKey::from_pkcs8(&EcdsaSigningKey::generate_pkcs8(algorithm)?, algorithm)?;
    let dnskey = DNSKEY::from_key(&key.to_public_key()?);
    zone.add_zone_signing_key_mut(DnssecSigner::new(
        dnskey,
        Box::new(key),
        origin.clone(),
        SIGNATURES_VALID,
    ))?;
    zone.secure_zone_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_we_carry_is_sound() {
        catalog().expect("dotd.test.zone parses and has a SOA");
    }
}

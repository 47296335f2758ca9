//! The encoding of a connection for the engine that continues it: its client, its age, its handshake, and its
//! listener.
//!
//! Before: a session leaves. After: the next engine has the facts about the connection that `accept` and the
//! handshake gave to this one.
//! Holds: the encoding. The encoding of the session follows, and then that of its link.
//! Never: relies on the octets for a decision about security: an attacker who controls the previous engine may have
//! written them.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use tokio::time::Instant;

use super::open::Shaken;
use crate::{
    octets::{Octets, put_run},
    policy::{AccessReason, Denial, Identity},
    proxy::{Client, ClientTls, Tlvs, header::KEPT_OCTETS_MAX},
    session::{age, moment},
    tls::HandshakeKind,
};

/// A connection that moves to another engine.
pub(super) struct Connection {
    /// The worker that served it.
    pub(super) worker: u16,
    /// When it was written, by a clock that all processes share.
    pub(super) at_ns: u64,
    /// How long the session had not been read at that time.
    pub(super) paused: Duration,
    /// When it was accepted.
    pub(super) began: Instant,
    pub(super) shaken: Option<Shaken>,
    pub(super) client: Client,
    /// The listen address at which it was accepted.
    pub(super) listener: SocketAddr,
    /// Why the names in the client's handshake may not ask.
    pub(super) by_names: Option<Denial>,
    /// Those names, if a tenant is recognised by names.
    pub(super) identity: Option<Box<Identity>>,
}

const SHAKEN: u8 = 2;
const RESUMED: u8 = 4;
const TLS: u8 = 8;
const TLS13: u8 = 16;
const ALPN: u8 = 32;
const CERTIFIED: u8 = 64;

const NO_DENIAL: u8 = 0;
const SILENT: u8 = 128;

impl Connection {
    /// Appends the encoding to `out`.
    pub(super) fn write(&self, now: Instant, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.worker.to_be_bytes());
        out.extend_from_slice(&self.at_ns.to_be_bytes());
        let paused = u64::try_from(self.paused.as_nanos()).unwrap_or(u64::MAX);
        out.extend_from_slice(&paused.to_be_bytes());
        out.extend_from_slice(&age(Some(self.began), now).to_be_bytes());
        let tls = self.client.tls;
        let flags = [
            (SHAKEN, self.shaken.is_some()),
            (RESUMED, self.shaken.is_some_and(|shaken| shaken.kind.is_resumed)),
            (TLS, tls.is_some()),
            (TLS13, tls.is_some_and(|tls| tls.is_tls13)),
            (ALPN, tls.is_some_and(|tls| tls.has_alpn)),
            (CERTIFIED, tls.is_some_and(|tls| tls.is_certified)),
        ];
        out.push(flags.iter().filter(|(_, is_so)| *is_so).fold(0, |all, (flag, _)| all | flag));
        let times = self.shaken.map_or([0; 2], |shaken| [shaken.hello_us, shaken.handshake_us]);
        times.iter().for_each(|time| out.extend_from_slice(&time.to_be_bytes()));
        for address in [self.client.source, self.client.destination, self.listener] {
            put_address(out, address);
        }
        put_run(out, self.client.tlvs.as_ref().map(Tlvs::octets).unwrap_or_default());
        out.push(code_of(self.by_names));
        out.push(u8::from(self.identity.is_some()));
        self.identity.iter().for_each(|identity| identity.write(out));
    }

    /// Decodes the octets of [`Connection::write`]. `None`: they are invalid.
    pub(super) fn read(octets: &mut Octets<'_>, now: Instant) -> Option<Self> {
        let worker = octets.u16()?;
        let (at_ns, paused) = (octets.u64()?, Duration::from_nanos(octets.u64()?));
        let began = moment(octets.u64()?, now)?;
        let flags = octets.u8()?;
        let has = |flag| flags & flag != 0;
        let tls = has(TLS).then(|| ClientTls {
            is_tls13: has(TLS13),
            has_alpn: has(ALPN),
            is_certified: has(CERTIFIED),
        });
        let kind = tls.map(|ClientTls { is_tls13, has_alpn, is_certified }| HandshakeKind {
            is_resumed: has(RESUMED),
            is_tls13,
            has_alpn,
            is_certified,
        });
        let (hello_us, handshake_us) = (octets.u32()?, octets.u32()?);
        let shaken = kind.filter(|_| has(SHAKEN)).map(|kind| Shaken { kind, hello_us, handshake_us });
        let mut address = || take_address(octets);
        let (source, destination, listener) = (address()?, address()?, address()?);
        let tlvs = Tlvs::again(octets.run(KEPT_OCTETS_MAX)?);
        let client = Client { source, destination, is_datagram: false, tls, tlvs };
        let by_names = denial_of(octets.u8()?)?;
        let identity = match octets.u8()? {
            0 => None,
            _ => Some(Box::new(Identity::read(octets)?)),
        };
        Some(Self { worker, at_ns, paused, began, shaken, client, listener, by_names, identity })
    }
}

/// The number of the worker that sent these octets: their first field.
#[must_use]
pub fn worker_of(octets: &[u8]) -> Option<u16> {
    Octets::new(octets).u16()
}

fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    let (octets, scope) = match address {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped().octets(), 0),
        SocketAddr::V6(v6) => (v6.ip().octets(), v6.scope_id()),
    };
    out.push(u8::from(address.is_ipv6()));
    out.extend_from_slice(&octets);
    out.extend_from_slice(&address.port().to_be_bytes());
    out.extend_from_slice(&scope.to_be_bytes());
}

fn take_address(octets: &mut Octets<'_>) -> Option<SocketAddr> {
    let is_ipv6 = octets.u8()? == 1;
    let ip = Ipv6Addr::from(<[u8; 16]>::try_from(octets.take(16)?).ok()?);
    let (port, scope) = (octets.u16()?, octets.u32()?);
    if is_ipv6 {
        return Some(SocketAddrV6::new(ip, port, 0, scope).into());
    }
    Some(SocketAddr::new(IpAddr::V4(ip.to_ipv4_mapped()?), port))
}

fn code_of(denial: Option<Denial>) -> u8 {
    let Some(Denial { reason, is_silent }) = denial else { return NO_DENIAL };
    let reason = match reason {
        AccessReason::Denied => 1,
        AccessReason::NotAllowed => 2,
        AccessReason::ServerName => 3,
        AccessReason::ClientName => 4,
    };
    if is_silent { reason | SILENT } else { reason }
}

fn denial_of(code: u8) -> Option<Option<Denial>> {
    let reason = match code & !SILENT {
        NO_DENIAL => return Some(None),
        1 => AccessReason::Denied,
        2 => AccessReason::NotAllowed,
        3 => AccessReason::ServerName,
        4 => AccessReason::ClientName,
        _ => return None,
    };
    Some(Some(Denial { reason, is_silent: code & SILENT != 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(now: Instant) -> Connection {
        let tls = ClientTls { is_tls13: true, has_alpn: false, is_certified: true };
        let kind = HandshakeKind { is_resumed: true, is_tls13: true, has_alpn: false, is_certified: true };
        Connection {
            worker: 3,
            at_ns: 4,
            paused: Duration::from_nanos(5),
            began: now.checked_sub(Duration::from_secs(9)).unwrap(),
            shaken: Some(Shaken { kind, hello_us: 6, handshake_us: 7 }),
            client: Client {
                source: "[fe80::1%3]:40000".parse().unwrap(),
                destination: "192.0.2.1:853".parse().unwrap(),
                is_datagram: false,
                tls: Some(tls),
                tlvs: Tlvs::named(Tlvs::read(&[0xe0, 0, 1, 9]), Some("dns.example"), Some("Phone 7")),
            },
            listener: "[::]:853".parse().unwrap(),
            by_names: Some(Denial { reason: AccessReason::ClientName, is_silent: true }),
            identity: Some(Box::new(Identity {
                server_name: Some("dns.example".into()),
                client_names: vec!["phone.example".into(), "tel.example".into()],
            })),
        }
    }

    /// Goal: a connection is the same in the next engine. Method: one with every field set, one with as few as
    /// possible, and every shorter prefix of the first.
    #[test]
    fn a_connection_is_the_same_afterwards() {
        let now = Instant::now();
        let full = connection(now);
        let client = Client { tls: None, tlvs: None, ..full.client.clone() };
        let little = Connection { shaken: None, by_names: None, identity: None, client, ..connection(now) };
        for written in [&full, &little] {
            let mut form = Vec::new();
            written.write(now, &mut form);
            assert_eq!(worker_of(&form), Some(3));
            let mut octets = Octets::new(&form);
            let read = Connection::read(&mut octets, now).expect("its own form");
            assert!(octets.is_empty());
            assert_eq!((read.worker, read.at_ns, read.paused, read.began), (3, 4, full.paused, full.began));
            assert_eq!((read.client, read.listener), (written.client.clone(), full.listener));
            assert_eq!((read.by_names, &read.identity), (written.by_names, &written.identity));
            let times = |shaken: Shaken| (shaken.kind, shaken.hello_us, shaken.handshake_us);
            assert_eq!(read.shaken.map(times), written.shaken.map(times));
            for length in 0..form.len() {
                assert!(Connection::read(&mut Octets::new(&form[..length]), now).is_none(), "{length}");
            }
        }
    }
}

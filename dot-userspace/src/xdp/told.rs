//! Packets of clients that an operator traces, as the kernel half judged them.
//!
//! Before: an operator traces clients. After: the control thread has each of their packets that begins a connection
//! or is refused.
//! Holds: the map of traced clients, the ring until it has a listener, and the number of lost events.
//! Never: makes the kernel half look clients up while no operator traces.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray, RingBuf},
};
use dot_common::{
    flow::FlowKey,
    maps::{TRACE_EVENTS, TRACE_LOST, TRACED},
    rate::{Class, Rate},
    traced::{Seen, TRACED_MAX, Traced, TracedPrefix},
    verdict::{Reason, Verdict},
};
use ipnet::IpNet;

use super::{
    Loaded, RateState, Xdp, XdpError,
    attach::{refused, take},
    bans::now_ns,
    error::innermost,
    ring::Ring,
};

/// The maps.
pub(super) struct Told {
    clients: Array<MapData, Traced>,
    /// What the map has; absent when that is not certain.
    written: Option<Traced>,
    ring: Option<RingBuf<MapData>>,
    lost: PerCpuArray<MapData, u64>,
    said_lost: u64,
}

/// The listener.
pub struct ToldPackets(Ring);

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldPacket {
    /// How long ago it was judged, in nanoseconds.
    pub age_ns: u64,
    /// Its sender.
    pub client: SocketAddr,
    /// Its destination.
    pub server: SocketAddr,
    /// The verdict.
    pub verdict: Verdict,
    /// The number that its client's rate still allows; absent without a limit of such packets.
    pub rate: Option<RateState>,
}

impl Told {
    /// Takes the maps out of the object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, XdpError> {
        let clients = Array::try_from(take(object, TRACED)?).map_err(|error| refused(TRACED, &error))?;
        let ring = RingBuf::try_from(take(object, TRACE_EVENTS)?);
        let ring = ring.map_err(|error| refused(TRACE_EVENTS, &error))?;
        let lost =
            PerCpuArray::try_from(take(object, TRACE_LOST)?).map_err(|error| refused(TRACE_LOST, &error))?;
        Ok(Self { clients, written: Some(Traced::default()), ring: Some(ring), lost, said_lost: 0 })
    }
}

impl ToldPackets {
    /// Waits for the next packets; returns at most a turn's worth.
    ///
    /// # Errors
    /// The ring is broken.
    ///
    /// # Cancel safety
    /// Yes: packets that were not taken are returned the next time.
    pub async fn next(&mut self) -> io::Result<Vec<Seen>> {
        self.0.next(read).await
    }
}

impl Xdp {
    /// The channel of packets of traced clients. `None`: it was taken already, or nothing is loaded. Call it inside a
    /// runtime.
    ///
    /// # Errors
    /// The runtime refused the ring.
    pub fn told_packets(&mut self) -> io::Result<Option<ToldPackets>> {
        let Some(Loaded { kernel, .. }) = &mut self.kernel else { return Ok(None) };
        let Some(ring) = kernel.told.ring.take() else { return Ok(None) };
        Ok(Some(ToldPackets(Ring::listen(ring)?)))
    }

    /// Makes the kernel half report these clients, and no others.
    ///
    /// # Errors
    /// [`XdpError::Settings`]: the kernel refused it.
    pub fn trace(&mut self, clients: &[IpNet]) -> Result<(), XdpError> {
        let Some(Loaded { kernel, .. }) = &mut self.kernel else { return Ok(()) };
        let mut traced = Traced::default();
        for (place, net) in traced.clients.iter_mut().zip(clients.iter().take(TRACED_MAX)) {
            *place = prefix_of(*net);
        }
        let told = &mut kernel.told;
        if told.written == Some(traced) {
            return Ok(());
        }
        // Set again only when both maps are written: the next call tries again.
        told.written = None;
        let written = told.clients.set(0, traced, 0);
        written.map_err(|error| XdpError::Settings { reason: innermost(&error) })?;
        kernel.settings.set_traced(!clients.is_empty())?;
        told.written = Some(traced);
        Ok(())
    }

    /// The number of packets of traced clients that found no room since the last call.
    pub fn newly_lost(&mut self) -> u64 {
        let Some(Loaded { kernel, .. }) = &mut self.kernel else { return 0 };
        let told = &mut kernel.told;
        let lost = told.lost.get(&0, 0).map_or(told.said_lost, |per_cpu| per_cpu.iter().sum());
        lost.wrapping_sub(std::mem::replace(&mut told.said_lost, lost))
    }

    /// Converts these packets for this process.
    #[must_use]
    pub fn told(&self, seen: &[Seen]) -> Vec<ToldPacket> {
        let Some(Loaded { kernel, .. }) = &self.kernel else { return Vec::new() };
        let (now_ns, rates) = (now_ns(), kernel.rate_rows());
        seen.iter().filter_map(|seen| told_packet(seen, now_ns, &rates)).collect()
    }
}

/// The quantity that a rate limits: its class, words, config key, and value.
type RateRow = (Class, &'static str, &'static str, Rate);

fn told_packet(seen: &Seen, now_ns: u64, rates: &[RateRow]) -> Option<ToldPacket> {
    let verdict = seen.verdict()?;
    let [client, server] = ends(&seen.flow);
    let class = class_of(verdict, server.port());
    let rate = rates.iter().find(|(found, ..)| Some(*found) == class);
    let ahead_ns = seen.scheduled_ns.saturating_sub(seen.at_ns);
    let rate = rate.and_then(|(_, what, key, rate)| RateState::of(what, key, *rate, ahead_ns));
    Some(ToldPacket { age_ns: now_ns.saturating_sub(seen.at_ns), client, server, verdict, rate })
}

/// The class of the rate that counted such a packet; a packet that was refused before is not counted.
fn class_of(verdict: Verdict, port: u16) -> Option<Class> {
    match verdict.reason {
        Reason::Syn | Reason::Proven | Reason::Unproven if port == 53 => Some(Class::Do53Syn),
        Reason::Syn | Reason::Proven | Reason::Unproven | Reason::DotSynRate => Some(Class::DotSyn),
        Reason::Do53SynRate => Some(Class::Do53Syn),
        Reason::Do53QueryRate => Some(Class::Do53Query),
        _ => None,
    }
}

/// Client and server of a connection.
fn ends(flow: &FlowKey) -> [SocketAddr; 2] {
    let address = |words: [u32; 4]| match flow.is_v6() {
        true => {
            let bits = words.iter().fold(0u128, |bits, word| bits << 32 | u128::from(*word));
            IpAddr::V6(bits.into())
        }
        false => IpAddr::V4(words[0].into()),
    };
    let port = |ports: u32| u16::try_from(ports & 0xffff).unwrap_or_default();
    [
        SocketAddr::new(address(flow.client_words()), port(flow.ports >> 16)),
        SocketAddr::new(address(flow.server_words()), port(flow.ports)),
    ]
}

fn prefix_of(net: IpNet) -> TracedPrefix {
    let mut octets = [0; 16];
    match net.addr() {
        IpAddr::V4(address) => {
            octets.iter_mut().zip(address.octets()).for_each(|(to, from)| *to = from);
        }
        IpAddr::V6(address) => octets = address.octets(),
    }
    TracedPrefix::new(octets, net.prefix_len().into(), net.addr().is_ipv6())
}

/// The packet in an entry. `None`: its size is wrong, which cannot happen.
fn read(octets: &[u8]) -> Option<Seen> {
    let mut words = octets.chunks_exact(8).map(|word| word.first_chunk::<8>().copied().unwrap_or_default());
    let mut long = || words.next().map(u64::from_ne_bytes);
    let (at_ns, scheduled_ns) = (long()?, long()?);
    let (client, server) = ([long()?, long()?], [long()?, long()?]);
    let mut pair = || {
        let octets = words.next()?;
        let (first, second) = octets.split_first_chunk::<4>()?;
        Some([u32::from_ne_bytes(*first), u32::from_ne_bytes(*second.first_chunk::<4>()?)])
    };
    let ([ports, version], [reason, action]) = (pair()?, pair()?);
    Some(Seen { at_ns, scheduled_ns, flow: FlowKey { client, server, ports, version }, reason, action })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an entry is read as the kernel half wrote it, and a client's packets match its prefix. Method: the octets of an
    /// entry, word by word; IPv4 and IPv6. Covers: C-701
    #[test]
    fn entries_read_as_they_were_written() {
        for (client, server, net) in [
            ("192.0.2.7:1000", "192.0.2.1:853", "192.0.2.0/29"),
            ("[2001:db8::7]:1000", "[2001:db8::1]:853", "2001:db8::/64"),
        ] {
            let (client, server): (SocketAddr, SocketAddr) =
                (client.parse().unwrap(), server.parse().unwrap());
            let flow = super::super::syn_times::flow_of(client, server);
            let verdict = Verdict::drop(Reason::Banned);
            let (reason, action) = (verdict.reason as u32, verdict.action as u32);
            let seen = Seen { at_ns: 5, scheduled_ns: 9, flow, reason, action };
            let octets = [
                &5u64.to_ne_bytes()[..],
                &9u64.to_ne_bytes(),
                &flow.client[0].to_ne_bytes(),
                &flow.client[1].to_ne_bytes(),
                &flow.server[0].to_ne_bytes(),
                &flow.server[1].to_ne_bytes(),
                &flow.ports.to_ne_bytes(),
                &flow.version.to_ne_bytes(),
                &reason.to_ne_bytes(),
                &action.to_ne_bytes(),
            ]
            .concat();
            assert_eq!(read(&octets), Some(seen));
            assert_eq!(read(&octets[..60]), None);
            assert_eq!(ends(&flow), [client, server]);
            let traced = |net: &str| {
                let mut traced = Traced::default();
                traced.clients[2] = prefix_of(net.parse().unwrap());
                traced
            };
            assert!(traced(net).has(&flow) && !traced("198.51.100.0/24").has(&flow));
        }
    }
}

//! The parser over generated frames, in plain Rust on slices: no root, no kernel.

use dot_common::{
    flow::FlowKey,
    others::is_for_others,
    packet::{Packet, Service, Transport, parse, parse_syn_ack},
};
use dot_tests::{
    frames::{Build, Fragment, shapes},
    xdp_lab::PORTS,
};
use proptest::prelude::*;
use std::net::IpAddr;

fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [address.to_bits(), 0, 0, 0],
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
        }
    }
}

/// The key of the connection that a frame from the client belongs to.
fn key(build: &Build, client_port: u16, server_port: u16) -> FlowKey {
    let (client, server) = (build.source(), build.destination());
    FlowKey::new(words(client), client_port, words(server), server_port, client.is_ipv6())
}

proptest! {
    /// Goal: every field of a segment arrives, in every shape of headers. Method: builds it, parses it.
    #[test]
    fn segments_are_read_as_built(
        shape in 0..shapes().len(), flags: u8, sequence: u32, client_port: u16,
        payload in prop::collection::vec(any::<u8>(), 0..1200), port in prop::sample::select(vec![853u16, 8853, 53]),
    ) {
        let build = shapes()[shape].1(Build::tcp(port, flags, sequence, &payload).client_port(client_port));
        let frame = build.frame();
        let parsed = parse(&frame.octets.as_slice(), &PORTS);
        let Ok(Some(Packet { flow, service, transport: Transport::Tcp(segment), located })) = parsed else {
            return Err(TestCaseError::fail(format!("{}: {parsed:?}", shapes()[shape].0)));
        };
        prop_assert_eq!(flow, key(&build, client_port, port));
        prop_assert_eq!(service, if port == 53 { Service::Do53 } else { Service::Dot });
        prop_assert_eq!((located.ip as usize, located.transport as usize), (frame.ip, frame.transport));
        prop_assert_eq!((segment.sequence, segment.flags), (sequence, flags));
        let from = segment.payload_offset as usize;
        prop_assert_eq!(&frame.octets[from..from + segment.payload_octets as usize], &payload[..]);
    }

    /// Goal: datagrams and first fragments are told apart from segments.
    #[test]
    fn datagrams_and_fragments_are_read_as_built(
        (name, shape) in prop::sample::select(shapes()), payload in prop::collection::vec(any::<u8>(), 8..900),
        client_port: u16,
    ) {
        let transport = |build: Build| {
            parse(&build.frame().octets.as_slice(), &PORTS).map(|packet| packet.map(|packet| packet.transport))
        };
        let udp = shape(Build::udp(853, &payload).client_port(client_port));
        prop_assert_eq!(transport(udp), Ok(Some(Transport::Udp)));
        // A ninth extension header would be one too many, and an atomic fragment is one already.
        prop_assume!(!name.contains("eight_extension_headers") && !name.contains("atomic"));
        let tcp = |fragment| shape(Build::tcp(853, 16, 1, &payload)).fragment(fragment);
        prop_assert_eq!(transport(tcp(Fragment::First)), Ok(Some(Transport::TcpFragment)));
        prop_assert_eq!(transport(tcp(Fragment::Later(3))), Ok(None));
    }

    /// Goal: the first words of a packet decide for packets to other services' ports alone. Method: every shape to ports of ours
    /// and of others; headers that follow each other directly.
    #[test]
    fn others_packets_are_known_by_their_first_words(
        shape in 0..shapes().len(), port: u16, is_tcp: bool, payload in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let built = |port| if is_tcp { Build::tcp(port, 16, 1, &payload) } else { Build::udp(port, &payload) };
        let is_others = |build: &Build| is_for_others(&build.frame().octets.as_slice(), &PORTS);
        for ours in [853, 8853, 53] {
            prop_assert!(!is_others(&shapes()[shape].1(built(ours))), "{}: {ours}", shapes()[shape].0);
        }
        let is_ours = matches!(port, 853 | 8853 | 53);
        prop_assert_eq!(is_others(&built(port)), !is_ours);
        prop_assert_eq!(is_others(&built(port).v6()), !is_ours);
    }

    /// Goal: dotd's SYN-ACK names the flow exactly as the client's segments do. Method: parses both directions.
    #[test]
    fn syn_ack_names_the_clients_flow(shape in 0..shapes().len(), initial: u32, client_port: u16) {
        let shape = shapes()[shape].1;
        let reply = shape(Build::syn_ack(853, initial).client_port(client_port)).frame();
        let found = parse_syn_ack(&reply.octets.as_slice(), &PORTS);
        let forth = shape(Build::tcp(853, 16, 0, &[]).client_port(client_port));
        prop_assert_eq!(found, Some((key(&forth, client_port, 853), initial)));
    }

    /// Goal: a frame cut anywhere is refused or passed, never read beyond its end. Method: cuts a segment at every
    /// length; every range that is parsed must lie within the frame.
    #[test]
    fn cut_frames_are_never_read_beyond(shape in 0..shapes().len(), keep in 0usize..120) {
        let frame = shapes()[shape].1(Build::tcp(853, 16, 1, &[7; 20])).frame();
        let keep = keep.min(frame.octets.len());
        let padding = frame.octets.len() - frame.transport - 20 - 20;
        let parsed = parse(&&frame.octets[..keep], &PORTS);
        // Only padding may be missing from a frame that still parses as whole.
        if keep + padding < frame.octets.len() {
            prop_assert!(!matches!(parsed, Ok(Some(_))), "{parsed:?}");
        }
    }
}

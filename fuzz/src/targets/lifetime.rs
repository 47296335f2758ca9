//! The cache's view of a response: it finds the TTLs, and counting them down changes nothing else.
//!
//! Before: an octet for the query and one for an age, then a response. After: `wire` knows the same TTLs.
//! Never: keeps anything.
//!
//! Source: RFC 2181 §8, RFC 8767 §5.2.

use dot_userspace::dns::{Bounds, STALE_TTL_SECONDS, TTLS_MAX, count_down, lifetime, make_stale};

use crate::wire;

/// 192.0.2.0/24, as a client states it.
const SUBNET: [u8; 11] = [0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2];
const BOUNDS: Bounds = Bounds { least: 0, most: 86_400, negative_most: 3600 };
/// Octets from TYPE to TTL.
const TTL_OFFSET: usize = 4;

/// Runs the target.
///
/// # Panics
/// When an octet that is no TTL changes, or a TTL grows.
pub fn run(octets: &[u8]) {
    let Some((&[wishes, age], rest)) = octets.split_first_chunk() else { return };
    let response = &rest[..rest.len().min(65_535)];
    let Some(read) = wire::read(response).filter(|read| read.counts[0] == 1) else { return };
    let qtype = wire::word(response, read.question_end - 4).expect("a question");
    let mut ttls = Vec::new();
    let subnet = (wishes & 1 != 0).then_some(&SUBNET[..]);
    let Some(lifetime) = lifetime(response, read.question_end, qtype, subnet, BOUNDS, &mut ttls) else {
        return;
    };
    assert!((1..=86_400).contains(&lifetime.seconds) && ttls.len() <= TTLS_MAX);
    let is_plain = |record: &&wire::Record| record.rtype != wire::OPT;
    let places: Vec<u16> = read
        .records
        .iter()
        .filter(is_plain)
        .map(|record| {
            u16::try_from(record.place.start + record.owner_octets + TTL_OFFSET).expect("in a message")
        })
        .collect();
    assert_eq!(ttls, places, "every TTL, and nothing else");
    let pairs: Vec<u8> = ttls.iter().flat_map(|place| place.to_be_bytes()).collect();
    let mut aged = response.to_vec();
    count_down(&mut aged, &pairs, u32::from(age));
    let mut stale = response.to_vec();
    make_stale(&mut stale, &pairs, read.question_end);
    let (aged_read, stale_read) = (wire::read(&aged).expect("whole"), wire::read(&stale).expect("whole"));
    for ((before, after), stale) in read.records.iter().zip(&aged_read.records).zip(&stale_read.records) {
        if before.rtype == wire::OPT {
            assert_eq!((before, before.ttl), (after, stale.ttl));
            continue;
        }
        assert_eq!((after.ttl, stale.ttl), (before.ttl.saturating_sub(u32::from(age)), STALE_TTL_SECONDS));
        assert_eq!(after, &wire::Record { ttl: after.ttl, ..before.clone() });
        // Behind an OPT that holds a reason now, records have moved along.
        let moved = wire::Record { place: stale.place.clone(), rdata: stale.rdata.clone(), ..before.clone() };
        assert_eq!(stale, &wire::Record { ttl: stale.ttl, ..moved });
    }
    assert_eq!((aged.len(), stale_read.end), (response.len(), stale.len()));
}

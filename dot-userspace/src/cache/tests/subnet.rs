//! Client subnets: which answers are cached once, and which option each client gets (RFC 7871 §7).
//!
//! Before: the messages of `tests`. After: each client has the answer for its own subnet, else the one for all.

use tokio::time::Instant;

use super::{Cache, Found, RD, answer, cache, key, query};
use crate::ledger::Counter;

/// Goal: an answer for all subnets is cached once, and each client gets it with its own subnet and scope 0. An answer
/// for some subnets is for its client's subnet only, and is preferred. A client that sends no subnet, and one of the
/// other family, have separate answers. Method: answers of each kind, with an option and without. Covers: C-238
#[test]
fn answers_for_every_subnet_are_kept_once() {
    let option = |family: u8, source: u8, scope: u8, address: &[u8]| {
        let octets = u8::try_from(4 + address.len()).unwrap();
        [&[0, 8, 0, octets, 0, family, source, scope][..], address].concat()
    };
    let near = option(1, 24, 0, &[192, 0, 2]);
    let far = option(1, 16, 0, &[198, 51]);
    let (nobody, six) = (option(1, 0, 0, &[]), option(2, 56, 0, &[0x20, 1, 0x0d, 0xb8, 0, 0, 0]));
    let asked = |subnet: &[u8]| query("www.example", 1, [RD, 0], Some((0, subnet)));
    let said = |subnet: &[u8], last: u8, told: &[u8]| {
        let mut message = answer(&asked(subnet), 60, [192, 0, 2, last]);
        message[11] = 1;
        message.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, u8::try_from(told.len()).unwrap()]);
        [message, told.to_vec()].concat()
    };
    let now = Instant::now();
    let heard = |cache: &mut Cache, subnet: &[u8]| {
        let message = asked(subnet);
        let key = key(&message).unwrap();
        let (Found::Fresh(place, _) | Found::Stale(place, _)) = cache.look(&key, now) else { return None };
        let mut out = Vec::new();
        cache.write(place, &key, &message[12..key.question_end()], &mut out);
        Some(out)
    };
    let keep = |cache: &mut Cache, subnet: &[u8], response: &[u8]| {
        cache.keep(&key(&asked(subnet)).unwrap(), response, now);
    };
    let (mut cache, counters) = cache(100);
    keep(&mut cache, &near, &said(&near, 1, &near));
    for subnet in [&near, &far] {
        assert_eq!(heard(&mut cache, subnet), Some(said(subnet, 1, subnet)));
    }
    assert_eq!([&nobody, &six].map(|subnet| heard(&mut cache, subnet)), [None, None]);
    keep(&mut cache, &near, &said(&near, 2, &option(1, 24, 20, &[192, 0, 2])));
    assert_eq!(heard(&mut cache, &near).unwrap(), said(&near, 2, &option(1, 24, 20, &[192, 0, 2])));
    assert_eq!(heard(&mut cache, &far), Some(said(&far, 1, &far)));
    keep(&mut cache, &nobody, &said(&nobody, 3, &nobody));
    assert_eq!(heard(&mut cache, &nobody), Some(said(&nobody, 3, &nobody)));
    keep(&mut cache, &six, &said(&six, 4, &[]));
    assert_eq!(heard(&mut cache, &six), Some(said(&six, 4, &[])), "a server that knows no subnets says none");
    assert_eq!(heard(&mut cache, &far), Some(said(&far, 1, &far)));
    assert_eq!(counters.get(Counter::CacheEntries), 4);
}

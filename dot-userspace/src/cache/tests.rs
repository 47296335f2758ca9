//! Compares the cache with a map that keeps every response and knows when each ends.

mod subnet;

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;

use super::{entry::Entry, index::Index, table::Table, *};
use crate::dns::{Query, Told};

pub(super) const RD: u8 = 0x01;

/// A query for `name` (labels in text) of type `qtype`, with an OPT of these flags and options if any.
pub(super) fn query(name: &str, qtype: u16, flags: [u8; 2], opt: Option<(u8, &[u8])>) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, u8::from(opt.is_some())];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&qtype.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    if let Some((flags, options)) = opt {
        message.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, flags, 0]);
        message.extend_from_slice(&u16::try_from(options.len()).unwrap().to_be_bytes());
        message.extend_from_slice(options);
    }
    message
}

fn plain(name: &str) -> Vec<u8> {
    query(name, 1, [RD, 0], None)
}

pub(super) fn key(message: &[u8]) -> Option<Key> {
    Key::of(message, &Query::parse(message).unwrap(), Told::AsItCame)
}

/// One A record that says `address`, with this TTL.
pub(super) fn answer(query: &[u8], ttl: u32, address: [u8; 4]) -> Vec<u8> {
    let end = Query::parse(query).unwrap().question_end;
    let mut message = query[..end].to_vec();
    message[2] |= 0x80;
    message[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
    message.extend_from_slice(&ttl.to_be_bytes());
    message.extend_from_slice(&[0, 4]);
    message.extend_from_slice(&address);
    message
}

/// The address in the response that a client gets, its TTL, and the whole response.
fn given(cache: &mut Cache, query: &[u8], now: Instant) -> Option<([u8; 4], u32, Vec<u8>)> {
    let key = key(query).unwrap();
    let (Found::Fresh(place, _) | Found::Stale(place, _)) = cache.look(&key, now) else { return None };
    let mut out = Vec::new();
    cache.write(place, &key, &query[12..key.question_end()], &mut out);
    // After the question: a pointer, TYPE, CLASS, TTL, a length, the address; and after that, in a stale response, an
    // OPT.
    let record = &out[key.question_end()..];
    let ttl = u32::from_be_bytes(record[6..10].try_into().unwrap());
    let address = record[12..].first_chunk::<4>().unwrap();
    Some((*address, ttl, out.clone()))
}

pub(super) fn cache(entries: u32) -> (Cache, WorkerCounters) {
    let counters = WorkerCounters::default();
    (Cache::new(Keeping::of(entries), &counters), counters)
}

/// Goal: queries have the same key exactly if they must have the same answer.
/// Method: pairs of queries that differ in one element.
#[test]
fn a_key_is_what_changes_an_answer() {
    let of = |message: &[u8]| key(message).unwrap().octets().to_vec();
    let subnet = [0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2];
    let other_subnet = [0, 8, 0, 7, 0, 1, 24, 0, 198, 51, 100];
    let hop = [0, 11, 0, 0, 0, 12, 0, 3, 0, 0, 0];
    let base = query("www.example", 1, [RD, 0], Some((0, &[])));
    for (other, is_same) in [
        (query("WWW.eXample", 1, [RD, 0], Some((0, &[]))), true),
        (query("www.example", 1, [RD, 0], Some((0, &hop))), true),
        (query("www.exampl", 1, [RD, 0], Some((0, &[]))), false),
        (query("www.example", 28, [RD, 0], Some((0, &[]))), false),
        (query("www.example", 1, [0, 0], Some((0, &[]))), false),
        (query("www.example", 1, [RD, 0x10], Some((0, &[]))), false),
        (query("www.example", 1, [RD, 0x20], Some((0, &[]))), false),
        (query("www.example", 1, [RD, 0], Some((0x80, &[]))), false),
        (query("www.example", 1, [RD, 0], Some((0, &subnet))), false),
        (query("www.example", 1, [RD, 0], None), false),
    ] {
        assert_eq!(of(&base) == of(&other), is_same, "{other:02x?}");
    }
    let near = query("www.example", 1, [RD, 0], Some((0, &subnet)));
    let far = query("www.example", 1, [RD, 0], Some((0, &other_subnet)));
    assert_ne!(of(&near), of(&far));
}

/// Goal: queries whose answer is or may be for one client only bypass the cache: cookies, NSID and options that dotd
/// does not know, unknown flags, signed queries, and types and classes that are not records.
#[test]
fn what_is_not_known_has_no_key() {
    let cookie = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    let mut reserved = query("a.example", 1, [RD, 0], Some((0, &[])));
    let end = reserved.len();
    reserved[end - 3] = 1;
    let mut class = plain("a.example");
    let end = class.len();
    class[end - 1] = 255;
    let mut signed = plain("a.example");
    signed[11] = 1;
    signed.extend_from_slice(&[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0]);
    for message in [
        query("a.example", 1, [RD, 0], Some((0, &cookie))),
        query("a.example", 1, [RD, 0], Some((0, &[0, 3, 0, 0]))),
        query("a.example", 1, [RD, 0], Some((0, &[0xfd, 0xe9, 0, 0]))),
        query("a.example", 1, [RD, 0], Some((0x40, &[]))),
        query("a.example", 1, [RD, 0x40], None),
        query("a.example", 1, [RD | 0x02, 0], None),
        query("a.example", 255, [RD, 0], None),
        query("a.example", 252, [RD, 0], None),
        query("a.example", 249, [RD, 0], None),
        reserved,
        class,
        signed,
    ] {
        assert!(key(&message).is_none(), "{message:02x?}");
    }
}

/// Goal: the TTLs of a cached answer count down, and it has its client's case. It ends with its TTL, is then stale
/// for 30 s with a TTL of 30, and is removed after that. Method: lookups at several ages of one answer.
#[test]
fn an_answer_lives_as_long_as_its_ttl() {
    let (mut cache, _) = cache(10);
    let start = Instant::now();
    let asked = plain("www.example");
    cache.keep(&key(&asked).unwrap(), &answer(&asked, 60, [192, 0, 2, 1]), start);
    let at = |seconds| start + Duration::from_secs(seconds);
    let shouted = plain("WWW.EXAMPLE");
    let (address, ttl, octets) = given(&mut cache, &shouted, at(7)).unwrap();
    assert_eq!((address, ttl), ([192, 0, 2, 1], 53));
    assert_eq!(octets[12..shouted.len()], shouted[12..], "the client's own case");
    assert_eq!(given(&mut cache, &asked, at(59)).unwrap().1, 1);
    let key = key(&asked).unwrap();
    assert!(matches!(cache.look(&key, at(58)), Found::Fresh(_, true)), "asked before, and near its end");
    assert!(matches!(cache.look(&key, at(30)), Found::Fresh(_, false)));
    assert!(matches!(cache.look(&key, at(61)), Found::Stale(_, false)));
    assert_eq!(given(&mut cache, &asked, at(61)).unwrap().1, 30);
    cache.note_failure(&key, at(62));
    assert!(matches!(cache.look(&key, at(62)), Found::Stale(_, true)));
    assert!(matches!(cache.look(&key, at(64)), Found::Stale(_, false)), "a backend is asked again");
    assert_eq!(cache.look(&key, at(91)), Found::Nothing);
}

/// Goal: SERVFAIL never replaces an answer, is kept for a second if there is no answer, and is never stale.
#[test]
fn a_failure_is_kept_for_a_second() {
    let (mut cache, _) = cache(10);
    let start = Instant::now();
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    let asked = plain("www.example");
    let key = key(&asked).unwrap();
    let mut failure = asked.clone();
    (failure[2], failure[3]) = (0x81, 0x82);
    cache.keep(&key, &failure, start);
    assert!(matches!(cache.look(&key, at(800)), Found::Fresh(_, false)));
    assert_eq!(cache.look(&key, at(1_200)), Found::Nothing);
    cache.keep(&key, &answer(&asked, 10, [192, 0, 2, 1]), at(2_000));
    cache.keep(&key, &failure, at(13_000));
    assert!(matches!(cache.look(&key, at(13_100)), Found::Stale(_, true)), "the failure was noted");
}

/// Goal: a flood of names that are asked once does not evict names that are asked again and again.
/// Method: 200 popular names in a cache of 1000, with five other names between any two of their queries: 1200 names
/// are asked before a popular one is asked again, so a cache that evicts the least recently used name would never
/// have a hit.
#[test]
fn a_flood_of_strangers_leaves_the_popular_alone() {
    let (mut cache, counters) = cache(1000);
    let now = Instant::now();
    let mut strangers = (0..).map(|n| plain(&format!("stranger-{n}.example")));
    let mut hits = 0;
    for round in 0..20 {
        for n in 0..200 {
            let popular = plain(&format!("popular-{n}.example"));
            let is_hit = given(&mut cache, &popular, now).is_some();
            hits += u32::from(is_hit && round >= 12);
            if !is_hit {
                cache.keep(&key(&popular).unwrap(), &answer(&popular, 3600, [192, 0, 2, 1]), now);
            }
            for stranger in strangers.by_ref().take(5) {
                cache.keep(&key(&stranger).unwrap(), &answer(&stranger, 3600, [192, 0, 2, 2]), now);
            }
        }
    }
    assert!(hits >= 1500, "{hits} of 1600");
    assert_eq!(counters.get(Counter::CacheEntries), 1000);
    let (inserts, evictions) = (counters.get(Counter::CacheInserted), counters.get(Counter::CacheEvicted));
    assert_eq!(inserts - evictions, 1000, "every entry that was not evicted is there");
}

/// Goal: octets are limited as well as entries, and an answer that needs too many is not cached.
#[test]
fn octets_are_bounded() {
    let (mut cache, counters) = cache(1000);
    let now = Instant::now();
    for n in 0..1000 {
        let asked = plain(&format!("big-{n}.example"));
        let mut response = answer(&asked, 3600, [192, 0, 2, 1]);
        let records = 200u8;
        let record = response[Query::parse(&asked).unwrap().question_end..].to_vec();
        (1..records).for_each(|_| response.extend_from_slice(&record));
        response[7] = records;
        cache.keep(&key(&asked).unwrap(), &response, now);
        assert!(counters.get(Counter::CacheOctets) <= 1000 * 512);
    }
    assert!(counters.get(Counter::CacheEntries) > 100);
    let asked = plain("huge.example");
    let mut response = answer(&asked, 3600, [192, 0, 2, 1]);
    let text = vec![0; 65_000];
    let start = response.len() - 6;
    response.splice(start.., [0xfd, 0xe8].into_iter().chain(text));
    cache.keep(&key(&asked).unwrap(), &response, now);
    assert_eq!(cache.look(&key(&asked).unwrap(), now), Found::Nothing);
    drop(cache);
    assert_eq!((counters.get(Counter::CacheEntries), counters.get(Counter::CacheOctets)), (0, 0));
}

/// Goal: one name is removed and its neighbours stay; a cache that is no longer used is empty after some steps.
#[test]
fn forgets_a_name_and_everything() {
    let (mut cache, counters) = cache(10_000);
    let now = Instant::now();
    let forget = Forget { name: (*b"\x08host-777\x07example\x00").into(), is_suffix: false, qtype: None };
    let names: Vec<_> = (0..9_000).map(|n| plain(&format!("host-{n}.example"))).collect();
    for name in &names {
        cache.keep(&key(name).unwrap(), &answer(name, 3600, [192, 0, 2, 1]), now);
    }
    let mut next = Some(0);
    while let Some(start) = next {
        next = cache.forget(&forget, start);
    }
    for (n, name) in names.iter().enumerate() {
        assert_eq!(given(&mut cache, name, now).is_some(), n != 777, "host-{n}");
    }
    let steps = std::iter::repeat_with(|| cache.dismantle()).take_while(|goes_on| *goes_on).count();
    assert_eq!((steps, counters.get(Counter::CacheEntries), counters.get(Counter::CacheOctets)), (2, 0, 0));
}

/// Goal: equal queries wait for one answer, up to a limit, and each is answered once.
#[test]
fn equal_queries_wait_together() {
    let mut pending = Pending::default();
    let key = key(&plain("www.example")).unwrap();
    assert_eq!(pending.join(&key, || 0), Joined::IsFirst);
    pending.begin(&key, Some(0));
    for waiter in 1..1024 {
        assert_eq!(pending.join(&key, || waiter), Joined::Waits);
    }
    assert_eq!(pending.join(&key, || unreachable!()), Joined::IsFull);
    assert_eq!(pending.end(&key), (0..1024).collect::<Vec<_>>());
    assert!(!pending.has(&key) && pending.end(&key).is_empty());
}

/// One operation on a cache.
#[derive(Clone, Debug)]
enum Event {
    Keep { name: u8, ttl: u32, address: [u8; 4] },
    Look { name: u8 },
    Wait { milliseconds: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..40u8, 0..20u32, any::<[u8; 4]>()).prop_map(|(name, ttl, address)| Event::Keep {
            name,
            ttl,
            address
        }),
        (0..40u8).prop_map(|name| Event::Look { name }),
        (1..8_000u64).prop_map(|milliseconds| Event::Wait { milliseconds }),
    ]
}

proptest! {
    /// Goal: a lookup gives the response that was cached last, and only within its lifetime; a cache with room for
    /// all gives every one. Method: any operations on a cache with room for 10 of 40 names and on one with room for
    /// all, compared with a map of responses and times.
    #[test]
    fn gives_what_was_kept_and_nothing_else(events in prop::collection::vec(event(), 1..300)) {
        let ((mut small, counters), (mut large, _)) = (cache(10), cache(1000));
        let mut model: HashMap<u8, ([u8; 4], u32, Instant)> = HashMap::new();
        let start = Instant::now();
        let mut now = start;
        for event in events {
            match event {
                Event::Wait { milliseconds } => now += Duration::from_millis(milliseconds / 100 * 100),
                Event::Keep { name, ttl, address } => {
                    let asked = plain(&format!("name-{name}.example"));
                    for cache in [&mut small, &mut large] {
                        cache.keep(&key(&asked).unwrap(), &answer(&asked, ttl, address), now);
                    }
                    if ttl > 0 {
                        model.insert(name, (address, ttl, now));
                    }
                }
                Event::Look { name } => {
                    let asked = plain(&format!("NAME-{name}.example"));
                    let expected = model.get(&name).and_then(|(address, ttl, stored)| {
                        let (age, life) = (now - *stored, Duration::from_secs(u64::from(*ttl)));
                        let left = if age < life { ttl - u32::try_from(age.as_secs()).unwrap() } else { 30 };
                        (age < life + Duration::from_secs(30)).then_some((*address, left))
                    });
                    let of = |cache: &mut Cache| given(cache, &asked, now).map(|(address, ttl, _)| (address, ttl));
                    prop_assert_eq!(of(&mut large), expected);
                    let found = of(&mut small);
                    prop_assert!(found.is_none() || found == expected, "{:?} and not {:?}", found, expected);
                }
            }
            prop_assert!(counters.get(Counter::CacheEntries) <= 10);
        }
    }

    /// Goal: the index finds exactly the slots that were inserted, whichever hashes collide and in whatever order
    /// cells are freed.
    /// Method: hashes from a few values, so that runs of cells form and break, compared with a set.
    #[test]
    fn the_index_finds_what_it_holds(steps in prop::collection::vec((0..12u32, 0..16u32, any::<bool>()), 1..200)) {
        let mut index = Index::new(16);
        let mut held: HashMap<u32, u32> = HashMap::new();
        for (hash, slot, is_insert) in steps {
            if is_insert && !held.contains_key(&slot) {
                index.insert(hash, slot);
                held.insert(slot, hash);
            } else if let Some(hash) = held.remove(&slot) {
                index.remove(hash, slot);
            }
            for slot in 0..16 {
                for hash in 0..12 {
                    let found = index.find(hash, |candidate| candidate == slot);
                    prop_assert_eq!(found.is_some(), held.get(&slot) == Some(&hash));
                }
            }
        }
    }
}

/// Goal: a table never exceeds its limits and never loses a slot, in whatever order entries come and go.
#[test]
fn a_table_keeps_its_bounds() {
    let mut table = Table::new(8, 64 * 1024);
    for n in 0..1000u32 {
        let asked = plain(&format!("n-{}.example", n % 13));
        let mut entry = Entry::new(&key(&asked).unwrap(), &answer(&asked, 60, [0; 4]), &[]).unwrap();
        (entry.stored, entry.expires) = (n, n + 600);
        let hash = n % 13;
        let old = table.find(hash, |_| true);
        assert!(table.put(hash, old, entry, n).is_some());
        if n % 3 == 0 {
            table.find(hash, |_| true).map(|slot| table.hit(slot));
        }
        assert!(table.entries() <= 8 && table.octets() <= 64 * 1024);
    }
    assert_eq!(table.entries(), 8);
}

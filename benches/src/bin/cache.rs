//! The cost of the cache: nanoseconds a hit and an insert, octets an entry, from a thousand entries to ten million.
//!
//! Holds: one worker's cache filled with A responses, then asked in an order that no processor can predict. A hit is
//! everything that the cache adds to a query: the key, the look-up, the copy for its client. Beside it stands a measure
//! of the machine: one load from the same amount of memory, whose address depends on the load before. The additional
//! cost of a hit in a large cache consists of such loads: processors' caches and page tables, not the cache's own
//! steps.
//! Never: counts the cost of reading and writing a message, which belongs to the session, or the time of other
//! processes on its CPU.

use std::{fs, hint::black_box, time::Duration, time::Instant as Clock};

use dot_tests::harness::message::{A, Query as Asking, reply_to};
use dot_userspace::{
    cache::{Cache, Found, Keeping, Key},
    dns::{Query, Told},
    ledger::{Counter, WorkerCounters},
};
use nix::time::ClockId;
use tokio::time::Instant;

/// Hits, and loads, of one walk.
const HITS: u32 = 1_000_000;
/// Walks, of which the best counts.
const WALKS: usize = 5;
/// Octets of a line of the processor's caches.
const LINE_OCTETS: usize = 64;
const SIZES: [u32; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];

fn main() {
    println!(
        "{:>10}  {:>9}  {:>9}  {:>9}  {:>11}  {:>12}",
        "entries", "ns a hit", "ns a load", "ns insert", "slowest µs", "octets/entry"
    );
    let largest = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(SIZES[4]);
    for entries in SIZES.into_iter().filter(|entries| *entries <= largest) {
        let before = resident_octets();
        let counters = WorkerCounters::default();
        let mut cache = Cache::new(Keeping::of(entries), &counters);
        let now = Instant::now();
        let (insert, slowest) = fill(&mut cache, entries, now);
        let held = counters.get(Counter::CacheEntries);
        let octets = resident_octets().saturating_sub(before);
        let each = octets / held.max(1);
        let hit = hit(&mut cache, entries, now);
        drop(cache);
        let load = load(usize::try_from(octets).unwrap_or(usize::MAX));
        println!("{held:>10}  {hit:>9.0}  {load:>9.0}  {insert:>9.0}  {slowest:>11.0}  {each:>12}");
    }
}

/// A query whose name is a number; the number is written into it in place.
struct Template {
    octets: Vec<u8>,
    parsed: Query,
}

impl Template {
    fn new() -> Self {
        let octets = Asking::new(1, "n00000000.example.com", A).octets();
        let parsed = Query::parse(&octets).expect("a query");
        Self { octets, parsed }
    }

    fn number(&mut self, mut number: u32) {
        for digit in self.octets[14..22].iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).expect("a digit");
            number /= 10;
        }
    }
}

/// Nanoseconds an insert on average, and microseconds of the slowest.
fn fill(cache: &mut Cache, entries: u32, now: Instant) -> (f64, f64) {
    let mut query = Template::new();
    let (mut total, mut slowest) = (0.0, 0.0);
    for number in 0..entries {
        query.number(number);
        let response = reply_to(&query.octets, A, &[vec![192, 0, 2, 1]]);
        let key = Key::of(&query.octets, &query.parsed, Told::AsItCame).expect("for the cache");
        let began = Clock::now();
        cache.keep(&key, &response, now);
        let took = began.elapsed().as_secs_f64();
        total += took;
        slowest = f64::max(slowest, took);
    }
    (total * 1e9 / f64::from(entries), slowest * 1e6)
}

/// Nanoseconds a hit.
fn hit(cache: &mut Cache, entries: u32, now: Instant) -> f64 {
    let mut query = Template::new();
    let mut out = Vec::with_capacity(4096);
    let mut missed = 0;
    let best = best_of(|| {
        let mut state = 0x9e37_79b9_u32;
        for _ in 0..HITS {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            query
                .number(u32::try_from((u64::from(state) * u64::from(entries)) >> 32).expect("below entries"));
            let key =
                Key::of(black_box(&query.octets), &query.parsed, Told::AsItCame).expect("for the cache");
            match cache.look(&key, now) {
                Found::Fresh(place, _) => {
                    cache.write(place, &key, &query.octets[12..key.question_end()], &mut out)
                }
                _ => missed += 1,
            }
            black_box(&out);
        }
    });
    let asked = HITS * u32::try_from(WALKS + 1).expect("few");
    assert!(missed < asked / 100, "{missed} of {asked} missed");
    best
}

/// Nanoseconds for a load from that many octets, to the nearest power of two, each from a line that the previous load
/// names.
fn load(octets: usize) -> f64 {
    let lines = (octets * 2 / 3 / LINE_OCTETS).max(1).next_power_of_two();
    let words = LINE_OCTETS / size_of::<usize>();
    let mut memory = vec![0; lines * words];
    for line in 0..lines {
        // Goes through all lines before it comes back (Hull and Dobell, 1962).
        let next = line.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) & (lines - 1);
        memory[line * words] = next;
    }
    let mut line = 0;
    best_of(|| {
        for _ in 0..HITS {
            line = memory[line * words];
        }
        black_box(line);
    })
}

/// Nanoseconds of this thread's CPU time for each of [`HITS`] steps: the best of some walks, after one that warms up.
fn best_of(mut walk: impl FnMut()) -> f64 {
    walk();
    let times = (0..WALKS).map(|_| {
        let began = cpu_time();
        walk();
        (cpu_time() - began).as_secs_f64() * 1e9 / f64::from(HITS)
    });
    times.fold(f64::INFINITY, f64::min)
}

fn cpu_time() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("every thread has one").into()
}

/// Memory of this process.
fn resident_octets() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    pages * 4096
}

//! SYN cookies that keep a client's TCP options: the sequence number and the timestamp of a SYN-ACK carry all that a
//! connection needs.
//!
//! Before: a SYN whose options stand in one of the arrangements that stacks use. After: the SYN-ACK's numbers; and for the ACK
//! that answers it, the options, if the numbers are ours.
//! Holds: the arrangements, the cookie, and its hash, SipHash-2-4 with a secret of the loader's. Never: remembers a client; reads a
//! clock.
//!
//! The sequence number: three bits of time, two of segment size, 27 of the hash over addresses, ports, the client's initial
//! sequence number, these bits and the whole time. The timestamp's last six bits: window scale and SACK. So an ACK proves which SYN it
//! answers, which the kernel's own cookie does not.
//!
//! Source: RFC 4987 §3.6 (SYN cookies), RFC 7323 §2 and §3 (window scale, timestamps), RFC 2018 §2 (SACK); Aumasson and Bernstein,
//! SipHash: a fast short-input PRF (2012).

use crate::flow::{FlowKey, Sequence};

/// The secret: two random words.
pub type Secret = [u64; 2];

/// A SYN's options, or those that a cookie stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Largest segment that the peer takes.
    pub segment_octets: u32,
    /// Window scale of the client; [`NO_SCALE`]: none.
    pub scale: u32,
    /// Whether it takes selective acknowledgments.
    pub sack: bool,
    /// Its timestamp, if it sends any.
    pub timestamp: Option<u32>,
}

/// No window scale was offered.
pub const NO_SCALE: u32 = 15;
/// The largest window scale (RFC 7323 §2.3).
const SCALE_MAX: u32 = 14;
/// Our own window scale: a window of 8 MiB.
pub const OWN_SCALE: u32 = 7;

/// Segment sizes that a cookie can stand for, by IP version; smaller ones are left to the stack. The first of each is the least
/// that the kernel takes, the last that of Ethernet.
const SEGMENT_OCTETS: [[u32; 4]; 2] = [[536, 1300, 1420, 1460], [1220, 1300, 1400, 1440]];

/// A unit of time is 2^36 ns, 69 s; a cookie lives for one to two of them.
const UNIT_SHIFT: u32 = 36;
const UNITS: u32 = 8;
const HASH: u32 = (1 << 27) - 1;
/// The bits of a timestamp that hold options.
const OPTION_BITS: u32 = 0x3f;
const SACK_BIT: u32 = 0x10;

/// Words of a TCP header without options.
pub const HEADER_WORDS: u32 = 5;

/// The options of a SYN, from the words behind its header; `count` of them. `None`: not an arrangement of the table, or a
/// segment size below those of a cookie: the stack knows better.
///
/// Linux: MSS, SACK, timestamps, scale; without timestamps MSS, SACK, scale. Windows: MSS, scale, SACK. macOS and iOS: MSS,
/// scale, timestamps, SACK. FreeBSD: MSS, scale, SACK with timestamps. MSS alone.
#[must_use]
#[inline(always)]
pub const fn offered(words: [u32; 6], count: u32, is_v6: bool) -> Option<Options> {
    const MSS: u32 = 0x0204;
    const SCALE: u32 = 0x01_0303;
    const SACK_WITH_TIME: u32 = 0x0402_080a;
    const TIME: u32 = 0x0101_080a;
    const SACK: u32 = 0x0101_0402;
    const SACK_AND_END: u32 = 0x0402_0000;
    let [first, a, b, c, d, e] = words;
    let (scale, sack, timestamp) = match count {
        1 => (NO_SCALE, false, None),
        3 if a == SACK && b >> 8 == SCALE => (b & 0xff, true, None),
        3 if a >> 8 == SCALE && b == SACK => (a & 0xff, true, None),
        5 if a == SACK_WITH_TIME && d >> 8 == SCALE => (d & 0xff, true, Some(b)),
        5 if a >> 8 == SCALE && b == SACK_WITH_TIME => (a & 0xff, true, Some(c)),
        6 if a >> 8 == SCALE && b == TIME && e == SACK_AND_END => (a & 0xff, true, Some(c)),
        _ => return None,
    };
    let segment_octets = first & 0xffff;
    let [least, ..] = SEGMENT_OCTETS[is_v6 as usize];
    if first >> 16 != MSS || segment_octets < least {
        return None;
    }
    let scale = if scale == NO_SCALE || scale <= SCALE_MAX { scale } else { SCALE_MAX };
    Some(Options { segment_octets, scale, sack, timestamp })
}

/// The numbers of a SYN-ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Its sequence number.
    pub sequence: Sequence,
    /// Its timestamp, sent if the client sends any.
    pub timestamp: u32,
}

/// The cookie for a SYN.
#[must_use]
#[inline(always)]
pub const fn make(
    secret: Secret,
    flow: &FlowKey,
    initial: Sequence,
    options: &Options,
    now_ns: u64,
) -> Cookie {
    let [_, second, third, fourth] = SEGMENT_OCTETS[flow.is_v6() as usize];
    let octets = options.segment_octets;
    let size = (octets >= second) as u32 + (octets >= third) as u32 + (octets >= fourth) as u32;
    let unit = (now_ns >> UNIT_SHIFT) as u32;
    let bits = options.scale | if options.sack { SACK_BIT } else { 0 };
    let marks = unit << 29 | size << 27;
    let known = if options.timestamp.is_some() { bits } else { UNKNOWN };
    let hash = hash(secret, flow, initial, hashed(unit, marks | known)) as u32 & HASH;
    // Milliseconds, nearly: one of 2^20 ns.
    let timestamp = (now_ns >> 20) as u32 & !OPTION_BITS | bits;
    Cookie { sequence: marks | hash, timestamp }
}

/// Hashed in place of the options of a client without timestamps.
const UNKNOWN: u32 = OPTION_BITS + 1;

/// Marks with the whole time: its three bits come again every nine minutes, and an old cookie would be valid again.
#[inline(always)]
const fn hashed(unit: u32, marks: u32) -> u64 {
    (unit as u64) << 32 | marks as u64
}

/// The options behind a cookie, if it is ours, for this connection and this initial sequence number, and not too old. `echoed`:
/// the timestamp that the client echoes, if it sends any; then the answer has its bits.
#[must_use]
#[inline(always)]
pub const fn check(
    secret: Secret,
    flow: &FlowKey,
    initial: Sequence,
    sequence: Sequence,
    echoed: Option<u32>,
    now_ns: u64,
) -> Option<Options> {
    let marks = sequence & !HASH;
    let unit = (now_ns >> UNIT_SHIFT) as u32;
    let age = unit.wrapping_sub(sequence >> 29) % UNITS;
    if age > 1 {
        return None;
    }
    let known = match echoed {
        Some(echoed) => echoed & OPTION_BITS,
        None => UNKNOWN,
    };
    let marks = hashed(unit.wrapping_sub(age), marks | known);
    if hash(secret, flow, initial, marks) as u32 & HASH != sequence & HASH {
        return None;
    }
    let [a, b, c, d] = SEGMENT_OCTETS[flow.is_v6() as usize];
    let segment_octets = match sequence >> 27 & 3 {
        0 => a,
        1 => b,
        2 => c,
        _ => d,
    };
    let (scale, sack) = match echoed {
        Some(echoed) => (echoed & 0xf, echoed & SACK_BIT != 0),
        None => (NO_SCALE, false),
    };
    Some(Options { segment_octets, scale, sack, timestamp: echoed })
}

/// SipHash-2-4 of a connection, its initial sequence number and some marks.
#[inline(always)]
const fn hash(secret: Secret, flow: &FlowKey, initial: Sequence, marks: u64) -> u64 {
    let mut state = State::new(secret);
    let mut words = 3;
    if flow.is_v6() {
        state = state.absorb(flow.client[0]).absorb(flow.client[1]);
        state = state.absorb(flow.server[0]).absorb(flow.server[1]);
        words += 3;
    } else {
        state = state.absorb(flow.client[0] << 32 | flow.server[0] & 0xffff_ffff);
    }
    state = state.absorb((flow.ports as u64) << 32 | initial as u64).absorb(marks);
    state.finish(words * 8)
}

struct State(u64, u64, u64, u64);

impl State {
    #[inline(always)]
    const fn new([a, b]: Secret) -> Self {
        Self(
            a ^ 0x736f_6d65_7073_6575,
            b ^ 0x646f_7261_6e64_6f6d,
            a ^ 0x6c79_6765_6e65_7261,
            b ^ 0x7465_6462_7974_6573,
        )
    }

    #[inline(always)]
    const fn round(self) -> Self {
        let Self(mut a, mut b, mut c, mut d) = self;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        Self(a, b, c, d)
    }

    #[inline(always)]
    const fn absorb(self, word: u64) -> Self {
        let Self(a, b, c, d) = Self(self.0, self.1, self.2, self.3 ^ word).round().round();
        Self(a ^ word, b, c, d)
    }

    /// The end of a message of that many octets, all of them in whole words.
    #[inline(always)]
    const fn finish(self, octets: u64) -> u64 {
        let Self(a, b, c, d) = self.absorb(octets << 56);
        let Self(a, b, c, d) = Self(a, b, c ^ 0xff, d).round().round().round().round();
        a ^ b ^ c ^ d
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use proptest::prelude::*;

    use super::*;

    const SECRET: Secret = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
    const UNIT_NS: u64 = 1 << UNIT_SHIFT;

    /// Goal: the hash is SipHash-2-4. Method: the authors' vectors for an empty message and for one of eight octets.
    #[test]
    fn hash_is_siphash() {
        assert_eq!(State::new(SECRET).finish(0), 0x726f_db47_dd0e_0e31);
        assert_eq!(State::new(SECRET).absorb(0x0706_0504_0302_0100).finish(8), 0x93f5_f579_9a93_2462);
    }

    /// Goal: the arrangements of common stacks are read, all others left to the stack. Method: each as its stack sends it; each
    /// with one option of another kind.
    #[test]
    fn arrangements_are_read() {
        let options =
            |segment_octets, scale, sack, timestamp| Options { segment_octets, scale, sack, timestamp };
        let table = [
            ("Linux", [0x0204_05b4, 0x0402_080a, 7, 0, 0x0103_0307, 0], 5, options(1460, 7, true, Some(7))),
            (
                "Linux, no time",
                [0x0204_05b4, 0x0101_0402, 0x0103_0309, 0, 0, 0],
                3,
                options(1460, 9, true, None),
            ),
            ("Windows", [0x0204_05b4, 0x0103_0308, 0x0101_0402, 0, 0, 0], 3, options(1460, 8, true, None)),
            (
                "macOS",
                [0x0204_05b4, 0x0103_0306, 0x0101_080a, 9, 0, 0x0402_0000],
                6,
                options(1460, 6, true, Some(9)),
            ),
            ("FreeBSD", [0x0204_05b4, 0x0103_0306, 0x0402_080a, 9, 0, 0], 5, options(1460, 6, true, Some(9))),
            ("MSS", [0x0204_0218, 0, 0, 0, 0, 0], 1, options(536, NO_SCALE, false, None)),
            (
                "a scale beyond 14",
                [0x0204_05b4, 0x0103_03ff, 0x0101_0402, 0, 0, 0],
                3,
                options(1460, 14, true, None),
            ),
        ];
        for (name, words, count, wanted) in table {
            assert_eq!(offered(words, count, false), Some(wanted), "{name}");
            let [first, ..] = words;
            for other in [first ^ 0x0001_0000, 0x0204_0217] {
                let mut changed = words;
                changed[0] = other;
                assert_eq!(offered(changed, count, false), None, "{name}");
            }
            assert_eq!(offered(words, count + 1, false), None, "{name}: another length");
        }
        assert_eq!(offered([0x0204_04c3, 0, 0, 0, 0, 0], 1, true), None, "1219 octets, over IPv6");
    }

    proptest! {
        /// Goal: a cookie is taken for its own connection, SYN and options alone, in its own time. Method: any connection; then
        /// one bit of anything changes.
        #[test]
        fn a_cookie_is_one_syns(
            client: u128, server: u128, ports: (u16, u16), is_v6: bool, initial: u32, octets in 1220u32..1500,
            scale in 0u32..15, sack: bool, time: Option<u32>, now_ns in 0u64..1 << 50, age in 0..UNIT_NS, bit in 0u32..32,
        ) {
            let words = |address: u128| [(address >> 96) as u32, (address >> 64) as u32, (address >> 32) as u32, address as u32];
            let key = |client: u128| FlowKey::new(words(client), ports.0, words(server), ports.1, is_v6);
            let flow = key(client);
            let offer = Options { segment_octets: octets, scale, sack, timestamp: time };
            let cookie = make(SECRET, &flow, initial, &offer, now_ns);
            let echoed = time.map(|_| cookie.timestamp);
            let then = now_ns + age;
            let found = check(SECRET, &flow, initial, cookie.sequence, echoed, then).expect("its own");
            let sizes = SEGMENT_OCTETS[usize::from(is_v6)];
            prop_assert_eq!(Some(found.segment_octets), sizes.into_iter().filter(|size| *size <= octets).max());
            match time {
                Some(_) => prop_assert_eq!((found.scale, found.sack), (scale, sack)),
                None => prop_assert_eq!((found.scale, found.sack), (NO_SCALE, false)),
            }
            prop_assert_eq!(check(SECRET, &flow, initial ^ 1 << bit, cookie.sequence, echoed, then), None);
            prop_assert_eq!(check(SECRET, &key(client ^ 1 << (96 + bit)), initial, cookie.sequence, echoed, then), None);
            prop_assert_eq!(check([1, 2], &flow, initial, cookie.sequence, echoed, then), None);
            for units in [2, 7, 8, 9, 16, 24] {
                let later = now_ns + units * UNIT_NS;
                prop_assert_eq!(check(SECRET, &flow, initial, cookie.sequence, echoed, later), None, "{} units", units);
            }
            prop_assert_eq!(check(SECRET, &flow, initial, cookie.sequence ^ 1 << bit, echoed, then), None);
            if let Some(echoed) = echoed {
                prop_assert_eq!(check(SECRET, &flow, initial, cookie.sequence, Some(echoed ^ 1 << (bit % 6)), then), None);
            }
        }
    }
}

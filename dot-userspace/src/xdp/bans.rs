//! Bans: clients whose packets are dropped for a while. The engine or an operator makes them, and the clock ends them.
//!
//! Before: a caller names the client, the duration and the reason. After: XDP drops the client's packets (all of them, or
//! for the engine those that begin something), and counts them on the ban.
//! Holds: the map BANS, which nothing else writes, and operators' reasons, for which the map has no room.
//! Never: bans a prefix of another length than limits use: a host, a client prefix, or a wider prefix.
//!
//! A predecessor's bans are taken over with its pinned map, with causes and hits but without reasons in words. Bans
//! with other prefix lengths are lifted, because their keys would mean other clients.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError, PerCpuArray},
};
use dot_common::{
    ban::{Ban, Cause},
    client_cache::CachedClient,
    maps::{BANS, BANS_MAX, MEMO, MEMO_MAX},
    network::Network,
};
use ipnet::IpNet;
use nix::time::{ClockId, clock_gettime};

use super::{
    XdpError,
    attach::{refused, take},
    deadlines::Deadlines,
    entries,
    error::innermost,
    report::{BanCounts, BanRow},
    settings::Prefixes,
};

/// Octets of an operator's reason.
const WORDS_OCTETS_MAX: usize = 200;
/// Longest ban: a week, after which the address may have another owner.
const LENGTH_MAX: Duration = Duration::from_secs(604_800);

/// Every ban.
pub(super) struct Bans {
    map: HashMap<MapData, Network, Ban>,
    /// The map in which each CPU keeps hits that are not added to their bans yet.
    cached: PerCpuArray<MapData, CachedClient>,
    /// Set when the kernel half needs new settings.
    pub(super) has_changed: bool,
    ends: Deadlines,
    words: BTreeMap<Network, String>,
    prefixes: Prefixes,
    counts: BanCounts,
    /// The number of the last ban.
    serial: u16,
}

/// Hits that CPUs have not added to a ban yet, by its client and [`Ban::serial`].
type Owed = BTreeMap<(Network, u32), u64>;

impl Bans {
    /// Takes the map out of the object; the bans of a predecessor in it stay.
    pub(super) fn take(object: &mut Ebpf, prefixes: Prefixes) -> Result<Self, XdpError> {
        let map = HashMap::try_from(take(object, BANS)?).map_err(|error| refused(BANS, &error))?;
        let cached = PerCpuArray::try_from(take(object, MEMO)?).map_err(|error| refused(MEMO, &error))?;
        let (ends, words, counts) = (Deadlines::new(BANS_MAX), BTreeMap::new(), BanCounts::default());
        let mut bans = Self { map, cached, has_changed: false, ends, words, prefixes, counts, serial: 0 };
        bans.adopt();
        Ok(bans)
    }

    /// Takes over bans that still apply and mean the same, and lifts the others.
    fn adopt(&mut self) {
        let found: Vec<_> = self.map.iter().flatten().collect();
        let now_ns = now_ns();
        for (prefix, ban) in found {
            let is_ours = self.prefixes.has(prefix);
            if is_ours && ban.stands(now_ns) && Cause::of(ban.cause).is_some() {
                self.ends.insert(prefix, ban.until_ns);
                self.serial = self.serial.max(ban.serial);
            } else {
                self.erase(prefix);
            }
        }
        if self.ends.len() > 0 {
            tracing::info!(bans = self.ends.len(), "took over the bans of a predecessor");
        }
    }

    /// Bans the client that an operator names, for `length` from now on; replaces an existing ban.
    ///
    /// # Errors
    /// [`XdpError::Ban`]: the fault of the request, or the kernel's error.
    pub(super) fn add(&mut self, client: &str, length: Duration, words: &str) -> Result<BanRow, XdpError> {
        let prefix = self.parse(client)?;
        if length.is_zero() || length > LENGTH_MAX {
            return Err(wrong("a ban lasts from a second to a week (7d)"));
        }
        if words.len() > WORDS_OCTETS_MAX || words.chars().any(char::is_control) {
            return Err(wrong(&format!(
                "a reason has at most {WORDS_OCTETS_MAX} octets and no control characters"
            )));
        }
        let owed = if self.ends.end_of(prefix).is_some() { self.owed() } else { Owed::new() };
        self.insert(prefix, length, Cause::Operator)?;
        self.words.insert(prefix, words.to_owned());
        self.row(prefix, &owed).ok_or_else(|| wrong("the ban was over at once"))
    }

    /// Bans a client for the engine. A longer ban that exists stays, and so does an operator's, which refuses more.
    pub(super) fn add_for(&mut self, prefix: Network, length: Duration, cause: Cause) {
        let now_ns = now_ns();
        let end_ns = now_ns.saturating_add(nanoseconds(length));
        let stays = |before: Ban| before.until_ns >= end_ns || before.is_operators() && before.stands(now_ns);
        if self.map.get(&prefix, 0).is_ok_and(stays) {
            return;
        }
        match self.insert(prefix, length, cause) {
            Ok(()) => tracing::info!(cause = cause.name(), seconds = length.as_secs(), "a client is banned"),
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// Makes a ban again that applied before a restart. `false`: it means no client now, or there is no room.
    pub(super) fn restore(&mut self, ban: &BanRow) -> bool {
        let length = Duration::from_secs(ban.seconds_left).min(LENGTH_MAX);
        let cause = Cause::ALL.iter().find(|cause| cause.name() == ban.cause);
        let (Ok(prefix), Some(&cause)) = (self.parse(&ban.prefix), cause) else { return false };
        if cause == Cause::Operator {
            return self.add(&ban.prefix, length, &ban.reason).is_ok();
        }
        self.insert(prefix, length, cause).is_ok()
    }

    /// Lifts a ban.
    ///
    /// # Errors
    /// [`XdpError::Ban`]: there is no such ban, or `client` is not a prefix.
    pub(super) fn remove(&mut self, client: &str) -> Result<BanRow, XdpError> {
        let prefix = self.parse(client)?;
        let row = self.row(prefix, &self.owed());
        let row = row.ok_or_else(|| wrong(&format!("{client} is not banned")))?;
        self.erase(prefix);
        Ok(row)
    }

    /// Removes expired bans. The kernel half itself ends a ban in time.
    pub(super) fn sweep(&mut self) {
        let now_ns = now_ns();
        while let Some(prefix) = self.ends.over(now_ns) {
            self.erase(prefix);
        }
    }

    /// Every ban, sorted by its end.
    pub(super) fn rows(&self) -> Vec<BanRow> {
        let owed = self.owed();
        let mut rows: Vec<_> = self.ends.iter().filter_map(|(prefix, _)| self.row(prefix, &owed)).collect();
        rows.sort_by_key(|row| row.seconds_left);
        rows
    }

    /// The ban of a client.
    pub(super) fn of(&self, client: Network) -> Option<BanRow> {
        self.ends.end_of(client)?;
        self.row(client, &self.owed())
    }

    /// The number of bans now, and so far.
    pub(super) fn counts(&self) -> BanCounts {
        BanCounts { current: self.ends.len(), ..self.counts.clone() }
    }

    /// IP versions with bans.
    pub(super) fn versions(&self) -> u8 {
        self.ends.versions()
    }

    fn insert(&mut self, prefix: Network, length: Duration, cause: Cause) -> Result<(), XdpError> {
        if let Some(nearest) = self.ends.in_the_way_of(prefix) {
            tracing::warn!(
                bans = self.ends.len(),
                "all room for bans is taken: the one nearest to its end gives way"
            );
            self.counts.displaced += 1;
            self.erase(nearest);
        }
        let until_ns = now_ns().saturating_add(nanoseconds(length));
        let before = self.map.get(&prefix, 0).ok();
        // A CPU may still hold hits of a lifted ban, which do not belong to this one.
        self.serial = self.serial.wrapping_add(1);
        let (hits, serial) = before.map_or((0, self.serial), |before| (before.hits, before.serial));
        let bits = u16::try_from(prefix.bits).unwrap_or_default();
        let ban = Ban { until_ns, hits, cause: cause as u32, bits, serial };
        entries::insert(|| self.map.insert(prefix, ban, 0)).map_err(|error| wrong(&innermost(&error)))?;
        self.has_changed = true;
        self.ends.insert(prefix, until_ns);
        self.words.remove(&prefix);
        *self.counts.made.entry(cause.name().to_owned()).or_default() += 1;
        Ok(())
    }

    fn erase(&mut self, prefix: Network) {
        match self.map.remove(&prefix) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            // The ban ends by itself; until then it only occupies its entry.
            Err(error) => tracing::error!("a ban stays in the map: {}", innermost(&error)),
        }
        self.has_changed = true;
        self.ends.remove(prefix);
        self.words.remove(&prefix);
    }

    /// Hits that CPUs have not added to their bans yet.
    fn owed(&self) -> Owed {
        let mut owed = Owed::new();
        for cached in (0..MEMO_MAX).filter_map(|place| self.cached.get(&place, 0).ok()) {
            for cached in cached.iter() {
                if let Some(prefix) = cached.owes() {
                    *owed.entry((*prefix, cached.serial)).or_default() += cached.hits;
                }
            }
        }
        owed
    }

    fn row(&self, prefix: Network, owed: &Owed) -> Option<BanRow> {
        let ban = self.map.get(&prefix, 0).ok()?;
        let left_ns = ban.until_ns.checked_sub(now_ns()).filter(|left_ns| *left_ns > 0)?;
        Some(BanRow {
            prefix: prefix.to_string(),
            cause: Cause::of(ban.cause)?.name().to_owned(),
            reason: self.words.get(&prefix).cloned().unwrap_or_default(),
            hits: ban.hits + owed.get(&(prefix, u32::from(ban.serial))).copied().unwrap_or_default(),
            seconds_left: left_ns.div_ceil(NANOSECONDS),
        })
    }

    /// The network that an operator means: the client prefix of an address, or a prefix as long as one of the levels.
    fn parse(&self, text: &str) -> Result<Network, XdpError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(self.prefixes.levels(address).client);
        }
        let network: IpNet =
            text.parse().map_err(|_| wrong(&format!("\"{text}\" is neither an address nor a prefix")))?;
        let levels = self.prefixes.levels(network.addr());
        let found = levels.distinct().find(|level| level.bits == u32::from(network.prefix_len()));
        found.ok_or_else(|| {
            let lengths: Vec<_> = levels.distinct().map(|level| format!("/{}", level.bits)).collect();
            let version = if levels.host.is_v6() { "v6" } else { "v4" };
            wrong(&format!(
                "{network}: bans are of {} (xdp.limit.prefix_{version}, wide_{version}); xdp.deny takes any length",
                lengths.join(", ")
            ))
        })
    }
}

const NANOSECONDS: u64 = 1_000_000_000;

fn wrong(reason: &str) -> XdpError {
    XdpError::Ban { reason: reason.into() }
}

fn nanoseconds(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

/// The clock that bpf_ktime_get_ns reads.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    nanoseconds(now)
}

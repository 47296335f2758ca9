//! Moves packets between CPUs (`xdp.steering = "cpumap"`): a queue for each CPU, and the outcome.
//!
//! Before: the object was loaded with the program's bit. After: each packet for dotd goes to the CPU of its connection.
//! Holds: the queues, whose threads in the kernel live as long as this process or the program holds the map.
//! Never: stops the start: without queues packets stay on the CPU that the network card chose, and the report says why.

use std::fs;

use aya::{
    Ebpf,
    maps::{Array, CpuMap, MapData},
    util::online_cpus,
};
use dot_common::maps::{CPU_QUEUES, CPUS_MAX, SPREAD_OVER};

use super::{
    XdpError,
    object_parts::{absent, refused, take},
};
use crate::config::{Steering, Xdp};

/// CPUs that an operator reserved (`isolcpus`, isolated partitions).
const ISOLATED: &str = "/sys/devices/system/cpu/isolated";

/// The most packets that wait for a CPU: as in the kernel's samples, about 2 ms of small frames at 10 Gbit/s.
const QUEUE_PACKETS: u32 = 2048;

/// The config's choice and the outcome.
pub(super) struct Spread {
    cpus: Vec<u32>,
    queues: Option<CpuMap<MapData>>,
    refusal: Option<String>,
}

impl Spread {
    /// The CPUs that the config asks for: all except isolated ones, or none.
    pub(super) fn of(config: &Xdp) -> Self {
        let mut spread = Self { cpus: Vec::new(), queues: None, refusal: None };
        if config.steering == Steering::Cpumap {
            let isolated = cpus(&fs::read_to_string(ISOLATED).unwrap_or_default());
            match online_cpus() {
                Ok(online) => {
                    let is_taken = |cpu: &u32| *cpu < CPUS_MAX && !isolated.contains(cpu);
                    spread.cpus = online.into_iter().filter(is_taken).collect();
                }
                Err((what, error)) => spread.refusal = Some(format!("{what}: {error}")),
            }
        }
        spread
    }

    /// Whether the program is wanted.
    pub(super) fn is_wanted(&self) -> bool {
        !self.cpus.is_empty()
    }

    /// The number of CPUs that take packets.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.cpus.len()).unwrap_or(CPUS_MAX)
    }

    /// The number of entries for the map of queues, which is indexed by the numbers of CPUs.
    pub(super) fn entries(&self) -> u32 {
        self.cpus.iter().max().map_or(1, |highest| highest + 1)
    }

    /// Makes the queues.
    pub(super) fn make(&mut self, object: &mut Ebpf) -> Result<(), XdpError> {
        let map = take(object, CPU_QUEUES)?;
        let mut queues = CpuMap::try_from(map).map_err(|error| refused(CPU_QUEUES, &error))?;
        // The map stays in the object, because a program that is not loaded yet names it.
        let map = object.map_mut(SPREAD_OVER).ok_or_else(|| absent(SPREAD_OVER))?;
        let mut over = Array::try_from(map).map_err(|error| refused(SPREAD_OVER, &error))?;
        for (place, cpu) in (0..).zip(&self.cpus) {
            queues.set(*cpu, QUEUE_PACKETS, None, 0).map_err(|error| refused(CPU_QUEUES, &error))?;
            over.set(place, *cpu, 0).map_err(|error| refused(SPREAD_OVER, &error))?;
        }
        self.queues = Some(queues);
        Ok(())
    }

    /// Notes that the queues or the program were refused.
    pub(super) fn refused(&mut self, why: String) {
        self.queues = None;
        self.refusal = Some(why);
    }

    /// The text beside the steering of connections: whether packets move, or why not. `None`: the config does not ask
    /// for it.
    pub(super) fn state(&self) -> Option<Result<(), String>> {
        match (&self.queues, &self.refusal) {
            (Some(_), _) => Some(Ok(())),
            (None, Some(refusal)) => Some(Err(refusal.clone())),
            (None, None) => None,
        }
    }
}

/// The CPUs of a list in the kernel's form: "2-3,7". Other text gives none.
fn cpus(list: &str) -> Vec<u32> {
    let ranges = list.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?.min(CPUS_MAX))
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: isolated CPUs are read in the kernel's form. Method: lists, and text that is no list.
    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(cpus("2-4,7\n"), [2, 3, 4, 7]);
        for nothing in ["\n", "", "all", "7-", "5-2"] {
            assert_eq!(cpus(nothing), Vec::<u32>::new(), "{nothing:?}");
        }
        assert_eq!(cpus("0-4294967295").len(), CPUS_MAX as usize + 1);
    }
}

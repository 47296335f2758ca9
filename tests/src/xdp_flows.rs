//! Both maps of connections as one: the kernel half has a map for each IP version.
//!
//! Before: a loaded object. After: a test reads and writes whole keys. Never: decides which map the kernel half reads.

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use dot_common::{
    flow::{Flow, FlowKey},
    maps,
};

/// The two maps.
pub(crate) struct Flows {
    v4: HashMap<MapData, [u32; 3], Flow>,
    v6: HashMap<MapData, [u32; 9], Flow>,
}

impl Flows {
    /// Takes both maps out of an object.
    pub(crate) fn take(object: &mut Ebpf) -> Self {
        let mut take = |name: &str| object.take_map(name).expect("the object has all maps");
        let (v4, v6) = (take(maps::FLOWS4), take(maps::FLOWS6));
        Self { v4: HashMap::try_from(v4).unwrap(), v6: HashMap::try_from(v6).unwrap() }
    }

    pub(crate) fn get(&self, key: &FlowKey) -> Option<Flow> {
        if key.is_v6() { self.v6.get(&key.v6(), 0) } else { self.v4.get(&key.v4(), 0) }.ok()
    }

    pub(crate) fn all(&self) -> Vec<(FlowKey, Flow)> {
        let v4 = self.v4.iter().map(|row| {
            let ([client, server, ports], flow) = row.unwrap();
            let (client, server) = ([client.into(), 0], [server.into(), 0]);
            (FlowKey { client, server, ports, version: 4 }, flow)
        });
        let v6 = self.v6.iter().map(|row| {
            let ([a, b, c, d, e, f, g, h, ports], flow) = row.unwrap();
            let half = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
            let (client, server) = ([half(a, b), half(c, d)], [half(e, f), half(g, h)]);
            (FlowKey { client, server, ports, version: 6 }, flow)
        });
        v4.chain(v6).collect()
    }

    pub(crate) fn insert(&mut self, key: &FlowKey, flow: &Flow) {
        let written = match key.is_v6() {
            true => self.v6.insert(key.v6(), flow, 0),
            false => self.v4.insert(key.v4(), flow, 0),
        };
        written.unwrap();
    }
}

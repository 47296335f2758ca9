//! The compiled kernel half must agree with dot-common, and this kernel must accept it.
//!
//! Never: attaches anything.

use aya::{Ebpf, EbpfLoader, maps::Map, programs::Program, util::KernelVersion};
use dot_common::{
    ban::Ban,
    client_cache::CachedClient,
    counters::COUNTERS as COUNTERS_MAX,
    flow::{Flow, FlowKey},
    maps,
    settings::Settings,
    tail_calls,
    worker_status::WorkerStatus,
};
use dot_userspace::xdp::{object::OBJECT, with_proxy};

/// The most verified instructions of a program. The kernel's own limit is a million; 160,000 took 155 ms to load.
const VERIFIED_INSTRUCTIONS_MAX: u32 = 50_000;

/// Workers of a large machine: the verifier walks the loop over them once for each worker, 24 instructions.
const WORKERS: u32 = 64;

/// The object, with a proxy that can be loaded where the kernel has its function.
fn image() -> (Vec<u8>, bool) {
    match with_proxy() {
        Ok(object) => (object, true),
        Err(why) => {
            println!("no SYN proxy: {why}");
            (OBJECT.to_vec(), false)
        }
    }
}

fn load(test: &str) -> Option<Ebpf> {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED {test}: BPF programs need root");
        return None;
    }
    // With every follower, as in a dotd with all features: the jumps of features that are off cost nothing.
    let all = (1u32 << tail_calls::SLOTS) - 1;
    let mut loader = EbpfLoader::new();
    loader.override_global(maps::GLOBAL_WORKERS, &WORKERS, true);
    Some(loader.override_global(maps::GLOBAL_FOLLOW, &all, true).load(&image().0).expect("the object loads"))
}

/// Goal: the object holds every map, in the shape that both halves rely on.
/// Method: loads it and asks the kernel.
#[test]
fn object_holds_the_maps() {
    let Some(object) = load("object_holds_the_maps") else { return };
    for name in maps::ALL {
        assert!(object.map(name).is_some(), "{name} is missing");
    }
    let shape = |name: &str| {
        let map = match object.map(name) {
            Some(
                Map::LruHashMap(map)
                | Map::HashMap(map)
                | Map::PerCpuArray(map)
                | Map::Array(map)
                | Map::LpmTrie(map),
            ) => map,
            other => panic!("{name}: {other:?}"),
        };
        let info = map.info().unwrap();
        (info.key_size() as usize, info.value_size() as usize, info.max_entries())
    };
    let (v4, v6) = (size_of_val(&FlowKey::default().v4()), size_of_val(&FlowKey::default().v6()));
    assert_eq!(shape(maps::FLOWS4), (v4, size_of::<Flow>(), maps::FLOWS_MAX));
    assert_eq!(shape(maps::FLOWS6), (v6, size_of::<Flow>(), maps::FLOWS_MAX));
    assert_eq!(shape(maps::COUNTERS), (4, 8, COUNTERS_MAX));
    assert_eq!(shape(maps::SETTINGS), (4, size_of::<Settings>(), 1));
    assert_eq!(shape(maps::RATE), (8, 8, maps::RATE_MAX));
    assert_eq!(shape(maps::BANS), (16, size_of::<Ban>(), maps::BANS_MAX));
    assert_eq!(shape(maps::PROVEN), (16, 8, maps::PROVEN_MAX));
    assert_eq!(shape(maps::SPENT), (16, 16, maps::SPENT_MAX));
    assert_eq!(shape(maps::WORKERS), (4, size_of::<WorkerStatus>(), maps::WORKERS_MAX));
    assert_eq!(shape(maps::MEMO), (4, size_of::<CachedClient>(), maps::MEMO_MAX));
    assert!(matches!(object.map(maps::BANS), Some(Map::HashMap(_))), "a ban that a packet can evict is none");
    for (name, key_octets) in [(maps::DENY4, 8), (maps::DENY6, 20), (maps::ALLOW4, 8), (maps::ALLOW6, 20)] {
        assert_eq!(shape(name), (key_octets, 4, maps::LISTED_MAX), "{name}");
    }
    assert!(matches!(object.map(maps::SOCKETS), Some(Map::ReusePortSockArray(_))));
}

/// Goal: each program passes the verifier, far from its limits. Method: loads each, and prints its figures.
#[test]
fn programs_load_within_budget() {
    let Some(mut object) = load("programs_load_within_budget") else { return };
    println!("object: {} octets", OBJECT.len());
    let mut names: Vec<String> = object.programs().map(|(name, _)| name.to_owned()).collect();
    names.sort();
    let all = [
        maps::PROGRAM_COOKIE,
        maps::PROGRAM_INGRESS,
        maps::PROGRAM_LEARN,
        maps::PROGRAM_LEARN_IP,
        maps::PROGRAM_NOTICE,
        maps::PROGRAM_PROXY,
        maps::PROGRAM_SPREAD,
        maps::PROGRAM_STEER,
        maps::PROGRAM_XDP,
    ];
    assert_eq!(names, all);
    let has_proxy = image().1;
    assert_eq!(has_proxy, KernelVersion::current().unwrap() >= KernelVersion::new(6, 9, 0));
    for name in names.iter().filter(|name| has_proxy || *name != maps::PROGRAM_PROXY) {
        let program = object.program_mut(name).unwrap();
        let loaded = match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            Program::SkReuseport(program) => program.load(),
            other => panic!("{name} is a {other:?}"),
        };
        if let Err(error) = loaded {
            panic!("{name}: {error:#?}");
        }
        let info = program.info().unwrap();
        let verified = info.verified_instruction_count().unwrap();
        println!("{name}: {verified} verified instructions, {} octets", info.size_translated().unwrap());
        assert!(verified < VERIFIED_INSTRUCTIONS_MAX, "{name}: {verified} verified instructions");
    }
}

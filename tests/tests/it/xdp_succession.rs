//! One dotd after another: the state of a crashed one is taken over, and no packet passes unjudged or is lost
//! meanwhile.
//!
//! Holds: each test in a thread with namespaces of its own. Needs root; prints SKIPPED without.
//! Never: touches an interface or a pin of the machine.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use aya::{
    maps::{Map, MapData, PerCpuArray},
    programs::links::{FdLink, PinnedLink},
};
use dot_common::counters;
use dot_tests::{
    frames::Build,
    harness::flood::Wire,
    harness::uninterrupted,
    xdp_field::{
        begin, beside, count, ip_says, isolated, listeners, pins, programs_on, try_begin, until_free,
    },
};
use dot_userspace::config::{Xdp as Config, XdpMode};
use nix::fcntl::{Flock, FlockArg};

/// XDP on both: without names the pair's end, as in a container, is judged at tc ingress.
fn named() -> Config {
    Config { interfaces: vec!["here".into(), "lo".into()], ..Config::default() }
}

/// Goal: a crashed predecessor's links are taken over, with its flows, and no second set is made. Method: drops a
/// kernel half without detaching, as a crash would, and compares pins and flows.
#[test]
fn successor_takes_over() {
    isolated("successor_takes_over", || {
        let listeners = listeners("0.0.0.0:853", 2);
        let first = begin(&named(), &listeners);
        let client = TcpStream::connect("127.0.0.1:853").unwrap();
        let link = first.report().programs[0].id;
        drop(first);
        let left = pins();
        assert!(programs_on("here").contains(&format!("id {link} ")), "{}", programs_on("here"));

        let second = begin(&named(), &listeners);
        let report = second.report();
        assert_eq!(report.state, "mixed", "{report:#?}");
        assert_ne!(report.programs[0].id, link);
        assert!(programs_on("here").contains(&format!("id {} ", report.programs[0].id)));
        assert_eq!(count(&second, "pass", "syn"), 0, "a new process counts from zero");
        assert_eq!(pins(), left);
        // The connection was made under the predecessor, and is still known.
        (&client).write_all(b"cleartext").unwrap();
        assert!(count(&second, "drop", "cleartext_on_dot") >= 1);
        assert_eq!(count(&second, "pass", "unknown_flow"), 0);
        second.detach();
        assert_eq!(pins(), Vec::<PathBuf>::new());
    });
}

/// The kernel's numbers of the link on `here` and of its program.
fn link_on_here() -> (u32, u32) {
    let pin = pins().into_iter().find(|path| path.to_string_lossy().contains("/xdp_native_")).expect("a pin");
    let info = FdLink::from(PinnedLink::from_pin(pin).unwrap()).info().unwrap();
    (info.id(), info.program_id())
}

/// Goal: an upgrade to another schema of maps leaves no packet unjudged: the link of the old folder is taken over, the
/// maps beside it, whose shape may differ, are gone, and so is the folder. A folder of another namespace stays, and
/// objects of a running dotd are not touched. Method: a crashed predecessor whose folder is renamed to another
/// schema's.
#[test]
fn links_of_another_schema_are_taken_over() {
    isolated("links_of_another_schema_are_taken_over", || {
        let root = PathBuf::from("/sys/fs/bpf/dotd");
        let listeners = listeners("0.0.0.0:853", 2);
        drop(begin(&named(), &listeners));
        let (link, program) = link_on_here();
        let folder = pins().into_iter().find(|path| path.join("FLOWS4").exists()).unwrap();
        let schema = folder.parent().unwrap();
        let old = root.join("v0");
        fs::rename(schema, &old).unwrap();
        fs::create_dir_all(root.join("v7/1")).unwrap();

        let running = fs::File::open(old.join(folder.file_name().unwrap())).unwrap();
        let running = Flock::lock(running, FlockArg::LockExclusiveNonblock).unwrap();
        let off = begin(&named(), &listeners);
        assert!(off.report().reason.unwrap().contains("another dotd"));
        off.detach();
        drop(running);

        let xdp = begin(&named(), &listeners);
        assert!(!old.exists(), "{:#?}", pins());
        let (same, ours) = link_on_here();
        assert_eq!((same, ours), (link, xdp.report().programs[0].id));
        assert_ne!(ours, program);
        xdp.detach();
        assert_eq!(pins(), [root.clone(), root.join("v7"), root.join("v7/1")]);
        until_free("here");
    });
}

/// Goal: two dotds in one network namespace do not replace each other. Method: starts a second while the first runs.
///
#[test]
fn second_instance_stays_off() {
    isolated("second_instance_stays_off", || {
        let listeners = listeners("127.0.0.1:853", 1);
        let first = begin(&Config::default(), &listeners);
        let second = begin(&Config::default(), &listeners);
        assert_eq!(second.report().state, "off");
        assert!(second.report().reason.unwrap().contains("another dotd"));
        second.detach();
        assert_eq!(first.report().state, "generic");
        assert!(!pins().is_empty(), "the second's end must not take the first's pins");
        let required = Config { required: true, ..Config::default() };
        assert!(try_begin(&required, &listeners).is_err());
        first.detach();
    });
}

/// The counters that a running dotd has pinned: they can be read after its end.
fn pinned_counters() -> PerCpuArray<MapData, u64> {
    let pin = pins().into_iter().find(|path| path.ends_with("COUNTERS")).expect("COUNTERS is pinned");
    PerCpuArray::try_from(Map::PerCpuArray(MapData::from_pin(pin).unwrap())).unwrap()
}

/// Every packet that one dotd counted.
fn counted(map: &PerCpuArray<MapData, u64>) -> u64 {
    let total = |verdict| map.get(&counters::index(verdict), 0).unwrap().iter().sum::<u64>();
    counters::rows().map(total).sum()
}

/// Frames that the pair itself lost because its ring was full.
fn lost_by_the_pair() -> u64 {
    // `ip -statistics -oneline`: "… RX: bytes packets errors dropped … TX: bytes packets errors dropped …".
    let dropped = |name: &str, direction: &str| -> u64 {
        let text = ip_says(&format!("-statistics -oneline link show {name}"));
        let (_, after) = text.split_once(&format!("{direction}:")).expect("statistics");
        let numbers = after.split_whitespace().filter_map(|word| word.trim_end_matches('\\').parse().ok());
        numbers.collect::<Vec<u64>>()[3]
    };
    dropped("there", "TX") + dropped("here", "RX")
}

/// Goal: dotds that crash and follow each other under load leave no packet uncounted: each frame of a flood is counted
/// once, by one of them. Method: a flood of datagrams to 853 through the pair, six successors meanwhile; the sum over
/// all their counters, which outlive them here, is the number of frames sent.
#[test]
fn replacement_under_load_leaves_no_packet_uncounted() {
    isolated("replacement_under_load_leaves_no_packet_uncounted", || {
        const SUCCESSORS: usize = 6;
        let listeners = listeners("192.0.2.1:853", 2);
        let config = Config { mode: XdpMode::Native, ..Config::default() };
        let mut dotd = begin(&config, &listeners);
        let mut books = vec![pinned_counters()];
        let is_over = Arc::<AtomicBool>::default();
        let until = Arc::clone(&is_over);
        let wire = Wire::between("there", "here");
        let flood = thread::spawn(move || {
            let frame = Build::udp(853, b"no quic here").frame();
            let mut sent = 0u64;
            while !until.load(Relaxed) {
                sent += u64::from(wire.send(frame.clone()));
                // The pair's ring holds 256 frames: its other end keeps up with this.
                if sent.is_multiple_of(64) {
                    thread::sleep(Duration::from_micros(200));
                }
            }
            sent
        });
        for successor in 0..SUCCESSORS {
            let before = counted(&books[successor]);
            while counted(&books[successor]) < before + 1_000 {
                thread::sleep(Duration::from_millis(5));
            }
            drop(dotd);
            dotd = begin(&config, &listeners);
            books.push(pinned_counters());
        }
        while counted(&books[SUCCESSORS]) < 1_000 {
            thread::sleep(Duration::from_millis(5));
        }
        is_over.store(true, Relaxed);
        let sent = flood.join().unwrap();
        let total = || books.iter().map(counted).sum::<u64>() + lost_by_the_pair();
        for _ in 0..500 {
            if total() >= sent {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        println!(
            "{sent} sent, {} lost by the pair, by dotd: {:?}",
            lost_by_the_pair(),
            books.iter().map(counted).collect::<Vec<_>>()
        );
        assert_eq!(total(), sent);
        assert_eq!(count(&dotd, "drop", "udp_on_dot"), counted(&books[SUCCESSORS]));
        dotd.detach();
    });
}

/// The octet at this place of a transfer.
fn octet(place: usize) -> u8 {
    (place ^ (place >> 8) ^ (place >> 16)) as u8
}

/// Goal: attaching, taking over and detaching in the middle of a transfer loses no octet of it and refuses none:
/// segments of a connection that began before the program passes. Method: 24 MiB over one connection to 853, in both
/// modes, while the kernel half comes and goes; every octet is compared.
#[test]
fn coming_and_going_in_a_transfer_loses_no_octet() {
    isolated("coming_and_going_in_a_transfer_loses_no_octet", || {
        const OCTETS: usize = 24 << 20;
        let mut listeners = listeners("192.0.2.1:853", 1);
        let server = thread::spawn(move || {
            let (mut stream, _) = listeners[0].accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let mut buffer = vec![0; 64 << 10];
            let mut place = 0;
            let mut dotd = None;
            let mut passed = 0;
            let mut changes =
                [XdpMode::Native, XdpMode::Native, XdpMode::Off, XdpMode::Generic, XdpMode::Off]
                    .into_iter()
                    .zip((1..).map(|step| step * OCTETS / 6))
                    .peekable();
            while place < OCTETS {
                let length = uninterrupted(|| stream.read(&mut buffer)).expect("the transfer goes on");
                assert!(length > 0, "it ended after {place} octets");
                let wrong = buffer[..length].iter().zip(place..).find(|(got, at)| **got != octet(*at));
                assert!(wrong.is_none(), "{wrong:?}");
                place += length;
                if let Some((mode, _)) = changes.next_if(|(_, at)| place >= *at) {
                    let gone = dotd.take();
                    passed += gone.as_ref().map_or(0, |dotd| count(dotd, "pass", "unknown_flow"));
                    // Native mode follows native mode as after a crash; the other changes are as after a clean end.
                    match gone {
                        Some(gone) if mode == XdpMode::Native => drop(gone),
                        Some(gone) => gone.detach(),
                        None => {}
                    }
                    until_detached(mode);
                    dotd = (mode != XdpMode::Off)
                        .then(|| begin(&Config { mode, ..Config::default() }, &listeners));
                }
            }
            assert!(
                changes.peek().is_none() && passed > 100,
                "{passed} packets of an unknown connection passed"
            );
            listeners.clear();
        });
        beside("there", &["192.0.2.2/24"], || {
            let mut stream = TcpStream::connect("192.0.2.1:853").unwrap();
            let octets: Vec<u8> = (0..OCTETS).map(octet).collect();
            stream.write_all(&octets).unwrap();
            assert_eq!(uninterrupted(|| stream.read(&mut [0])).unwrap(), 0);
        });
        server.join().unwrap();
        until_free("here");
    });
}

/// A new link in another mode has to wait until the old one has gone.
fn until_detached(next: XdpMode) {
    if next != XdpMode::Native {
        until_free("here");
    }
}

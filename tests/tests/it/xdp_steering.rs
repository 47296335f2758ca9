//! A connection goes to the worker of the CPU that receives its packets.
//!
//! Holds: clients on loopback, pinned to one CPU each: there a SYN is received on the CPU that sent it. Needs root for
//! namespaces; prints SKIPPED without.
//! Never: attaches XDP.

use std::{
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    thread,
    time::Duration,
};

use dot_tests::xdp_field::{become_nobody, isolated, listeners};
use dot_userspace::{
    config::{Steering, Xdp as Config, XdpMode},
    xdp::{ListenerGroup, Report, Xdp, start},
};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// The CPUs that this process may use.
fn cpus() -> Vec<usize> {
    let usable = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).filter(|cpu| usable.is_set(*cpu).unwrap()).collect()
}

fn pin_to(cpus: &[usize]) {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu).unwrap());
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

fn steer(steering: Steering, groups: &[Vec<TcpListener>]) -> Report {
    start_steering(steering, groups).report()
}

fn start_steering(steering: Steering, groups: &[Vec<TcpListener>]) -> Xdp {
    let groups: Vec<_> = groups
        .iter()
        .map(|group| ListenerGroup {
            address: group[0].local_addr().unwrap(),
            sockets: group.iter().map(AsFd::as_fd).collect(),
        })
        .collect();
    let config = Config { steering, mode: XdpMode::Off, ..Config::default() };
    start(&config, &groups).unwrap()
}

/// The number of connections that wait at each listener; closes all of them.
fn accepted(group: &[TcpListener]) -> Vec<usize> {
    group
        .iter()
        .map(|listener| {
            listener.set_nonblocking(true).unwrap();
            std::iter::from_fn(|| listener.accept().ok()).count()
        })
        .collect()
}

/// Connects that many times from one CPU.
fn connect_from(cpu: usize, address: &str, times: usize) -> Vec<TcpStream> {
    let all = cpus();
    pin_to(&[cpu]);
    let streams = (0..times).map(|_| TcpStream::connect(address).unwrap()).collect();
    pin_to(&all);
    streams
}

/// Asserts that all connections of a CPU are at its worker, in each of two groups.
fn assert_own_worker(groups: &[Vec<TcpListener>], addresses: &[&str]) {
    for cpu in cpus() {
        for (group, address) in groups.iter().zip(addresses) {
            let held = connect_from(cpu, address, 20);
            let mut wanted = vec![0; group.len()];
            wanted[cpu % group.len()] = held.len();
            // The last ACK of a handshake may still be in transit.
            let mut found = accepted(group);
            for _ in 0..500 {
                if found.iter().sum::<usize>() == held.len() {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
                found.iter_mut().zip(accepted(group)).for_each(|(sum, more)| *sum += more);
            }
            assert_eq!(found, wanted, "CPU {cpu}, {address}");
        }
    }
}

/// Goal: each CPU's connections go to its worker, and two listen addresses never mix. Method: 20 connections
/// from each CPU to each of two groups.
#[test]
fn program_gives_each_cpu_its_worker() {
    isolated("program_gives_each_cpu_its_worker", || {
        let addresses = ["127.0.0.1:853", "[::1]:853"];
        let groups = addresses.map(|address| listeners(address, cpus().len()));
        let report = steer(Steering::Auto, &groups);
        if cpus().len() < 2 {
            return assert_eq!(report.steering, "kernel-hash");
        }
        assert_eq!(report.steering, "reuseport-ebpf", "{:?}", report.steering_reason);
        assert_own_worker(&groups, &addresses);
    });
}

/// Goal: the method that needs no right does the same. Method: becomes nobody, in this thread alone.
#[test]
fn classic_program_gives_each_cpu_its_worker() {
    isolated("classic_program_gives_each_cpu_its_worker", || {
        let groups = [listeners("127.0.0.1:8853", cpus().len())];
        become_nobody();
        let report = steer(Steering::Reuseport, &groups);
        if cpus().len() < 2 {
            return assert_eq!(report.steering, "kernel-hash");
        }
        assert_eq!(report.steering, "reuseport-cbpf");
        assert_own_worker(&groups, &["127.0.0.1:8853"]);
    });
}

/// Goal: with more workers than CPUs none is idle; and when one is gone, its connections go to others. Method: three
/// workers per CPU and many connections; then closes one.
#[test]
fn more_workers_than_cpus_all_work() {
    isolated("more_workers_than_cpus_all_work", || {
        let address = "127.0.0.1:853";
        let workers = cpus().len() * 3;
        let mut groups = [listeners(address, workers)];
        assert_eq!(steer(Steering::Auto, &groups).steering, "reuseport-ebpf");
        let mut found = vec![0; workers];
        for _ in 0..20 {
            for cpu in cpus() {
                let _held = connect_from(cpu, address, 12);
                found.iter_mut().zip(accepted(&groups[0])).for_each(|(sum, more)| *sum += more);
            }
        }
        assert!(found.iter().all(|connections| *connections > 0), "{found:?}");

        drop(groups[0].remove(0));
        let held = connect_from(cpus()[0], address, 40);
        assert_eq!(held.len(), 40, "an empty slot refuses no client");
    });
}

/// Goal: a worker that drains, is closed for a while or has its share gets no connection while another worker takes
/// them; when none does, connections stay with their CPU's worker. Method: two workers, one CPU's connections, each
/// state of their entries.
#[test]
fn connections_go_past_a_worker_without_room() {
    isolated("connections_go_past_a_worker_without_room", || {
        if cpus().len() < 2 {
            return println!("one CPU: nothing to steer");
        }
        let (address, cpu, hour) = ("127.0.0.1:853", cpus()[0], Duration::from_secs(3600));
        let groups = [listeners(address, 2)];
        let xdp = start_steering(Steering::Auto, &groups);
        assert_eq!(xdp.report().steering, "reuseport-ebpf");
        let own = cpu % 2;
        let lines = [xdp.status_writer(own), xdp.status_writer(1 - own)];
        // How many of four connections each of the two workers gets, the CPU's own worker first.
        let shares = || {
            let held = connect_from(cpu, address, 4);
            let mut found = [0; 2];
            for _ in 0..500 {
                found.iter_mut().zip(accepted(&groups[0])).for_each(|(sum, more)| *sum += more);
                if found.iter().sum::<usize>() == held.len() {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
            [found[own], found[1 - own]]
        };
        assert_eq!(shares(), [4, 0], "no worker has a status");
        lines[0].publish(5, 10, 0, true);
        assert_eq!(shares(), [0, 4], "it has its share");
        lines[1].publish(6, 10, 0, true);
        assert_eq!(shares(), [4, 0], "the other one has more");
        lines[0].close_for(hour);
        assert_eq!(shares(), [0, 4], "it is closed");
        lines[1].close_for(hour);
        assert_eq!(shares(), [4, 0], "both are");
        lines[1].end();
        lines[0].publish(0, 10, 0, true);
        assert_eq!(shares(), [4, 0], "the other one drains");
        lines[0].end();
        assert_eq!(shares(), [4, 0], "both drain");
        let accepting: Vec<bool> = xdp.report().workers.iter().map(|row| row.accepting).collect();
        assert_eq!(accepting, [false, false]);
    });
}

//! The network cards of a guest: pairs, each card of a kind of QEMU's beside a virtio card, with a bridge as the cable.
//!
//! Before: QEMU's command line without a network. After: the same in a network namespace of its own, which ends with QEMU.
//! Holds: the kinds, in the order of `tests/src/cards.rs`, which knows a card by its Ethernet address.
//! Never: touches a network of this machine.
//!
//! Several queues need a tap device: QEMU's other networks have one queue.

use std::process::Command;

/// QEMU's name of a card, and its queues.
const KINDS: &[(&str, u32)] = &[("virtio-net-pci", 2), ("e1000e", 1), ("vmxnet3", 1)];

/// The command that makes the taps and bridges, and becomes QEMU; add QEMU's arguments to it.
pub(super) fn qemu(is_root: bool) -> Command {
    let mut script = "set -e; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6; ".to_owned();
    for pair in 0..KINDS.len() {
        script += &format!("ip link add cable{pair} type bridge forward_delay 0 mcast_snooping 0; ");
        for end in 0..2 {
            let queues = if queues(pair, end) > 1 { " multi_queue" } else { "" };
            script += &format!("ip tuntap add dev tap{pair}{end} mode tap{queues}; ");
            script += &format!("ip link set tap{pair}{end} master cable{pair} up; ");
        }
        script += &format!("ip link set cable{pair} up; ");
    }
    script += "exec qemu-system-x86_64 \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.arg("--net").args((!is_root).then_some("--map-root-user"));
    // The word behind the script is its own name.
    unshare.args(["sh", "-c", &script, "qemu"]);
    unshare
}

/// QEMU's arguments for the cards; each is known by its Ethernet address.
pub(super) fn arguments() -> Vec<String> {
    let mut arguments = Vec::new();
    for (pair, (kind, _)) in KINDS.iter().enumerate() {
        for end in 0..2 {
            let queues = queues(pair, end);
            let name = format!("tap{pair}{end}");
            let several = if queues > 1 { format!(",queues={queues}") } else { String::new() };
            arguments.push("-netdev".to_owned());
            arguments.push(format!("tap,id={name},ifname={name},script=no,downscript=no{several}"));
            let kind = if end == 0 { kind } else { "virtio-net-pci" };
            // A vector for each direction of each queue, one for changes, one for control.
            let several =
                if queues > 1 { format!(",mq=on,vectors={}", 2 * queues + 2) } else { String::new() };
            arguments.push("-device".to_owned());
            arguments.push(format!("{kind},netdev={name},mac=52:54:00:53:{pair:02x}:{end:02x}{several}"));
        }
    }
    arguments
}

fn queues(pair: usize, end: usize) -> u32 {
    KINDS.get(pair).filter(|_| end == 0).map_or(1, |(_, queues)| *queues)
}

#[cfg(test)]
mod tests {
    use super::{arguments, qemu};

    /// Goal: each card has its tap, of as many queues, and an address that the tests know. Method: the words of both commands.
    #[test]
    fn each_card_has_its_tap() {
        let words = arguments();
        assert_eq!(words.len(), 24);
        assert!(
            words.contains(&"virtio-net-pci,netdev=tap00,mac=52:54:00:53:00:00,mq=on,vectors=6".to_owned())
        );
        assert!(words.contains(&"vmxnet3,netdev=tap20,mac=52:54:00:53:02:00".to_owned()));
        assert!(words.contains(&"virtio-net-pci,netdev=tap21,mac=52:54:00:53:02:01".to_owned()));
        let script = format!("{:?}", qemu(false));
        for tap in
            ["tap00 mode tap multi_queue;", "tap20 mode tap;", "tap21 master cable2 up;", "--map-root-user"]
        {
            assert!(script.contains(tap), "{script}");
        }
    }
}

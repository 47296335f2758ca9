//! The reason why a driver refuses XDP, and the change that would help.
//!
//! Before: a link was refused, with an error number. After: the driver's own sentence, the interface's driver, MTU and
//! queues, and the known remedy.
//! Holds: the same question over netlink, whose answer, unlike that for a link, contains the sentence (extended
//! acknowledgement), and the table of drivers' conditions.
//! Never: leaves a program attached by this question; replaces another program.
//!
//! Source: rtnetlink(7) (RTM_SETLINK, IFLA_XDP), linux/netlink.h (NLMSGERR_ATTR_MSG); Linux's drivers, by file and function beside
//! each row of the table.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_sys::protocols::NETLINK_ROUTE;

use super::{
    interfaces::{Interface, driver},
    links::{attributes, text},
    netlink,
    routes::{HEADER_OCTETS, aligned, next, numbers},
};

const RTM_SETLINK: u16 = 19;
const LINK_OCTETS: usize = 16;
/// NLM_F_REQUEST and NLM_F_ACK.
const ACKNOWLEDGED: u16 = 0x5;
/// NLM_F_CAPPED, NLM_F_ACK_TLVS.
const CAPPED: u16 = 0x100;
const HAS_ATTRIBUTES: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// IFLA_XDP, nested.
const IFLA_XDP: u16 = 43 | 0x8000;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_FLAGS: u16 = 3;
/// XDP_FLAGS_UPDATE_IF_NOEXIST and XDP_FLAGS_DRV_MODE.
const NATIVE_IF_FREE: u32 = 0x1 | 0x4;
const NATIVE: u32 = 0x4;

/// The conditions of drivers for native XDP with a program that accepts frames in several buffers, and the operator's
/// remedy. MTUs are for pages of 4 KiB. Only conditions from a driver's source are listed.
const CONDITIONS: [(&str, &str); 8] = [
    // ena_xdp.h: ENA_XDP_MAX_MTU, ena_xdp_legal_queue_count.
    (
        "ena",
        "ena takes XDP up to an MTU of 3,498, with at most half of its queues in use: `ip link set NAME mtu 3498`, `ethtool -L NAME combined HALF`",
    ),
    // netvsc_bpf.c: netvsc_xdp_set.
    (
        "hv_netvsc",
        "hv_netvsc takes XDP up to an MTU of 3,506, without LRO: `ip link set NAME mtu 3506`, `ethtool -K NAME lro off`",
    ),
    // virtio_net.c: virtnet_xdp_set. Too few queues are no obstacle since Linux 5.13.
    (
        "virtio_net",
        "virtio_net takes XDP where the hypervisor lets the guest turn receive offloads off, or has none: of QEMU's device `ctrl_guest_offloads=on`, or `guest_csum=off` and all of `guest_tso4`, `guest_tso6`, `guest_ecn`, `guest_ufo`",
    ),
    // en_main.c: mlx5e_xdp_allowed, mlx5e_params_validate_xdp.
    (
        "mlx5_core",
        "mlx5 takes XDP without LRO and hardware GRO, above an MTU of 3,498 also without striding receive queues: `ethtool -K NAME lro off rx-gro-hw off`, `ethtool --set-priv-flags NAME rx_striding_rq off`",
    ),
    // ixgbe_main.c: ixgbe_xdp_setup, ixgbe_max_xdp_frame_size; ixgbe.h: IXGBE_PKT_HDR_PAD.
    (
        "ixgbe",
        "ixgbe takes XDP up to an MTU of 3,046, without RSC, SR-IOV and DCB, on at most 128 CPUs: `ip link set NAME mtu 3046`, `ethtool -K NAME lro off`",
    ),
    // igb_main.c: igb_xdp_setup; igb.h: IGB_RXBUFFER_3072, IGB_ETH_PKT_HDR_PAD.
    ("igb", "igb takes XDP up to an MTU of 3,046: `ip link set NAME mtu 3046`"),
    // bnxt_xdp.c: bnxt_xdp_set.
    (
        "bnxt_en",
        "bnxt takes XDP with combined queues, and as many transmit rings free as it has receive queues: `ethtool -L NAME rx 0 tx 0 combined HALF`",
    ),
    // vmxnet3_xdp.c: vmxnet3_xdp_set; vmxnet3_xdp.h: VMXNET3_XDP_MAX_MTU. It turns LRO off by itself.
    ("vmxnet3", "vmxnet3 takes XDP from Linux 6.6 on, up to an MTU of 3,492: `ip link set NAME mtu 3492`"),
];

/// The reason why native XDP was refused: the text for `number`, and everything else that is known.
pub(super) fn in_words(interface: &Interface, program: BorrowedFd<'_>, number: &str) -> String {
    let sentence = sentence(interface.index, program).ok().flatten();
    let sentence = sentence.map(|sentence| format!(": {sentence}")).unwrap_or_default();
    format!("{number}{sentence}{}", circumstances(interface, driver(&interface.name, interface.index)))
}

/// The cost of the remaining mode.
pub(super) const PRICE_OF_GENERIC: &str = "generic mode judges a packet only after the kernel has made a buffer for it: a flood costs more CPU than in native mode";

/// The properties of a card that an operator can see and change.
fn circumstances(interface: &Interface, driver: Option<String>) -> String {
    let Some(driver) = driver.filter(|_| interface.is_card) else { return String::new() };
    let Interface { name, mtu, queues: (rx, tx), .. } = interface;
    let condition = CONDITIONS.iter().find(|(of, _)| *of == driver).map(|(_, condition)| {
        let half = (rx / 2).max(1).to_string();
        format!("; {}", condition.replace("NAME", name).replace("HALF", &half))
    });
    format!(
        " (driver {driver}, MTU {mtu}, {rx} receive and {tx} transmit queues){}",
        condition.unwrap_or_default()
    )
}

/// The driver's sentence. If the driver accepts the program this time, it is detached again, and the next check makes a
/// link.
fn sentence(index: u32, program: BorrowedFd<'_>) -> io::Result<Option<String>> {
    let socket = netlink::open(NETLINK_ROUTE)?;
    socket.set_ext_ack(true)?;
    socket.send(&question(index, program.as_raw_fd(), NATIVE_IF_FREE), 0)?;
    let octets = netlink::receive(&socket)?;
    let (code, said) = answer(&octets).unwrap_or_default();
    if code == 0 {
        socket.send(&question(index, -1, NATIVE), 0)?;
        netlink::receive(&socket)?;
    }
    Ok(said)
}

fn question(index: u32, program: i32, flags: u32) -> Vec<u8> {
    let attribute = |number: u16, value: &[u8]| {
        let mut octets = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        octets.extend(number.to_ne_bytes());
        octets.extend(value);
        octets
    };
    let nested =
        [attribute(IFLA_XDP_FD, &program.to_ne_bytes()), attribute(IFLA_XDP_FLAGS, &flags.to_ne_bytes())];
    let nested = attribute(IFLA_XDP, &nested.concat());
    let mut question = ((HEADER_OCTETS + LINK_OCTETS + nested.len()) as u32).to_ne_bytes().to_vec();
    question.extend(RTM_SETLINK.to_ne_bytes());
    question.extend(ACKNOWLEDGED.to_ne_bytes());
    question.resize(HEADER_OCTETS + 4, 0);
    question.extend(index.to_ne_bytes());
    question.resize(HEADER_OCTETS + LINK_OCTETS, 0);
    question.extend(nested);
    question
}

/// The error number of an acknowledgement, and the sentence behind it.
fn answer(octets: &[u8]) -> Option<(i32, Option<String>)> {
    let (content, kind, flags, _) = next(octets)?;
    if kind != numbers::NLMSG_ERROR {
        return None;
    }
    let code = i32::from_ne_bytes(*content.first_chunk()?);
    // The answer repeats the question, whole or only its header.
    let asked = usize::try_from(u32::from_ne_bytes(*content.get(4..)?.first_chunk()?)).ok()?;
    let asked = if code == 0 || flags & CAPPED != 0 { HEADER_OCTETS } else { asked };
    let rest = content.get(4 + aligned(asked)..).filter(|_| flags & HAS_ATTRIBUTES != 0);
    let said = attributes(rest.unwrap_or_default()).find(|(number, _)| *number == NLMSGERR_ATTR_MSG);
    Some((code, said.map(|(_, said)| text(said).replace('\n', " "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a card's driver, MTU and queues are named with what to change; nothing is said about interfaces other than
    /// cards. Method: cards as values.
    #[test]
    fn circumstances_name_the_way_out() {
        let card = Interface {
            name: "eth0".into(),
            is_card: true,
            mtu: 9001,
            queues: (8, 8),
            ..Interface::default()
        };
        let words = circumstances(&card, Some("ena".into()));
        assert!(
            words.starts_with(" (driver ena, MTU 9001, 8 receive and 8 transmit queues); ena takes XDP"),
            "{words}"
        );
        assert!(words.contains("`ethtool -L eth0 combined 4`"), "{words}");
        assert_eq!(
            circumstances(&card, Some("other".into())),
            " (driver other, MTU 9001, 8 receive and 8 transmit queues)"
        );
        assert_eq!(circumstances(&Interface::default(), Some("veth".into())), "");
        assert_eq!(circumstances(&card, None), "");
    }

    /// Goal: the sentence is found behind the repeated question, and no truncated answer causes a panic. Method: an
    /// answer built by hand.
    #[test]
    fn the_sentence_is_read() {
        let asked = question(7, 3, NATIVE_IF_FREE);
        let mut content = (-95i32).to_ne_bytes().to_vec();
        content.extend(&asked);
        content.resize(4 + aligned(asked.len()), 0);
        let sentence = b"MTU is too large\0";
        content.extend(((4 + sentence.len()) as u16).to_ne_bytes());
        content.extend(NLMSGERR_ATTR_MSG.to_ne_bytes());
        content.extend(sentence);
        content.resize(aligned(content.len()), 0);
        let mut octets = ((HEADER_OCTETS + content.len()) as u32).to_ne_bytes().to_vec();
        octets.extend(numbers::NLMSG_ERROR.to_ne_bytes());
        octets.extend(HAS_ATTRIBUTES.to_ne_bytes());
        octets.extend([0; 8]);
        octets.extend(content);
        assert_eq!(answer(&octets), Some((-95, Some("MTU is too large".to_owned()))));
        for cut in 0..octets.len() {
            let _ = answer(&octets[..cut]);
        }
    }
}

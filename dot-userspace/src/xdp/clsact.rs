//! The qdisc `clsact` for a tc filter, before Linux 6.6: made if it is missing, and removed again.
//!
//! Before: an interface. After: filters can be attached to it; when this is dropped, the interface is as before.
//! Never: removes a qdisc that existed before, or on which another program has put a filter.
//!
//! Source: rtnetlink(7) (RTM_DELQDISC, RTM_GETTFILTER), linux/pkt_sched.h.

use std::io;

use aya::programs::tc::{TcError, qdisc_add_clsact};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{error::innermost, netlink};

/// A qdisc that dotd has made.
pub(super) struct Clsact {
    interface: u32,
}

impl Clsact {
    /// Makes the qdisc, unless it exists.
    pub(super) fn make(name: &str, interface: u32) -> Option<Self> {
        match qdisc_add_clsact(name) {
            Ok(()) => return Some(Self { interface }),
            Err(TcError::AlreadyAttached) => {}
            // "File exists": the qdisc exists already.
            Err(error) => tracing::debug!("clsact on {name}: {}", innermost(&error)),
        }
        None
    }
}

impl Drop for Clsact {
    fn drop(&mut self) {
        // If the qdisc is gone with its interface, or another program uses it, there is nothing to do.
        let _ = remove_unused(self.interface);
    }
}

fn remove_unused(interface: u32) -> io::Result<()> {
    for hook in [INGRESS, EGRESS] {
        if has_filters(interface, hook)? {
            return Ok(());
        }
    }
    let answer = ask(&message(DELETE_QDISC, REQUEST | ACKNOWLEDGE, interface, HANDLE, CLSACT))?;
    drop(answer);
    Ok(())
}

/// Whether a hook has a filter.
fn has_filters(interface: u32, hook: u32) -> io::Result<bool> {
    let answer = ask(&message(GET_FILTERS, REQUEST | DUMP, interface, 0, hook))?;
    Ok(kind_of(&answer) == Some(NEW_FILTER))
}

/// The first packet of the kernel's answer.
fn ask(message: &[u8]) -> io::Result<Vec<u8>> {
    let socket = netlink::open(NETLINK_ROUTE)?;
    socket.send(message, 0)?;
    netlink::receive(&socket)
}

/// nlmsghdr and tcmsg.
fn message(kind: u16, flags: u16, interface: u32, handle: u32, parent: u32) -> Vec<u8> {
    let mut octets = Vec::with_capacity(MESSAGE_OCTETS as usize);
    octets.extend(MESSAGE_OCTETS.to_ne_bytes());
    octets.extend(kind.to_ne_bytes());
    octets.extend(flags.to_ne_bytes());
    for word in [1, 0, 0, interface, handle, parent, 0] {
        octets.extend(u32::to_ne_bytes(word));
    }
    octets
}

/// Type of the first message of the answer.
fn kind_of(answer: &[u8]) -> Option<u16> {
    answer.get(4..6)?.try_into().ok().map(u16::from_ne_bytes)
}

const MESSAGE_OCTETS: u32 = 16 + 20;
const DELETE_QDISC: u16 = 37;
const NEW_FILTER: u16 = 44;
const GET_FILTERS: u16 = 46;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
/// `ffff:`.
const HANDLE: u32 = 0xffff_0000;
const CLSACT: u32 = 0xffff_fff1;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

#[cfg(test)]
mod tests {
    use std::{process::Command, thread};

    use aya::{
        EbpfLoader,
        programs::{
            SchedClassifier, TcAttachType,
            tc::{NlOptions, TcAttachOptions},
        },
    };
    use dot_common::maps::PROGRAM_LEARN;
    use nix::sched::{CloneFlags, unshare};

    use super::{super::object::OBJECT, *};

    fn tc(words: &str) -> String {
        let output = Command::new("tc").args(words.split(' ')).output().expect("iproute2 is installed");
        assert!(output.status.success(), "tc {words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Goal: dotd's qdisc is removed at the end, unless it existed before, or another program uses it. Method: loopback
    /// of a separate namespace, with nothing, with another's qdisc, with another's filter. As root.
    #[test]
    fn what_we_made_goes_and_nothing_else() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED what_we_made_goes_and_nothing_else: a network namespace needs root");
            return;
        }
        let body = || {
            const LOOPBACK: u32 = 1;
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let is_there = || tc("qdisc show dev lo").contains("clsact");
            let ours = Clsact::make("lo", LOOPBACK).expect("there was none");
            assert!(is_there() && Clsact::make("lo", LOOPBACK).is_none());
            drop(ours);
            assert!(!is_there(), "{}", tc("qdisc show dev lo"));
            for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
                let ours = Clsact::make("lo", LOOPBACK).expect("there was none");
                let mut object = EbpfLoader::new().load(OBJECT).unwrap();
                let program = object.program_mut(PROGRAM_LEARN).unwrap();
                let program: &mut SchedClassifier = program.try_into().unwrap();
                program.load().unwrap();
                let options = TcAttachOptions::Netlink(NlOptions::default());
                if let Err(error) = program.attach_with_options("lo", hook, options) {
                    println!("SKIPPED a qdisc in use: this kernel has no BPF filters: {}", innermost(&error));
                    return;
                }
                drop(ours);
                assert!(is_there(), "its {hook:?} is in use");
                tc("qdisc del dev lo clsact");
            }
        };
        if let Err(panic) = thread::spawn(body).join() {
            std::panic::resume_unwind(panic);
        }
    }
}

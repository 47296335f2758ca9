//! Network cards of a guest, in place of a veth pair: each with another card at the other end of its cable.
//!
//! Before: `cargo xtask test-kernels` booted a guest with pairs of cards, and said so in `DOTD_CARDS`. After: a test has a
//! pair, `here` and `there`, in namespaces that end with it; then the cards are in the guest's own namespace again.
//! Never: touches a card of any other machine: without that variable a test prints SKIPPED.

use std::{env, fs, path::Path, sync::mpsc, thread};

use nix::{
    mount::{MsFlags, mount},
    sched::CloneFlags,
    unistd::gettid,
};

use crate::{
    harness::{eventually, mounts, require},
    xdp_field::ip,
};

/// The card under test, and its name in the test's namespace.
pub const HERE: &str = "here";
/// The card at the other end, in the same namespace at first.
pub const THERE: &str = "there";

/// The drivers of the guest's cards; the number of a pair is its place here and stands in its Ethernet addresses.
const DRIVERS: [&str; 3] = ["virtio_net", "e1000e", "vmxnet3"];

/// Runs `body` once for each card, in new namespaces, with its driver's name.
///
/// # Panics
/// With the panic of `body`, or if the guest lacks a card.
pub fn on_each_card(test: &str, body: fn(&str)) {
    if env::var_os("DOTD_CARDS").is_none() {
        return require::skip(test, "needs the cards of a guest: cargo xtask test-kernels");
    }
    let _ = aya::features();
    for (pair, driver) in DRIVERS.iter().enumerate() {
        let ends = [0, 1].map(|end| format!("52:54:00:53:{pair:02x}:{end:02x}"));
        // The kernel gives cards back after their namespace's end.
        let cards = ends.map(|end| eventually("the card is here", || interface_of(&end)));
        assert_eq!(driver_of(&cards[0]).as_deref(), Some(*driver), "{}", cards[0]);
        println!("{test}: {driver}");
        on_card(driver, &cards, body);
    }
}

fn on_card(driver: &'static str, [card, other]: &[String; 2], body: fn(&str)) {
    let (tell, hear) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let inside = thread::spawn(move || {
        mounts::separate(CloneFlags::CLONE_NEWNET).expect("own namespaces");
        // It shows the interfaces of this namespace.
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), mounts::NOTHING).expect("sysfs");
        mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), mounts::NOTHING).expect("bpffs");
        tell.send(gettid()).expect("the test waits");
        wait.recv().expect("the cards come");
        ip("link set lo up");
        ip(&format!("address add 192.0.2.1/24 dev {HERE}"));
        ip(&format!("address add 2001:db8::1/64 dev {HERE} nodad"));
        ip(&format!("link set {HERE} up"));
        ip(&format!("link set {THERE} up"));
        body(driver);
    });
    let thread = hear.recv().expect("the thread starts");
    ip(&format!("link set {card} netns {thread} name {HERE}"));
    ip(&format!("link set {other} netns {thread} name {THERE}"));
    go.send(()).expect("the thread waits");
    if let Err(panic) = inside.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The interface with this Ethernet address in the guest's own namespace.
fn interface_of(address: &str) -> Option<String> {
    let mut names = fs::read_dir("/sys/class/net").ok()?.flatten();
    let found = names.find(|entry| {
        fs::read_to_string(entry.path().join("address")).is_ok_and(|found| found.trim() == address)
    })?;
    found.file_name().into_string().ok()
}

fn driver_of(interface: &str) -> Option<String> {
    let driver = fs::read_link(Path::new("/sys/class/net").join(interface).join("device/driver")).ok()?;
    Some(driver.file_name()?.to_str()?.to_owned())
}

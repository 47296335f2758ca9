//! Debian's kernels, by name from its archive, unpacked into the user's cache.
//!
//! Before: a series such as "6.1", its suite and flavour. After: an image that boots, and the modules that the tests need.
//! Never: installs anything; fetches a package that is in the cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::archive::Packages;
use crate::setup;

/// A kernel to boot.
pub(crate) struct Kernel {
    /// Its package.
    pub(crate) name: String,
    /// The image that QEMU boots.
    pub(crate) image: PathBuf,
    /// The modules, in the order in which they are loaded.
    pub(crate) modules: Vec<PathBuf>,
}

/// Interfaces for the tests (cards' host ends, bridges, tunnels), and the qdisc of a tc filter before Linux 6.6; each
/// behind the modules that it needs.
const MODULES: &[&str] = &[
    "drivers/net/veth.ko",
    "drivers/net/tun.ko",
    "net/sched/sch_ingress.ko",
    "net/sched/cls_bpf.ko",
    "net/llc/llc.ko",
    "net/802/stp.ko",
    "net/bridge/bridge.ko",
    "net/ipv4/udp_tunnel.ko",
    "net/ipv6/ip6_udp_tunnel.ko",
    "drivers/net/vxlan/vxlan.ko",
    "net/ipv4/ip_tunnel.ko",
    "net/ipv4/gre.ko",
    "net/ipv4/ip_gre.ko",
    "net/ipv4/tunnel4.ko",
    "net/ipv4/ipip.ko",
    "net/ipv6/sit.ko",
];

/// Drivers of the cards, behind the modules that they need.
const CARD_MODULES: &[&str] = &[
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
    "drivers/pps/pps_core.ko",
    "drivers/ptp/ptp.ko",
    "drivers/net/ethernet/intel/e1000e/e1000e.ko",
    "drivers/net/vmxnet3/vmxnet3.ko",
];

/// What Debian builds of one series.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// For clouds: without most drivers.
    Cloud,
    /// For any machine.
    Any,
    /// The same with PREEMPT_RT.
    Realtime,
}

impl Flavour {
    const fn ending(self) -> &'static str {
        match self {
            Self::Cloud => "cloud-amd64",
            Self::Any => "amd64",
            Self::Realtime => "rt-amd64",
        }
    }

    fn modules(self) -> Vec<&'static str> {
        let cards = if self == Self::Cloud { &[][..] } else { CARD_MODULES };
        MODULES.iter().chain(cards).copied().collect()
    }
}

/// The newest cloud kernel of a series that apt offers, or else the newest in the cache.
pub(crate) fn kernel(series: &str) -> Result<Kernel> {
    of_suite(series, None, Flavour::Cloud)
}

/// The newest kernel of a series ("" for any) and flavour that a suite offers, or else the newest in the cache.
pub(super) fn of_suite(series: &str, suite: Option<&str>, flavour: Flavour) -> Result<Kernel> {
    let cache = setup::cache_folder().context("neither XDG_CACHE_HOME nor HOME is set")?.join("dotd/kernels");
    fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let archive = Packages::open(&cache, suite);
    let pattern = format!("^linux-image-[0-9].*-{}$", flavour.ending());
    let offered = archive.as_ref().map(|archive| archive.search(&pattern)).unwrap_or(Ok(Vec::new()))?;
    let is_ours = |name: &String| is_of(name, series, flavour);
    let offered: Vec<String> = offered.into_iter().filter(is_ours).collect();
    let kept: Vec<String> = cached(&cache).into_iter().filter(is_ours).collect();
    let Some(name) = newest(&offered).or_else(|| newest(&kept)) else {
        archive?;
        bail!("apt offers no linux-image-{series}.*-{}: this needs Debian's archive", flavour.ending());
    };
    let folder = cache.join(&name);
    if !is_whole(&folder, flavour) {
        fetch(&archive?, &cache, &name, flavour)?;
    }
    let modules = flavour.modules().into_iter().filter_map(|module| Path::new(module).file_name());
    // Those that are not there were built in.
    let modules = modules.map(|module| folder.join(module)).filter(|module| module.is_file()).collect();
    Ok(Kernel { image: folder.join("vmlinuz"), modules, name })
}

/// Whether a cached kernel has each module of this version's list.
fn is_whole(folder: &Path, flavour: Flavour) -> bool {
    let builtin = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
    let has = |module: &str| {
        let name = Path::new(module).file_name().unwrap_or_default();
        folder.join(name).is_file() || is_built_in(&builtin, module)
    };
    folder.join("vmlinuz").is_file() && flavour.modules().into_iter().all(has)
}

fn is_built_in(builtin: &str, module: &str) -> bool {
    builtin.lines().any(|line| line.strip_prefix("kernel/") == Some(module))
}

/// Whether a package's name is of this series and flavour: `linux-image-6.1.0-47-rt-amd64` is no `amd64`.
fn is_of(name: &str, series: &str, flavour: Flavour) -> bool {
    let release = name.strip_prefix("linux-image-").and_then(|rest| rest.strip_suffix(flavour.ending()));
    let Some(version) = release.and_then(|rest| rest.strip_suffix('-')) else { return false };
    let is_plain = !["-cloud", "-rt"].iter().any(|other| version.ends_with(other));
    let is_of_series = series.is_empty() || version.starts_with(&format!("{series}."));
    is_plain && is_of_series && version.starts_with(|sign: char| sign.is_ascii_digit())
}

fn cached(cache: &Path) -> Vec<String> {
    let names = fs::read_dir(cache).into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The one whose numbers are the greatest.
fn newest(names: &[String]) -> Option<String> {
    let numbers = |name: &String| -> Vec<u64> {
        name.split(|sign: char| !sign.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    names.iter().max_by_key(|name| numbers(name)).cloned()
}

/// Fetches the kernel, and keeps its image and the modules. From forky on the package is empty: image, modules and the
/// list of those that are built in are packages of their own.
fn fetch(archive: &Packages, cache: &Path, name: &str, flavour: Flavour) -> Result<()> {
    let work = cache.join(format!("{name}.part"));
    // Left by a run that was ended.
    let _ = fs::remove_dir_all(&work);
    let release = name.strip_prefix("linux-image-").unwrap_or(name);
    let parts =
        archive.search(&format!("^linux-(base|binary|modules)-{}$", release.replace(['+', '.'], ".")))?;
    let names = if parts.len() == 3 { parts } else { vec![name.to_owned()] };
    archive.unpack(&names, &work)?;
    let folders = ["lib/modules", "usr/lib/modules"].map(|place| work.join("tree").join(place).join(release));
    let modules = folders.into_iter().find(|folder| folder.is_dir()).context("the package has no modules")?;
    let images = [work.join("tree/boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
    let image = images.iter().find(|image| image.is_file());
    let kept = work.join("kept");
    fs::create_dir(&kept)?;
    fs::copy(image.with_context(|| format!("{name} holds no image"))?, kept.join("vmlinuz"))?;
    let builtin = fs::read_to_string(modules.join("modules.builtin")).unwrap_or_default();
    for module in flavour.modules() {
        if !is_built_in(&builtin, module) {
            let from = modules.join("kernel").join(module);
            keep_module(&from, &kept).with_context(|| format!("{name} holds no {module}"))?;
        }
    }
    fs::write(kept.join("modules.builtin"), builtin)?;
    // Modules that an older version of the list kept.
    let folder = cache.join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&kept, folder)?;
    fs::remove_dir_all(&work).with_context(|| work.display().to_string())
}

/// Copies a module, unpacked: Debian packs them from 6.12 on.
fn keep_module(from: &Path, into: &Path) -> Result<()> {
    let name = from.file_name().context("a module is a file")?;
    if from.is_file() {
        fs::copy(from, into.join(name))?;
        return Ok(());
    }
    let packed = from.with_extension("ko.xz");
    let unpacked = Command::new("xz").args(["-d", "-c"]).arg(&packed).output().context("cannot start xz")?;
    if !unpacked.status.success() {
        bail!("xz: {}", String::from_utf8_lossy(&unpacked.stderr).trim());
    }
    fs::write(into.join(name), unpacked.stdout)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Flavour, is_built_in, is_of, newest};

    /// Goal: numbers are compared as numbers. Method: names whose letters say otherwise.
    #[test]
    fn newest_is_by_number() {
        let names =
            ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64"].map(str::to_owned);
        assert_eq!(newest(&names).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest(&[]), None);
    }

    /// Goal: a kernel has the flavour and the series that were asked for. Method: names as Debian's suites have them.
    #[test]
    fn names_have_a_flavour() {
        let (cloud, any, realtime) = (
            "linux-image-6.1.0-47-cloud-amd64",
            "linux-image-6.12.117+deb13-amd64",
            "linux-image-7.2.13+deb14-rt-amd64",
        );
        for (name, flavour) in [(cloud, Flavour::Cloud), (any, Flavour::Any), (realtime, Flavour::Realtime)] {
            for wanted in [Flavour::Cloud, Flavour::Any, Flavour::Realtime] {
                assert_eq!(is_of(name, "", wanted), flavour == wanted, "{name}");
            }
        }
        assert!(is_of(any, "6.12", Flavour::Any) && !is_of(any, "6.1", Flavour::Any));
        assert!(!is_of("linux-image-amd64", "", Flavour::Any) && !is_of("apt", "", Flavour::Any));
    }

    /// Goal: a module of the image is not looked for. Method: lines of modules.builtin.
    #[test]
    fn built_in_modules_are_known() {
        let builtin = "kernel/drivers/ptp/ptp.ko\nkernel/drivers/virtio/virtio.ko\n";
        assert!(is_built_in(builtin, "drivers/virtio/virtio.ko"));
        assert!(!is_built_in(builtin, "drivers/virtio/virtio_ring.ko"));
    }
}

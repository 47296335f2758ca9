//! Debian's kernels, by name from its archive, unpacked into the user's cache.
//!
//! Before: a series such as "6.1". After: an image that boots, and the modules that the tests need.
//! Never: installs anything; fetches a package that is in the cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{command, setup};

/// A kernel to boot.
pub(crate) struct Kernel {
    /// Its series.
    pub(crate) series: String,
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

/// The newest cloud kernel of a series that apt offers, or else the newest in the cache.
pub(crate) fn kernel(series: &str) -> Result<Kernel> {
    let cache = setup::cache_folder().context("neither XDG_CACHE_HOME nor HOME is set")?.join("dotd/kernels");
    fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let Some(name) = newest(&offered(series)?).or_else(|| newest(&cached(&cache, series))) else {
        bail!(
            "apt offers no linux-image-{series}.*-cloud-amd64: this needs Debian's archive (apt-get update)"
        );
    };
    let folder = cache.join(&name);
    let modules = MODULES.iter().filter_map(|module| Path::new(module).file_name());
    let modules: Vec<_> = modules.map(|module| folder.join(module)).collect();
    // A cache of an older version of this list lacks modules.
    if !folder.join("vmlinuz").is_file() || !modules.iter().all(|module| module.is_file()) {
        fetch(&cache, &folder, &name)?;
    }
    Ok(Kernel { series: series.to_owned(), image: folder.join("vmlinuz"), modules, name })
}

/// Packages of this series in apt's lists.
fn offered(series: &str) -> Result<Vec<String>> {
    let pattern = format!("^linux-image-{}\\.[0-9].*cloud-amd64$", series.replace('.', "\\."));
    let search = Command::new("apt-cache").args(["search", "--names-only", &pattern]).output();
    let search = search.context("cannot start apt-cache: this needs Debian's archive")?;
    let lines = String::from_utf8_lossy(&search.stdout).into_owned();
    Ok(lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

fn cached(cache: &Path, series: &str) -> Vec<String> {
    let names = fs::read_dir(cache).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&format!("linux-image-{series}."))).collect()
}

/// The one whose numbers are the greatest.
fn newest(names: &[String]) -> Option<String> {
    let numbers = |name: &String| -> Vec<u64> {
        name.split(|sign: char| !sign.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    names.iter().max_by_key(|name| numbers(name)).cloned()
}

/// Fetches the package, and keeps its image and the modules.
fn fetch(cache: &Path, folder: &Path, name: &str) -> Result<()> {
    let work = cache.join(format!("{name}.part"));
    // Left by a run that was ended.
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(work.join("tree")).with_context(|| work.display().to_string())?;
    command::run(Command::new("apt-get").args(["-q", "download", name]).current_dir(&work))?;
    let package = fs::read_dir(&work)?.flatten().map(|entry| entry.path());
    let package = package.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
    let package = package.with_context(|| format!("apt-get download {name} left no package"))?;
    command::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(work.join("tree")))?;
    let release = name.strip_prefix("linux-image-").unwrap_or(name);
    let kept = work.join("kept");
    fs::create_dir(&kept)?;
    fs::copy(work.join("tree/boot").join(format!("vmlinuz-{release}")), kept.join("vmlinuz"))
        .with_context(|| format!("{name} holds no image"))?;
    for module in MODULES {
        let from = work.join("tree/lib/modules").join(release).join("kernel").join(module);
        keep_module(&from, &kept).with_context(|| format!("{name} holds no {module}"))?;
    }
    // Modules that an older version of the list kept.
    let _ = fs::remove_dir_all(folder);
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
    use super::newest;

    /// Goal: numbers are compared as numbers. Method: names whose letters say otherwise.
    #[test]
    fn newest_is_by_number() {
        let names =
            ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64"].map(str::to_owned);
        assert_eq!(newest(&names).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest(&[]), None);
    }
}

//! The RPM package.
//!
//! Before: the table of files, and the scriptlets. After: octets that rpm installs.
//! Never: calls rpm; signs.

use std::path::Path;

use anyhow::Result;
use rpm::{BuildConfig, CompressionWithLevel, Dependency, FileOptions, PackageBuilder};

use crate::{
    DESCRIPTION, LICENSE, MAINTAINER, Product, SUMMARY,
    contents::{Content, Contents},
    script,
};

/// Makes the package.
///
/// # Errors
/// A scriptlet is missing, or a file cannot be packed.
pub(crate) fn pack(contents: &Contents, scripts: &Path, product: &Product) -> Result<Vec<u8>> {
    let script = |name: &str| script(scripts, name);
    let config = BuildConfig::default().source_date(product.epoch).compression(CompressionWithLevel::Gzip(6));
    let mut builder = PackageBuilder::new("dotd", &product.version, LICENSE, product.machine.linux, SUMMARY);
    builder.using_config(config).release(product.revision.to_string()).description(DESCRIPTION);
    builder.packager(MAINTAINER).build_host("dotd");
    if let Some(glibc) = &product.glibc {
        builder.requires(Dependency::any(format!("libc.so.6(GLIBC_{glibc})(64bit)")));
        builder.requires(Dependency::any("libgcc_s.so.1()(64bit)"));
    }
    builder.requires(Dependency::any("systemd")).recommends(Dependency::any("ca-certificates"));
    builder.post_install_script(script("rpm-post.sh")?);
    builder.pre_uninstall_script(script("rpm-preun.sh")?);
    builder.post_uninstall_script(script("rpm-postun.sh")?);
    for (path, entry) in contents {
        let path = path.replace("/usr/share/zsh/vendor-completions/", "/usr/share/zsh/site-functions/");
        let mode = u16::try_from(entry.mode)?;
        match &entry.content {
            Content::Folder => {
                builder.with_dir_entry(FileOptions::dir(&path).permissions(mode))?;
            }
            Content::File(octets) => {
                let options = FileOptions::new(&path).permissions(mode);
                let is_page = path.starts_with("/usr/share/doc/") || path.starts_with("/usr/share/man/");
                builder.with_file_contents(octets.clone(), if is_page { options.doc() } else { options })?;
            }
            Content::Config(octets) => {
                let options = FileOptions::new(&path).permissions(mode).config().noreplace();
                builder.with_file_contents(octets.clone(), options)?;
            }
        }
    }
    let mut package = Vec::new();
    builder.build()?.write(&mut package)?;
    Ok(package)
}

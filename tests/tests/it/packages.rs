//! The packages of `cargo xtask dist`, made from this build: their contents, that two builds are equal, and that the
//! installed files work.
//!
//! Before: the program of this build, packed twice. After: dpkg, rpm's format, systemd, the shell and an empty root
//! file system find what they need.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

use dot_tests::{
    harness::{scratch::Scratch, server::binary},
    require,
};

/// The checkout.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the workspace")
}

/// The packages of this build, each under the end of its name; made once for all tests.
static PACKAGES: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
    // Cargo's own folder for this: a static value is never dropped, and would leave a folder of /tmp behind. Each run has a folder of its
    // own in it, so that two runs do not disturb each other, and removes those of runs that have ended.
    let all = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let run = name.to_str().and_then(|name| name.strip_prefix("packages-"));
        if run.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let folder = all.join(format!("packages-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    pack(&folder)
});

fn pack(into: &Path) -> Vec<PathBuf> {
    let order = dot_dist::Order {
        bin: binary(),
        glibc_max: None,
        root: root().to_owned(),
        into: into.to_owned(),
        epoch: 1_700_000_000,
        revision: 1,
    };
    dot_dist::pack(&order).expect("packages")
}

fn package(end: &str) -> &'static Path {
    let found = PACKAGES.iter().find(|path| path.to_string_lossy().ends_with(end));
    found.unwrap_or_else(|| panic!("no {end}"))
}

fn run(program: &str, words: &[&str]) -> Output {
    let output =
        Command::new(program).args(words).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Goal: the same program and commit give the same packages. Method: packed twice, all octets compared; the sums are those of
/// sha256sum. Covers: C-490
#[test]
fn two_packings_are_equal() {
    let scratch = Scratch::new();
    let second = pack(&scratch.path().join("packages"));
    assert_eq!(second.len(), 6, "{second:?}");
    for (first, second) in PACKAGES.iter().zip(&second) {
        assert_eq!(first.file_name(), second.file_name());
        assert!(fs::read(first).expect("first") == fs::read(second).expect("second"), "{second:?} differs");
    }
    let mut sums = Command::new("sha256sum");
    let sums = sums.args(["--check", "SHA256SUMS"]).current_dir(scratch.path().join("packages"));
    let sums = sums.output().expect("sha256sum");
    assert!(sums.status.success(), "{sums:?}");
}

/// Goal: dpkg finds an installation in the package: program, units, config, user, pages, completions. Method: its
/// listing with modes and owners, its fields, the config file that it must not overwrite; its scripts checked with `sh
/// -n`. Covers: C-491
#[test]
fn the_deb_holds_an_installation() {
    require!(Command("dpkg-deb"));
    let deb = package(".deb").display().to_string();
    let listing = text(&run("dpkg-deb", &["-c", &deb]));
    let lines: Vec<Vec<&str>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(lines.iter().all(|line| line[1] == "root/root"), "{listing}");
    for (path, mode) in [
        ("./usr/bin/dotd", "-rwxr-xr-x"),
        ("./etc/dotd/dotd.toml", "-rw-r--r--"),
        ("./usr/lib/systemd/system/dotd.service", "-rw-r--r--"),
        ("./usr/lib/systemd/system/dotd-detach.service", "-rw-r--r--"),
        ("./usr/lib/sysusers.d/dotd.conf", "-rw-r--r--"),
        ("./usr/lib/tmpfiles.d/dotd.conf", "-rw-r--r--"),
        ("./usr/share/man/man1/dotd.1.gz", "-rw-r--r--"),
        ("./usr/share/man/man1/dotd-ban-add.1.gz", "-rw-r--r--"),
        ("./usr/share/man/man5/dotd.toml.5.gz", "-rw-r--r--"),
        ("./usr/share/bash-completion/completions/dotd", "-rw-r--r--"),
        ("./usr/share/zsh/vendor-completions/_dotd", "-rw-r--r--"),
        ("./usr/share/fish/vendor_completions.d/dotd.fish", "-rw-r--r--"),
        ("./usr/share/doc/dotd/copyright", "-rw-r--r--"),
        ("./usr/share/doc/dotd/dotd.cdx.json", "-rw-r--r--"),
    ] {
        let line = lines.iter().find(|line| line.last() == Some(&path));
        assert_eq!(line.map(|line| line[0]), Some(mode), "{path}");
    }
    // dpkg makes a folder before its contents.
    for line in &lines {
        let path = line.last().expect("a path").trim_end_matches('/');
        let above = path.rsplit_once('/').map(|(above, _)| format!("{above}/")).unwrap_or_default();
        let place = |path: &str| lines.iter().position(|line| line.last() == Some(&path));
        assert!(
            path == "." || place(&above) < place(line.last().expect("a path")),
            "{path} comes before {above}"
        );
    }
    let fields = text(&run("dpkg-deb", &["-f", &deb, "Package", "Version", "Depends"]));
    assert!(fields.contains("Package: dotd\nVersion: 0") && fields.contains("libc6 (>= 2."), "{fields}");
    let scratch = Scratch::new();
    run("dpkg-deb", &["-e", &deb, &scratch.path().join("control").display().to_string()]);
    assert_eq!(
        fs::read_to_string(scratch.path().join("control/conffiles")).expect("it"),
        "/etc/dotd/dotd.toml\n"
    );
    for script in ["postinst", "prerm", "postrm"] {
        run("sh", &["-n", &scratch.path().join("control").join(script).display().to_string()]);
    }
}

/// Goal: the RPM has the same files and its scripts. Method: read back with a crate for the format, digests included;
/// `sh -n`. Covers: C-491
#[test]
fn the_rpm_holds_the_same() {
    let package = rpm::Package::open(package(".rpm")).expect("a package");
    package.verify_digests().expect("digests");
    let files = package.metadata.get_file_paths().expect("paths");
    let files: BTreeSet<String> = files.iter().map(|path| path.display().to_string()).collect();
    for path in [
        "/usr/bin/dotd",
        "/etc/dotd/dotd.toml",
        "/usr/share/zsh/site-functions/_dotd",
        "/usr/share/man/man1/dotd.1.gz",
    ] {
        assert!(files.contains(path), "{path} is not in {files:?}");
    }
    for script in ["rpm-post.sh", "rpm-preun.sh", "rpm-postun.sh"] {
        run("sh", &["-n", &root().join("packaging/scripts").join(script).display().to_string()]);
    }
}

/// Goal: the installed files work: dotd accepts the config, and systemd the units. Method: the package unpacked; `dotd
/// check` of its config with its program, except for the user, which this machine lacks. Covers: C-491
#[test]
fn what_is_installed_can_be_used() {
    require!(Root, Command("dpkg-deb"), Command("systemd-analyze"));
    let scratch = Scratch::new();
    let tree = scratch.path().join("tree");
    run("dpkg-deb", &["-x", &package(".deb").display().to_string(), &tree.display().to_string()]);
    let program = tree.join("usr/bin/dotd").display().to_string();
    let config = fs::read_to_string(tree.join("etc/dotd/dotd.toml")).expect("a config");
    let config = config.replace("user = \"dotd\"", "user = \"\"");
    let config = config.replace("/var/lib/dotd", &scratch.folder("state").display().to_string());
    let config = scratch.write("dotd.toml", config).display().to_string();
    run(&program, &["check", "-c", &config]);
    let unit = scratch.path().join("dotd.service");
    let text = fs::read_to_string(tree.join("usr/lib/systemd/system/dotd.service")).expect("a unit");
    fs::write(&unit, text.replace("/usr/bin/dotd", &program)).expect("a unit");
    run("systemd-analyze", &["verify", &unit.display().to_string()]);
}

/// Goal: the image needs no other files. Method: its index leads to its layer by digests; the layer is unpacked, and
/// the program is run with it as the root. Covers: C-492
#[test]
fn the_image_needs_nothing_else() {
    require!(Root);
    let scratch = Scratch::new();
    let (image, tree) = (scratch.folder("image"), scratch.folder("tree"));
    run("tar", &["-xf", &package(".oci.tar").display().to_string(), "-C", &image.display().to_string()]);
    let json = |path: PathBuf| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).expect("it")).expect("JSON")
    };
    let blob = |descriptor: &serde_json::Value| {
        let digest =
            descriptor["digest"].as_str().expect("a digest").strip_prefix("sha256:").expect("SHA-256");
        let path = image.join("blobs/sha256").join(digest);
        let octets = fs::metadata(&path).expect("it is there").len();
        assert_eq!(descriptor["size"].as_u64(), Some(octets));
        assert!(text(&run("sha256sum", &[&path.display().to_string()])).starts_with(digest));
        path
    };
    let index = json(image.join("index.json"));
    let manifest = json(blob(&index["manifests"][0]));
    let config = json(blob(&manifest["config"]));
    assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/dotd");
    run(
        "tar",
        &["-xzf", &blob(&manifest["layers"][0]).display().to_string(), "-C", &tree.display().to_string()],
    );
    let said = text(&run("chroot", &[&tree.display().to_string(), "/usr/bin/dotd", "--version"]));
    assert!(said.starts_with("dotd 0."), "{said}");
}

/// Goal: the bill of materials names the linked crates, and no others. Method: crates that must and must not be in it;
/// each foreign one with a checksum and a licence; every dependency is a component. Covers: C-493
#[test]
fn the_bill_names_every_crate() {
    let bill: serde_json::Value =
        serde_json::from_slice(&fs::read(package(".cdx.json")).expect("it")).expect("JSON");
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let components = bill["components"].as_array().expect("components");
    let names: BTreeSet<&str> =
        components.iter().filter_map(|component| component["name"].as_str()).collect();
    for name in ["rustls", "aws-lc-sys", "tokio", "aya", "aya-ebpf", "dot-common"] {
        assert!(names.contains(name), "{name} is missing");
    }
    for name in ["proptest", "tempfile", "plotters", "rpm", "xtask"] {
        assert!(!names.contains(name), "{name} is no part of dotd");
    }
    for component in components {
        let is_ours = component["name"].as_str().is_some_and(|name| name.starts_with("dot-"));
        assert!(
            is_ours || component["hashes"][0]["content"].as_str().is_some_and(|sum| sum.len() == 64),
            "{component}"
        );
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
    }
    let known: BTreeSet<&str> =
        components.iter().filter_map(|component| component["bom-ref"].as_str()).collect();
    for dependency in bill["dependencies"].as_array().expect("dependencies") {
        for on in dependency["dependsOn"].as_array().expect("a list") {
            assert!(known.contains(on.as_str().expect("a reference")), "{on}");
        }
    }
}

/// Goal: the packed program itself tells its crates to tools that look for known vulnerabilities, and they are those of the bill of
/// materials. Method: read with the crate that those tools use, which checks the form; names and versions compared with the
/// bill; the program runs. Covers: C-761
#[test]
fn the_program_tells_its_crates() {
    require!(Command("dpkg-deb"));
    let scratch = Scratch::new();
    let tree = scratch.path().join("tree");
    run("dpkg-deb", &["-x", &package(".deb").display().to_string(), &tree.display().to_string()]);
    let program = tree.join("usr/bin/dotd");
    let told = auditable_info::audit_info_from_file(&program, auditable_info::Limits::default());
    let told = told.expect("a list of crates");
    let bill: serde_json::Value =
        serde_json::from_slice(&fs::read(package(".cdx.json")).expect("it")).expect("JSON");
    let mut named: Vec<(String, String)> = bill["components"]
        .as_array()
        .expect("components")
        .iter()
        .map(|one| ["name", "version"].map(|key| one[key].as_str().expect("a text").to_owned()).into())
        .collect();
    let mut crates: Vec<(String, String)> =
        told.packages.iter().map(|one| (one.name.clone(), one.version.to_string())).collect();
    crates.sort();
    named.sort();
    assert_eq!(crates, named);
    let root = told.packages.iter().find(|one| one.root).expect("a root");
    assert_eq!(root.name, "dot-userspace");
    for name in ["dot-ebpf", "rustls"] {
        assert!(root.dependencies.iter().any(|place| told.packages[*place].name == name), "{name}");
    }
    let said = text(&run(&program.display().to_string(), &["--version"]));
    assert!(said.starts_with("dotd 0."), "{said}");
}

/// Goal: no package holds a program that systems of the promised age cannot run. Method: this build, with the version that it asks
/// for by its own package as the limit, and with one before; nothing is left of the refused order. Covers: C-762
#[test]
fn a_program_that_asks_for_a_newer_glibc_is_refused() {
    require!(Command("dpkg-deb"));
    let fields = text(&run("dpkg-deb", &["-f", &package(".deb").display().to_string(), "Depends"]));
    let asked = fields.split("libc6 (>= 2.").nth(1).and_then(|rest| rest.split(')').next());
    let asked: u32 = asked.expect("a version").parse().expect("a number");
    let scratch = Scratch::new();
    let order = |minor: u32| dot_dist::Order {
        bin: binary(),
        glibc_max: Some(format!("2.{minor}")),
        root: root().to_owned(),
        into: scratch.path().join(minor.to_string()),
        epoch: 1_700_000_000,
        revision: 1,
    };
    let refused = dot_dist::pack(&order(asked - 1)).expect_err("it asks for a newer one").to_string();
    assert!(refused.contains(&format!("asks for glibc 2.{asked}")), "{refused}");
    assert_eq!(fs::read_dir(scratch.path().join((asked - 1).to_string())).expect("a folder").count(), 0);
    assert_eq!(dot_dist::pack(&order(asked)).expect("packages").len(), 6);
}

/// Goal: dotd.toml(5) has every key. Method: the keys of the packaged config, which another test holds to the code.
/// Covers: C-491
#[test]
fn the_page_of_the_config_has_every_key() {
    let page = dot_dist::page(include_str!("../../../docs/config.md"), "0");
    let keys = include_str!("../../../packaging/dotd.toml").lines();
    let keys = keys.filter_map(|line| line.split_once(" = ")).map(|(key, _)| key.trim_start_matches("# "));
    for key in keys.filter(|key| key.chars().all(|sign| sign.is_ascii_lowercase() || sign == '_')) {
        assert!(page.contains(key), "{key}");
    }
    assert!(page.starts_with(".TH DOTD.TOML 5") && !page.contains("```") && !page.contains("]("), "{page}");
}

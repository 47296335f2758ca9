//! Certificates that are replaced while dotd runs, or that are wrong: which one is served, and how loudly dotd says so.
//!
//! Before: a certificate in service. After: files that a renewal left, in whatever state; the certificate that a client gets,
//! and dotd's reports about its files.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dot_tests::{
    harness::{
        clients::{http, tool},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query},
        netns::{Network, SERVER_V4},
        offer::Offer,
        pairs::Pair,
        scratch::Scratch,
        server::{Server, binary},
    },
    require,
};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};

/// The certificate that a client gets now.
fn leaf(network: &Network) -> Vec<u8> {
    Dot::connect(&network.client, SERVER_V4).certificates().swap_remove(0)
}

fn served(network: &Network, pair: &Pair) {
    eventually("the certificate is served", || (leaf(network) == pair.der).then_some(()));
}

/// Puts `new` in the place of `old` as a careful renewal does, by renaming whole files.
fn rename_over(new: &Pair, old: &Pair) {
    fs::rename(&new.cert, &old.cert).expect("our own folder");
    fs::rename(&new.key, &old.key).expect("our own folder");
}

fn only(pair: &Pair) -> Config {
    Config::new().set("tls", "certificates", &format!("[{}]", pair.entry()))
}

/// Goal: a renewal takes effect without a signal, and ends no session. Method: certificate and key renamed over the old
/// ones, twice; a session from before.
#[test]
fn renamed_files_are_served_without_a_signal() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let pairs = ["old", "new", "newest"].map(|name| Pair::new(&scratch, name, &PKCS_ECDSA_P256_SHA256));
    let [old, new, newest] = &pairs;
    let dotd = Server::launch(&network, &only(old), scratch, &[]);
    let mut before = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(leaf(&network), old.der);
    for renewed in [new, newest] {
        rename_over(renewed, old);
        served(&network, renewed);
    }
    assert_eq!(before.exchange(&Query::new(1, "dotd.test", A).octets()).rdata(A), [[192, 0, 2, 53]]);
    let stats = dotd.stats();
    assert!(stats.counter("control", "reloads_ok") >= 2, "{stats:?}");
    dotd.stop();
}

/// Goal: a certificate that expires while dotd runs is reported: the metric goes below zero, `status` says EXPIRED,
/// `check` warns and names the file; clients that know its pin are still served. A renewal ends all that. Method: a
/// certificate for six seconds; the same checks before and after its end. Covers: A-56, C-69
#[test]
fn an_expired_certificate_is_loud() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let [old, new] = ["old", "new"].map(|name| Pair::new(&scratch, name, &PKCS_ECDSA_P256_SHA256));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut params = CertificateParams::new(["old".to_owned()]).expect("a name");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    params.not_after = date_time_ymd(1970, 1, 1) + now + Duration::from_secs(6);
    scratch.write("old.crt", params.self_signed(&key).expect("signed").pem());
    scratch.write("old.key", key.serialize_pem());
    let config = only(&old).set("control", "http", "\"127.0.0.1:8853\"");
    let dotd = Server::launch(&network, &config, scratch, &[]);
    let expiry = || {
        let metrics = http(&network.server, "/metrics");
        let line = metrics.lines().find(|line| line.starts_with("dotd_certificate_expiry_seconds{"));
        let line = line.unwrap_or_else(|| panic!("no such metric in {metrics}"));
        line.rsplit(' ').next().and_then(|number| number.parse::<i64>().ok()).expect("a number")
    };
    let check = || {
        let config = dotd.folder().join("dotd.toml").display().to_string();
        tool(&network.server, &binary().display().to_string(), &["check", "-c", &config])
    };
    let before = check();
    assert!(before.is_success && !before.has("expired") && expiry() >= 0, "{}", before.text);
    eventually("it expires", || (expiry() < 0).then_some(()));
    let after = check();
    assert!(after.is_success && after.has("old.crt: expired on "), "{}", after.text);
    assert!(after.has("ok, but for 1 certificate"), "{}", after.text);
    assert!(dotd.operate(&["status"]).has("EXPIRED"), "{}", dotd.operate(&["status"]).text);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&Query::new(1, "dotd.test", A).octets()).rdata(A), [[192, 0, 2, 53]]);
    rename_over(&new, &old);
    served(&network, &new);
    assert!(expiry() > 0 && check().is_success && !dotd.operate(&["status"]).has("EXPIRED"));
}

/// How many of an operator's four places say `part` of a certificate: probes, metrics and status.
fn loudness(network: &Network, dotd: &Server, part: &str) -> usize {
    let health = http(&network.server, "/health");
    let metrics = http(&network.server, "/metrics");
    let is_zero = |line: &str| line.starts_with("dotd_certificate_usable{") && line.ends_with(" 0");
    let said = [
        health.contains(part),
        http(&network.server, "/health/ready").contains(part),
        metrics.lines().any(is_zero),
        dotd.operate(&["status"])
            .text
            .lines()
            .any(|line| line.starts_with("UNUSABLE") && line.contains(part)),
    ];
    said.into_iter().filter(|says| *says).count()
}

/// Goal: one certificate of several that cannot be used blocks neither the start, nor a reload of anything else, nor the renewal
/// of another one; what is good is served, and every place is loud until it is mended. Method: two entries, the key of one
/// missing at the start, written, and damaged again; each time what clients of both names get, and what a reload of another key
/// says.
#[test]
fn one_unusable_certificate_blocks_none() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let [one, two] = ["one", "two"].map(|name| Pair::new(&scratch, name, &PKCS_ECDSA_P256_SHA256));
    let key = fs::read(&two.key).expect("just written");
    fs::remove_file(&two.key).expect("our own file");
    let config = Config::new()
        .xdp("off")
        .set("tls", "certificates", &format!("[{}, {}]", one.entry(), two.entry()))
        .set("control", "http", "\"127.0.0.1:8853\"");
    let dotd = Server::launch(&network, &config, scratch, &[]);
    let by_name = |name: &'static str| {
        let offer = Offer { server_name: Some(name), ..Offer::default() };
        Dot::attempt(&network.client, SERVER_V4, &offer).expect("served").certificates().swap_remove(0)
    };
    let file = dotd.folder().join("dotd.toml").display().to_string();
    let check = || tool(&network.server, &binary().display().to_string(), &["check", "-c", &file]);
    assert_eq!((by_name("one"), by_name("two")), (one.der.clone(), one.der.clone()));
    let absent = "two.key: no such file: put it there or correct its name in the config; it is not served";
    eventually("the log says so", || dotd.stderr().contains(absent).then_some(()));
    assert_eq!(loudness(&network, &dotd, absent), 4);
    let said = check();
    assert!(said.is_success && said.has(absent) && said.has("ok, but for 1 certificate"), "{}", said.text);
    fs::write(&two.key, &key).expect("our own file");
    eventually("it is served once it is whole", || (by_name("two") == two.der).then_some(()));
    assert!(loudness(&network, &dotd, "two.key") == 0 && !check().has("but for"));
    fs::write(&two.key, &key[..key.len() / 2]).expect("our own file");
    let damaged = "two.key: PEM block is cut off or damaged";
    eventually("the log says so", || dotd.stderr().contains(damaged).then_some(()));
    assert_eq!(loudness(&network, &dotd, damaged), 4);
    dotd.rewrite_config(&config.clone().set("session", "idle_timeout", "\"7s\""));
    let said = dotd.operate(&["reload"]);
    assert!(!said.is_success && said.has("reloaded\n") && said.has(damaged), "{}", said.text);
    assert!(said.has("; the previous certificate is served"), "{}", said.text);
    assert_eq!((by_name("one"), by_name("two")), (one.der.clone(), two.der.clone()));
    dotd.rewrite_config(&config.set("tls", "strict", "true"));
    let said = dotd.operate(&["reload"]);
    assert!(!said.is_success && !said.has("reloaded\n") && said.has(damaged), "{}", said.text);
    fs::write(&two.key, &key).expect("our own file");
    eventually("nothing is wrong", || (loudness(&network, &dotd, "two.key") == 0).then_some(()));
    let said = dotd.operate(&["reload"]);
    assert!(said.is_success, "{}", said.text);
    fs::write(&two.key, "").expect("our own file");
    let answer = || http(&network.server, "/health");
    eventually("health fails, because the config is strict", || answer().contains(" 503 ").then_some(()));
    assert_eq!(by_name("two"), two.der);
    dotd.stop();
}

/// Goal: a certificate whose dates are wrong, as it seems at boot while the clock is, is served from the start, and loudly; with
/// `tls.strict` neither `run` nor `check` accepts it. Method: one that has expired, and one that is not valid yet.
///
#[test]
fn wrong_dates_end_no_start() {
    require!(Root);
    let network = Network::new();
    for (from, to, part) in
        [(2001, 2002, "dated.crt: expired on "), (2124, 2125, "dated.crt: not valid before ")]
    {
        let scratch = Scratch::new();
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["dated".to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        let made = params.self_signed(&key).expect("signed");
        let dated = Pair {
            cert: scratch.write("dated.crt", made.pem()),
            key: scratch.write("dated.key", key.serialize_pem()),
            der: made.der().to_vec(),
        };
        let config = only(&dated).xdp("off").set("control", "http", "\"127.0.0.1:8853\"");
        let dotd = Server::launch(&network, &config, scratch, &[]);
        assert_eq!(leaf(&network), dated.der);
        assert_eq!(loudness(&network, &dotd, part), 4);
        let says = |line: &str| line.contains("ERROR") && line.contains(part);
        eventually("the log says so", || dotd.stderr().lines().any(says).then_some(()));
        let file = dotd.folder().join("dotd.toml").display().to_string();
        let check = || tool(&network.server, &binary().display().to_string(), &["check", "-c", &file]);
        assert!(check().is_success && check().has(part), "{}", check().text);
        dotd.rewrite_config(&config.set("tls", "strict", "true"));
        assert!(!check().is_success && check().has(part), "{}", check().text);
        let run = tool(&network.server, &binary().display().to_string(), &["run", "-c", &file]);
        assert!(!run.is_success && run.has(part), "{}", run.text);
        dotd.stop();
    }
}

/// Goal: a symbolic link that is replaced leads to the new files (Kubernetes mounts secrets so). Method: `..data` leads
/// to one folder, then, by rename, to another one. The keys differ, which the log, `dotd status` and the metrics report. Covers:
///
#[test]
fn a_swapped_link_is_followed() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let pairs = ["one", "two", "three"].map(|version| {
        let made = Pair::new(&scratch, version, &PKCS_ECDSA_P256_SHA256);
        let folder = scratch.folder(version);
        fs::rename(&made.cert, folder.join("tls.crt")).expect("our own folder");
        fs::rename(&made.key, folder.join("tls.key")).expect("our own folder");
        made
    });
    let root = scratch.path().to_owned();
    let swap_to = |version: &str| {
        symlink(version, root.join("..next")).expect("our own folder");
        fs::rename(root.join("..next"), root.join("..data")).expect("our own folder");
    };
    swap_to("one");
    for name in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(name), root.join(name)).expect("our own folder");
    }
    let config = Config::new().certificate(&root.join("tls.crt"), &root.join("tls.key"));
    let config = config.set("control", "http", "\"127.0.0.1:8853\"");
    let dotd = Server::launch(&network, &config, scratch, &[]);
    assert_eq!(leaf(&network), pairs[0].der);
    let measured = |value: &str| {
        let is_it = |line: &str| line.starts_with("dotd_certificate_other_key{") && line.ends_with(value);
        http(&network.server, "/metrics").lines().any(is_it)
    };
    assert!(measured("} 0"), "the key is that of the start");
    for (version, pair) in ["two", "three"].into_iter().zip(&pairs[1..]) {
        swap_to(version);
        served(&network, pair);
        let pins = dotd.status()["certificates"][0]["spki_pin"].as_str().expect("a pin").to_owned();
        let said = |text: String| text.contains("another one since it was renewed") && text.contains(&pins);
        eventually("the log says the new pin", || said(dotd.stderr()).then_some(()));
        assert!(said(dotd.operate(&["status"]).text), "status says it too");
        assert!(measured("} 1"), "so do the metrics");
    }
    dotd.stop();
}

/// Goal: while files are half written, missing or do not belong together, the old certificate stays in service, with a
/// log line that names the file each time; the completed renewal is served. Method: the key truncated in place, both
/// files empty in turn, the key missing, then the key of another certificate.
#[test]
fn a_half_written_renewal_keeps_the_old() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let pairs = ["old", "new"].map(|name| Pair::new(&scratch, name, &PKCS_ECDSA_P256_SHA256));
    let [old, new] = &pairs;
    let dotd = Server::launch(&network, &only(old), scratch, &[]);
    let text = fs::read_to_string(&new.key).expect("just written");
    let says = |part: &str| {
        eventually(&format!("a line says {part:?}"), || dotd.stderr().contains(part).then_some(()));
        assert_eq!(leaf(&network), old.der, "{part}");
    };
    fs::write(&old.key, &text[..text.len() / 2]).expect("our own folder");
    says("old.key: PEM block is cut off or damaged");
    let cert = fs::read_to_string(&old.cert).expect("our own folder");
    fs::write(&old.cert, "").expect("our own folder");
    says("old.crt: is empty");
    fs::write(&old.cert, cert).expect("our own folder");
    fs::write(&old.key, "").expect("our own folder");
    says("old.key: is empty");
    fs::remove_file(&old.key).expect("our own folder");
    says("old.key: no such file");
    fs::write(&old.key, &text).expect("our own folder");
    says("old.key is not the key of ");
    fs::rename(&new.cert, &old.cert).expect("our own folder");
    served(&network, new);
    assert!(dotd.stats().counter("control", "reloads_failed") >= 3);
    dotd.stop();
}

/// Goal: a renewed key that only root may read is served, as at a start: the keeper opens it. Method: user nobody; a
/// new key of mode 0600 in place of the old one; then both files in a folder that only root may enter, and `dotd
/// reload`.
#[test]
fn a_key_that_root_alone_may_read_is_renewed() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let pairs = ["old", "new", "third"].map(|name| Pair::new(&scratch, name, &PKCS_ECDSA_P256_SHA256));
    let [old, new, third] = &pairs;
    let config = only(old).set("server", "user", "\"nobody\"");
    let dotd = Server::launch(&network, &config, scratch, &[]);
    fs::set_permissions(&new.key, fs::Permissions::from_mode(0o600)).expect("our own file");
    rename_over(new, old);
    served(&network, new);
    let closed = dotd.folder().join("closed");
    fs::create_dir(&closed).expect("our own folder");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("our own folder");
    let at = |file: &std::path::Path| closed.join(file.file_name().expect("a file"));
    for file in [&third.cert, &third.key] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("our own file");
        fs::rename(file, at(file)).expect("our own file");
    }
    let moved = Config::new().certificate(&at(&third.cert), &at(&third.key));
    dotd.rewrite_config(&moved.set("server", "user", "\"nobody\""));
    let said = dotd.operate(&["reload"]);
    assert!(said.is_success && said.has("reloaded"), "{}", said.text);
    assert_eq!(leaf(&network), third.der);
    dotd.stop();
}

/// Goal: what systemd hands over by LoadCredential= is served, at a start and after a reload, by an engine of another user that has
/// forgotten its environment. Method: a folder as systemd makes it, its name in the environment; a reload that names the second pair
/// in it.
#[test]
fn credentials_of_systemd_are_served() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let folder = scratch.folder("credentials");
    let pairs = ["one", "two"].map(|name| {
        let made = Pair::new(&scratch, name, &PKCS_ECDSA_P256_SHA256);
        for file in [&made.cert, &made.key] {
            let to = folder.join(file.file_name().expect("a file"));
            fs::rename(file, &to).expect("our own folder");
            fs::set_permissions(&to, fs::Permissions::from_mode(0o400)).expect("our own file");
        }
        made
    });
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).expect("our own folder");
    let named = |name: &str| {
        let path = |end: &str| PathBuf::from(format!("$CREDENTIALS_DIRECTORY/{name}.{end}"));
        Config::new().xdp("off").set("server", "user", "\"nobody\"").certificate(&path("crt"), &path("key"))
    };
    let variable = format!("CREDENTIALS_DIRECTORY={}", folder.display());
    let dotd = Server::launch(&network, &named("one"), scratch, &["env", &variable]);
    assert_eq!(leaf(&network), pairs[0].der);
    dotd.rewrite_config(&named("two"));
    let said = dotd.operate(&["reload"]);
    assert!(said.is_success, "{}", said.text);
    assert_eq!(leaf(&network), pairs[1].der);
    dotd.stop();
}

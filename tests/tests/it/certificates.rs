//! Certificates in an operator's practice: an OCSP response beside one, keys of several types, files that a renewal
//! replaces while dotd runs.
//!
//! Before: an authority that the test made. After: the certificate that a client gets, and dotd's reports about its
//! files.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dot_tests::{
    harness::{
        clients::{http, s_client, tool},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query},
        netns::{Network, SERVER_V4},
        offer::Offer,
        scratch::Scratch,
        server::{Server, binary},
    },
    require,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ED25519, PKCS_RSA_SHA256, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use rustls::NamedGroup;

/// Makes a certificate for `name`; returns the files of certificate and key, and the certificate.
struct Pair {
    cert: PathBuf,
    key: PathBuf,
    der: Vec<u8>,
}

fn pair(scratch: &Scratch, name: &str, algorithm: &'static SignatureAlgorithm) -> Pair {
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let cert = CertificateParams::new([name.to_owned()]).expect("a name").self_signed(&key).expect("signed");
    Pair {
        cert: scratch.write(&format!("{name}.crt"), cert.pem()),
        key: scratch.write(&format!("{name}.key"), key.serialize_pem()),
        der: cert.der().to_vec(),
    }
}

fn entry(pair: &Pair) -> String {
    format!(r#"{{ cert = "{}", key = "{}" }}"#, pair.cert.display(), pair.key.display())
}

/// Serial number of [`Issued`]'s certificate, for openssl's list.
const SERIAL: &str = "1092";

/// A certificate of an authority, and the files that `openssl ocsp` needs to respond for that authority.
struct Issued {
    ca: PathBuf,
    ca_key: PathBuf,
    leaf: PathBuf,
    chain: PathBuf,
    key: PathBuf,
}

fn issued(scratch: &Scratch) -> Issued {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "an authority");
    let authority_key = KeyPair::generate().expect("a key");
    let ca_key = scratch.write("ca.key", authority_key.serialize_pem());
    let authority = CertifiedIssuer::self_signed(params, authority_key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["dns.dotd.test".to_owned()]).expect("a name");
    params.serial_number = Some(SerialNumber::from(0x1092_u64));
    let leaf = params.signed_by(&key, &authority).expect("signed");
    Issued {
        ca: scratch.write("ca.crt", authority.pem()),
        ca_key,
        chain: scratch.write("chain.crt", leaf.pem() + &authority.pem()),
        leaf: scratch.write("leaf.crt", leaf.pem()),
        key: scratch.write("leaf.key", key.serialize_pem()),
    }
}

impl Issued {
    /// Makes OpenSSL respond, as the authority, that the certificate is good ("V") or revoked ("R").
    fn respond(&self, network: &Network, scratch: &Path, status: &str, days: &str) {
        let revoked = if status == "R" { "250101000000Z" } else { "" };
        let index =
            format!("{status}\t490101000000Z\t{revoked}\t{SERIAL}\tunknown\t/CN=rcgen self signed cert\n");
        std::fs::write(scratch.join("index.txt"), index).expect("our own folder");
        let path = |path: &Path| path.display().to_string();
        let (index, out) = (path(&scratch.join("index.txt")), path(&scratch.join("leaf.ocsp")));
        let (ca, ca_key, leaf) = (path(&self.ca), path(&self.ca_key), path(&self.leaf));
        let words =
            ["ocsp", "-index", &*index, "-CA", &*ca, "-rsigner", &*ca, "-rkey", &*ca_key, "-issuer", &*ca];
        let words = [&words[..], &["-cert", &*leaf, "-respout", &*out, "-ndays", days]].concat();
        let said = tool(&network.client, "openssl", &words);
        assert!(Path::new(&out).exists(), "{}", said.text);
    }

    fn config(&self, scratch: &Path) -> Config {
        let (chain, key, ocsp) = (self.chain.display(), self.key.display(), scratch.join("leaf.ocsp"));
        let ocsp = ocsp.display();
        let entry = format!(r#"[{{ cert = "{chain}", key = "{key}", ocsp = "{ocsp}" }}]"#);
        Config::new().set("tls", "certificates", &entry)
    }
}

/// Goal: the OCSP response that an authority made is stapled in both TLS versions, to clients that ask (RFC 6066 §8),
/// and passes their check. Method: `openssl ocsp` makes it, `s_client -status` verifies it against the authority.
/// Covers: C-68
#[test]
fn an_ocsp_response_is_stapled() {
    require!(Root, Command("openssl"));
    let (network, scratch) = (Network::new(), Scratch::new());
    let (issued, folder) = (issued(&scratch), scratch.path().to_owned());
    issued.respond(&network, &folder, "V", "7");
    let dotd = Server::launch(&network, &issued.config(&folder), scratch, &[]);
    let ca = issued.ca.display().to_string();
    for version in ["-tls1_3", "-tls1_2"] {
        let words = [version, "-status", "-CAfile", &*ca, "-verify_return_error"];
        let said = s_client(&network.client, SERVER_V4, &words);
        assert!(said.has("OCSP Response Status: successful (0x0)"), "{version}: {}", said.text);
        assert!(said.has("Cert Status: good"), "{version}: {}", said.text);
        assert!(said.has("Verify return code: 0 (ok)"), "{version}: {}", said.text);
    }
    let said = s_client(&network.client, SERVER_V4, &["-CAfile", &*ca]);
    assert!(!said.has("OCSP Response Status"), "nobody asked: {}", said.text);
    dotd.stop();
}

/// Goal: a response that says "revoked", or that is truncated, is refused at start, with its file named. Method: a
/// response of openssl, and half of one. Covers: C-68, A-57
#[test]
fn a_bad_ocsp_response_is_named() {
    require!(Root, Command("openssl"));
    let network = Network::new();
    for (status, share, part) in
        [("R", 1, "leaf.ocsp: the certificate is revoked"), ("V", 2, "leaf.ocsp: not an OCSP response")]
    {
        let scratch = Scratch::new();
        let (issued, folder) = (issued(&scratch), scratch.path().to_owned());
        issued.respond(&network, &folder, status, "7");
        let octets = std::fs::read(folder.join("leaf.ocsp")).expect("made");
        scratch.write("leaf.ocsp", &octets[..octets.len() / share]);
        let ended = Server::attempt(&network, &issued.config(&folder), scratch, &[]).expect_err("refused");
        assert_eq!(ended.code, Some(1));
        assert!(ended.stderr.contains(part), "{ended:?}");
    }
}

/// Goal: ECDSA, RSA and Ed25519 certificates serve side by side, chosen by the client's server name or its signature
/// schemes (RFC 8446 §4.4.2.2), in both versions. Method: three certificates; SNI for each; a client without SNI that
/// can verify only RSA, which gets the RSA certificate. Covers: C-66
#[test]
fn keys_of_every_kind_serve_by_name() {
    require!(Root, Command("openssl"));
    let (network, scratch) = (Network::new(), Scratch::new());
    let pairs = [
        ("ecdsa.dotd.test", pair(&scratch, "ecdsa.dotd.test", &PKCS_ECDSA_P256_SHA256)),
        ("rsa.dotd.test", pair(&scratch, "rsa.dotd.test", &PKCS_RSA_SHA256)),
        ("ed25519.dotd.test", pair(&scratch, "ed25519.dotd.test", &PKCS_ED25519)),
    ];
    let entries = pairs.iter().map(|(_, pair)| entry(pair)).collect::<Vec<_>>().join(", ");
    let config = Config::new().set("tls", "certificates", &format!("[{entries}]"));
    let dotd = Server::launch(&network, &config, scratch, &[]);
    for (name, pair) in &pairs {
        for is_tls12 in [false, true] {
            let offer = Offer { server_name: Some(name), is_tls12, ..Offer::default() };
            let session = Dot::attempt(&network.client, SERVER_V4, &offer).expect("served");
            assert_eq!(session.certificates()[0], pair.der, "{name}, TLS 1.2: {is_tls12}");
        }
    }
    for (schemes, kind) in
        [("rsa_pss_rsae_sha256", "RSA-PSS"), ("ecdsa_secp256r1_sha256", "ECDSA"), ("ed25519", "ed25519")]
    {
        let said = s_client(&network.client, SERVER_V4, &["-noservername", "-tls1_3", "-sigalgs", schemes]);
        assert!(said.has(&format!("Peer signature type: {kind}")), "{schemes}: {}", said.text);
    }
    dotd.stop();
}

/// Goal: keys are agreed in X25519MLKEM768, X25519 or P-256, whichever the client supports, and in the first of them if
/// it supports all (draft-ietf-tls-ecdhe-mlkem). Method: offers of one group, then of all. Covers: C-61
#[test]
fn each_group_is_agreed() {
    require!(Root);
    let network = Network::new();
    let dotd = Server::start(&network, &Config::new());
    let groups = [NamedGroup::X25519MLKEM768, NamedGroup::X25519, NamedGroup::secp256r1];
    for group in groups {
        let offer = Offer { group: Some(group), ..Offer::default() };
        let session = Dot::attempt(&network.client, SERVER_V4, &offer).expect("served");
        assert_eq!(session.group(), Some(group));
    }
    assert_eq!(Dot::connect(&network.client, SERVER_V4).group(), Some(groups[0]));
    dotd.stop();
}

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
    Config::new().set("tls", "certificates", &format!("[{}]", entry(pair)))
}

/// Goal: a renewal takes effect without a signal, and ends no session. Method: certificate and key renamed over the old
/// ones, twice; a session from before. Covers: A-57
#[test]
fn renamed_files_are_served_without_a_signal() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let pairs = ["old", "new", "newest"].map(|name| pair(&scratch, name, &PKCS_ECDSA_P256_SHA256));
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
    let [old, new] = ["old", "new"].map(|name| pair(&scratch, name, &PKCS_ECDSA_P256_SHA256));
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
/// says. Covers: A-520
#[test]
fn one_unusable_certificate_blocks_none() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let [one, two] = ["one", "two"].map(|name| pair(&scratch, name, &PKCS_ECDSA_P256_SHA256));
    let key = fs::read(&two.key).expect("just written");
    fs::remove_file(&two.key).expect("our own file");
    let config = Config::new()
        .xdp("off")
        .set("tls", "certificates", &format!("[{}, {}]", entry(&one), entry(&two)))
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
/// Covers: A-521
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
/// to one folder, then, by rename, to another one. The keys differ, which the log and `dotd status` report. Covers:
/// A-57, A-419
#[test]
fn a_swapped_link_is_followed() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let pairs = ["one", "two", "three"].map(|version| {
        let made = pair(&scratch, version, &PKCS_ECDSA_P256_SHA256);
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
    let dotd = Server::launch(&network, &config, scratch, &[]);
    assert_eq!(leaf(&network), pairs[0].der);
    for (version, pair) in ["two", "three"].into_iter().zip(&pairs[1..]) {
        swap_to(version);
        served(&network, pair);
        let pins = dotd.status()["certificates"][0]["spki_pin"].as_str().expect("a pin").to_owned();
        let said = |text: String| text.contains("another one since it was renewed") && text.contains(&pins);
        eventually("the log says the new pin", || said(dotd.stderr()).then_some(()));
        assert!(said(dotd.operate(&["status"]).text), "status says it too");
    }
    dotd.stop();
}

/// Goal: while files are half written, missing or do not belong together, the old certificate stays in service, with a
/// log line that names the file each time; the completed renewal is served. Method: the key truncated in place, both
/// files empty in turn, the key missing, then the key of another certificate. Covers: A-57
#[test]
fn a_half_written_renewal_keeps_the_old() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let pairs = ["old", "new"].map(|name| pair(&scratch, name, &PKCS_ECDSA_P256_SHA256));
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
/// reload`. Covers: A-57, A-304
#[test]
fn a_key_that_root_alone_may_read_is_renewed() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let pairs = ["old", "new", "third"].map(|name| pair(&scratch, name, &PKCS_ECDSA_P256_SHA256));
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

/// Goal: an OCSP response is renewed without a signal, and a broken one leaves the old one in service. Method: a
/// response for seven days, one for nine, and a few letters. Covers: C-68, A-57
#[test]
fn a_staple_is_renewed_without_a_signal() {
    require!(Root, Command("openssl"));
    let (network, scratch) = (Network::new(), Scratch::new());
    let (issued, folder) = (issued(&scratch), scratch.path().to_owned());
    issued.respond(&network, &folder, "V", "7");
    let dotd = Server::launch(&network, &issued.config(&folder), scratch, &[]);
    let staple = || {
        let said = s_client(&network.client, SERVER_V4, &["-status"]);
        said.text.lines().find(|line| line.contains("Next Update:")).map(str::to_owned)
    };
    let first = staple().expect("stapled");
    issued.respond(&network, &folder, "V", "9");
    eventually("the new response is stapled", || staple().filter(|line| *line != first));
    fs::write(folder.join("leaf.ocsp"), "half").expect("our own folder");
    eventually("a line names it", || {
        dotd.stderr().contains("leaf.ocsp: not an OCSP response to staple").then_some(())
    });
    assert!(staple().is_some());
    dotd.stop();
}

/// Goal: what systemd hands over by LoadCredential= is served, at a start and after a reload, by an engine of another user that has
/// forgotten its environment. Method: a folder as systemd makes it, its name in the environment; a reload that names the second pair
/// in it. Covers: A-527
#[test]
fn credentials_of_systemd_are_served() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let folder = scratch.folder("credentials");
    let pairs = ["one", "two"].map(|name| {
        let made = pair(&scratch, name, &PKCS_ECDSA_P256_SHA256);
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

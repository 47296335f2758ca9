//! Certificates by ACME, from pebble: the first one, renewals, failures, and what the process that gets them may do.
//!
//! Before: a dotd with `[acme]`, and an authority that proves its names. After: the certificate that clients get, what operators see,
//! and how each failure is said.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use dot_tests::{
    harness::{
        acme::{Pebble, Wishes, updatable},
        acme_front::{Front, now},
        clients::{Said, http, is_answered_over_tls, kdig, tool},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query},
        netns::{Network, SERVER_V4},
        pki::Authority,
        process::of_each_thread,
        scratch::Scratch,
        server::Server,
        servers::{KEY_NAME, KEY_SECRET, Kind},
    },
    require,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

pub const NAME: &str = "dot.lab.test";

/// `[acme]` for the authority, whose CA is in the scratch folder.
pub fn config(names: &str) -> Config {
    Config::new()
        .set("acme", "directory", &format!("\"{}\"", Pebble::directory()))
        .set("acme", "accept_terms", "true")
        .set("acme", "names", names)
        .set("acme", "ca", "\"pebble-ca.pem\"")
}

pub fn scratch(pebble: &Pebble) -> Scratch {
    let scratch = Scratch::new();
    scratch.write("pebble-ca.pem", &pebble.ca);
    scratch
}

pub fn one() -> String {
    format!("[\"{NAME}\"]")
}

fn leaf(network: &Network) -> Vec<u8> {
    Dot::connect(&network.client, SERVER_V4).certificates().swap_remove(0)
}

/// Waits for a certificate of the authority, as kdig sees it.
fn served(network: &Network, root: &str) {
    eventually("kdig trusts the certificate", || {
        let said =
            kdig(&network.client, SERVER_V4, &format!("+tls-ca={root} +tls-hostname={NAME} dotd.test"));
        is_answered_over_tls(&said).then_some(())
    });
}

/// TXT records in clear.
fn plain(network: &Network, port: u16, name: &str) -> Said {
    let (at, port) = (format!("@{SERVER_V4}"), port.to_string());
    tool(&network.client, "kdig", &[&at, "-p", &port, "+timeout=5", name, "TXT"])
}

/// The ACME process of a keeper.
pub fn process_of(dotd: &Server) -> Option<u32> {
    let children = format!("/proc/{0}/task/{0}/children", dotd.keeper_pid());
    let children = fs::read_to_string(children).expect("it runs");
    children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid| *pid != dotd.pid())
}

/// Goal: a dotd with three keys gets a certificate that clients trust, without a file of the operator's; the operator sees it; a
/// renewal is served without a reload, ends no session and answers its command once it is done. Method: pebble, which refuses some
/// nonces, and kdig with its root; a session from before; the files, `status` and metrics. Covers: C-752, C-753
#[test]
fn a_certificate_comes_and_is_renewed_on_demand() {
    require!(Root, Command("pebble"), Command("pebble-challtestsrv"), Command("kdig"), Command("openssl"));
    let network = Network::new();
    let pebble = Pebble::start(&network, &Wishes::default());
    let root = pebble.root(&network);
    let config = config(&one()).set("acme", "contact", "[\"admin@lab.test\"]").set(
        "control",
        "http",
        "\"127.0.0.1:8853\"",
    );
    let dotd = Server::launch(&network, &config, scratch(&pebble), &[]);
    served(&network, &root);
    let first = leaf(&network);
    let folder = dotd.folder().join("state/acme");
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::metadata(folder.join(name)).expect(name).permissions().mode() & 0o777
    };
    assert_eq!((mode("certificate.pem"), mode("standing.json")), (0o600, 0o600));
    let accounts = fs::read_dir(dotd.folder().join("state/keeper")).expect("a folder").flatten();
    let accounts = accounts.filter(|entry| entry.file_name().to_string_lossy().starts_with("account-"));
    assert_eq!(accounts.count(), 1);
    let mut before = Dot::connect(&network.client, SERVER_V4);
    let said = dotd.operate(&["acme", "renew"]);
    assert!(said.is_success && said.has(NAME) && said.has("2 in all"), "{said:?}");
    eventually("the next certificate is served", || (leaf(&network) != first).then_some(()));
    served(&network, &root);
    assert_eq!(before.exchange(&Query::new(1, "dotd.test", A).octets()).rdata(A), [[192, 0, 2, 53]]);
    let status = dotd.status();
    assert_eq!((&status["acme"]["state"], &status["acme"]["issued"]), (&"issued".into(), &2.into()));
    let said = dotd.operate(&["status"]);
    assert!(said.has(NAME) && said.has("renewal in 5"), "two thirds of 90 days: {said:?}");
    let metrics = http(&network.server, "/metrics");
    assert!(
        metrics.contains("dotd_acme_issued_total 2") && metrics.contains("dotd_acme_failing 0"),
        "{metrics}"
    );
    dotd.stop();
}

/// Goal: a renewal comes by itself when two thirds of a certificate's life are over. Method: certificates for 20 seconds.
/// Covers: C-750
#[test]
fn a_renewal_comes_by_itself() {
    require!(Root, Command("pebble"), Command("pebble-challtestsrv"), Command("kdig"), Command("openssl"));
    let network = Network::new();
    let pebble = Pebble::start(&network, &Wishes { seconds: 20, ..Wishes::default() });
    let dotd = Server::launch(&network, &config(&one()), scratch(&pebble), &[]);
    let issued = || dotd.status()["acme"]["issued"].as_u64().unwrap_or_default();
    eventually("the first certificate", || (issued() >= 1).then_some(()));
    let first = eventually("it is served", || Some(leaf(&network)));
    eventually("two more", || (issued() >= 3).then_some(()));
    eventually("another one is served", || (leaf(&network) != first).then_some(()));
    dotd.stop();
}

/// Goal: a failure keeps the certificate that serves, and is said with its reason and remedy in the command, the log, the status and the
/// metrics; dotd does not try again at once. Method: port 80 taken by another program, then an authority that is gone.
/// Covers, C-754
#[test]
fn a_failure_keeps_the_old_certificate() {
    require!(Root, Command("pebble"), Command("pebble-challtestsrv"), Command("kdig"), Command("openssl"));
    let network = Network::new();
    let pebble = Pebble::start(&network, &Wishes::default());
    let root = pebble.root(&network);
    let config = config(&one()).set("control", "http", "\"127.0.0.1:8853\"");
    let dotd = Server::launch(&network, &config, scratch(&pebble), &[]);
    served(&network, &root);
    let first = leaf(&network);
    let taken = network.server.run(|| TcpListener::bind("0.0.0.0:80").expect("it is not listening"));
    let said = dotd.operate(&["acme", "renew"]);
    assert!(!said.is_success && said.has("0.0.0.0:80 is in use by another program"), "{said:?}");
    let acme = &dotd.status()["acme"];
    assert_eq!((&acme["state"], &acme["failures"]), (&"failing".into(), &1.into()));
    let wait = acme["next"].as_u64().unwrap() - acme["last_failure"].as_u64().unwrap();
    assert!((300..=330).contains(&wait), "five minutes, and a tenth: {wait}");
    drop(taken);
    // The authority's own file goes with it.
    let root = dotd.write("root.pem", fs::read(root).expect("it was said")).display().to_string();
    drop(pebble);
    let said = dotd.operate(&["acme", "renew"]);
    assert!(!said.is_success && said.has("port 14000: Connection refused"), "{said:?}");
    assert_eq!(leaf(&network), first);
    served(&network, &root);
    let status = dotd.status();
    let acme = &status["acme"];
    assert!(acme["state"] != "issued" && acme["failures"].as_u64() >= Some(2), "{acme}");
    assert!(acme["unreached"].as_u64() < acme["failures"].as_u64(), "the first one was another: {acme}");
    assert!(dotd.operate(&["acme", "status"]).has("times)"));
    assert!(!http(&network.server, "/metrics").contains("dotd_acme_failing 0"));
    assert!(dotd.stderr().contains("the old certificate serves on, next attempt in"));
    dotd.stop();
}

/// Goal: what the authority refuses is said in its words with a remedy, before there is any certificate; clients get the self-signed one
/// meanwhile. Method: a name that pebble does not issue for; then one whose proof it cannot fetch, because a filter is in the way.
///
#[test]
fn what_the_authority_refuses_is_said_in_words() {
    require!(Root, Command("pebble"), Command("pebble-challtestsrv"));
    let network = Network::new();
    let pebble = Pebble::start(&network, &Wishes { blocked: vec!["blocked.test"], ..Wishes::default() });
    let dotd = Server::launch(&network, &config("[\"dot.blocked.test\"]"), scratch(&pebble), &[]);
    let error = || dotd.status()["acme"]["error"].as_str().map(str::to_owned);
    let said = eventually("a failure", error);
    assert!(said.contains("this authority issues no certificate for such a name"), "{said}");
    assert!(dotd.operate(&["status"]).has("self-signed"));
    let unreachable = config(&one()).set("acme", "http_listen", "[\"127.0.0.1:80\"]");
    dotd.stop();
    let dotd = Server::launch(&network, &unreachable, scratch(&pebble), &[]);
    let error = || dotd.status()["acme"]["error"].as_str().map(str::to_owned);
    let said = eventually("a failure", error);
    assert!(
        said.contains("http-01 failed for dot.lab.test") && said.contains("must reach port 80"),
        "{said}"
    );
    dotd.stop();
}

/// Goal: the ACME process has no right: another user, no capability, filtered calls, no file but its own; when it is killed, another one
/// starts, and what it waited for goes on; it ends with dotd. Method: its files in /proc; KILL; TERM to dotd.
#[test]
fn the_acme_process_has_no_right() {
    require!(Root, Command("pebble"), Command("pebble-challtestsrv"));
    let network = Network::new();
    let pebble = Pebble::start(&network, &Wishes::default());
    let config = config(&one()).set("server", "user", "\"nobody\"");
    let dotd = Server::launch(&network, &config, scratch(&pebble), &[]);
    let issued = || dotd.status()["acme"]["issued"].as_u64().unwrap_or_default();
    eventually("a certificate", || (issued() == 1).then_some(()));
    let pid = process_of(&dotd).expect("it runs");
    for (key, value) in [
        ("CapEff:", "0000000000000000"),
        ("CapPrm:", "0000000000000000"),
        ("CapBnd:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
    ] {
        let found = of_each_thread(pid, key);
        assert!(!found.is_empty() && found.iter().all(|found| found == value), "{key} {found:?}");
    }
    assert!(of_each_thread(pid, "Uid:").iter().all(|uid| !uid.starts_with('0')));
    let kept = fs::read_to_string(dotd.folder().join("state/acme/standing.json")).unwrap();
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).expect("it runs");
    let next = eventually("another one", || process_of(&dotd).filter(|next| *next != pid));
    eventually("its line", || dotd.stderr().matches("come from").nth(1).map(drop));
    assert_eq!(issued(), 1, "the certificate is good: {kept}");
    let said = dotd.operate(&["acme", "renew"]);
    assert!(said.is_success, "{said:?}");
    dotd.stop();
    assert!(!Path::new(&format!("/proc/{next}")).exists());
}

/// Goal: another `acme.contact` reaches an account that exists. Method: a reload with another address, and an order. Covers: C-752
#[test]
fn another_contact_reaches_the_account() {
    require!(Root, Command("pebble"), Command("pebble-challtestsrv"));
    let network = Network::new();
    let pebble = Pebble::start(&network, &Wishes::default());
    let by = |contact: &str| config(&one()).set("acme", "contact", &format!("[\"{contact}\"]"));
    let dotd = Server::launch(&network, &by("one@lab.test"), scratch(&pebble), &[]);
    let issued = || dotd.status()["acme"]["issued"].as_u64().unwrap_or_default();
    eventually("a certificate", || (issued() == 1).then_some(()));
    dotd.rewrite_config(&by("two@lab.test"));
    assert!(dotd.operate(&["reload"]).is_success);
    let said = dotd.operate(&["acme", "renew"]);
    assert!(said.is_success, "{said:?}");
    let files = fs::read_dir(dotd.folder().join("state/acme")).unwrap().map(|file| file.unwrap().path());
    let is_contact = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("contact-");
    let told: Vec<_> = files.filter(is_contact).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(fs::read_to_string(&told[0]).unwrap(), "mailto:two@lab.test");
    assert!(!dotd.stderr().contains("acme.contact is refused"));
    dotd.stop();
}

/// Goal: a certificate may be valid for an address too. Method: the server's address beside its name; the answer of `dotd query`, which
/// verifies the address. Covers: C-757
#[test]
fn an_address_is_in_the_certificate() {
    require!(Root, Command("pebble"), Command("pebble-challtestsrv"), Command("kdig"), Command("openssl"));
    let network = Network::new();
    let pebble = Pebble::start(&network, &Wishes::default());
    let root = pebble.root(&network);
    let names = format!("[\"{NAME}\", \"{SERVER_V4}\"]");
    let dotd = Server::launch(&network, &config(&names), scratch(&pebble), &[]);
    served(&network, &root);
    let words = format!(
        "x509 -noout -ext subjectAltName -in {}",
        dotd.folder().join("state/acme/certificate.pem").display()
    );
    let said = tool(&network.server, "openssl", &words.split(' ').collect::<Vec<_>>());
    assert!(said.has(&format!("DNS:{NAME}")) && said.has(&format!("IP Address:{SERVER_V4}")), "{said:?}");
    dotd.stop();
}

/// Goal: a directory whose certificate no known authority has signed gets no request. Method: `acme.ca` names another one.
///
#[test]
fn a_directory_of_another_authority_is_refused() {
    require!(Root, Command("pebble"), Command("pebble-challtestsrv"));
    let network = Network::new();
    let pebble = Pebble::start(&network, &Wishes::default());
    let scratch = Scratch::new();
    scratch.write("pebble-ca.pem", Authority::new().pem());
    let dotd = Server::launch(&network, &config(&one()), scratch, &[]);
    let said = eventually("a failure", || dotd.status()["acme"]["error"].as_str().map(str::to_owned));
    assert!(said.contains("TLS fails") && said.contains("acme.ca"), "{said}");
    drop(pebble);
    dotd.stop();
}

/// Goal: the authority's suggestion decides when a certificate is renewed, and the next order names the certificate that it replaces and the
/// profile; a profile that the authority does not offer is said with those that it does. Method: a front of pebble with renewal
/// information and profiles; a window ten days from now. Covers: C-759
#[test]
fn the_authority_suggests_when_to_renew() {
    require!(Root, Command("pebble"), Command("pebble-challtestsrv"));
    let network = Network::new();
    let pebble = Pebble::start(&network, &Wishes::default());
    let window = (now() + 10 * 86_400, now() + 11 * 86_400);
    let front = Front::start(&network, &pebble, window);
    let files = Scratch::new();
    files.write("pebble-ca.pem", &front.ca);
    let config = config(&one()).set("acme", "directory", &format!("\"{}\"", Front::directory())).set(
        "acme",
        "profile",
        "\"shortlived\"",
    );
    let dotd = Server::launch(&network, &config, files, &[]);
    let standing = || dotd.status()["acme"].clone();
    let is_suggested = |standing: &Value| standing["because"] == "the authority suggests it";
    let found = eventually("a suggestion", || Some(standing()).filter(is_suggested));
    let next = found["next"].as_u64().expect("a time");
    assert!((window.0..=window.1).contains(&next), "{next} in {window:?}");
    let asked = front.asked();
    assert_eq!(asked.orders, [(None, Some("shortlived".to_owned()))]);
    assert!(dotd.operate(&["acme", "renew"]).is_success);
    let replaces = front.asked().orders.last().expect("two").0.clone().expect("it is said");
    assert_eq!(Some(&replaces), asked.renewals.first());
    dotd.rewrite_config(&config.set("acme", "profile", "\"forever\""));
    assert!(dotd.operate(&["reload"]).is_success);
    let said = dotd.operate(&["acme", "renew"]);
    assert!(
        !said.is_success && said.has("no profile \"forever\"; it offers: ") && said.has("shortlived"),
        "{said:?}"
    );
    dotd.stop();
}

/// Goal: with `dns-01` dotd itself answers for the record, for a name and its wildcard, and for no longer than the order. Method: pebble,
/// which asks dotd for every name; the name before and after. Covers: C-755
#[test]
fn a_record_is_shown_by_dotd_itself() {
    require!(Root, Command("pebble"), Command("kdig"), Command("openssl"));
    let network = Network::new();
    let here = SocketAddr::new(SERVER_V4, 53);
    let pebble = Pebble::start(&network, &Wishes { dns: Some(here), ..Wishes::default() });
    let root = pebble.root(&network);
    let config = config(&format!("[\"{NAME}\", \"*.{NAME}\"]")).set("acme", "challenge", "\"dns-01\"").set(
        "listen",
        "do53",
        &format!("[\"{here}\"]"),
    );
    let dotd = Server::launch(&network, &config, scratch(&pebble), &[]);
    served(&network, &root);
    let said = plain(&network, 53, &format!("_acme-challenge.{NAME}"));
    assert!(said.has("status: NOERROR") && said.has("ANSWER: 0") && said.has("Flags: qr aa"), "{said:?}");
    let said = plain(&network, 53, &format!("_acme-challenge.other.{NAME}"));
    assert!(!said.has("Flags: qr aa"), "another name is the backend's: {said:?}");
    dotd.stop();
}

/// Goal: `[acme]` with `dns-01` that comes by a reload gets its certificate at the first attempt, and clients get it. Method: a dotd
/// without the section, whose folder does not exist; then a reload. Covers: C-755
#[test]
fn a_reload_brings_the_section() {
    require!(Root, Command("pebble"), Command("kdig"), Command("openssl"));
    let network = Network::new();
    let here = SocketAddr::new(SERVER_V4, 53);
    let pebble = Pebble::start(&network, &Wishes { dns: Some(here), ..Wishes::default() });
    let root = pebble.root(&network);
    let listens = |config: Config| config.set("listen", "do53", &format!("[\"{here}\"]"));
    let dotd = Server::launch(&network, &listens(Config::new()), scratch(&pebble), &[]);
    assert!(!dotd.folder().join("state/acme").exists());
    dotd.rewrite_config(&listens(config(&one()).set("acme", "challenge", "\"dns-01\"")));
    assert!(dotd.operate(&["reload"]).is_success);
    let acme = || dotd.status()["acme"].clone();
    let ended = |acme: &Value| acme["issued"].as_u64() >= Some(1) || acme["failed"].as_u64() >= Some(1);
    let found = eventually("the first attempt ends", || Some(acme()).filter(ended));
    assert_eq!((&found["issued"], &found["failed"]), (&1.into(), &0.into()), "{found}");
    served(&network, &root);
    dotd.stop();
}

/// Goal: with `dns-01` and `update_server` the zone's own server takes the record, signed, and gives it up afterwards; a key that it does
/// not know is said in words. Method: BIND and Knot, which pebble asks; the zone before and after. Covers: C-756
#[test]
fn a_record_is_shown_by_other_servers() {
    require!(
        Root,
        Command("pebble"),
        Command("named"),
        Command("knotd"),
        Command("kdig"),
        Command("openssl")
    );
    for kind in [Kind::Bind, Kind::Knot] {
        let network = Network::new();
        let zone = updatable(kind, &network, 5353);
        let at = SocketAddr::new(SERVER_V4, 5353);
        let pebble = Pebble::start(&network, &Wishes { dns: Some(at), ..Wishes::default() });
        let root = pebble.root(&network);
        let config = config(&one())
            .set("acme", "challenge", "\"dns-01\"")
            .set("acme", "update_server", &format!("\"{at}\""))
            .set("acme", "update_zone", "\"lab.test\"")
            .set("acme", "update_tsig", "\"acme.key\"");
        let files = scratch(&pebble);
        files.write("acme.key", format!("hmac-sha256:{KEY_NAME}:{KEY_SECRET}\n"));
        let dotd = Server::launch(&network, &config, files, &[]);
        served(&network, &root);
        let left = || plain(&network, 5353, &format!("_acme-challenge.{NAME}"));
        eventually("the record is gone", || left().has("NXDOMAIN").then_some(()));
        dotd.write("acme.key", format!("hmac-sha256:other.key:{KEY_SECRET}\n"));
        assert!(dotd.operate(&["reload"]).is_success);
        let said = dotd.operate(&["acme", "renew"]);
        assert!(
            !said.is_success && said.has("NOTAUTH") && said.has("acme.update_tsig"),
            "{kind:?}: {said:?}"
        );
        dotd.stop();
        drop(zone);
    }
}

/// Goal: after a crash of the engine, and after an upgrade, the port of `http-01` is still there, and one ACME process runs. Method: KILL to
/// the engine, then `dotd upgrade`; a renewal after each.
#[test]
fn the_port_outlives_engines_and_programs() {
    require!(Root, Command("pebble"), Command("pebble-challtestsrv"));
    let network = Network::new();
    let pebble = Pebble::start(&network, &Wishes::default());
    let dotd = Server::launch(&network, &config(&one()), scratch(&pebble), &[]);
    let issued = || dotd.status()["acme"]["issued"].as_u64().unwrap_or_default();
    eventually("a certificate", || (issued() == 1).then_some(()));
    let engine = dotd.pid();
    kill(Pid::from_raw(engine.cast_signed()), Signal::SIGKILL).expect("it runs");
    eventually("another engine", || dotd.operate(&["status"]).is_success.then_some(()));
    eventually("its line", || dotd.stderr().matches("come from").nth(1).map(drop));
    let said = dotd.operate(&["acme", "renew"]);
    assert!(said.is_success, "{said:?}");
    let said = dotd.operate(&["upgrade"]);
    assert!(said.is_success, "{said:?}");
    eventually("its line", || dotd.stderr().matches("come from").nth(2).map(drop));
    let said = dotd.operate(&["acme", "renew"]);
    assert!(said.is_success && issued() == 3, "{said:?}");
    let children =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", dotd.keeper_pid())).expect("it runs");
    assert_eq!(children.split_ascii_whitespace().count(), 2, "{children}");
    dotd.stop();
}

/// Goal: a port that another program listens on at the start is said, with the key. Method: a listener.
#[test]
fn a_port_in_use_is_said_at_the_start() {
    require!(Root);
    let network = Network::new();
    let taken = network.server.run(|| TcpListener::bind("0.0.0.0:80").expect("it is free"));
    let scratch = Scratch::new();
    scratch.write("pebble-ca.pem", "");
    let ended = Server::attempt(&network, &config(&one()), scratch, &[]).expect_err("the port is in use");
    assert!(
        ended.stderr.contains("0.0.0.0:80 is in use") && ended.stderr.contains("acme.http_listen"),
        "{ended:?}"
    );
    drop(taken);
}

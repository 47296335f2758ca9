//! The account at an authority of ACME: bound to an account of its site, kept from an engine that was taken over, and used over restarts.
//!
//! Before: a dotd with `[acme]`, and pebble. After: what the authority takes and refuses, and which process can read the account's key.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        net::UnixStream,
    },
    path::Path,
    process::{Command, Stdio},
};

use dot_tests::{
    harness::{
        acme::{Pebble, Wishes},
        config::Config,
        eventually,
        netns::Network,
        server::{Server, binary},
    },
    require,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    acme::{config, one, process_of, scratch},
    least_rights::{with_folders_in, wrapper},
};

const KID: &str = "kid-1";
const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
const OTHER_KEY: &str = "b10lLJs8l1GPIzsLP0s6pMt8O0XVGnfTaCeROxQM0BIt2XrJMDHJZBM5NuQmQJQH";

fn restart(mut dotd: Server, network: &Network, config: &Config) -> Server {
    dotd.signal(Signal::SIGTERM);
    let (_, scratch) = dotd.wait();
    Server::launch(network, config, scratch, &[])
}

fn issued(dotd: &Server) -> u64 {
    dotd.status()["acme"]["issued"].as_u64().unwrap_or_default()
}

/// Goal: an authority that binds accounts to those of its site gets the binding, for a new account alone; without one, with a wrong key and
/// with a file that is absent the reason names keys and file, and shows no key. Method: pebble, which demands it; the same config without
/// keys, with each fault, and right; then a renewal without the file. Covers: C-810
#[test]
fn an_account_is_bound_to_that_of_the_site() {
    require!(Root, Command("pebble"), Command("pebble-challtestsrv"));
    let network = Network::new();
    let pebble = Pebble::start(&network, &Wishes { external: Some((KID, KEY)), ..Wishes::default() });
    let dotd = Server::launch(&network, &config(&one()), scratch(&pebble), &[]);
    let said = eventually("a failure", || dotd.status()["acme"]["error"].as_str().map(str::to_owned));
    assert!(said.contains("set acme.eab_kid and acme.eab_key to what it gives you there"), "{said}");
    let bound =
        config(&one()).set("acme", "eab_kid", &format!("\"{KID}\"")).set("acme", "eab_key", "\"eab.key\"");
    let renew = |text: Option<&str>| {
        if let Some(text) = text {
            dotd.write("eab.key", text);
            fs::set_permissions(dotd.folder().join("eab.key"), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let said = dotd.operate(&["reload"]);
        assert!(said.is_success, "{said:?}");
        dotd.operate(&["acme", "renew"])
    };
    dotd.rewrite_config(&bound);
    let file = dotd.folder().join("eab.key").display().to_string();
    let said = renew(None);
    assert!(!said.is_success && said.has(&format!("acme.eab_key: {file}: cannot be read")), "{said:?}");
    let said = renew(Some(&format!("{OTHER_KEY}\n")));
    assert!(
        !said.is_success && said.has(&format!("no account is opened with acme.eab_key = \"{file}\"")),
        "{said:?}"
    );
    assert!(said.has("look at acme.eab_kid") && said.has("they belong together"), "{said:?}");
    let said = renew(Some(&format!("{KEY}\n")));
    assert!(said.is_success && said.has("1 in all"), "{said:?}");
    assert!(dotd.stderr().contains("was opened, bound to kid-1"), "{}", dotd.stderr());
    fs::remove_file(&file).unwrap();
    let said = renew(None);
    assert!(said.is_success && said.has("2 in all"), "the account is there: {said:?}");
    let log = dotd.stderr();
    assert!(!log.contains(KEY) && !log.contains(OTHER_KEY), "{log}");
    assert_eq!(log.matches("was opened").count(), 1, "{log}");
    dotd.stop();
}

/// The kernel's answer when the engine opens a path: the error, or `None`.
fn open(dotd: &Server, path: &str) -> Option<String> {
    let mut socket = UnixStream::connect(dotd.folder().join("run/control.sock")).expect("it listens");
    let body = format!("\"{path}\"");
    let head = "POST /open HTTP/1.1\r\nHost: dotd\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    socket.write_all(request.as_bytes()).expect("it reads");
    let mut said = String::new();
    socket.read_to_string(&mut said).expect("it answers");
    let (_, body) = said.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(body).expect("JSON")
}

fn open_files(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}

/// Goal: an engine that was taken over cannot read the account's key, neither from the disk nor from the ACME process nor from the keeper,
/// with the sandbox and without it; it can read the state for operators. Method: the engine of a user of its own opens each path; no
/// descriptor of it leads there.
#[test]
fn the_engine_cannot_read_the_account() {
    require!(Root, Command("pebble"), Command("pebble-challtestsrv"));
    for sandbox in ["enforce", "off"] {
        let network = Network::new();
        let pebble = Pebble::start(&network, &Wishes::default());
        let config = config(&one()).set("server", "user", "\"nobody\"").set(
            "server",
            "sandbox",
            &format!("\"{sandbox}\""),
        );
        let dotd = Server::launch(&network, &config, scratch(&pebble), &[]);
        eventually("a certificate", || (issued(&dotd) == 1).then_some(()));
        let state = dotd.folder().join("state");
        let folder = state.join("keeper");
        let found = fs::metadata(&folder).expect("a folder");
        assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o700));
        let account = fs::read_dir(&folder).unwrap().flatten().next().expect("an account").path();
        let text = fs::read_to_string(&account).unwrap();
        assert!(text.contains("key_pkcs8"), "{text}");
        assert_eq!(open(&dotd, &state.join("acme/standing.json").display().to_string()), None, "it tries");
        let (client, keeper) = (process_of(&dotd).expect("it runs"), dotd.keeper_pid());
        let own = [folder.display().to_string(), account.display().to_string()];
        let memory = [client, keeper].map(|pid| [format!("/proc/{pid}/mem"), format!("/proc/{pid}/environ")]);
        let descriptors = [client, keeper].map(open_files);
        assert!(descriptors.iter().all(|each| !each.is_empty()));
        let targets = |path: &String| fs::read_link(path).is_ok_and(|target| target.starts_with(&folder));
        assert!(descriptors.iter().all(|each| each.iter().any(targets)), "both hold it open");
        assert!(!open_files(dotd.pid()).iter().any(targets), "the engine does not");
        for path in own.iter().chain(memory.iter().flatten()).chain(descriptors.iter().flatten()) {
            let said = open(&dotd, path);
            assert!(matches!(said.as_deref(), Some("EACCES" | "EPERM")), "{sandbox}: {path}: {said:?}");
        }
        dotd.stop();
    }
}

/// Goal: a restart finds the account again; an engine that was taken over, and that has put a folder of its own in the place of the keeper's,
/// gets no order signed with an account of its choice, and the operator learns what to do. Method: a restart; then a folder of the
/// engine's user with another account; then its removal.
#[test]
fn another_folder_in_its_place_is_refused() {
    require!(Root, Command("pebble"), Command("pebble-challtestsrv"));
    let network = Network::new();
    let pebble = Pebble::start(&network, &Wishes::default());
    let config = config(&one()).set("server", "user", "\"nobody\"");
    let dotd = Server::launch(&network, &config, scratch(&pebble), &[]);
    eventually("a certificate", || (issued(&dotd) == 1).then_some(()));
    let folder = dotd.folder().join("state/keeper");
    let dotd = restart(dotd, &network, &config);
    let said = dotd.operate(&["acme", "renew"]);
    assert!(said.is_success && said.has("2 in all"), "{said:?}");
    assert!(!dotd.stderr().contains("was opened"), "the account is kept: {}", dotd.stderr());
    let name = fs::read_dir(&folder).unwrap().flatten().next().expect("an account").file_name();
    let planted = |from: &Path| {
        fs::rename(&folder, from).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::copy(from.join(&name), folder.join(&name)).unwrap();
        for path in [&folder, &folder.join(&name)] {
            chown(path, Some(65_534), Some(65_534)).unwrap();
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    };
    planted(&folder.with_file_name("moved"));
    let said = dotd.operate(&["acme", "renew"]);
    assert!(said.is_success && said.has("3 in all"), "the keeper holds the folder itself: {said:?}");
    let dotd = restart(dotd, &network, &config);
    let said = eventually("a line", || {
        dotd.stderr().lines().find(|line| line.contains("belongs to uid 65534")).map(str::to_owned)
    });
    assert!(said.contains("remove it, and restart dotd"), "{said}");
    let said = dotd.operate(&["acme", "renew"]);
    assert!(!said.is_success && said.has("belongs to uid 65534"), "{said:?}");
    fs::remove_dir_all(&folder).unwrap();
    let dotd = restart(dotd, &network, &config);
    let said = dotd.operate(&["acme", "renew"]);
    assert!(said.is_success && said.has("4 in all"), "{said:?}");
    dotd.stop();
}

/// Goal: `dotd acme renew` that comes while there is no engine, because one has crashed and the next one needs long to start, has its result
/// from the next one. Method: a keeper that is stopped, so that it starts no engine; the engine is killed; the verb waits past the time of
/// other verbs, says so, and then the keeper goes on.
#[test]
fn a_request_waits_for_the_next_engine() {
    require!(Root, Command("pebble"), Command("pebble-challtestsrv"));
    let network = Network::new();
    let pebble = Pebble::start(&network, &Wishes::default());
    let dotd = Server::launch(&network, &config(&one()), scratch(&pebble), &[]);
    eventually("a certificate", || (issued(&dotd) == 1).then_some(()));
    let signal = |pid: u32, number| kill(Pid::from_raw(pid.cast_signed()), number).expect("it runs");
    let (engine, keeper) = (dotd.pid(), dotd.keeper_pid());
    signal(keeper, Signal::SIGSTOP);
    signal(engine, Signal::SIGKILL);
    let mut renewal = Command::new(binary());
    renewal.args(["acme", "renew", "--socket"]).arg(dotd.folder().join("run/control.sock"));
    let mut renewal = renewal.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut waits = String::new();
    BufReader::new(renewal.stderr.take().expect("a pipe")).read_line(&mut waits).expect("a line");
    signal(keeper, Signal::SIGCONT);
    let ended = renewal.wait_with_output().expect("it ends");
    assert!(waits.contains("no answer yet: another engine is starting"), "{waits}");
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && said.contains("2 in all"), "{said} {waits}");
    dotd.stop();
}

/// Goal: with the capabilities and the folders of the packaged unit the account is in the folder of `--keeper-dir`;
/// without that folder the reason names it. Method: root without rights over other users' files; a start, a restart, and a start
/// without the folder.
#[test]
fn the_rights_of_the_unit_suffice() {
    require!(Root, Command("pebble"), Command("pebble-challtestsrv"), Command("setpriv"));
    let network = Network::new();
    let pebble = Pebble::start(&network, &Wishes::default());
    let scratch = with_folders_in(scratch(&pebble));
    let folder = scratch.path().join("accounts");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let shell = format!("exec \"$@\" --keeper-dir {}", folder.display());
    let rights = wrapper("");
    let mut words: Vec<&str> = rights.iter().map(String::as_str).collect();
    words.extend(["sh", "-c", &shell, "sh"]);
    let config = config(&one()).set("server", "user", "\"nobody\"");
    let dotd = Server::launch(&network, &config, scratch, &words);
    eventually("a certificate", || (issued(&dotd) == 1).then_some(()));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "the account");
    assert!(!dotd.folder().join("state/keeper").exists());
    let end = |mut dotd: Server| {
        dotd.signal(Signal::SIGTERM);
        let (ended, scratch) = dotd.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        scratch
    };
    let dotd = Server::launch(&network, &config, end(dotd), &words);
    let said = dotd.operate(&["acme", "renew"]);
    assert!(said.is_success, "{said:?}");
    assert!(!dotd.stderr().contains("was opened"), "the account is kept: {}", dotd.stderr());
    let scratch = end(dotd);
    fs::remove_dir_all(&folder).unwrap();
    let dotd = Server::launch(&network, &config, scratch, &words);
    let said = dotd.operate(&["acme", "renew"]);
    assert!(!said.is_success && said.has(&format!("{}: No such file", folder.display())), "{said:?}");
    dotd.stop();
}

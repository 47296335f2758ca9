//! certbot and acme.sh beside dotd, by the recipes of docs/guide/certificates.md, word by word.
//!
//! Before: an authority that speaks ACME (pebble), and the commands of the page. After: each renewal is served as the page says.
//! Never: uses a folder of this machine's certbot.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use dot_tests::{
    harness::{
        clients::{Said, tool},
        config::Config,
        eventually,
        netns::Network,
        pki::Authority,
        process::{Process, bound_to_namespace},
        scratch::Scratch,
        server::{Server, binary},
    },
    require,
};

const PAGE: &str = include_str!("../../../docs/guide/certificates.md");
const NAME: &str = "dot.dotd.test";

/// The n-th block of shell commands below a heading of the page, with the test's folder in front of the machine's paths.
fn recipe(heading: &str, place: usize, root: &Path) -> String {
    let section = PAGE.split(&format!("## {heading}\n")).nth(1).expect("the page has the heading");
    let section = section.split("\n## ").next().unwrap_or_default();
    let block = section.split("```sh\n").nth(place + 1).and_then(|rest| rest.split("```").next());
    let block = block.expect("the page has the block");
    let root = root.display();
    block
        .replace("/etc/letsencrypt", &format!("{root}/letsencrypt"))
        .replace("/etc/dotd", &format!("{root}/dotd"))
        // The user and the group of the test's dotd.
        .replace("-g dotd", "-g nogroup")
        .replace("chgrp dotd", "chgrp nogroup")
        .replace("dot.example.net", NAME)
}

/// A machine with a folder for certbot's files and one for commands that the hooks call.
struct Machine {
    network: Network,
    scratch: Scratch,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { network: Network::new(), scratch: Scratch::new() };
        for folder in ["letsencrypt/renewal-hooks/deploy", "dotd", "bin", "work", "logs"] {
            fs::create_dir_all(machine.root().join(folder)).expect("ours");
        }
        machine
    }

    fn root(&self) -> &Path {
        self.scratch.path()
    }

    /// Puts a command in front of the machine's own.
    fn command(&self, name: &str, text: &str) {
        let program = self.scratch.write(&format!("bin/{name}"), format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("ours");
    }

    /// `systemctl reload dotd` and `dotd check` of this machine, for a dotd that runs in `folder`.
    fn commands_for(&self, folder: &Path) {
        let (program, folder) = (binary().display().to_string(), folder.display().to_string());
        let config = format!("{folder}/dotd.toml");
        self.command(
            "systemctl",
            &format!("[ \"$*\" = 'reload dotd' ] || exit 9\nexec {program} -c {config} reload"),
        );
        self.command("dotd", &format!("exec {program} -c {config} \"$@\""));
    }

    fn shell(&self, text: &str) -> Said {
        let path =
            format!("{}:{}", self.root().join("bin").display(), std::env::var("PATH").unwrap_or_default());
        tool(&self.network.server, "env", &[&format!("PATH={path}"), "sh", "-ec", text])
    }

    /// certbot with this machine's folders, and the authority of the test.
    fn certbot(&self, words: &str) -> Said {
        let root = self.root().display();
        self.shell(&format!(
            "certbot {words} -n --config-dir {root}/letsencrypt --work-dir {root}/work --logs-dir {root}/logs \
             --server https://localhost:14000/dir --no-verify-ssl --http-01-port 5002"
        ))
    }

    fn live(&self, file: &str) -> PathBuf {
        self.root().join("letsencrypt/live").join(NAME).join(file)
    }
}

/// An authority that speaks ACME and believes every challenge.
fn pebble(machine: &Machine) -> Process {
    let authority = Authority::new();
    let issued = authority.issue("localhost");
    let (cert, key) =
        (machine.scratch.write("pebble.pem", &issued.cert), machine.scratch.write("pebble.key", &issued.key));
    let config = serde_json::json!({ "pebble": {
        "listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
        "certificate": cert, "privateKey": key, "httpPort": 5002, "tlsPort": 5001,
        "ocspResponderURL": "", "externalAccountBindingRequired": false,
    }});
    let file = machine.scratch.write("pebble.json", config.to_string());
    let mut command = bound_to_namespace("pebble");
    command.args(["-config".as_ref(), file.as_os_str()]);
    command.envs([
        ("PEBBLE_VA_ALWAYS_VALID", "1"),
        ("PEBBLE_VA_NOSLEEP", "1"),
        ("PEBBLE_WFE_NONCEREJECT", "0"),
    ]);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let pebble = Process::start("pebble", &machine.network.server, &machine.scratch, command);
    eventually("pebble listens", || {
        machine.network.server.run(|| std::net::TcpStream::connect("127.0.0.1:14000").ok().map(drop))
    });
    pebble
}

fn config(cert: &Path, key: &Path) -> Config {
    let entry = format!("[{{ cert = \"{}\", key = \"{}\" }}]", cert.display(), key.display());
    Config::new().xdp("off").set("server", "user", "\"nobody\"").set("tls", "certificates", &entry)
}

/// The pin that is served.
fn served(dotd: &Server) -> String {
    dotd.status()["certificates"][0]["spki_pin"].as_str().expect("a pin").to_owned()
}

/// The pin of a certificate file.
fn pin_of(file: &Path) -> String {
    let output = Command::new(binary()).arg("pin").arg(file).output().expect("built");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split('"').nth(1).unwrap_or_else(|| panic!("{output:?}")).to_owned()
}

/// Goal: the page's walk with certbot: its files stay root's and are named as they are, its renewal is served when the hook has ended, and
/// a hook whose reload fails is an error of certbot's. Method: certbot against pebble, the page's commands; a mistake in the config.
/// Covers: C-764
#[test]
fn certbots_renewal_is_served_by_the_pages_hook() {
    require!(Root, Command("certbot"), Command("pebble"));
    let machine = Machine::new();
    let _pebble = pebble(&machine);
    let said = machine
        .certbot(&format!("certonly --standalone --agree-tos --register-unsafely-without-email -d {NAME}"));
    assert!(said.is_success, "{}", said.text);
    let (chain, key) = (machine.live("fullchain.pem"), machine.live("privkey.pem"));
    let mode = |path: &Path| fs::metadata(path).expect("certbot made it").permissions().mode() & 0o777;
    assert_eq!((mode(&key), mode(chain.parent().and_then(Path::parent).expect("live"))), (0o600, 0o700));
    assert!(key.is_symlink());
    let config = config(&chain, &key);
    let dotd = Server::start(&machine.network, &config);
    let first = served(&dotd);
    assert_eq!(first, pin_of(&chain));
    machine.commands_for(dotd.folder());
    let said = machine.shell(&recipe("certbot", 0, machine.root()));
    assert!(said.is_success, "{}", said.text);
    let renew = "renew --force-renewal --no-random-sleep-on-renew";
    let said = machine.certbot(renew);
    assert!(said.is_success, "{}", said.text);
    let second = served(&dotd);
    assert!(second != first && second == pin_of(&chain), "{} {}", said.text, dotd.stderr());
    // What the operator has broken meanwhile is no matter of certbot's, but it says so.
    dotd.rewrite_config(&config.set("session", "nonsense", "1"));
    let said = machine.certbot(renew);
    assert!(said.has("nonsense"), "{}", said.text);
    dotd.stop();
}

/// Goal: the page's second hook, for a dotd that may not read certbot's folders, copies the pair, which is served without a signal.
/// Method: certbot against pebble. Covers: C-764
#[test]
fn certbots_files_are_copied_by_the_pages_hook() {
    require!(Root, Command("certbot"), Command("pebble"));
    let machine = Machine::new();
    let _pebble = pebble(&machine);
    machine.command("dotd", "exit 0");
    let said = machine.shell(&recipe("certbot", 1, machine.root()));
    assert!(said.is_success, "{}", said.text);
    let said = machine
        .certbot(&format!("certonly --standalone --agree-tos --register-unsafely-without-email -d {NAME}"));
    assert!(said.is_success, "{}", said.text);
    let renew = "renew --force-renewal --no-random-sleep-on-renew";
    // The first pair: certbot runs this folder's hooks at renewals alone.
    let said = machine.certbot(renew);
    assert!(said.is_success, "{}", said.text);
    let (chain, key) =
        (machine.root().join("dotd/tls/fullchain.pem"), machine.root().join("dotd/tls/key.pem"));
    let dotd = Server::start(&machine.network, &config(&chain, &key));
    machine.commands_for(dotd.folder());
    assert_eq!(served(&dotd), pin_of(&machine.live("fullchain.pem")));
    let said = machine.certbot(renew);
    assert!(said.is_success, "{}", said.text);
    eventually("the copy is served", || {
        (served(&dotd) == pin_of(&machine.live("fullchain.pem"))).then_some(())
    });
    dotd.stop();
}

/// Goal: what acme.sh does with the page's command: both files are written in place, one after the other, and the half of a pair is not
/// served; its reload command succeeds, and the new pair is served. Method: its writes (`cat` into files that keep their mode and owner),
/// and the page's `--reloadcmd`, run as acme.sh runs it. Covers: C-764
#[test]
fn acme_sh_installs_a_pair_that_is_served() {
    require!(Root);
    let machine = Machine::new();
    let folder = machine.scratch.folder("dotd/tls");
    let (chain, key) = (folder.join("fullchain.pem"), folder.join("key.pem"));
    let authority = Authority::new();
    let place = |file: &Path, text: &str| {
        let is_new = !file.exists();
        fs::write(file, text).expect("ours");
        if is_new {
            fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("ours");
        }
    };
    let text = recipe("acme.sh", 0, machine.root());
    let command = text.split("--reloadcmd '").nth(1).and_then(|rest| rest.split('\'').next());
    let command = command.expect("the page has a reload command");
    for path in [&chain, &key] {
        assert!(text.contains(&path.display().to_string()), "{text}");
    }
    let first = authority.issue(NAME);
    place(&key, &first.key);
    place(&chain, &first.cert);
    let dotd = Server::start(&machine.network, &config(&chain, &key));
    machine.commands_for(dotd.folder());
    let reload = || {
        let said = machine.shell(&format!("eval '{command}'"));
        assert!(said.is_success, "{}", said.text);
    };
    reload();
    let before = served(&dotd);
    let second = authority.issue(NAME);
    place(&key, &second.key);
    eventually("the half of a pair is said", || dotd.stderr().contains("key.pem").then_some(()));
    assert_eq!(served(&dotd), before);
    place(&chain, &second.cert);
    reload();
    eventually("the pair is served", || {
        (served(&dotd) == pin_of(&chain) && served(&dotd) != before).then_some(())
    });
    assert_eq!(fs::metadata(&key).expect("ours").permissions().mode() & 0o777, 0o640);
    dotd.stop();
}

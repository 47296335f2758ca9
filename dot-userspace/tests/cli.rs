//! The binary `dotd` as a shell sees it: exit status, standard error, standard output.
//!
//! Nothing here needs a right or opens a listener: `dotd run` has its tests in the package dot-tests.

use std::{
    fs,
    io::Write as _,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
};

use dot_userspace::{config::Tls, tls::certificate};
use tempfile::TempDir;

/// Runs `dotd` with these arguments.
fn dotd(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dotd")).args(words).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Fails with this one line on standard error and nothing on standard output.
#[track_caller]
fn assert_fails_with(output: &Output, line: &str) {
    assert_eq!(stderr(output), format!("dotd: {line}\n"));
    assert_eq!((output.status.code(), stdout(output).as_str()), (Some(1), ""));
}

/// A folder with a config in it that needs no right: its own folders, a high port, no XDP.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new(more: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let root = place.folder.path().display();
        let text = format!(
            "[server]\nstate_dir = \"{root}/state\"\nrun_dir = \"{root}/run\"\n\
             [listen]\ndot = [\"127.0.0.1:18853\"]\n[xdp]\nmode = \"off\"\n{more}"
        );
        fs::write(place.config(), text).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("dotd.toml")
    }

    /// `dotd VERB -c CONFIG`
    fn dotd(&self, words: &[&str]) -> Output {
        let config = self.config();
        dotd(&[words, &["-c", config.to_str().unwrap()]].concat())
    }

    /// Makes the self-signed certificate as a start would, and returns its PEM file and pin.
    fn self_signed(&self, folder: &str) -> (PathBuf, String) {
        let state_dir = self.path(folder);
        let identity = certificate::load_all(&Tls::default(), &state_dir, &[]).unwrap().identities.remove(0);
        (state_dir.join("self-signed.pem"), identity.spki_pin)
    }
}

/// Goal: a broken config ends `check` and `run` with 1, a line for each mistake, key and nearest right one
/// named.
/// Method: two mistakes, exact lines.
#[test]
fn broken_config_names_each_mistake() {
    let place = Place::new("[session]\nidle_timout = \"5s\"\nin_flight_max = 0\n");
    let file = place.config().display().to_string();
    for verb in ["check", "run"] {
        let output = place.dotd(&[verb]);
        let expected = format!(
            "dotd: {file}:9:1: unknown key `session.idle_timout`: did you mean `session.idle_timeout`?\n\
             dotd: {file}:10:17: session.in_flight_max: 0 is less than 1, the smallest permitted\n"
        );
        assert_eq!((output.status.code(), stderr(&output)), (Some(1), expected), "{verb}");
    }
}

/// Goal: a config that is named and absent is an error, not the defaults.
#[test]
fn absent_config_is_an_error() {
    let place = Place::new("");
    let absent = place.path("absent.toml");
    let output = dotd(&["check", "-c", absent.to_str().unwrap()]);
    let line = "no such file: name another with --config, or none for the defaults";
    assert_fails_with(&output, &format!("{}: {line}", absent.display()));
}

/// Goal: wrong usage ends with 2 and shows the right usage. Method: no verb, a wrong one, a wrong option, a missing
/// value.
#[test]
fn wrong_usage_ends_with_2() {
    for words in
        [&[][..], &["serve"], &["check", "--colour"], &["check", "-c"], &["xdp"], &["status", "extra"]]
    {
        let output = dotd(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        let (text, is_told) =
            (stderr(&output), |text: &str| text.contains("Usage: dotd") || text.contains("'--help'"));
        assert!(is_told(&text), "{words:?}: {text}");
        assert_eq!(stdout(&output), "");
    }
    assert!(stderr(&dotd(&["serve"])).contains("unrecognized subcommand 'serve'"));
}

/// Goal: help shows examples, at the top and for each verb, and ends with 0.
#[test]
fn help_has_examples() {
    for words in [
        &["--help"][..],
        &["-h"],
        &["run", "--help"],
        &["check", "--help"],
        &["pin", "--help"],
        &["status", "--help"],
        &["stats", "--help"],
        &["xdp", "show", "--help"],
        &["completions", "--help"],
    ] {
        let output = dotd(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(stdout(&output).contains("EXAMPLES\n  "), "{words:?}: {}", stdout(&output));
    }
    let version = stdout(&dotd(&["--version"]));
    assert_eq!(version, format!("dotd {}\n", env!("CARGO_PKG_VERSION")));
}

/// Goal: `check` reports the effect of the config and changes nothing. Method: before there is a certificate, and
/// after.
#[test]
fn check_says_what_would_happen() {
    let place = Place::new("[[backend]]\naddress = \"127.0.0.1:5353\"\n");
    let state = place.path("state");
    let output = place.dotd(&["check"]);
    let expected = format!(
        "config: {}\nworkers: one per core\nlistening: 127.0.0.1:18853 (dot)\nbackend: 127.0.0.1:5353 (udp)\n\
         certificate: self-signed; `dotd run` makes it in {}\nxdp: off (xdp.mode = \"off\")\nok\n",
        place.config().display(),
        state.display()
    );
    assert_eq!((output.status.code(), stdout(&output), stderr(&output)), (Some(0), expected, String::new()));
    assert!(!state.exists());
    let (_, pin) = place.self_signed("state");
    let output = stdout(&place.dotd(&["check"]));
    assert!(output.contains("certificate: self-signed: ends in 82"), "{output}");
    assert!(output.contains(&format!("\npin-sha256=\"{pin}\"\n")) && output.ends_with("\nok\n"), "{output}");
}

/// Goal: mistakes that only this machine can show are reported too, all at once, each with its place in the file.
/// Method: an address, a backend's CA, a certificate and an interface that do not exist.
#[test]
fn check_looks_at_the_machine() {
    let place = Place::new(
        "interfaces = [\"lo\", \"dotd-absent0\"]\n\
         [tls]\ncertificates = [{ cert = \"/absent.pem\", key = \"/k\" }]\n\
         [control]\nhttp = \"192.0.2.254:9853\"\n\
         [[backend]]\naddress = \"127.0.0.1:853\"\ntransport = \"tls\"\nserver_name = \"a.test\"\nca = \"/absent.ca\"\n",
    );
    let text = fs::read_to_string(place.config()).unwrap().replace("\"off\"", "\"auto\"");
    fs::write(place.config(), &text).unwrap();
    let output = place.dotd(&["check"]);
    let said = stderr(&output);
    let lines: Vec<_> = said.lines().collect();
    let expected = [
        ("\"192.0.2.254", "control.http: 192.0.2.254:9853 is not an address of this machine"),
        ("[[backend]]", "backend.ca: /absent.ca: no such file: "),
        ("{ cert", "/absent.pem: no such file: "),
        ("\"dotd-absent0", "xdp.interfaces: no interface \"dotd-absent0\" here"),
    ];
    assert_eq!((output.status.code(), lines.len()), (Some(1), expected.len()), "{said}");
    for (line, (at, words)) in lines.iter().zip(expected) {
        let before = &text[..text.find(at).unwrap()];
        let row = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap().len() + 1;
        let start = format!("dotd: {}:{row}:{column}: {words}", place.config().display());
        assert!(line.starts_with(&start), "{line}\nshould start with\n{start}");
    }
}

/// Goal: a mistake in the file hides none that only this machine can show. Method: an unknown key, and a certificate
/// and an address that do not exist. Covers: C-305
#[test]
fn check_says_all_at_once() {
    let place = Place::new(
        "[tls]\nmin_versoin = \"1.3\"\ncertificates = [{ cert = \"/nonexistent/a.pem\", key = \"/nonexistent/a.key\" }]\n",
    );
    let output = dotd(&["check", "-c", &place.config().display().to_string()]);
    let said = stderr(&output);
    assert!(said.contains("unknown key `tls.min_versoin`"), "{said}");
    assert!(said.contains("/nonexistent/a.pem: no such file"), "{said}");
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 2), "{said}");
}

/// Goal: a pipe in place of a config is named and not waited for. Covers: C-305
#[test]
fn check_waits_for_no_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("dotd.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let output = dotd(&["check", "-c", &pipe.display().to_string()]);
    assert_fails_with(
        &output,
        &format!("{}: cannot be read: it is not a regular file; name one", pipe.display()),
    );
}

/// Goal: a certificate with the key of another one is refused in one line that names both files. Method: two
/// self-signed pairs, crossed.
#[test]
fn check_refuses_a_crossed_pair() {
    let place = Place::new("");
    let ((one, _), (other, _)) = (place.self_signed("one"), place.self_signed("other"));
    let (one, other) = (one.display(), other.display());
    let more = format!("[tls]\ncertificates = [{{ cert = \"{one}\", key = \"{other}\" }}]\n");
    let config = fs::read_to_string(place.config()).unwrap();
    fs::write(place.config(), config + &more).unwrap();
    let at = format!("{}:9:17", place.config().display());
    let line =
        format!("{at}: {other} is not the key of {one}: name the key that the certificate was issued for");
    assert_fails_with(&place.dotd(&["check"]), &line);
}

/// Goal: the self-signed certificate is used again, so that a pin holds over starts; `pin` without one says
/// so and makes none. Method: `dotd pin` around two loads. Covers: C-67.
#[test]
fn self_signed_pin_stays() {
    let place = Place::new("");
    let state = place.path("state");
    let line = format!(
        "no self-signed certificate in {} yet: `dotd run` makes it, or name a file: `dotd pin CERT`",
        state.display()
    );
    assert_fails_with(&place.dotd(&["pin"]), &line);
    assert!(!state.exists());
    let (_, first) = place.self_signed("state");
    let (_, second) = place.self_signed("state");
    assert_eq!(first, second);
    assert_eq!(stdout(&place.dotd(&["pin"])), format!("pin-sha256=\"{first}\"\n"));
}

/// Goal: the pin equals the one that other programs compute. Method: openssl's public key and digest.
#[test]
fn pin_is_what_openssl_computes() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("SKIPPED pin_is_what_openssl_computes: no openssl in PATH");
        return;
    }
    let place = Place::new("");
    let (file, pin) = place.self_signed("state");
    let public = openssl(&["x509", "-in", file.to_str().unwrap(), "-pubkey", "-noout"], b"");
    let spki = openssl(&["pkey", "-pubin", "-outform", "der"], &public);
    let digest = openssl(&["dgst", "-sha256", "-binary"], &spki);
    let theirs = String::from_utf8(openssl(&["base64", "-A"], &digest)).unwrap();
    assert_eq!(pin, theirs.trim());
    assert_eq!(stdout(&dotd(&["pin", file.to_str().unwrap()])), format!("pin-sha256=\"{pin}\"\n"));
}

/// Runs openssl with something on its standard input.
fn openssl(words: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child =
        Command::new("openssl").args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {words:?}");
    output.stdout
}

/// Goal: pins of several files are printed in order, and a file without a certificate is an error in one line.
#[test]
fn pins_of_several_files() {
    let place = Place::new("");
    let ((one, first), (other, second)) = (place.self_signed("one"), place.self_signed("other"));
    let output = dotd(&["pin", other.to_str().unwrap(), one.to_str().unwrap()]);
    assert_eq!(stdout(&output), format!("pin-sha256=\"{second}\"\npin-sha256=\"{first}\"\n"));
    let config = place.config();
    let output = dotd(&["pin", one.to_str().unwrap(), config.to_str().unwrap()]);
    let line = "is not PEM: convert it with `openssl x509 -inform der` (key: `openssl pkey -inform der`)";
    assert_fails_with(&output, &format!("{}: {line}", config.display()));
}

/// Goal: verbs that need a running dotd report that there is none, the socket that they tried, and the remedy. Method:
/// no socket, and a socket without a listener.
#[test]
fn says_when_dotd_is_not_running() {
    let place = Place::new("");
    let socket = place.path("run/control.sock");
    let way_out = "start it with `dotd run` or name its socket with --socket";
    let endless = &["ban", "add", "192.0.2.7", "--for", "18446744073709551615s 1ms"][..];
    for words in [&["status"][..], &["stats", "--json"], &["xdp", "show"], endless] {
        let line = format!("dotd is not running ({} does not exist): {way_out}", socket.display());
        assert_fails_with(&place.dotd(words), &line);
    }
    fs::create_dir(place.path("run")).unwrap();
    drop(UnixListener::bind(&socket).unwrap());
    let line = format!("dotd is not running (no process listens on {}): {way_out}", socket.display());
    assert_fails_with(&dotd(&["status", "--socket", socket.to_str().unwrap()]), &line);
}

/// Goal: a socket of another program causes an error in one line, and neither a wait nor a panic. Method: a server that
/// answers with something else, or closes at once.
#[test]
fn says_when_the_socket_is_not_dotds() {
    let place = Place::new("");
    for (name, answer) in [
        ("garbage", &b"SSH-2.0-other\r\n"[..]),
        ("closed", b""),
        ("other-json", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
    ] {
        let socket = place.path(name);
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || listener.accept().unwrap().0.write_all(answer));
        let output = dotd(&["status", "--socket", socket.to_str().unwrap()]);
        // Frees the server's thread if dotd never connected.
        let _ = UnixStream::connect(&socket);
        let _ = server.join();
        let line = stderr(&output);
        assert_eq!((output.status.code(), line.lines().count()), (Some(1), 1), "{line}");
        assert!(line.starts_with(&format!("dotd: {}: ", socket.display())), "{line}");
        assert!(line.ends_with("is it the control socket of a dotd of this version?\n"), "{line}");
    }
}

/// Goal: a reader that leaves early, as `head` does, is no failure. Method: standard output is closed before it is
/// read; it does not matter whether dotd was quicker.
#[test]
fn early_reader_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dotd"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
}

/// Goal: completions know the verbs.
#[test]
fn completions_know_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&dotd(&["completions", shell]));
        assert!(["check", "status", "completions"].iter().all(|verb| script.contains(verb)), "{shell}");
    }
}

/// Goal: `import` prints a config that `check` accepts, and input that it cannot read causes one line with the remedy.
/// Method: a stunnel service with a real certificate, in a shell's order; then a file without DNS, and a folder.
#[test]
fn an_imported_config_is_accepted() {
    let place = Place::new("");
    let (pem, _) = place.self_signed("state");
    let old = place.path("stunnel.conf");
    let service =
        format!("cert = {}\n[dns]\naccept = 127.0.0.1:853\nconnect = 127.0.0.1:53\n", pem.display());
    fs::write(&old, service).unwrap();
    let printed = dotd(&["import", "stunnel", old.to_str().unwrap()]);
    assert_eq!((printed.status.code(), stderr(&printed).as_str()), (Some(0), ""));
    let new = place.path("new.toml");
    fs::write(&new, [&printed.stdout[..], b"\n[xdp]\nmode = \"off\"\n"].concat()).unwrap();
    let checked = dotd(&["check", "-c", new.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    fs::write(&old, "[imaps]\naccept = 993\nconnect = 143\n").unwrap();
    let why = format!(
        "no TLS service on port 853, and none in front of port 53, in {}: name the file that holds it",
        old.display()
    );
    assert_fails_with(&dotd(&["import", "stunnel", old.to_str().unwrap()]), &why);
    let folder = place.folder.path().to_str().unwrap();
    let why = format!("{folder}: not a file of at most 1048576 octets: name a config file");
    assert_fails_with(&dotd(&["import", "nginx", folder]), &why);
}

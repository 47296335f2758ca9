//! What the kernel refuses the engine, and what the engine has inherited from its start.
//!
//! Before: a dotd of a debug build, which can be asked to try forbidden acts. After: the kernel's answer to each act.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
};

use dot_tests::{
    harness::{
        clients::{is_answered_over_tls, kdig},
        config::Config,
        eventually,
        netns::{Network, SERVER_V4},
        process::of_each_thread,
        require::skip,
        scratch::Scratch,
        server::Server,
    },
    require,
};

/// The acts that Landlock refuses; seccomp refuses all others.
const OF_LANDLOCK: [&str; 5] =
    ["open a file of root's", "open the config", "make a file in /tmp", "list the root", "listen by TCP"];

/// dotd's answer to a request on its control socket; empty if dotd ended meanwhile.
fn ask(dotd: &Server, request: &str) -> String {
    let mut socket = UnixStream::connect(dotd.folder().join("run/control.sock")).expect("it listens");
    let head = format!("{request} HTTP/1.1\r\nHost: dotd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).expect("it reads");
    let mut said = String::new();
    let _ = socket.read_to_string(&mut said);
    said.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

/// The kernel's answer to each act of the engine.
fn acts(dotd: &Server) -> BTreeMap<String, Option<String>> {
    let said: Vec<(String, Option<String>)> = serde_json::from_str(&ask(dotd, "GET /acts")).expect("JSON");
    said.into_iter().collect()
}

/// Goal: an engine that is taken over can start no program, reach only its own files, make no executable memory,
/// listener or process, and change nothing in the kernel; dotd needs none of these. Method: the engine tries each act,
/// as root and as another user; queries, a reload and an orderly end beside it.
#[test]
fn every_forbidden_act_is_refused() {
    require!(Root, Command("kdig"));
    for user in ["\"\"", "\"nobody\""] {
        let network = Network::new();
        let dotd = Server::start(&network, &Config::new().set("server", "user", user));
        if dotd.stderr().contains("this kernel has no Landlock") {
            return skip("confined::every_forbidden_act_is_refused", "needs Landlock (Linux 6.7)");
        }
        for (act, said) in acts(&dotd) {
            let wanted = if OF_LANDLOCK.contains(&&*act) { "EACCES" } else { "ENOSYS" };
            assert_eq!(said.as_deref(), Some(wanted), "{act}, user {user}");
        }
        assert!(of_each_thread(dotd.pid(), "Seccomp:").iter().all(|mode| mode == "2"));
        assert!(of_each_thread(dotd.pid(), "NoNewPrivs:").iter().all(|is_set| is_set == "1"));
        assert!(dotd.operate(&["reload"]).is_success, "it reloads");
        let said = kdig(&network.client, SERVER_V4, "+tls dotd.test A");
        assert!(is_answered_over_tls(&said), "{}", said.text);
        assert!(dotd.stderr().contains("the engine is confined: system calls by seccomp; files"));
        dotd.stop();
    }
}

/// Goal: a call that only an intruder makes ends the engine before the call is done, and the next engine is confined in
/// the same way. Method: each of four calls; the keeper's report of each end; the threads of the last engine. Covers:
///
#[test]
fn a_deadly_act_ends_the_engine() {
    require!(Root);
    let network = Network::new();
    let dotd = Server::start(&network, &Config::new().xdp("off").set("server", "user", "\"nobody\""));
    for (place, act) in ["execve", "ptrace", "process_vm_writev", "finit_module"].into_iter().enumerate() {
        let engine = dotd.pid();
        assert_eq!(ask(&dotd, &format!("POST /acts/{act}")), "");
        eventually("another engine serves", || (dotd.engines() == place + 2).then_some(()));
        assert_ne!(dotd.pid(), engine, "{act}");
        let said = dotd.stderr().matches("dotd's engine ended by SIGSYS").count();
        assert_eq!(said, place + 1, "{act}: {}", dotd.stderr());
    }
    assert!(of_each_thread(dotd.pid(), "Seccomp:").iter().all(|mode| mode == "2"));
    assert!(of_each_thread(dotd.pid(), "CapPrm:").iter().all(|set| set == "0000000000000000"));
    assert!(of_each_thread(dotd.pid(), "Uid:").iter().all(|ids| ids.starts_with("65534")));
    dotd.stop();
}

/// Goal: `sandbox = "log"` refuses nothing and "off" installs nothing, and dotd reports each. Method: acts that the
/// machine permits to root.
#[test]
fn the_sandbox_can_be_watched_or_left_off() {
    require!(Root);
    let network = Network::new();
    for (mode, seccomp, said) in
        [("log", "2", "server.sandbox is \"log\""), ("off", "0", "server.sandbox is \"off\"")]
    {
        let config = Config::new().xdp("off").set("server", "sandbox", &format!("\"{mode}\""));
        let dotd = Server::start(&network, &config);
        let acts = acts(&dotd);
        assert_eq!((&acts["list the root"], &acts["listen by TCP"]), (&None, &None), "{mode}");
        assert!(of_each_thread(dotd.pid(), "Seccomp:").iter().all(|mode| mode == seccomp));
        assert!(dotd.stderr().contains(said), "{}", dotd.stderr());
        dotd.stop();
    }
}

/// Goal: dotd keeps nothing of the process that starts it, neither variable nor descriptor; and its memory is never
/// written to a disk. Method: a shell with a secret in its environment and two files open; /proc of both processes.
///
#[test]
fn nothing_is_inherited_and_nothing_dumped() {
    require!(Root, Command("bash"));
    let network = Network::new();
    let script = "ulimit -c unlimited; exec \"$@\" 7</etc/passwd 399<&7";
    let wrapper = ["env", "CREDENTIAL=hunter2", "RUST_BACKTRACE=1", "bash", "-c", script, "bash"];
    let config = Config::new().xdp("off").set("server", "user", "\"nobody\"");
    let dotd = Server::launch(&network, &config, Scratch::new(), &wrapper);
    for pid in [dotd.pid(), dotd.keeper_pid()] {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            assert!(!target.ends_with("passwd"), "{entry:?} of {pid}");
        }
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
        assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
        // The files of a dumpable process belong to its user.
        assert_eq!(fs::metadata(format!("/proc/{pid}/environ")).expect("it runs").uid(), 0);
    }
    let environment = fs::read(format!("/proc/{}/environ", dotd.pid())).expect("root may");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(!environment.contains("hunter2"), "{environment}");
    assert!(environment.contains("RUST_BACKTRACE=1"), "{environment}");
    dotd.stop();
}

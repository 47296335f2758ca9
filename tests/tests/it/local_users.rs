//! What a local user, and dotd's own user, can do to dotd and, through it, to others.
//!
//! Before: links, folders, maps and requests of a user who is not root. After: root's files are unchanged.
//! Holds: the table of SECURITY.md, one test for each row, each in its own namespaces; needs root.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
            net::{self, UnixListener},
        },
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use aya::maps::{Array, Map, MapData};
use dot_tests::{
    harness::{
        clients::{DOT_PORT, read_to_close, tcp},
        config::Config,
        eventually,
        netns::{CLIENT_V4, Network, SERVER_V4},
        scene::embedded,
        scratch::Scratch,
        server::Server,
    },
    require,
    xdp_field::become_nobody,
};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::Signal,
};

/// Another user: nobody.
const OTHER: u32 = 65_534;

/// A file of another service, which only root may read.
fn secret_of_another(scratch: &Scratch) -> PathBuf {
    let path = scratch.write("another.pem", "secret of another service");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own file");
    path
}

fn owner(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").uid()
}

/// The pin of a map in the server's namespace.
fn pinned(name: &'static str) -> MapData {
    let mut folders = vec![PathBuf::from("/sys/fs/bpf/dotd")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("root may look").flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else if entry.file_name() == name {
                return MapData::from_pin(entry.path()).expect("a map");
            }
        }
    }
    panic!("{name} is not pinned");
}

/// Goal: a user who can write SETTINGS cannot make the judge refuse another service's packets. Method: every word of
/// the map becomes port 2222, where a server speaks cleartext to a client beyond the pair.
#[test]
fn settings_make_no_port_ours() {
    require!(Root, Bpf);
    let (network, dotd) = embedded(&Config::new());
    let at = SocketAddr::new(SERVER_V4, 2222);
    let listener = network.server.run(move || TcpListener::bind(at).expect("free"));
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.write_all(b"SSH-2.0-another\r\n").expect("sent");
        let mut heard = String::new();
        stream.read_to_string(&mut heard).map(|_| heard)
    });
    network.server.run(|| {
        let port = 2222_u64;
        let words = [port | port << 16 | port << 32 | port << 48; 8];
        let mut settings = Array::<_, [u64; 8]>::try_from(Map::Array(pinned("SETTINGS"))).expect("an array");
        settings.set(0, words, 0).expect("root may");
    });
    let said = network.client.run(move || {
        let mut stream = TcpStream::connect(at).expect("its SYN passes");
        stream.write_all(b"cleartext").expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("ours");
        let mut said = String::new();
        stream.read_to_string(&mut said).map(|_| said)
    });
    assert_eq!(said.expect("it answers"), "SSH-2.0-another\r\n");
    assert_eq!(server.join().expect("no panic").expect("whole"), "cleartext");
    dotd.stop();
}

/// Goal: dotd serves a key that it made, and not one to which a link in state_dir leads. Method: the engine's user, who
/// owns the folder, puts a symbolic link and a hard link to root's key there.
#[test]
fn a_link_in_state_dir_serves_no_other_key() {
    require!(Root);
    let network = Network::new();
    let config = Config::new().xdp("off").set("server", "user", "\"nobody\"");
    for is_link in [true, false] {
        let scratch = Scratch::new();
        let (secret, state) = (secret_of_another(&scratch), scratch.folder("state"));
        let own = state.join("self-signed.pem");
        if is_link { symlink(&secret, &own) } else { fs::hard_link(&secret, &own) }.expect("root may");
        for path in [&state, &own] {
            if is_link {
                lchown(path, Some(OTHER), Some(OTHER)).expect("root may");
            }
        }
        let ended = Server::attempt(&network, &config, scratch, &[]).expect_err("refused");
        assert!(ended.code == Some(1) && ended.stderr.contains("self-signed.pem"), "{ended:?}");
    }
}

/// Goal: only files that dotd made are given to the engine's user. Method: symbolic links, hard links and files of
/// another user under names of dotd's, in both folders; owners after a start.
#[test]
fn nothing_of_others_is_given_away() {
    require!(Root);
    const THIRD: u32 = 65_533;
    let network = Network::new();
    let scratch = Scratch::new();
    let secret = secret_of_another(&scratch);
    for folder in ["state", "run"] {
        let folder = scratch.folder(folder);
        symlink(&secret, folder.join("self-signed.pem.link")).expect("root may");
        fs::hard_link(&secret, folder.join("self-signed.pem.second")).expect("root may");
        let third = folder.join("self-signed.pem.third");
        fs::write(&third, "a third user's").expect("our own folder");
        chown(&third, Some(THIRD), Some(THIRD)).expect("root may");
    }
    let config = Config::new().xdp("off").set("server", "user", "\"nobody\"");
    let dotd = Server::launch(&network, &config, scratch, &[]);
    let folder = dotd.folder().join("state");
    assert_eq!(owner(&secret), 0);
    assert_eq!(owner(&folder.join("self-signed.pem.link")), 0);
    assert_eq!(owner(&folder.join("self-signed.pem.third")), THIRD);
    assert_eq!(owner(&folder.join("self-signed.pem")), OTHER);
    assert_eq!(owner(&folder), 0, "it holds what is not dotd's");
    dotd.stop();
}

/// Goal: a user who puts a file into the control socket's place cannot have it deleted. Method: a file there; a run_dir
/// to which another user's link leads.
#[test]
fn what_lies_in_the_sockets_place_stays() {
    require!(Root);
    let network = Network::new();
    let config = Config::new().xdp("off");
    let scratch = Scratch::new();
    let victim = scratch.folder("run").join("control.sock");
    fs::write(&victim, "another's").expect("our own folder");
    let ended = Server::attempt(&network, &config, scratch, &[]).expect_err("refused");
    assert!(ended.stderr.contains("is not a socket"), "{ended:?}");

    let scratch = Scratch::new();
    let (theirs, target) = (scratch.folder("theirs"), scratch.folder("target"));
    symlink(&target, theirs.join("run")).expect("root may");
    lchown(theirs.join("run"), Some(OTHER), Some(OTHER)).expect("root may");
    let linked = format!("\"{}\"", theirs.join("run").display());
    let text = config.clone().text(&scratch.folder("state"), Path::new("unused"));
    let text = text.replace("\"unused\"", &linked);
    let path = scratch.write("linked.toml", text);
    let path = path.display().to_string();
    let ended = dot_tests::harness::clients::tool(
        &network.server,
        &dot_tests::harness::server::binary().display().to_string(),
        &["run", "-c", &path],
    );
    assert!(ended.text.contains("a symbolic link of uid 65534 leads there"), "{}", ended.text);
    assert_eq!(fs::read_dir(&target).expect("ours").count(), 0);
}

/// Goal: clients that the config denies are refused, also where the kernel half cannot run. Method: XDP off, and XDP
/// without the rights; the client's own address is denied.
#[test]
fn clients_are_denied_without_the_kernel_half() {
    require!(Root, Command("setpriv"));
    const WITHOUT_BPF: [&str; 4] = ["setpriv", "--bounding-set", "-bpf,-net_admin,-sys_admin,-perfmon", "--"];
    let network = Network::new();
    let config = Config::new().set("xdp", "deny", &format!("[\"{CLIENT_V4}/32\"]"));
    for (config, wrapper) in [(config.clone().xdp("off"), &[][..]), (config, &WITHOUT_BPF[..])] {
        let dotd = Server::launch(&network, &config, Scratch::new(), wrapper);
        let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
        assert!(read_to_close(&mut stream).is_empty());
        dotd.counts("it was turned away", |stats| stats.counter("connections", "refused_access") == 1);
    }
}

/// The open files of a process, as the kernel names them.
fn open_files(pid: u32) -> Vec<String> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let target = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
    folder.flatten().filter_map(target).map(|target| target.display().to_string()).collect()
}

/// The value of one line of a process' status.
fn status_of(pid: u32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("Linux says it");
    line.trim().to_owned()
}

/// Goal: the engine has no means to attach or detach a program, and no access to a pin; the keeper has the six
/// capabilities that it needs to start another engine, and the one over files of others that root gave it, none in effect, one thread, and reads from no socket of the network: its
/// listeners wait for an engine. Method: the open files of both; the engine's user tries to enter the folder;
/// connections that wait while the engine is stopped.
#[test]
fn the_engine_holds_no_link_and_reaches_no_pin() {
    require!(Root, Bpf, Command("setpriv"));
    let (network, dotd) = embedded(&Config::new().set("server", "user", "\"nobody\""));
    let (engine, keeper) = (open_files(dotd.pid()), open_files(dotd.keeper_pid()));
    let has = |files: &[String], what: &str| files.iter().any(|file| file.contains(what));
    for what in ["bpf_link", "bpf-link", "bpf-prog", "/sys/fs/bpf"] {
        assert!(!has(&engine, what), "{what}: {engine:#?}");
    }
    assert!(has(&engine, "bpf-map") && has(&keeper, "bpf-prog"), "{engine:#?} {keeper:#?}");
    // The keeper holds sockets for the engine: listeners, and the control socket. Its own are the pair, and the one
    // that shows that a dotd runs here.
    let own = keeper.iter().filter(|file| file.starts_with("socket:") && !engine.contains(file)).count();
    assert!(own <= 2, "{keeper:#?} {engine:#?}");
    for set in ["CapPrm:", "CapBnd:"] {
        assert_eq!(status_of(dotd.keeper_pid(), set), "000000c0000011c4", "{set}");
    }
    eventually("it waits without a right in effect", || {
        (status_of(dotd.keeper_pid(), "CapEff:") == "0000000000000000").then_some(())
    });
    assert_eq!(status_of(dotd.keeper_pid(), "CapInh:"), "0000000000000000");
    assert_eq!(status_of(dotd.keeper_pid(), "NoNewPrivs:"), "1");
    assert_eq!(status_of(dotd.keeper_pid(), "Threads:"), "1");
    assert_eq!(status_of(dotd.pid(), "CapBnd:"), "0000000000000000");
    let mut list = Command::new("setpriv");
    list.args(["--reuid=65534", "--regid=65534", "--clear-groups", "ls", "-R", "/sys/fs/bpf/dotd"]);
    let output = network.server.output(list);
    assert!(!output.status.success() && output.stdout.len() < 40, "{output:?}");
    dotd.stop();
}

/// Goal: whatever a local user puts at the place of dotd's pins, a start deletes and gives away no file of others, and
/// makes its pins. Method: on a BPF file system that every user may write, another user's folder, with a link to a
/// folder of another service in it, locked; then a link in the folder's own place.
#[test]
fn planted_folders_lead_nowhere() {
    require!(Root, Bpf, Command("bpftool"));
    for is_link in [false, true] {
        let network = Network::new();
        let held = network.server.run(move || {
            let root = Path::new("/sys/fs/bpf");
            fs::set_permissions(root, fs::Permissions::from_mode(0o1777)).expect("root may");
            fs::create_dir(root.join("victim")).expect("root may");
            let words = "map create /sys/fs/bpf/victim/RATE type array key 4 value 4 entries 1 name victim";
            let made = Command::new("bpftool").args(words.split(' ')).status().expect("installed");
            assert!(made.success());
            if is_link {
                symlink("victim", root.join("dotd")).expect("root may");
                lchown(root.join("dotd"), Some(OTHER), Some(OTHER)).expect("root may");
                return None;
            }
            fs::create_dir(root.join("dotd")).expect("root may");
            for name in ["v3", "v4"] {
                symlink(Path::new("..").join("victim"), root.join("dotd").join(name)).expect("root may");
            }
            chown(root.join("dotd"), Some(OTHER), Some(OTHER)).expect("root may");
            let folder = fs::File::open(root.join("dotd")).expect("ours");
            Some(Flock::lock(folder, FlockArg::LockExclusiveNonblock).expect("free"))
        });
        let dotd = Server::start(&network, &Config::new().set("server", "user", "\"nobody\""));
        assert_eq!(dotd.xdp(), "native on server");
        let victim = network.server.run(|| fs::metadata("/sys/fs/bpf/victim/RATE").map(|found| found.uid()));
        assert_eq!(victim.expect("it is still there"), 0);
        network.server.run(|| {
            let folder = fs::symlink_metadata("/sys/fs/bpf/dotd").expect("made");
            assert!(folder.is_dir() && folder.uid() == 0 && folder.mode() & 0o777 == 0o700);
        });
        assert!(!dotd.stderr().contains("nothing is pinned"), "{}", dotd.stderr());
        network.server.run(|| drop(pinned("COUNTERS")));
        dotd.stop();
        assert!(!network.server.exists("/sys/fs/bpf/dotd"));
        drop(held);
    }
}

/// Goal: a BPF file system that dotd mounts itself is closed to other users. Method: a namespace without one. Covers:
///
#[test]
fn a_bpf_file_system_of_dotds_own_is_closed() {
    require!(Root, Bpf);
    let network = Network::without_bpffs();
    let dotd = Server::start(&network, &Config::new().set("server", "user", "\"nobody\""));
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", dotd.keeper_pid())).expect("it runs");
    // The last mount is on top: this machine may have another one below.
    let line = mounts.lines().rfind(|line| line.contains(" /sys/fs/bpf bpf ")).expect("mounted").to_owned();
    for option in ["nosuid", "nodev", "noexec", "mode=700"] {
        assert!(line.contains(option), "{line}");
    }
    dotd.stop();
}

/// Goal: a running dotd is found from another mount namespace too, and no other user can pretend to be one. Method:
/// `dotd xdp detach` with a BPF file system of its own, as after `ip netns exec`, beside a running dotd; then a start
/// beside a socket of another user under a name like dotd's.
#[test]
fn a_running_dotd_is_found_and_nobody_plays_it() {
    require!(Root, Bpf, Command("unshare"));
    let (network, dotd) = embedded(&Config::new().set("server", "user", "\"nobody\""));
    let program = dot_tests::harness::server::binary().display().to_string();
    let script = format!("mount -t bpf bpf /sys/fs/bpf && exec {program} xdp detach");
    let elsewhere = |network: &Network| {
        let mut detach = Command::new("unshare");
        // The mounts of the namespace that it begins in are private, and a `/` that is no mount point cannot be made so.
        detach.args(["--mount", "--propagation", "unchanged", "sh", "-c", &script]);
        network.server.output(detach)
    };
    let output = elsewhere(&network);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("--force"), "{output:?}");
    assert!(network.server.ip("link show server").contains("xdp"));
    dotd.stop();
    assert!(elsewhere(&network).status.success());

    // A thread of its own: it changes its user.
    let impostor = network.server.run(|| {
        let listen = || {
            become_nobody();
            let address = net::SocketAddr::from_abstract_name("dotd-xdp-0").expect("a name");
            UnixListener::bind_addr(&address).expect("anybody may")
        };
        thread::spawn(listen).join().expect("it listens")
    });
    let dotd = Server::start(&network, &Config::new());
    assert_eq!(dotd.xdp(), "native on server");
    dotd.stop();
    drop(impostor);
}

/// Goal: when engines are killed repeatedly the keeper ends by the same signal, and the next start takes everything
/// over; a keeper that is killed ends its engine. Method: KILL to each; the next start.
#[test]
fn neither_process_outlives_the_other() {
    require!(Root, Bpf);
    let network = Network::new();
    let config = Config::new().set("server", "user", "\"nobody\"");
    let dotd = Server::start(&network, &config);
    dotd.exhaust(9);
    let (ended, scratch) = dotd.wait();
    assert_eq!((ended.code, ended.signal), (None, Some(9)), "{ended:?}");
    assert!(
        network.server.ip("link show server").contains("xdp") && network.server.exists("/sys/fs/bpf/dotd")
    );

    let mut dotd = Server::launch(&network, &config, scratch, &[]);
    assert!(dotd.stderr().contains("took over the link of a predecessor"), "{}", dotd.stderr());
    let engine = dotd.pid();
    dotd.signal(Signal::SIGKILL);
    let (ended, scratch) = dotd.wait();
    assert_eq!(ended.signal, Some(9), "{ended:?}");
    eventually("the engine is gone", || {
        let state = fs::read_to_string(format!("/proc/{engine}/status")).unwrap_or_default();
        (state.is_empty() || state.contains("State:\tZ") || state.contains("State:\tX")).then_some(())
    });
    Server::launch(&network, &config, scratch, &[]).stop();
    assert!(!network.server.exists("/sys/fs/bpf/dotd"));
}

/// Goal: the keeper starts another engine, and ends at last without detaching anything, also when it cannot name the
/// signal that ended the engines. Method: a real-time signal to each engine; KILL to the engines of a dotd that was
/// started with SIGCHLD ignored.
#[test]
fn the_keeper_ends_however_the_engine_ended() {
    require!(Root, Bpf);
    let network = Network::new();
    let config = Config::new().set("server", "user", "\"nobody\"");
    let mut scratch = Scratch::new();
    for (wrapper, signal, code, number) in
        [(&[][..], 40, Some(128), None), (&["env", "--ignore-signal=CHLD"], 9, None, Some(9))]
    {
        let dotd = Server::launch(&network, &config, scratch, wrapper);
        dotd.exhaust(signal);
        let ended;
        (ended, scratch) = dotd.wait();
        assert_eq!((ended.code, ended.signal), (code, number), "{ended:?}");
        assert!(network.server.exists("/sys/fs/bpf/dotd"), "the next start takes it over");
    }
    Server::launch(&network, &config, scratch, &[]).stop();
    assert!(!network.server.exists("/sys/fs/bpf/dotd"));
}

/// Goal: a user who is neither root nor the engine's user, and not in its group, cannot use the control socket. Method:
/// status as a third user, and as one in the group.
#[test]
fn the_control_socket_is_for_its_group() {
    require!(Root, Command("setpriv"));
    let (network, dotd) = embedded(&Config::new().xdp("off").set("server", "user", "\"nobody\""));
    let socket = dotd.folder().join("run/control.sock").display().to_string();
    let program = dot_tests::harness::server::binary().display().to_string();
    for (group, may) in [("65533", false), ("65534", true)] {
        let mut ask = Command::new("setpriv");
        ask.args(["--reuid=65533", &format!("--regid={group}"), "--clear-groups"]);
        ask.args([&program, "status", "--socket", &socket]);
        let output = network.server.output(ask);
        assert_eq!(output.status.success(), may, "{output:?}");
    }
    dotd.stop();
}

//! What a local user, and the user that dotd becomes, can do to dotd and to others through it.
//!
//! Before: links, folders, maps and requests of somebody who is not root. After: what is root's is as it was.
//! Holds: the table of SECURITY.md, a row a test. Each in namespaces of its own; needs root.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
    path::{Path, PathBuf},
    thread,
};

use aya::maps::{Array, Map, MapData};
use dot_tests::{
    harness::{
        config::Config,
        netns::{Network, SERVER_V4},
        scene::embedded,
        scratch::Scratch,
        server::Server,
    },
    require,
};

/// Somebody else: nobody.
const OTHER: u32 = 65_534;

/// A file of another service, which nobody but root may read.
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

/// Goal: whoever can write SETTINGS cannot have the judge refuse another service's packets. Method: every word of the map
/// becomes port 2222, where a server speaks cleartext to a client beyond the pair. Covers: A-290.
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

/// Goal: the key that is served is one that dotd made, and not one that a link in state_dir leads to. Method: the user of
/// the engine, whose folder it is, puts a link to root's key there, by hand and as a second name. Covers: A-292.
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

/// Goal: nothing is given to the engine's user but what dotd made. Method: links, second names and files of another user
/// under names of dotd's, in both folders; owners after a start. Covers: A-293.
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

/// Goal: whoever puts something into the control socket's place gains no deletion. Method: a file there; a run_dir to which
/// another user's link leads. Covers: A-294.
#[test]
fn what_lies_in_the_sockets_place_stays() {
    require!(Root);
    let network = Network::new();
    let config = Config::new().xdp("off");
    let scratch = Scratch::new();
    let victim = scratch.folder("run").join("control.sock");
    fs::write(&victim, "another's").expect("our own folder");
    let ended = Server::attempt(&network, &config, scratch, &[]).expect_err("refused");
    assert!(ended.stderr.contains("is no socket"), "{ended:?}");

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

/// Goal: a config that denies clients has them refused, or does not start. Method: XDP off, and XDP without the rights.
/// Covers: A-301.
#[test]
fn clients_are_denied_or_dotd_does_not_start() {
    require!(Root, Command("setpriv"));
    const WITHOUT_BPF: [&str; 4] = ["setpriv", "--bounding-set", "-bpf,-net_admin,-sys_admin,-perfmon", "--"];
    let network = Network::new();
    let config = Config::new().set("xdp", "deny", r#"["192.0.2.0/24"]"#);
    for (config, wrapper) in [(config.clone().xdp("off"), &[][..]), (config, &WITHOUT_BPF[..])] {
        let ended = Server::attempt(&network, &config, Scratch::new(), wrapper).expect_err("refused");
        assert!(ended.code == Some(1) && ended.stderr.contains("xdp.deny: only XDP refuses"), "{ended:?}");
    }
}

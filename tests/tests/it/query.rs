//! `dotd query`: its messages, its trust, its output and its exit status.
//!
//! Before: a server, scripted or real. After: the client's output was compared with what the server received and sent.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::Path,
    process::Output,
    sync::Mutex,
};

use dot_tests::{
    harness::{
        backends::Backend,
        config::Config,
        message::{A, OPTION_KEEPALIVE, OPTION_PADDING, append_opt, bare_error, reply_to},
        netns::{Namespace, Network, SERVER_V4},
        pki::Authority,
        process::bounded,
        response::Message,
        scene::{HONEST, embedded, honest},
        scratch::Scratch,
        scripted::{Act, Mood, Received, Scripted},
        server::{Server, binary},
    },
    require,
};
use serde_json::Value;

const NAME: &str = "ns.dotd.test";

/// Its output and its exit status.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn of(output: &Output) -> Self {
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }

    #[track_caller]
    fn assert_has(&self, part: &str) {
        assert!(self.stdout.contains(part), "{part:?} in {}{}", self.stdout, self.stderr);
    }
}

fn query(namespace: &Namespace, words: &[&str]) -> Ended {
    let mut command = bounded(&binary().display().to_string());
    command.arg("query").args(words);
    Ended::of(&namespace.output(command))
}

/// The same, with this server in its own namespace.
fn query_at(network: &Network, server: SocketAddr, words: &[&str]) -> Ended {
    let at = format!("@{server}");
    query(&network.server, &[&[&*at], words].concat())
}

/// Goal: each outcome has its exit status, the worst of several counts, and `+short` gives the reason on standard
/// error. Method: a script whose answers depend on the name; a closed port, a black hole, and a server with another
/// key. Covers: C-473
#[test]
fn each_outcome_has_its_exit_status() {
    require!(Root);
    let (network, authority) = (Network::new(), Authority::new());
    let issued = authority.issue(NAME);
    let script = |query: &Received| {
        let is = |name: &str| query.octets.windows(name.len()).any(|part| part == name.as_bytes());
        match () {
            () if is("refused") => vec![Act::Send(bare_error(&query.octets, 5))],
            () if is("nowhere") => vec![Act::Send(bare_error(&query.octets, 3))],
            () if is("silent") => vec![],
            () if is("closes") => vec![Act::Close],
            () if is("liar") => {
                let mut other = reply_to(&query.octets, A, &[HONEST.to_vec()]);
                other[13] ^= 1;
                vec![Act::Send(other)]
            }
            () => honest(query),
        }
    };
    let server = Scripted::start_over_tls(&network, issued.serving(), script);
    let at =
        |words: &[&str]| query_at(&network, server.address, &[words, &["+timeout=500ms", "+short"]].concat());
    for (names, code, complaint) in [
        (&["fine.test"][..], 0, ""),
        (&["nowhere.test"], 0, ""),
        (&["refused.test"], 3, ""),
        (&["silent.test"], 4, "no answer in time"),
        (&["closes.test"], 5, "the server closed the connection"),
        (&["liar.test"], 7, "an answer to another question"),
        (&["fine.test", "refused.test", "silent.test"], 4, "no answer in time"),
    ] {
        let ended = at(names);
        assert_eq!(ended.code, Some(code), "{names:?}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stderr.contains(complaint), "{names:?}: {}", ended.stderr);
    }
    assert_eq!(at(&["fine.test"]).stdout, "192.0.2.77\n");
    let other = Authority::new().issue(NAME);
    let ended = at(&["fine.test", "--pin", &other.pin]);
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    server.be(Mood::Curt);
    assert_eq!(at(&["fine.test"]).code, Some(6), "closed within the handshake");
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    assert_eq!(query_at(&network, nobody, &["fine.test"]).code, Some(5));
    assert_eq!(query_at(&network, nobody, &["--frobnicate", "fine.test"]).code, Some(2));
    assert_eq!(query_at(&network, nobody, &["--profile", "strict", "fine.test"]).code, Some(1));
    assert_eq!(query_at(&network, nobody, &[]).code, Some(1), "no name");
}

/// Goal: a strict client sends no question to a server that is not authenticated, and shows its certificate; an
/// opportunistic one asks, and reports what does not match (RFC 8310 §5). Method: name, pin and both, right and wrong;
/// what the server received. Covers: C-474, A-461
#[test]
fn a_strict_profile_asks_nobody_else() {
    require!(Root);
    let (network, authority, scratch) = (Network::new(), Authority::new(), Scratch::new());
    let (issued, other) = (authority.issue(NAME), Authority::new().issue(NAME));
    let ca = scratch.write("ca.pem", authority.pem()).display().to_string();
    let server = Scripted::start_over_tls(&network, issued.serving(), honest);
    let by_name = ["--name", NAME, "--ca", &*ca];
    let wrong_name = ["--name", "else.dotd.test", "--ca", &*ca];
    for (words, code, said) in [
        (&by_name[..], 0, "strict profile, name fits"),
        (&["--pin", &*issued.pin], 0, "strict profile, pin fits"),
        (&[&by_name[..], &["--pin", &issued.pin]].concat(), 0, "name fits, pin fits"),
        (&wrong_name, 6, "name does not: certificate not valid for name"),
        (&["--pin", &*other.pin], 6, "pin does not: the backend's key has none"),
        (&[&wrong_name[..], &["--pin", &issued.pin]].concat(), 6, "pin fits"),
        (&[&by_name[..], &["--pin", &other.pin]].concat(), 6, "name fits, pin does not"),
        (
            &[&wrong_name[..], &["--profile", "opportunistic"]].concat(),
            0,
            "opportunistic profile, name does not",
        ),
        (&[], 0, "opportunistic profile, not verified"),
    ] {
        let before = server.received().len();
        let ended = query_at(&network, server.address, &[words, &["fine.test"]].concat());
        assert_eq!(ended.code, Some(code), "{words:?}: {}{}", ended.stdout, ended.stderr);
        ended.assert_has(said);
        ended.assert_has(&format!("pin-sha256=\"{}\"", issued.pin));
        assert_eq!(server.received().len() - before, usize::from(code == 0), "{words:?}");
    }
}

/// Goal: questions are sent together, and the output shows the order of the answers (RFC 7766 §6.2.1.1). Method: a
/// server that answers the first one last. Covers: C-475
#[test]
fn pipelined_questions_show_their_order() {
    require!(Root);
    let network = Network::new();
    let first = Mutex::new(None);
    let script = move |query: &Received| {
        let mut first = first.lock().expect("no panic");
        match first.take() {
            None => {
                *first = Some(query.clone());
                vec![]
            }
            Some(earlier) => [honest(query), honest(&earlier)].concat(),
        }
    };
    let server = Scripted::start_over_tls(&network, Authority::new().issue(NAME).serving(), script);
    let ended = query_at(&network, server.address, &["a.test", "b.test", "AAAA", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let replies = &ended.json()["rounds"][0]["replies"];
    let order = [0, 1].map(|at| (replies[at]["name"].clone(), replies[at]["answered_as"].clone()));
    assert_eq!(order, [("a.test.".into(), 2.into()), ("b.test.".into(), 1.into())]);
    assert_eq!(server.accepted(), 1, "one connection");
    let text = query_at(&network, server.address, &["a.test", "b.test"]);
    text.assert_has("asked as 1 of 2, answered as 2");
}

/// Goal: `--resume` shows a full handshake and then a resumed one, in both versions of TLS; without it all rounds share a
/// connection (RFC 8446 §2.2, RFC 5077). Method: dotd. Covers: C-476
#[test]
fn resumed_handshakes_are_shown() {
    require!(Root);
    let (network, dotd) = embedded(&Config::new());
    let at = format!("@{SERVER_V4}");
    for version in ["1.2", "1.3"] {
        let words = ["query", &at, "www.dotd.test", "--resume", "--json", "--tls-version", version];
        let ended = query(&network.client, &words[1..]);
        let said = ended.json();
        let shown = |round: usize| said["rounds"][round]["connection"]["tls"].clone();
        let kinds = [0, 1].map(|round| shown(round)["handshake"].clone());
        assert_eq!(kinds, ["full", "resumed"], "{version}: {said}");
        assert_eq!(shown(1)["version"], format!("TLS {version}"));
        assert_eq!(shown(1)["certificates"][0]["pin_sha256"], dotd.pin());
        assert_eq!(shown(1)["alpn"], "dot");
    }
    let before = dotd.stats().counter("handshakes", "full_tls13");
    let ended = query(&network.client, &[&at, "www.dotd.test", "+repeat=3", "+short"]);
    assert_eq!(ended.stdout.lines().count(), 3, "{}", ended.stdout);
    dotd.counts("one more", |stats| stats.counter("handshakes", "full_tls13") == before + 1);
}

/// Goal: flags and options arrive as typed, and the message is padded (RFC 6891, RFC 7828, RFC 7871, RFC 7873, RFC 8467
/// §4.1). Method: what a server received. Covers: C-477
#[test]
fn options_arrive() {
    require!(Root);
    let network = Network::new();
    let server = Scripted::start_over_tls(&network, Authority::new().issue(NAME).serving(), honest);
    let words = "+dnssec +cd +ad +keepalive +nsid +subnet=198.51.100.7/25 +cookie=0102030405060708 +ednsopt=65001:beef \
                 +norecurse +bufsize=1400";
    let words: Vec<&str> = words.split_whitespace().chain(["fine.test"]).collect();
    assert_eq!(query_at(&network, server.address, &words).code, Some(0));
    assert_eq!(query_at(&network, server.address, &["fine.test", "+noedns"]).code, Some(0));
    assert_eq!(query_at(&network, server.address, &["fine.test", "+padding=64"]).code, Some(0));
    let received: Vec<Vec<u8>> = server.received().into_iter().map(|query| query.octets).collect();
    assert_eq!([received[0].len(), received[2].len()], [128, 64]);
    assert_eq!(received[0][2..4], [0x00, 0x30], "RD=0, AD, CD");
    let message = Message::parse(&received[0]).expect("well-formed");
    for (code, octets) in [
        (3, &[][..]),
        (8, &[0, 1, 25, 0, 198, 51, 100, 0]),
        (10, &[1, 2, 3, 4, 5, 6, 7, 8]),
        (OPTION_KEEPALIVE, &[]),
        (65_001, &[0xbe, 0xef]),
    ] {
        assert_eq!(message.option(code).as_deref(), Some(octets), "option {code}");
    }
    assert!(message.option(OPTION_PADDING).is_some());
    let plain = Message::parse(&received[1]).expect("well-formed");
    assert_eq!((plain.opt_count(), received[1][2]), (0, 1), "no OPT, RD=1");
}

/// Goal: a PROXY header goes in front of TLS, within it, before TCP and in each datagram. Method: a dotd that trusts
/// headers counts them; a scripted server reads them.
#[test]
fn proxy_headers_are_sent() {
    require!(Root);
    let network = Network::new();
    let issued = Authority::new().issue(NAME);
    let secure = Scripted::start_over_tls(&network, issued.serving(), honest);
    let clear = Scripted::start(&network, honest);
    let ends = "--proxy=192.0.2.1:1234-198.51.100.1:853";
    for (server, words) in
        [(&secure, &["--proxy-within", ends][..]), (&clear, &["+tcp", ends]), (&clear, &["+udp", ends])]
    {
        let ended = query_at(&network, server.address, &[words, &["fine.test"]].concat());
        assert_eq!(ended.code, Some(0), "{words:?}: {}{}", ended.stdout, ended.stderr);
        let header = server.received().last().and_then(|query| query.proxy.clone());
        let header = format!("{:?}", header.expect("a header"));
        assert!(header.contains("192.0.2.1") && header.contains("1234"), "{words:?}: {header}");
    }
    let config = Config::new().set(
        "listen",
        "proxy_protocol_from",
        "[\"192.0.2.0/24\", \"10.0.0.0/8\", \"127.0.0.1/32\"]",
    );
    let config = config.set("xdp", "cleartext_853", "\"pass\"");
    let dotd = Server::start(&network, &config);
    let ended = query(&network.server, &["@127.0.0.1", "www.dotd.test", ends, "+short"]);
    assert_eq!(ended.stdout, "192.0.2.80\n", "{}", ended.stderr);
    let without = query(&network.server, &["@127.0.0.1", "www.dotd.test", "+short"]);
    assert_eq!(without.code, Some(6), "dotd wants a header: {}", without.stderr);
    drop(dotd);
}

/// Goal: `--tfo` sends the ClientHello with the SYN, and reports whether the server accepted it (RFC 7413, RFC 7858
/// §3.4). Method: dotd with and without `listen.fast_open`, where clients need no cookie. Covers: C-480
#[test]
fn fast_open_is_shown() {
    require!(Root);
    for (is_on, said) in [(true, "octets of the SYN were taken"), (false, "no octet of the SYN was taken")] {
        let network = Network::new();
        for (namespace, bits) in [(&network.client, "5"), (&network.server, "515")] {
            namespace.run(move || fs::write("/proc/sys/net/ipv4/tcp_fastopen", bits).expect("root may"));
        }
        let _dotd = Server::start(&network, &Config::new().set("listen", "fast_open", &is_on.to_string()));
        let ended = query(&network.client, &[&format!("@{SERVER_V4}"), "www.dotd.test", "--tfo"]);
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        ended.assert_has(&format!(";; Fast Open: {said}"));
    }
}

/// Goal: without TLS only an opportunistic client with permission asks in clear, and reports that (RFC 8310 §5).
/// Method: no server on 853, NSD on 53. Covers: C-478
#[test]
fn cleartext_is_the_last_choice_of_an_opportunistic_client() {
    require!(Root, Command("nsd"));
    let network = Network::new();
    let _nsd = Backend::nsd(&network, 53);
    let without = query(&network.server, &["@127.0.0.1", "www.dotd.test"]);
    assert_eq!(without.code, Some(5), "{}", without.stdout);
    let with = query(&network.server, &["@127.0.0.1", "www.dotd.test", "--fallback"]);
    assert_eq!(with.code, Some(0), "{}{}", with.stdout, with.stderr);
    with.assert_has(";; IN CLEAR at 127.0.0.1:53 over TCP, as --fallback asks: not connected");
    let strict = query(&network.server, &["@127.0.0.1", "www.dotd.test", "--fallback", "--name", NAME]);
    assert_eq!(strict.code, Some(1), "{}", strict.stdout);
    assert!(strict.stderr.contains("no question is sent in clear"), "{}", strict.stderr);
}

/// Goal: zone transfers, truncated datagrams and lists. Method: NSD; a zone of some thousand records over TCP, an answer of 5 kB by
/// UDP, and 600 names from standard input over one connection. Covers: C-479
#[test]
fn transfers_datagrams_and_lists() {
    require!(Root, Command("nsd"));
    let (network, scratch) = (Network::new(), Scratch::new());
    let nsd = Backend::nsd(&network, 5300);
    let zone = query_at(&network, nsd.address, &["+tcp", "dotd.test", "AXFR"]);
    assert_eq!(zone.code, Some(0), "{}{}", zone.stdout, zone.stderr);
    zone.assert_has("host-999.dotd.test.\t300\tIN\tA\t198.51.100.249");
    assert_eq!(zone.stdout.lines().filter(|line| line.contains("\tSOA\t")).count(), 2);
    let refused = query_at(&network, nsd.address, &["+tcp", "other.test", "AXFR"]);
    assert_eq!(refused.code, Some(3), "{}", refused.stdout);
    let big = query_at(&network, nsd.address, &["+udp", "big.dotd.test", "TXT"]);
    big.assert_has("over TCP, because its datagram was truncated");
    let kept = query_at(&network, nsd.address, &["+udp", "+ignore", "big.dotd.test", "TXT"]);
    kept.assert_has("flags: qr aa tc");
    let list: String = (0..600).map(|host| format!("host-{host}.dotd.test  # of a list\n")).collect();
    let mut command = bounded(&binary().display().to_string());
    let at = format!("@{}", nsd.address);
    let input = File::open(scratch.write("list", list)).expect("it was written");
    command.args(["query", &at, "+tcp", "-f", "-", "+short"]).stdin(input);
    let ended = Ended::of(&network.server.output(command));
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(0), 600), "{}", ended.stderr);
    let wrong = scratch.write("wrong", "fine.test\nbad..name\n");
    let ended = query_at(&network, nsd.address, &["+tcp", "-f", &path(&wrong)]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("line 2"), "{}", ended.stderr);
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// Goal: a server's message cannot control the terminal, neither by records nor by extended errors. Method: ESC in a
/// name, in a text and in the text of an error.
#[test]
fn nothing_that_a_terminal_obeys_is_printed() {
    require!(Root);
    let network = Network::new();
    let script = |query: &Received| {
        let mut reply = reply_to(&query.octets, 16, &[b"\x06\x1b[2Jab".to_vec()]);
        let text = [&[0, 15][..], "\u{1b}[2J\u{202e}".as_bytes()].concat();
        append_opt(&mut reply, &dot_tests::harness::message::Opt::with(15, &text));
        vec![Act::Send(reply)]
    };
    let server = Scripted::start_over_tls(&network, Authority::new().issue(NAME).serving(), script);
    for form in ["--tls", "--short", "--json"] {
        let ended = query_at(&network, server.address, &["fine.test", "TXT", form]);
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        assert!(!ended.stdout.contains(['\u{1b}', '\u{202e}']), "{:?}", ended.stdout);
        ended.assert_has("027");
    }
}

//! Reports about single clients: what was refused to them and why, and how their connections went.
//!
//! Before: a dotd, and clients that do something wrong. After: the log, or a verb, says what happened to them.
//! Never: looks into a running process except with an operator's means.

use std::{io::Write, net::SocketAddr};

use dot_tests::{
    harness::{
        clients::{DOT_PORT, read_to_close, tcp, udp},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query},
        netns::{CLIENT_V4, SERVER_V4},
        offer::Offer,
        scene::embedded,
        server::{Server, binary},
        terminal::Terminal,
    },
    require,
};
use nix::sys::signal::Signal;

/// Goal: at the default level the log names each refusal with its reason and the key to change, without a query's name
/// or a whole address. Method: more connections than a client may have, cleartext on the DoT port, a client that
/// rejects the certificate, queries over a rate; each twice. Covers: A-490
#[test]
fn refusals_can_be_found() {
    require!(Root);
    let config = Config::new().xdp("off").set("session", "connections_per_prefix_max", "2");
    let config = config.set("session", "queries_per_second", "1").set("session", "queries_burst", "1");
    let (network, dotd) = embedded(&config);
    for _ in 0..2 {
        let mut cleartext = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
        cleartext.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("open");
        let _ = read_to_close(&mut cleartext);
    }
    let mut held: Vec<_> = (0..2).map(|_| Dot::connect(&network.client, SERVER_V4)).collect();
    for id in 0..3 {
        let _ = held[0].exchange(&Query::new(id, "whoaskedthis.dotd.test", A).octets());
    }
    let refused = (0..3).map(|_| Dot::attempt(&network.client, SERVER_V4, &Offer::default()));
    assert!(refused.into_iter().any(|attempt| attempt.is_err()), "the cap refused no connection");
    let shown = format!("{}.0/24", CLIENT_V4.to_string().rsplit_once('.').expect("IPv4").0);
    for (words, reason, key) in [
        ("refused: a handshake", "failed_not_tls", None),
        ("refused: a connection", "refused_prefix_cap", Some("session.connections_per_prefix_max")),
        ("refused: a query", "queries_refused", Some("session.queries_per_second")),
    ] {
        let key = key.map(|key| format!(" key=\"{key}\"")).unwrap_or_default();
        let line = format!("{words} client=\"{shown}\" reason=\"{reason}\"{key} count=");
        eventually(&line, || dotd.stderr().contains(&line).then_some(()));
        assert_eq!(dotd.stderr().matches(&line).count(), 1, "once a minute");
    }
    let said = dotd.stop().stderr;
    assert!(!said.contains("whoaskedthis") && !said.contains(&CLIENT_V4.to_string()), "{said}");
}

/// Goal: while an operator asks for it, each connection has a line with its times and its end, and none before or
/// afterwards; the verb reports that the log level would suppress these lines. Method: a session before, one with three
/// queries and a failed handshake while it is on, one after a reload. Covers: A-493
#[test]
fn connections_are_logged_on_request() {
    require!(Root);
    let (network, mut dotd) = embedded(&Config::new().xdp("off"));
    let visit = |queries: u16| {
        let mut session = Dot::connect(&network.client, SERVER_V4);
        (0..queries).for_each(|id| drop(session.exchange(&Query::new(id, "www.dotd.test", A).octets())));
        drop(session);
    };
    let ends = |count| dotd.counts("ended", |stats| stats.sum("session_ends", "") == count);
    visit(1);
    drop(ends(1));
    assert!(dotd.operate(&["log", "connections", "on"]).has("log.connections is true until the next reload"));
    visit(3);
    let mut cleartext = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
    cleartext.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("open");
    let _ = read_to_close(&mut cleartext);
    let lines = || -> Vec<String> {
        let said = dotd.stderr();
        said.lines().filter(|line| line.contains("a connection has ended")).map(str::to_owned).collect()
    };
    let lines_of_two = eventually("two lines", || (lines().len() == 2).then(lines));
    let session = lines_of_two.iter().find(|line| line.contains("queries=3")).expect("a session's");
    for part in ["tls=\"1.3\"", "resumed=false", "hello_us=", "handshake_us=", "open_us=", "end=\"client\""] {
        assert!(session.contains(part), "{part} is not in {session}");
    }
    assert!(session.contains("client=") && !session.contains(&CLIENT_V4.to_string()), "{session}");
    assert!(lines_of_two.iter().any(|line| line.contains("end=\"failed_not_tls\"")), "{lines_of_two:?}");
    assert!(dotd.operate(&["log", "level", "warn"]).has("log.level is warn"));
    let refusal = dotd.operate(&["log", "connections", "on"]);
    assert!(!refusal.is_success && refusal.has("log.level is warn: lines of connections have level info"));
    dotd.signal(Signal::SIGHUP);
    dotd.counts("reloaded", |stats| stats.counter("control", "reloads_ok") == 1);
    visit(1);
    dotd.counts("ended", |stats| stats.sum("session_ends", "") == 3);
    let said = dotd.stop().stderr;
    assert_eq!(said.matches("a connection has ended").count(), 2, "{said}");
}

/// Goal: `dotd explain` reports the lists, caps and rates that apply to a client, its sessions and its last refusals,
/// each with its key, and nothing of another client; without XDP it says so. Method: two sessions, a query over the
/// rate, cleartext; the client's address, another address, and text that is no address. Covers: C-521
#[test]
fn a_client_is_explained() {
    require!(Root);
    let config = Config::new().xdp("off").set("session", "connections_per_prefix_max", "9");
    let config = config.set("session", "queries_per_second", "1").set("session", "queries_burst", "1");
    let (network, dotd) = embedded(&config.set("access", "deny", "[\"203.0.113.0/24\"]"));
    let mut sessions: Vec<_> = (0..2).map(|_| Dot::connect(&network.client, SERVER_V4)).collect();
    for id in 0..2 {
        let _ = sessions[0].exchange(&Query::new(id, "whoaskedthis.dotd.test", A).octets());
    }
    let client = CLIENT_V4.to_string();
    let said = eventually("the refusal is known", || {
        let said = dotd.operate(&["explain", &client]);
        said.has("queries_refused by engine").then_some(said)
    });
    for line in [
        format!("client       limits count {client}/32 as one client\n"),
        "lists        on none\n".to_owned(),
        "xdp          off: no ban, budget or rate of [xdp.limit] is in effect\n".to_owned(),
        "rate         0 of 1 messages over connections at once (session.queries_per_second)\n".to_owned(),
        "connections  2 of 9 (session.connections_per_prefix_max)\n".to_owned(),
        "sessions     2 open\n".to_owned(),
        "TLS 1.3, open for ".to_owned(),
        "queries_refused by engine, 1 times, last ".to_owned(),
    ] {
        assert!(said.has(&line), "{line} is not in {}", said.text);
    }
    assert!(!said.has("whoaskedthis"), "{}", said.text);
    let other = dotd.operate(&["explain", "203.0.113.7"]);
    let list = "lists        access.deny has 203.0.113.0/24: its connections are closed\n";
    assert!(other.has(list) && other.has("sessions     0 open\n"), "{}", other.text);
    assert!(other.has("refused      no recent refusal\n"), "{}", other.text);
    let network_of_both = format!("{}.0/24", client.rsplit_once('.').expect("IPv4").0);
    assert!(dotd.operate(&["explain", &network_of_both]).has("sessions     2 open\n"));
    let wrong = dotd.operate(&["explain", "www.example"]);
    assert!(
        !wrong.is_success && wrong.has("\"www.example\" is neither an address nor a prefix"),
        "{}",
        wrong.text
    );
}

/// Goal: with XDP the ban, the budget, the proof and the rate of new connections are those of the kernel half's maps.
/// Method: one session over the veth; then a ban. Covers: C-520
#[test]
fn the_kernel_half_is_explained() {
    require!(Root, Bpf);
    let config = Config::new().set("xdp.limit", "syn_per_second", "50").set("xdp.limit", "syn_burst", "100");
    let (network, dotd) = embedded(&config.set("xdp.limit", "handshake_cost_per_second", "20"));
    let _session = Dot::connect(&network.client, SERVER_V4);
    let client = CLIENT_V4.to_string();
    let said = eventually("the handshake is charged", || {
        let said = dotd.operate(&["explain", &client]);
        said.has("address      proved by handshakes; the proof is valid for ").then_some(said)
    });
    assert!(
        said.has("ban          none\n")
            && said.has(" % left for handshakes (xdp.limit.handshake_cost_per_second)")
    );
    let left = said.number_after("rate         ");
    assert!(
        (50..=100).contains(&left) && said.has(" of 100 new connections at once (xdp.limit.syn_per_second)")
    );
    assert!(dotd.operate(&["ban", "add", &client, "--reason", "a test"]).is_success);
    let said = dotd.operate(&["explain", &client]);
    let ban = format!("`dotd ban del {client}/32` lifts it\n");
    assert!(said.has("ban          operator (a test), ") && said.has(&ban), "{}", said.text);
}

/// `dotd top` of a server, as JSON.
fn top(dotd: &Server, words: &[&str]) -> serde_json::Value {
    let said = dotd.operate(&[&["top", "--json", "--interval", "1s"], words].concat());
    serde_json::from_str(&said.text).unwrap_or_else(|error| panic!("{error}: {}", said.text))
}

/// Goal: `dotd top` shows rates, quantiles, refusals with their keys, backends, workers, and which clients do most;
/// names only where they are asked for. Method: two looks, of which the first begins the counting; between them, a
/// session with queries and cleartext that fails; as JSON and as text. Covers: C-522
#[test]
fn top_says_who_does_most() {
    require!(Root);
    let (network, dotd) = embedded(&Config::new().xdp("off"));
    let visit = || {
        let mut session = Dot::connect(&network.client, SERVER_V4);
        for id in 0..20 {
            let _ = session.exchange(&Query::new(id, "whoaskedthis.dotd.test", A).octets());
        }
        let mut cleartext = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
        cleartext.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("open");
        let _ = read_to_close(&mut cleartext);
    };
    assert_eq!(
        top(&dotd, &[])["clients"],
        serde_json::json!([]),
        "a client was counted before an operator looked"
    );
    // Clients go on connecting, so that some connections fall between the two looks.
    let asked = eventually("a visit is between two looks", || {
        let asked = std::thread::scope(|scope| {
            let asking = scope.spawn(|| top(&dotd, &["--names"]));
            while !asking.is_finished() {
                visit();
            }
            asking.join().expect("it answers")
        });
        let is_whole = |client: &serde_json::Value| {
            ["queries", "octets", "handshakes", "cost", "refusals"]
                .iter()
                .all(|count| client[count].as_f64() > Some(0.0))
        };
        is_whole(&asked["clients"][0]).then_some(asked)
    });
    let client = &asked["clients"][0];
    assert_eq!(client["prefix"], format!("{CLIENT_V4}/32"), "{asked}");
    for count in ["queries", "octets", "handshakes", "cost", "refusals"] {
        assert!(client[count].as_f64() > Some(0.0), "{count}: {client}");
    }
    assert_eq!(asked["names"][0]["name"], "whoaskedthis.dotd.test.", "{asked}");
    assert!(
        asked["rates"]["queries"].as_f64() > Some(0.0)
            && asked["rates"]["handshakes_full"].as_f64() > Some(0.0)
    );
    let has = |list: &str, key: &str, value: &str| {
        asked[list].as_array().into_iter().flatten().any(|row| row[key] == value)
    };
    assert!(has("latency", "name", "handshake_full") && has("backends", "name", "embedded"), "{asked}");
    assert!(has("drops", "reason", "failed_not_tls"), "{asked}");
    let plain = dotd.operate(&["top", "--once", "--interval", "100ms", "--sort", "cost"]);
    assert!(plain.has("clients by cost") && plain.has(&format!("{CLIENT_V4}/32")), "{}", plain.text);
    assert!(!plain.has("whoaskedthis"), "names were not asked for: {}", plain.text);
    let piped = dotd.operate(&["top"]);
    assert!(!piped.is_success && piped.has("use --once or --json"), "{}", piped.text);
}

/// Goal: on a terminal, keys sort, pause, filter, ban the chosen client and quit, and the terminal is left with exit
/// status 0. Method: a client with a session that asks; each key, and the screen after it; `dotd ban list` shows the
/// ban. Covers: C-522
#[test]
fn top_is_worked_by_keys() {
    require!(Root, Bpf);
    let (network, dotd) = embedded(&Config::new());
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let socket = dotd.folder().join("run/control.sock");
    let line = format!("{} top --interval 200ms --socket {}", binary().display(), socket.display());
    let mut terminal = Terminal::start(&line);
    let client = format!("{CLIENT_V4}/32");
    eventually("the client is on the screen", || {
        let _ = session.exchange(&Query::new(7, "www.dotd.test", A).octets());
        terminal.screen().contains(&client).then_some(())
    });
    terminal.shows("clients a second, by queries");
    terminal.press("s");
    terminal.shows("clients a second, by handshakes");
    terminal.press("/nobody");
    terminal.shows("filter: nobody_");
    eventually("it is filtered", || (!terminal.screen().contains(&client)).then_some(()));
    terminal.press("\x7f\x7f\x7f\x7f\x7f\x7f\r");
    terminal.shows(&client);
    terminal.press("p");
    terminal.shows("PAUSED");
    terminal.press("b");
    terminal.shows(&format!("ban {client}? y"));
    terminal.press("y");
    terminal.shows(&format!("{client} is banned for "));
    assert!(dotd.operate(&["ban", "list"]).has("by dotd top"));
    terminal.press("q");
    assert!(terminal.ends());
}

/// `dotd trace` in the background, and its output.
struct Reader {
    child: std::process::Child,
    said: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Reader {
    fn start(dotd: &Server, words: &[&str]) -> Self {
        let mut command = dot_tests::harness::process::bounded(&binary().display().to_string());
        command
            .arg("trace")
            .args(words)
            .arg("--json")
            .arg("--socket")
            .arg(dotd.folder().join("run/control.sock"));
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().expect("dotd starts");
        let (said, mut output) = (std::sync::Arc::<std::sync::Mutex<String>>::default(), child.stdout.take());
        let written = std::sync::Arc::clone(&said);
        std::thread::spawn(move || {
            let lines = std::io::BufRead::lines(std::io::BufReader::new(output.take().expect("piped")));
            for line in lines.map_while(Result::ok) {
                let mut written = written.lock().expect("nobody panics");
                written.push_str(&(line + "\n"));
            }
        });
        let reader = Self { child, said };
        // The first line says that the trace has begun.
        eventually("the trace begins", || (!reader.events().is_empty()).then_some(()));
        reader
    }

    fn events(&self) -> Vec<serde_json::Value> {
        let said = self.said.lock().expect("nobody panics");
        said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The kinds of its events, in order, without those that say that nothing happens.
    fn kinds(&self) -> Vec<String> {
        let kinds =
            self.events().into_iter().map(|event| event["event"].as_str().expect("a kind").to_owned());
        kinds.filter(|kind| kind != "lost").collect()
    }

    /// Waits for its end; returns whether it succeeded, and its standard error.
    fn ends(mut self) -> (bool, String) {
        let (mut text, complaint) = (String::new(), self.child.stderr.take());
        std::io::Read::read_to_string(&mut complaint.expect("piped"), &mut text).expect("text");
        (self.child.wait().expect("it ends").success(), text)
    }

    /// Waits for an event of this kind.
    fn hears(&self, kind: &str) -> serde_json::Value {
        eventually(kind, || self.events().into_iter().find(|event| event["event"] == kind))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Goal: `dotd trace` prints the events of a client in order, with names only on request, of one session alone if one
/// is given, and of no other client; it ends by itself after the given number of events, and reports when dotd stops.
/// Method: a client that fails a handshake and one that has a session with a query, under a trace of its prefix, one
/// with names, one of another prefix. Covers: C-523, C-584
#[test]
fn a_client_is_traced() {
    require!(Root);
    let (network, dotd) = embedded(&Config::new().xdp("off"));
    let client = CLIENT_V4.to_string();
    let plain = Reader::start(&dotd, &[&client]);
    let named = Reader::start(&dotd, &[&client, "--names"]);
    let other = Reader::start(&dotd, &["203.0.113.0/24"]);
    let mut cleartext = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
    cleartext.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("open");
    let _ = read_to_close(&mut cleartext);
    assert_eq!(plain.hears("refused")["reason"], "failed_not_tls");
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let name = plain.hears("session")["session"].as_str().expect("a session has a name").to_owned();
    let alone = Reader::start(&dotd, &[&name, "--count", "1"]);
    let _ = session.exchange(&Query::new(4711, "whoaskedthis.dotd.test", A).octets());
    drop(session);
    let ended = eventually("the session ends", || {
        plain.events().into_iter().find(|event| event["event"] == "ended" && event["queries"] == 1)
    });
    let kinds = plain.kinds();
    let wanted = [
        "accepted",
        "refused",
        "ended",
        "accepted",
        "handshake",
        "session",
        "query",
        "response",
        "written",
        "ended",
    ];
    assert_eq!(kinds, wanted);
    let query = plain.hears("query");
    assert_eq!(
        (&query["id"], &query["qtype"], &query["session"]),
        (&4711.into(), &1.into(), &name.as_str().into())
    );
    assert!(
        query["name"].is_null() && query["client"].as_str().is_some_and(|from| from.starts_with(&client))
    );
    let response = plain.hears("response");
    assert_eq!((&response["id"], &response["by"]), (&4711.into(), &"forwarded".into()), "{response}");
    assert_eq!((&response["backend"], &response["tries"]), (&"embedded".into(), &1.into()), "{response}");
    let handshake = plain.hears("handshake");
    assert!(response["took_us"].is_u64() && handshake["tls"] == "1.3" && handshake["offered"] == "1.3 1.2");
    assert!(handshake["fingerprint"].as_str().is_some_and(|ja4| ja4.starts_with("t13")), "{handshake}");
    assert_eq!((&ended["end"], &ended["session"]), (&"client".into(), &name.as_str().into()));
    assert_eq!(named.hears("query")["name"], "whoaskedthis.dotd.test.");
    assert_eq!(alone.hears("query")["id"], 4711);
    assert!(other.events().iter().all(|event| event["event"] == "lost"), "{:?}", other.events());
    assert!(!plain.said.lock().expect("nobody panics").contains("whoaskedthis"));
    // A trace whose reader has gone is removed: the full number of traces can start again.
    drop((plain, named, other, alone));
    for _ in 0..6 {
        eventually("a trace begins and ends by itself", || {
            dotd.operate(&["trace", &client, "--for", "10ms"]).is_success.then_some(())
        });
    }
    let wrong = dotd.operate(&["trace", "www.example"]);
    assert!(!wrong.is_success && wrong.has("is neither an address nor a prefix"), "{}", wrong.text);
    let last = Reader::start(&dotd, &[&client]);
    dotd.stop();
    let (is_success, complaint) = last.ends();
    assert!(!is_success && complaint.contains("dotd has stopped"), "{complaint}");
}

/// Goal: the story of a client begins in the kernel half: its SYN with verdict, reason and what its rate still allows, before
/// the accept, which says how long that took; a refused packet names the key. Other clients' packets are not told, and none once
/// the trace is over. Method: a session under a trace of its client; then a ban, and a datagram to the DoT port. Covers: C-701
#[test]
fn a_trace_begins_with_the_syn() {
    require!(Root, Bpf);
    let config = Config::new().set("xdp.limit", "syn_per_second", "50").set("xdp.limit", "syn_burst", "100");
    let (network, dotd) = embedded(&config);
    let client = CLIENT_V4.to_string();
    let (trace, other) = (Reader::start(&dotd, &[&client]), Reader::start(&dotd, &["203.0.113.0/24"]));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let _ = session.exchange(&Query::new(1, "www.dotd.test", A).octets());
    let (syn, accepted, _) = (trace.hears("packet"), trace.hears("accepted"), trace.hears("response"));
    let at = SocketAddr::new(SERVER_V4, DOT_PORT).to_string();
    assert_eq!((&syn["verdict"], &syn["reason"], &syn["to"]), (&"pass".into(), &"syn".into(), &at.into()));
    assert_eq!((&syn["left"], &syn["burst"]), (&99.into(), &100.into()), "{syn}");
    assert_eq!(syn["client"], accepted["client"]);
    assert!(syn["key"].is_null() && accepted["syn_us"].is_u64(), "{syn} {accepted}");
    assert!(syn["at_us"].as_u64() <= accepted["at_us"].as_u64(), "one clock: {syn} {accepted}");
    assert_eq!(trace.kinds().get(..3), Some(&["packet", "accepted", "handshake"].map(str::to_owned)[..]));
    assert!(dotd.operate(&["ban", "add", &client]).is_success);
    let datagrams = udp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
    datagrams.send(b"quic?").expect("it leaves");
    let refused = eventually("the datagram is told", || {
        trace.events().into_iter().find(|event| event["event"] == "packet" && event["verdict"] == "drop")
    });
    assert_eq!((&refused["reason"], &refused["key"]), (&"banned".into(), &"xdp.limit.ban_seconds".into()));
    assert!(refused["left"].is_null(), "a ban refuses before a rate counts: {refused}");
    assert!(other.kinds().is_empty(), "{:?}", other.events());
}

/// Goal: the time from a SYN to its accept is measured, the wait in the kernel's queue included; a connection without a SYN that
/// the kernel half saw is not. Method: the engine is stopped while a client connects, and goes on a while later; the longest
/// time is as long as that at least. Then without XDP. Covers: C-700
#[test]
fn the_wait_for_the_accept_is_measured() {
    require!(Root, Bpf);
    let row = |dotd: &Server| {
        let rows = dotd.stats().0["latency"].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["labels"]["stage"] == "syn_to_accept")
    };
    let (network, dotd) = embedded(&Config::new());
    dotd.signal_engine(Signal::SIGSTOP as i32);
    let waits = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
    // What is measured, and no wait for anything.
    std::thread::sleep(std::time::Duration::from_millis(300));
    dotd.signal_engine(Signal::SIGCONT as i32);
    let measured = eventually("it is accepted", || row(&dotd));
    // A bucket is 9 % wide.
    let waited_us = measured["p999_us"].as_f64().expect("a number");
    assert!(measured["count"] == 1 && waited_us * 1.1 >= 300_000.0, "{measured}");
    drop((waits, dotd));

    let (network, dotd) = embedded(&Config::new().xdp("off"));
    let _session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(row(&dotd), None);
}

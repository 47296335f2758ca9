//! `dotd query --trace-on`: the events of this query's own connections, beside its answer.
//!
//! Before: dotd, and another client at the same address. After: what the tool printed is compared with what happened.

use std::net::SocketAddr;

use dot_tests::{
    harness::{
        clients::DOT_PORT,
        config::Config,
        dot::Dot,
        message::{A, Query},
        netns::{Namespace, Network, SERVER_V4, SERVER_V6},
        process::bounded,
        scene::{embedded, honest},
        scripted::Scripted,
        server::{Server, binary},
    },
    require,
};
use serde_json::Value;

struct Ended {
    code: Option<i32>,
    text: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

fn query(namespace: &Namespace, words: &[&str]) -> Ended {
    let mut command = bounded(&binary().display().to_string());
    command.arg("query").args(words);
    let output = namespace.output(command);
    let text = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
    Ended { code: output.status.code(), text }
}

/// A query at `server` that the dotd in `folder` traces.
fn traced(network: &Network, dotd: &Server, server: SocketAddr, words: &[&str]) -> Ended {
    let (at, socket) = (format!("@{server}"), dotd.folder().join("run/control.sock").display().to_string());
    let all = [&[&*at, "www.dotd.test", "+trace-on", "--socket", &socket][..], words].concat();
    query(&network.client, &all)
}

fn kinds(trace: &Value) -> Vec<&str> {
    let events = trace["events"].as_array().expect("a list").iter();
    events.map(|event| event["event"].as_str().expect("a kind")).collect()
}

const STORY: [&str; 7] = ["accepted", "handshake", "session", "query", "response", "written", "ended"];

/// Goal: the tool shows what dotd saw of its own connection, from accept to end, with the number of its session, and nothing of
/// another client at the same address; over TLS, within each handshake of `--resume`, over UDP, and behind a PROXY header.
/// Method: each of them, while another session of the same address asks. Covers: C-661
#[test]
fn a_query_is_shown_with_its_story() {
    require!(Root);
    let config = Config::new().xdp("off").set("listen", "do53", "[\"0.0.0.0:53\", \"[::]:53\"]");
    let (network, dotd) = embedded(&config);
    let mut other = Dot::connect(&network.client, SERVER_V4);
    let _ = other.exchange(&Query::new(1, "whoaskedthis.dotd.test", A).octets());
    let dot = SocketAddr::new(SERVER_V4, DOT_PORT);
    let ended = traced(&network, &dotd, dot, &["--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    let said = ended.json();
    assert_eq!(kinds(&said["trace"]), STORY, "{said:#}");
    let asked = &said["trace"]["events"][3];
    assert_eq!((&asked["name"], &said["trace"]["lost"]), (&"www.dotd.test.".into(), &0.into()));
    assert!(asked["session"].is_string() && !ended.text.contains("whoaskedthis"), "{said:#}");
    let again = traced(&network, &dotd, dot, &["--json", "--resume"]).json();
    assert_eq!(kinds(&again["trace"]), [STORY, STORY].concat(), "{again:#}");
    assert_eq!(again["trace"]["events"][8]["resumed"], true, "{again:#}");
    for server in [SERVER_V4, SERVER_V6] {
        let datagram = traced(&network, &dotd, SocketAddr::new(server, 53), &["--json", "+udp"]).json();
        assert_eq!(kinds(&datagram["trace"]), ["query", "response"], "{datagram:#}");
    }
    let text = traced(&network, &dotd, dot, &[]).text;
    for part in
        [";; trace of ", "accepted at ", "handshake TLS 1.3 full", "query ", "response ", "ended client"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let _ = other.exchange(&Query::new(2, "www.dotd.test", A).octets());
}

/// Goal: a connection that comes to nothing has its story too; another server than the dotd that is traced, a dotd that is not
/// there, and what makes no sense are said. Method: a strict profile that refuses the certificate; a scripted server; a path
/// without a socket; `+short`. Covers: C-661
#[test]
fn what_was_not_seen_is_said() {
    require!(Root);
    let (network, dotd) = embedded(&Config::new().xdp("off"));
    let dot = SocketAddr::new(SERVER_V4, DOT_PORT);
    let refused = traced(&network, &dotd, dot, &["--json", "--name", "else.dotd.test"]);
    assert_eq!(refused.code, Some(6), "{}", refused.text);
    let story = refused.json();
    let kinds = kinds(&story["trace"]);
    assert_eq!((kinds.first(), kinds.last()), (Some(&"accepted"), Some(&"ended")), "{story:#}");
    assert!(!kinds.contains(&"query"), "{story:#}");
    let elsewhere = Scripted::start(&network, honest);
    let socket = dotd.folder().join("run/control.sock").display().to_string();
    let at = format!("@{}", elsewhere.address);
    let unseen = query(&network.server, &[&at, "www.dotd.test", "+tcp", "--trace-on", "--socket", &socket]);
    assert_eq!(unseen.code, Some(0), "{}", unseen.text);
    assert!(unseen.text.contains("saw nothing of this query"), "{}", unseen.text);
    let nowhere = dotd.folder().join("run/no.sock").display().to_string();
    let before = elsewhere.received().len();
    let failed = query(&network.server, &[&at, "www.dotd.test", "+tcp", "--trace-on", "--socket", &nowhere]);
    assert!(failed.code == Some(1) && failed.text.contains("no.sock"), "{}", failed.text);
    assert_eq!(elsewhere.received().len(), before, "nothing was asked");
    for senseless in [&["--trace-on", "+short"][..], &["--socket", &nowhere]] {
        let usage = query(&network.server, &[&[&*at, "www.dotd.test"], senseless].concat());
        assert_eq!(usage.code, Some(2), "{senseless:?}: {}", usage.text);
    }
}

//! Spans of traced clients, as a collector gets them, and as backends hear of them.
//!
//! Before: a dotd with a collector, and a backend that looks at options. After: both have the same trace for a query.
//! Never: asserts a time.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Mutex},
    thread,
};

use dot_tests::{
    harness::{
        clients::http,
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Opt, Query},
        netns::{CLIENT_V4, Network, SERVER_V4},
        scene::honest,
        scripted::{Received, Scripted},
        server::Server,
    },
    require,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The EDNS option of the draft, as a code for local use.
const OPTION: u16 = 65_500;

/// A collector, and the requests that it took.
struct Collector {
    address: std::net::SocketAddr,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    /// Answers each request with this status.
    fn start(network: &Network, status: &'static str) -> Self {
        let listener =
            network.server.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free"));
        let (address, requests) =
            (listener.local_addr().expect("it is bound"), Arc::<Mutex<Vec<Value>>>::default());
        let taken = Arc::clone(&requests);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut octets = Vec::new();
                let body = loop {
                    let mut some = [0; 4096];
                    match stream.read(&mut some) {
                        Ok(0) | Err(_) => break None,
                        Ok(count) => octets.extend(&some[..count]),
                    }
                    let text = String::from_utf8_lossy(&octets).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                    let length: usize = length.expect("a length").parse().expect("a number");
                    if body.len() >= length {
                        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
                        break Some(body.to_owned());
                    }
                };
                taken
                    .lock()
                    .expect("nobody panics")
                    .extend(body.map(|body| serde_json::from_str(&body).expect("JSON")));
                let _ =
                    stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
            }
        });
        Self { address, requests }
    }

    /// Every span so far with this name.
    fn spans(&self, name: &str) -> Vec<Value> {
        let requests = self.requests.lock().expect("nobody panics");
        let spans = requests.iter().flat_map(|request| {
            request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().cloned().unwrap_or_default()
        });
        spans.filter(|span| span["name"] == name).collect()
    }
}

/// An attribute of a span.
fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let mut attributes = span["attributes"].as_array().into_iter().flatten();
    let found = attributes.find(|one| one["key"] == key).map_or(&Value::Null, |one| &one["value"]);
    found.as_object().and_then(|value| value.values().next()).unwrap_or(&Value::Null)
}

fn config(collector: &Collector, more: &[(&'static str, &str)]) -> Config {
    let endpoint = format!("\"http://{}/v1/traces\"", collector.address);
    let config = Config::new().xdp("off").set("otlp", "endpoint", &endpoint);
    let config = config.set("otlp", "clients", &format!("[\"{CLIENT_V4}/32\"]"));
    more.iter().fold(config, |config, (key, value)| config.set("otlp", key, value))
}

/// Trace and span in a query's option, in hexadecimal.
fn traced(octets: &[u8]) -> Option<String> {
    let head = [OPTION.to_be_bytes(), 26u16.to_be_bytes(), [0; 2]].concat();
    let at = octets.windows(head.len()).position(|window| window == head)?;
    Some(octets[at + head.len()..][..24].iter().map(|octet| format!("{octet:02x}")).collect())
}

/// Goal: a traced client's connection, handshake and query become spans that belong together; the backend hears of the query's
/// trace and span by an option, only of traced queries with EDNS; a scrape names the trace in its bucket; names only where they
/// are asked for. Method: a session with one query with EDNS and one without; a backend that keeps what it gets; then another
/// config without an option, by a reload. Covers: C-703, C-704
#[test]
fn a_query_is_one_trace_from_client_to_backend() {
    require!(Root);
    let network = Network::new();
    let collector = Collector::start(&network, "200 OK");
    let heard = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let kept = Arc::clone(&heard);
    let backend = Scripted::start(&network, move |query: &Received| {
        kept.lock().expect("nobody panics").push(query.octets.clone());
        honest(query)
    });
    let keys = [("traceparent_option", "65500"), ("exemplars", "true"), ("names", "true")];
    let config = |keys: &[(&'static str, &str)]| {
        let config = config(&collector, keys).set("control", "http", "\"127.0.0.1:8853\"");
        config.backend_with(backend.address, "name = \"behind\"")
    };
    let mut dotd = Server::start(&network, &config(&keys));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let _ = session.exchange(&Query::new(7, "traced.dotd.test", A).opt(Opt::default()).octets());
    let _ = session.exchange(&Query::new(8, "plain.dotd.test", A).octets());
    drop(session);
    let connection = eventually("the connection is a span", || collector.spans("connection").pop());
    let queries = eventually("the queries are spans", || {
        Some(collector.spans("query")).filter(|spans| spans.len() == 2)
    });
    let handshake = collector.spans("tls handshake").pop().expect("the handshake is a span");
    assert_eq!(
        (&handshake["traceId"], &handshake["parentSpanId"]),
        (&connection["traceId"], &connection["spanId"])
    );
    assert_eq!(
        (attribute(&connection, "client.address"), attribute(&connection, "dotd.end")),
        (&CLIENT_V4.to_string().into(), &"client".into())
    );
    let query = queries
        .iter()
        .find(|span| attribute(span, "dns.question.name") == "traced.dotd.test.")
        .expect("names are asked for");
    assert_eq!(query["links"][0]["spanId"], connection["spanId"]);
    assert_eq!(
        (attribute(query, "dotd.backend"), attribute(query, "dotd.transport")),
        (&"behind".into(), &"dot".into())
    );

    let option: String =
        ["traceId", "spanId"].map(|id| query[id].as_str().expect("an ID").to_owned()).concat();
    let options: Vec<_> =
        heard.lock().expect("nobody panics").iter().filter_map(|octets| traced(octets)).collect();
    assert_eq!(options, [option], "one query has EDNS");
    let trace = queries
        .iter()
        .filter_map(|span| span["traceId"].as_str())
        .find(|trace| http(&network.server, "/metrics").contains(&format!(" # {{trace_id=\"{trace}\"}} 0.")));
    assert!(trace.is_some(), "no exemplar: {}", http(&network.server, "/metrics"));
    assert!(dotd.operate(&["status"]).has(" spans written, 0 lost"), "{}", dotd.operate(&["status"]).text);

    dotd.rewrite_config(&config(&[]));
    dotd.signal(Signal::SIGHUP);
    eventually("it is reloaded", || dotd.stderr().contains("reloaded").then_some(()));
    let last = a_later_query(&network, &collector, &heard);
    assert_eq!(traced(&last), None);
}

/// A query after a reload: it is a span without a name. Returns what the backend got.
fn a_later_query(network: &Network, collector: &Collector, heard: &Mutex<Vec<Vec<u8>>>) -> Vec<u8> {
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let _ = session.exchange(&Query::new(9, "later.dotd.test", A).opt(Opt::default()).octets());
    drop(session);
    eventually("the third query is a span", || (collector.spans("query").len() == 3).then_some(()));
    let is_named = |span: &Value| attribute(span, "dns.question.name") == "later.dotd.test.";
    assert!(!collector.spans("query").iter().any(is_named));
    heard.lock().expect("nobody panics").last().cloned().expect("it was asked")
}

/// Goal: a collector that refuses or is not there costs no query; its spans are lost, counted, and the log says so once; dotd
/// ends in time. Method: a collector that answers 503; sessions before and after it has refused.
#[test]
fn a_collector_that_refuses_costs_no_query() {
    require!(Root);
    let network = Network::new();
    let collector = Collector::start(&network, "503 Service Unavailable");
    let dotd = Server::start(&network, &config(&collector, &[]));
    let visit = || {
        let mut session = Dot::connect(&network.client, SERVER_V4);
        let _ = session.exchange(&Query::new(7, "www.dotd.test", A).octets());
    };
    visit();
    let lost =
        |number: u64| dotd.counts("spans are lost", |stats| stats.counter("control", "otlp_lost") >= number);
    lost(3);
    visit();
    lost(6);
    assert_eq!(dotd.stats().counter("control", "otlp_written"), 0);
    let said = dotd.stop().stderr;
    assert_eq!(said.matches("no collector takes spans").count(), 1, "{said}");
}

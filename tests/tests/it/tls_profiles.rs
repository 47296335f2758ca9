//! Backends over TLS behind a box that lies, under each profile: what the client hears, what is sent in clear, what is counted,
//! and what is said. (RFC 8310 §5, RFC 9539 §4.)
//!
//! Before: an honest TLS server, an honest server in clear, an impostor with another key, and a box that passes, resets, answers in
//! clear, keeps silent or drops. After: a table of profile and deed; docs/guide/backends.md has the same one.

use std::net::SocketAddr;

use dot_tests::{
    harness::{
        backends::Backend,
        config::Config,
        dot::Dot,
        eventually,
        message::{A, SERVFAIL, host, reply_to},
        middlebox::{Deed, Middlebox},
        netns::{Network, SERVER_V4},
        pki::Authority,
        scene::{HONEST, honest},
        scratch::Scratch,
        scripted::{Act, Received, Scripted},
        server::Server,
        tls_servers::{TLS_PORT, TlsServer, UPSTREAM_PORT},
    },
    require,
};
use serde_json::Value;

const NAME: &str = "ns.dotd.test";
const LIE: [u8; 4] = [192, 0, 2, 66];
/// What a box can do that is not seen as TLS with another key.
const DEEDS: [Deed; 4] = [Deed::Reset, Deed::Clear, Deed::Silent, Deed::Drop];

fn liar(query: &Received) -> Vec<Act> {
    vec![Act::Send(reply_to(&query.octets, A, &[LIE.to_vec()]))]
}

/// The servers, the box before them, and dotd.
struct Stage {
    network: Network,
    secure: Scripted,
    clear: Scripted,
    other_key: Scripted,
    middlebox: Middlebox,
    config: Config,
    dotd: Server,
    next_id: u16,
}

/// What a client hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Honest,
    Lie,
    Failure,
}

impl Stage {
    /// A backend with these keys behind a box that does this; a `@CLEAR@` in them is the address of the server in clear.
    fn new(keys: &str, deed: fn(SocketAddr, SocketAddr) -> Deed) -> Self {
        let (network, authority, scratch) = (Network::new(), Authority::new(), Scratch::new());
        let issued = authority.issue(NAME);
        let ca = scratch.write("ca.pem", authority.pem());
        let secure = Scripted::start_over_tls(&network, issued.serving(), honest);
        let other_key = Scripted::start_over_tls(&network, Authority::new().issue(NAME).serving(), liar);
        let clear = Scripted::start(&network, honest);
        let middlebox = Middlebox::start(&network, deed(secure.address, other_key.address));
        let keys = keys
            .replace("@CLEAR@", &clear.address.to_string())
            .replace("@NAME@", &format!("server_name = \"{NAME}\"\nca = \"{}\"", ca.display()));
        let keys = format!("name = \"office\"\ntransport = \"tls\"\ntimeout = \"2s\"\n{keys}");
        let config = Config::new().xdp("off").set("server", "workers", "1");
        let config = config.set("balance", "health_interval", "\"500ms\"");
        let config = config.backend_with(middlebox.address, &keys);
        let dotd = Server::launch(&network, &config, scratch, &[]);
        Self { network, secure, clear, other_key, middlebox, config, dotd, next_id: 0 }
    }

    fn ask(&mut self) -> Heard {
        self.next_id += 1;
        let answer = Dot::connect(&self.network.client, SERVER_V4).exchange(&host(self.next_id));
        match (answer.rcode(), answer.rdata(A).first().copied()) {
            (0, Some(address)) if address == HONEST => Heard::Honest,
            (0, Some(address)) if address == LIE => Heard::Lie,
            (SERVFAIL, _) => Heard::Failure,
            other => panic!("neither honest, nor the lie, nor SERVFAIL: {other:?}"),
        }
    }

    fn asks_until(&mut self, what: &str, wanted: Heard) {
        eventually(what, || (self.ask() == wanted).then_some(()));
    }

    fn be(&self, deed: Deed) {
        self.middlebox.be(&self.network, deed);
    }

    /// The row of the backend.
    fn row(&self) -> Value {
        let rows: Value = serde_json::from_str(&self.dotd.operate(&["upstream", "history", "--json"]).text)
            .expect("an array of rows");
        rows[0].clone()
    }

    fn is_suspected(&self) -> bool {
        self.dotd.backend_states()[0] == "downgrade_suspected"
    }

    fn in_clear(&self) -> u64 {
        self.dotd.stats().counter("backend", "in_clear")
    }

    /// The way is free again. Looks for TLS thin out while cleartext serves; a reload begins them anew.
    fn mend(&self) {
        self.be(Deed::Pass(self.secure.address));
        let said = self.dotd.operate(&["reload"]);
        assert!(said.is_success, "{}", said.text);
    }

    /// TLS works again: it is used, and nothing is suspected.
    fn recover(&mut self) {
        self.be(Deed::Pass(self.secure.address));
        self.asks_until("TLS again", Heard::Honest);
        eventually("it is up", || (self.dotd.backend_states()[0] == "up").then_some(()));
    }
}

fn passes(secure: SocketAddr, _: SocketAddr) -> Deed {
    Deed::Pass(secure)
}

const STRICT: &str = "@NAME@";
const OPPORTUNISTIC: &str = "profile = \"opportunistic\"";
const FALLS_BACK: &str = "profile = \"opportunistic\"\non_tls_failure = \"cleartext\"\nallow_cleartext = true\n\
                          cleartext_address = \"@CLEAR@\"";

/// Goal: whatever the box does, no query of a strict backend leaves in clear or to another key; failures within TLS of a server
/// that spoke it are a suspected downgrade, and dropped SYNs are a server that is down. Method: each deed after TLS that worked.
///
#[test]
fn a_strict_backend_is_asked_over_its_tls_alone() {
    require!(Root);
    let mut stage = Stage::new(STRICT, passes);
    stage.asks_until("TLS", Heard::Honest);
    let other = Deed::Pass(stage.other_key.address);
    for deed in [DEEDS.as_slice(), &[other]].concat() {
        stage.be(deed);
        let state = if deed == Deed::Drop { "down" } else { "downgrade_suspected" };
        eventually(&format!("{deed:?}"), || {
            assert_eq!(stage.ask(), Heard::Failure, "{deed:?}");
            (stage.dotd.backend_states()[0] == state).then_some(())
        });
        stage.recover();
    }
    assert!(stage.clear.received().is_empty() && stage.other_key.received().is_empty());
    assert_eq!(stage.row()["suspicions"], 4, "{}", stage.row());
    assert_eq!((stage.in_clear(), stage.dotd.stats().difference()), (0, [0; 3]));
}

/// Goal: an opportunistic backend that may not fall back is asked over any TLS and not in clear; its other key is said. Method:
/// each deed after TLS that worked, under "next" and "refuse".
#[test]
fn an_opportunistic_backend_without_fall_back_is_not_asked_in_clear() {
    require!(Root);
    for choice in ["next", "refuse"] {
        let mut stage = Stage::new(&format!("{OPPORTUNISTIC}\non_tls_failure = \"{choice}\""), passes);
        stage.asks_until("TLS", Heard::Honest);
        for deed in DEEDS {
            stage.be(deed);
            let state = if deed == Deed::Drop { "down" } else { "downgrade_suspected" };
            eventually(&format!("{choice} {deed:?}"), || {
                assert_eq!(stage.ask(), Heard::Failure, "{choice} {deed:?}");
                (stage.dotd.backend_states()[0] == state).then_some(())
            });
            stage.recover();
        }
        let pin = stage.row()["pin"].clone();
        stage.be(Deed::Pass(stage.other_key.address));
        stage.asks_until("another key is taken", Heard::Lie);
        let row = stage.row();
        assert_eq!((&row["pin_before"], &row["pin_changes"]), (&pin, &1.into()), "{row}");
        assert!(stage.dotd.stderr().contains("nothing proves whose it is"), "{}", stage.dotd.stderr());
        assert!(stage.clear.received().is_empty(), "{choice}");
        assert_eq!(stage.dotd.stats().difference(), [0; 3]);
    }
}

/// Goal: without a history the client is served in clear, as the config permits, which is counted and said; as soon as TLS works
/// nothing more goes in clear. Method: a box that does each deed from the start, then passes. Covers: A-608, C-593
#[test]
fn without_a_history_cleartext_serves() {
    require!(Root);
    for deed in DEEDS {
        let begins = match deed {
            Deed::Reset => |_, _| Deed::Reset,
            Deed::Clear => |_, _| Deed::Clear,
            Deed::Silent => |_, _| Deed::Silent,
            _ => |_: SocketAddr, _: SocketAddr| Deed::Drop,
        };
        let mut stage = Stage::new(FALLS_BACK, begins);
        stage.asks_until(&format!("{deed:?}"), Heard::Honest);
        let received = stage.clear.received().len();
        assert!(received > 0 && stage.secure.received().is_empty(), "{deed:?}");
        assert_eq!(stage.in_clear(), u64::try_from(received).expect("few"), "{deed:?}");
        let (status, row) = (stage.dotd.operate(&["status"]), stage.row());
        assert!(status.has("IN CLEAR") && status.has("office:clear"), "{}", status.text);
        assert_eq!((&row["is_in_clear"], &row["last_success"]), (&true.into(), &0.into()), "{row}");
        assert_eq!(stage.row()["suspicions"], 0);
        stage.mend();
        eventually("TLS is found", || (stage.row()["last_success"] != 0).then_some(()));
        eventually("it is up", || (stage.dotd.backend_states()[0] == "up").then_some(()));
        let before = stage.clear.received().len();
        for _ in 0..5 {
            assert_eq!(stage.ask(), Heard::Honest);
        }
        assert_eq!(stage.clear.received().len(), before, "{deed:?}");
        assert_eq!(stage.secure.received().len(), 5, "{deed:?}");
        assert_eq!(stage.dotd.stats().difference(), [0; 3]);
    }
}

/// Goal: with a history nothing goes in clear by itself: a downgrade is suspected, counted, said and shown, also where SYNs are
/// dropped and the same server answers in clear; an operator's word ends that, and TLS ends the word. Method: each deed after TLS
/// that worked, `dotd upstream forgive`, then TLS again.
#[test]
fn with_a_history_an_operator_decides() {
    require!(Root);
    let mut stage = Stage::new(FALLS_BACK, passes);
    stage.asks_until("TLS", Heard::Honest);
    let refused = stage.dotd.operate(&["upstream", "forgive", "office"]);
    assert!(!refused.is_success && refused.has("nothing to forgive"), "{}", refused.text);
    let refused = stage.dotd.operate(&["upstream", "forgive", "else"]);
    assert!(!refused.is_success && refused.has("no backend over TLS is called"), "{}", refused.text);
    for (round, deed) in (1_u64..).zip(DEEDS) {
        let before = stage.clear.received().len();
        stage.be(deed);
        eventually(&format!("{deed:?}"), || {
            assert_eq!(stage.ask(), Heard::Failure, "{deed:?}");
            stage.is_suspected().then_some(())
        });
        assert_eq!(stage.clear.received().len(), before, "{deed:?}");
        assert_eq!(stage.row()["suspicions"], round, "{deed:?}");
        assert!(stage.dotd.operate(&["status"]).has("DOWNGRADE SUSPECTED"));
        let forgiven = stage.dotd.operate(&["upstream", "forgive", "office"]);
        assert!(forgiven.is_success && forgiven.has("IN CLEAR"), "{}", forgiven.text);
        stage.asks_until("in clear", Heard::Honest);
        assert!(stage.clear.received().len() > before && !stage.is_suspected(), "{deed:?}");
        stage.mend();
        eventually("TLS is found", || (stage.row()["is_in_clear"] == false).then_some(()));
        stage.recover();
    }
    assert!(stage.dotd.stderr().contains("downgrade suspected"), "{}", stage.dotd.stderr());
    assert_eq!(stage.dotd.stats().difference(), [0; 3]);
}

/// Goal: what is remembered survives a restart, so that a downgrade is suspected of a server that this dotd has not spoken to since
/// it started; a config that has the server no more still shows it. Method: TLS, an orderly end, a box that resets.
#[test]
fn a_restart_forgets_no_history() {
    require!(Root);
    let mut stage = Stage::new(FALLS_BACK, passes);
    stage.asks_until("TLS", Heard::Honest);
    let pin = stage.row()["pin"].clone();
    let folder = stage.dotd.folder().join("state/tls-history.json");
    let Stage { network, clear, middlebox, config, mut dotd, .. } = stage;
    dotd.signal(nix::sys::signal::Signal::SIGTERM);
    let (ended, scratch) = dotd.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let kept = std::fs::read_to_string(&folder).expect("it was kept");
    assert!(kept.contains("\"name\": \"office\"") && kept.contains(pin.as_str().expect("a pin")), "{kept}");
    middlebox.be(&network, Deed::Reset);
    let dotd = Server::launch(&network, &config, scratch, &[]);
    eventually("it is suspected", || (dotd.backend_states()[0] == "downgrade_suspected").then_some(()));
    let answer = Dot::connect(&network.client, SERVER_V4).exchange(&host(1));
    assert_eq!(answer.rcode(), SERVFAIL);
    assert!(clear.received().is_empty());
}

/// Asks one host after the other, and counts answers; each that is no failure is the zone's own.
struct Asker {
    session: Dot,
    id: u16,
}

impl Asker {
    /// Whether it was answered. A wrong answer is a panic.
    fn asks(&mut self) -> bool {
        self.id = (self.id + 1) % 1000;
        let answer = self.session.exchange(&host(self.id));
        if answer.rcode() == SERVFAIL {
            return false;
        }
        let last = u8::try_from(self.id % 250).expect("less");
        assert_eq!(
            (answer.rcode(), answer.rdata(A).first()),
            (0, Some(&&[198, 51, 100, last][..])),
            "{answer:?}"
        );
        true
    }
}

/// Restarts a server with a new certificate, under a profile that would fall back in clear to it.
fn restarts_and_renewals(kind: TlsServer) {
    let (network, authority) = (Network::new(), Authority::new());
    let _nsd = Backend::nsd(&network, UPSTREAM_PORT);
    let mut server = kind.start(&network, &authority.issue(NAME));
    let keys = FALLS_BACK.replace("@CLEAR@", &server.address.to_string());
    let keys = format!("name = \"office\"\ntransport = \"tls\"\ntimeout = \"2s\"\n{keys}");
    let config = Config::new().xdp("off").set("balance", "health_interval", "\"500ms\"");
    let address = SocketAddr::from(([127, 0, 0, 1], TLS_PORT));
    let dotd = Server::start(&network, &config.backend_with(address, &keys));
    let mut asker = Asker { session: Dot::connect(&network.client, SERVER_V4), id: 0 };
    eventually("it answers", || asker.asks().then_some(()));
    for round in 1..=3 {
        drop(server);
        for _ in 0..3 {
            let _ = asker.asks();
        }
        server = kind.start(&network, &authority.issue(NAME));
        eventually(&format!("it answers again, {round}"), || asker.asks().then_some(()));
        for _ in 0..50 {
            let _ = asker.asks();
        }
    }
    let rows: Value =
        serde_json::from_str(&dotd.operate(&["upstream", "history", "--json"]).text).expect("rows");
    assert_eq!(rows[0]["pin_changes"], 3, "{rows}");
    let stats = dotd.stats();
    let clear = ["in_clear", "sent"].map(|label| stats.counter("backend", label));
    assert_eq!((clear, stats.difference()), ([0; 2], [0; 3]), "{stats:?}");
}

/// Goal: Unbound that restarts with another certificate costs answers while it is gone, gives no wrong one, and nothing goes to it
/// in clear, because it spoke TLS. Method: three restarts with new keys; each answer is compared with the zone.
#[test]
fn unbound_restarts_and_renews() {
    require!(Root, Command("unbound"), Command("nsd"));
    restarts_and_renewals(TlsServer::Unbound);
}

/// Goal and method: the same with dnsdist.
#[test]
fn dnsdist_restarts_and_renews() {
    require!(Root, Command("dnsdist"), Command("nsd"));
    restarts_and_renewals(TlsServer::Dnsdist);
}

/// Goal and method: the same with Knot Resolver.
#[test]
fn knot_resolver_restarts_and_renews() {
    require!(Root, Command("kresd"), Command("nsd"));
    restarts_and_renewals(TlsServer::KnotResolver);
}

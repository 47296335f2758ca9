//! RFC 5246, TLS 1.2: a client that knows no tickets resumes its session by the session's ID.
//!
//! Before: OpenSSL without tickets, as in embedded stub resolvers. After: one handshake with a signature, then
//! handshakes without.

use std::fs;

use dot_tests::{
    harness::{
        clients::{s_client, tool},
        config::Config,
        dot::{Dot, End},
        message::{A, Query, framed},
        netns::{Network, SERVER_V4},
        offer::{Offer, resuming_by_id},
        s_client::s_client_sending,
        scene::embedded,
        scratch::Scratch,
        server::Server,
    },
    require,
};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

/// Goal: the session of a connection that failed cannot be resumed any more, other sessions can; one that ended in
/// order can too. Method: rustls without tickets has a session; a connection with it ends in order, one is abandoned
/// with RST, and in the last one a record does not open, which is bad_record_mac. Covers: C-370
#[test]
fn a_session_that_failed_resumes_no_more() {
    require!(Root);
    let (network, dotd) = embedded(&Config::new());
    let [offer, beside] = [(); 2].map(|()| Offer {
        server_name: Some("one.dotd.test"),
        config: Some(resuming_by_id()),
        ..Offer::default()
    });
    let connect = |offer: &Offer| Dot::attempt(&network.client, SERVER_V4, offer).expect("a handshake");
    let ask =
        |session: &mut Dot| assert_eq!(session.exchange(&Query::new(7, "dotd.test", A).octets()).rcode(), 0);
    for offer in [&offer, &beside] {
        let mut first = connect(offer);
        ask(&mut first);
        assert!(!first.is_resumed());
        first.half_close();
        let _ = first.end();
    }
    for is_last in [false, true] {
        let mut resumed = connect(&offer);
        ask(&mut resumed);
        assert!(resumed.is_resumed());
        if is_last {
            resumed.send_below_tls(&[&[23, 3, 3, 0, 32][..], &[0; 32]].concat());
            assert!(matches!(resumed.end(), End::Broken(why) if why.contains("BadRecordMac")));
        } else {
            resumed.abort();
        }
    }
    assert!(!connect(&offer).is_resumed(), "it failed");
    assert!(connect(&offer).is_resumed(), "a new one");
    assert!(connect(&beside).is_resumed(), "another client's");
    drop(dotd);
}

/// Makes OpenSSL leave the extended master secret out of its hello.
const WITHOUT_EMS: &str = "openssl_conf = of_all\n[of_all]\nssl_conf = of_tls\n[of_tls]\nsystem_default = of_each\n\
    [of_each]\nOptions = -ExtendedMasterSecret\n";

const NO_TICKET: [&str; 4] = ["-tls1_2", "-no_ticket", "-servername", "one.dotd.test"];

fn query() -> Vec<u8> {
    framed(&Query::new(7, "dotd.test", A).octets())
}

/// Goal: a session resumes by its ID on every worker, carries queries, survives a reload, and is valid for its server
/// name alone; with `client_ca` it cannot be resumed, because a resumed handshake checks no certificate (§7.4.1.2,
/// §F.1.4). Method: OpenSSL without tickets saves a session, and comes back from both CPUs, after HUP, under another
/// name, and after a reload that asks for certificates. Covers: C-70, C-71
#[test]
fn a_session_resumes_by_its_id() {
    require!(Root, Command("openssl"), Command("taskset"));
    let (network, scratch) = (Network::new(), Scratch::new());
    let saved = scratch.path().join("session.pem").display().to_string();
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("signed");
    let ca = scratch.write("ca.pem", authority.pem()).display().to_string();
    let config = Config::new();
    let mut dotd = Server::launch(&network, &config, scratch, &[]);
    let octets = s_client_sending(
        &network.client,
        SERVER_V4,
        &[&NO_TICKET[..], &["-sess_out", &saved]].concat(),
        &query(),
    );
    assert_eq!(octets.get(2..4), Some(&[0, 7][..]), "served in full");
    let session = tool(&network.client, "openssl", &["sess_id", "-in", &saved, "-noout", "-text"]);
    assert!(!session.has("TLS session ticket:") && fs::exists(&saved).unwrap_or(false), "{}", session.text);

    let again = [&NO_TICKET[..], &["-sess_in", &saved]].concat();
    let at = format!("{SERVER_V4}:853");
    for turn in 0..6 {
        let cpu = (turn % 2 % std::thread::available_parallelism().map_or(1, usize::from)).to_string();
        let words = [&["-c", &cpu, "openssl", "s_client", "-connect", &at], &again[..]].concat();
        let said = tool(&network.client, "taskset", &words);
        assert!(said.has("Reused, TLSv1.2"), "turn {turn}: {}", said.text);
    }
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == 1);
    let octets = s_client_sending(&network.client, SERVER_V4, &again, &query());
    assert_eq!(octets.get(2..4), Some(&[0, 7][..]), "served by the resumed session");
    dotd.counts("each is counted as what it was", |stats| {
        stats.counter("handshakes", "resumed_tls12") == 7 && stats.counter("handshakes", "full_tls12") == 1
    });

    let other = ["-tls1_2", "-no_ticket", "-servername", "two.dotd.test", "-sess_in", &saved];
    let said = s_client(&network.client, SERVER_V4, &other);
    assert!(said.has("New, TLSv1.2"), "another name: {}", said.text);

    dotd.rewrite_config(&config.set("tls", "client_ca", &format!("\"{ca}\"")));
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the second reload", |stats| stats.counter("control", "reloads_ok") == 2);
    let said = s_client(&network.client, SERVER_V4, &again);
    assert!(!said.has("Reused, TLSv1.2"), "{}", said.text);
    dotd.counts("no certificate", |stats| stats.counter("handshakes", "failed_client_certificate") >= 1);
    dotd.stop();
}

/// Goal: where clients without the extended master secret are served, none of their sessions is resumed, by ticket or by ID; a
/// session with it is, by a client that has it (RFC 7627 §5.3). Method: OpenSSL with and without the extension saves a session of
/// TLS 1.2, and comes back with it. Covers: C-297
#[test]
fn a_session_without_the_extended_master_secret_is_not_resumed() {
    require!(Root, Command("openssl"));
    let (network, scratch) = (Network::new(), Scratch::new());
    let without = scratch.write("without.cnf", WITHOUT_EMS).display().to_string();
    let with = scratch.write("with.cnf", "").display().to_string();
    let saved = scratch.path().join("session.pem").display().to_string();
    let dotd = Server::launch(&network, &Config::new().set("tls", "require_ems", "false"), scratch, &[]);
    let at = format!("{SERVER_V4}:853");
    let connect = |openssl_conf: &str, words: &[&str]| {
        let openssl_conf = format!("OPENSSL_CONF={openssl_conf}");
        let always = [&openssl_conf, "openssl", "s_client", "-connect", &at, "-tls1_2"];
        tool(&network.client, "env", &[&always, words].concat())
    };
    for (conf, has_ems) in [(&without, false), (&with, true)] {
        for by in [&[][..], &["-no_ticket"]] {
            let first = connect(conf, &[by, &["-sess_out", &saved]].concat());
            let said = if has_ems { "Extended master secret: yes" } else { "Extended master secret: no" };
            assert!(first.has("New, TLSv1.2") && first.has(said), "{}", first.text);
            let again = connect(conf, &[by, &["-sess_in", &saved]].concat());
            let said = if has_ems { "Reused, TLSv1.2" } else { "New, TLSv1.2" };
            assert!(again.has(said), "{by:?}, {has_ems}: {}", again.text);
        }
    }
    dotd.stop();
}

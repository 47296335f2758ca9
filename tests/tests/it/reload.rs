//! SIGHUP changes what it can and keeps what it must; SIGTERM answers what is in flight.
//!
//! Before: a dotd with certificates that the test made. After: no session and no query was lost because of a signal.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use dot_tests::{
    harness::{
        clients::s_client,
        config::Config,
        dot::{Dot, End},
        eventually,
        message::{A, Query, framed, reply_to},
        netns::{Network, SERVER_V4},
        offer::Offer,
        s_client::save_session,
        scene::{HONEST, honest, scripted},
        scratch::Scratch,
        scripted::{Act, Received, Scripted},
        server::Server,
        stats::Stats,
    },
    require,
};

/// A self-signed certificate for `name`, written as two files; gives their paths and the certificate.
fn certificate(scratch: &Scratch, name: &str) -> (PathBuf, PathBuf, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let cert = scratch.write(&format!("{name}.crt"), made.cert.pem());
    let key = scratch.write(&format!("{name}.key"), made.signing_key.serialize_pem());
    (cert, key, made.cert.der().to_vec())
}

fn leaf(network: &Network) -> Vec<u8> {
    Dot::connect(&network.client, SERVER_V4).certificates().swap_remove(0)
}

fn ask(session: &mut Dot) {
    assert_eq!(session.exchange(&Query::new(1, "www.dotd.test", A).octets()).rdata(A), [HONEST]);
}

/// Goal: HUP with a good config switches the certificate for new sessions and ends no old one. Method: the leaf that
/// new handshakes get, and an earlier session. Covers: A-71
#[test]
fn hup_switches_the_certificate() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let (old_cert, old_key, old) = certificate(&scratch, "old.dotd.test");
    let (new_cert, new_key, new) = certificate(&scratch, "new.dotd.test");
    let backend = Scripted::start(&network, honest);
    let config = Config::new().backend(backend.address);
    let mut dotd = Server::launch(&network, &config.clone().certificate(&old_cert, &old_key), scratch, &[]);
    let mut before = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(leaf(&network), old);
    dotd.rewrite_config(&config.certificate(&new_cert, &new_key));
    dotd.signal(Signal::SIGHUP);
    eventually("new sessions see the new certificate", || (leaf(&network) == new).then_some(()));
    ask(&mut before);
    ask(&mut Dot::connect(&network.client, SERVER_V4));
    dotd.stop();
}

/// Goal: SNI selects among several certificates; a client without SNI, or with an unknown name, gets the first (RFC
/// 6066 §3). Method: two certificates, four names, the leaf that each client sees. Covers: C-66
#[test]
fn sni_selects_the_certificate() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let (one_cert, one_key, one) = certificate(&scratch, "one.dotd.test");
    let (two_cert, two_key, two) = certificate(&scratch, "two.dotd.test");
    let entry =
        |cert: &Path, key: &Path| format!(r#"{{ cert = "{}", key = "{}" }}"#, cert.display(), key.display());
    let both = format!("[{}, {}]", entry(&one_cert, &one_key), entry(&two_cert, &two_key));
    let dotd = Server::launch(&network, &Config::new().set("tls", "certificates", &both), scratch, &[]);
    let names = [
        (None, &one),
        (Some("one.dotd.test"), &one),
        (Some("two.dotd.test"), &two),
        (Some("TWO.dotd.test"), &two),
        (Some("other.example"), &one),
    ];
    for (server_name, expected) in names {
        let offer = Offer { server_name, ..Offer::default() };
        let session = Dot::attempt(&network.client, SERVER_V4, &offer).expect("served");
        assert_eq!(&session.certificates()[0], expected, "{server_name:?}");
    }
    dotd.stop();
}

/// Goal: HUP with a config that is broken keeps the old config and logs one line that names the mistake. Method: an
/// unknown key, a missing key file, a key of another certificate; each time the old leaf. Covers: A-57
#[test]
fn hup_with_a_broken_config_keeps_the_old() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let (cert, key, der) = certificate(&scratch, "kept.dotd.test");
    let (_, other_key, _) = certificate(&scratch, "other.dotd.test");
    let absent = scratch.path().join("absent.key");
    let truncated = scratch.write("truncated.key", "-----BEGIN PRIVATE KEY-----\nMIG");
    let config = Config::new().certificate(&cert, &key);
    let mut dotd = Server::launch(&network, &config, scratch, &[]);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    // The log has a thread of its own, so its last line about the start may come after the one on stdout.
    eventually("the start is logged", || dotd.stderr().contains("INFO ready").then_some(()));
    for (broken, part) in [
        (config.clone().set("session", "idle_timout", "\"1s\""), "idle_timeout"),
        (config.clone().certificate(&cert, &absent), "absent.key"),
        (config.clone().certificate(&cert, &truncated), "truncated.key"),
        (config.clone().certificate(&cert, &other_key), "other.dotd.test.key"),
    ] {
        let before = dotd.stderr().lines().count() + dotd.stdout().lines().count();
        dotd.rewrite_config(&broken);
        dotd.signal(Signal::SIGHUP);
        let said = || dotd.stderr() + &dotd.stdout();
        eventually(&format!("a line names {part}"), || said().contains(part).then_some(()));
        assert_eq!(said().lines().count(), before + 1, "one line for {part}: {}", said());
        assert_eq!(leaf(&network), der);
    }
    assert_eq!(session.exchange(&Query::new(1, "dotd.test", A).octets()).rdata(A), [[192, 0, 2, 53]]);
    dotd.stop();
}

/// Goal: `dotd reload` reports the outcome: exit status 1 with the reason while the old config stays in force, 0 with
/// the list of changes that need a restart. Method: `dotd reload`, as `systemctl reload` runs it, with a wrong key, a
/// missing certificate, and a config that is right. Covers: A-307
#[test]
fn a_reload_says_how_it_went() {
    require!(Root);
    let network = Network::new();
    let config = Config::new().xdp("off").set("server", "user", "\"nobody\"");
    let dotd = Server::start(&network, &config);
    let absent = dotd.folder().join("absent.pem");
    for (broken, part) in [
        (config.clone().set("session", "idle_timout", "\"1s\""), "idle_timeout"),
        (config.clone().certificate(&absent, &absent), "absent.pem: no such file"),
    ] {
        dotd.rewrite_config(&broken);
        let said = dotd.operate(&["reload"]);
        assert!(!said.is_success && said.has(part), "{}", said.text);
        assert_eq!(dotd.status()["state"], "serving");
    }
    let waits = config.clone().set("server", "workers", "3").set("session", "idle_timeout", "\"7s\"");
    dotd.rewrite_config(&waits);
    let said = dotd.operate(&["reload"]);
    assert!(
        said.is_success && said.has("reloaded\nserver.workers takes effect when dotd is restarted"),
        "{}",
        said.text
    );
    let reloads = &dotd.stats().0["control"];
    assert_eq!((&reloads["reloads_ok"], &reloads["reloads_failed"]), (&1.into(), &2.into()));
    dotd.stop();
}

/// Goal: many HUPs in a row lose nothing, and the engine still reaches its keeper afterwards, although a signal can
/// interrupt a request to it. Method: fifty signals while a session asks; then `dotd reload` twenty times while another
/// thread sends USR1 to the engine without a pause. Each reload succeeds, and XDP stays attached and watched. Covers:
/// A-71
#[test]
fn many_hups_lose_nothing() {
    require!(Root);
    let (network, _backend, mut dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for _ in 0..50 {
        dotd.signal(Signal::SIGHUP);
        ask(&mut session);
    }
    ask(&mut Dot::connect(&network.client, SERVER_V4));
    let (engine, is_over) =
        (Pid::from_raw(i32::try_from(dotd.pid()).expect("a pid fits")), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) && kill(engine, Signal::SIGUSR1).is_ok() {
                std::hint::spin_loop();
            }
        });
        // Each reload sends the keeper at least three requests.
        let said: Vec<_> = (0..20).map(|_| dotd.operate(&["reload"])).collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(said.iter().all(|said| said.is_success), "{:?}", said.last().map(|said| &said.text));
    });
    assert_eq!(dotd.status()["xdp"]["degraded"], serde_json::Value::Null);
    dotd.stop();
}

/// Goal: TERM stops accepting, answers what is in flight, sends close_notify, and exits 0. Method: the backend holds a
/// reply until dotd has had its signal; TERM twice. Covers: A-71, C-28
#[test]
fn term_answers_what_is_in_flight() {
    require!(Root);
    let script = |query: &Received| vec![Act::Hold(reply_to(&query.octets, A, &[HONEST.to_vec()]))];
    let (network, backend, mut dotd) = scripted(Config::new(), script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let mut idle = Dot::connect(&network.client, SERVER_V4);
    session.ask(&Query::new(5, "www.dotd.test", A).octets());
    eventually("the query waits at the backend", || (backend.held() == 1).then_some(()));
    dotd.signal(Signal::SIGTERM);
    // An idle session ends at once, which shows that draining has begun.
    assert_eq!(idle.end(), End::CloseNotify);
    dotd.signal(Signal::SIGTERM);
    backend.release();
    let answer = session.receive();
    assert_eq!((answer.id, answer.rdata(A)), (5, vec![&HONEST[..]]));
    assert_eq!(session.end(), End::CloseNotify);
    let (ended, _scratch) = dotd.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// Goal: a reload that changes only weights changes the shares, and nothing else: kept answers stay, and no backend
/// starts anew. Method: two backends of equal weight and a kept answer; a reload that gives one of them a thousand
/// times the other's; the same query, then a hundred others. Covers: A-278
#[test]
fn a_change_of_weights_keeps_what_backends_said() {
    require!(Root);
    let network = Network::new();
    let (light, heavy) = (Scripted::start(&network, honest), Scripted::start(&network, honest));
    let config = |weight: u16| {
        Config::new()
            .set("server", "workers", "1")
            .set("dns", "cache_entries", "1000")
            .set("balance", "policy", "\"round-robin\"")
            .backend_with(light.address, "weight = 1")
            .backend_with(heavy.address, &format!("weight = {weight}"))
    };
    let mut dotd = Server::start(&network, &config(1));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    ask(&mut session);
    dotd.rewrite_config(&config(1000));
    dotd.signal(Signal::SIGHUP);
    dotd.counts("it is reloaded", |stats| stats.counter("control", "reloads_ok") == 1);
    ask(&mut session);
    assert_eq!(dotd.stats().counter("cache", "hits"), 1, "the answer was kept");
    let before = heavy.received().len();
    for number in 0..100 {
        let query = Query::new(number, &format!("host-{number}.dotd.test"), A);
        assert_eq!(session.exchange(&query.octets()).rdata(A), [HONEST]);
    }
    let given = heavy.received().len() - before;
    assert!(given >= 98, "{given} of 100 to the backend with nearly all of the weight");
}

/// Goal: a reload that changes how the same backends are asked keeps their answers and the connections to them; one
/// that adds a backend keeps answers; one that removes a backend that may have given one, or that tells backends more
/// about clients, keeps none. Method: a kept answer is asked for after each of them, and a new name where the test
/// counts connections. Covers: A-278
#[test]
fn only_other_answers_empty_the_cache() {
    require!(Root);
    let network = Network::new();
    let (one, other) = (Scripted::start(&network, honest), Scripted::start(&network, honest));
    let base = || Config::new().set("server", "workers", "1").set("dns", "cache_entries", "1000");
    let keys = "transport = \"tcp\"";
    let limits = "transport = \"tcp\"\ntimeout = \"3s\"\noutstanding_max = 1000";
    let asked_otherwise = || {
        let config =
            base().set("balance", "policy", "\"round-robin\"").set("balance", "health_interval", "\"7s\"");
        config.backend_with(one.address, limits)
    };
    let mut dotd = Server::start(&network, &base().backend_with(one.address, keys));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    ask(&mut session);
    let reloads = [
        ("limits", asked_otherwise(), true),
        ("one more", asked_otherwise().backend_with(other.address, keys), true),
        ("one fewer", base().backend_with(other.address, keys), false),
        (
            "their word about clients",
            base().set("dns", "client_subnet", "\"add\"").backend_with(other.address, keys),
            false,
        ),
    ];
    for (number, (what, config, is_kept)) in (1..).zip(reloads) {
        let before = dotd.stats();
        dotd.rewrite_config(&config);
        dotd.signal(Signal::SIGHUP);
        dotd.counts("it is reloaded", |stats| stats.counter("control", "reloads_ok") == number);
        ask(&mut session);
        let hits = |stats: &Stats| stats.counter("cache", "hits");
        assert_eq!(hits(&dotd.stats()) - hits(&before), u64::from(is_kept), "{what}");
        if number == 1 {
            let query = Query::new(7, "other.dotd.test", A);
            assert_eq!(session.exchange(&query.octets()).rdata(A), [HONEST]);
            assert_eq!(dotd.stats().counter("backend", "connections"), 1, "{what}");
        }
    }
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: tickets end with the key of the certificate under which they were given, so that a thief of the old key cannot
/// go on with one; a renewal with the same key ends none. Method: OpenSSL's saved session after a reload with the same
/// key and another certificate, and after one with another key. Covers: A-279
#[test]
fn tickets_end_with_the_certificates_key() {
    require!(Root, Command("openssl"));
    let (network, scratch) = (Network::new(), Scratch::new());
    let saved = scratch.path().join("session.pem").display().to_string();
    let (first, other) = [(), ()].map(|()| rcgen::KeyPair::generate().expect("a key")).into();
    let made = |name: &str, key: &rcgen::KeyPair| {
        let params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
        let made = params.self_signed(key).expect("a certificate");
        let cert = scratch.write(&format!("{name}.crt"), made.pem());
        let key = scratch.write(&format!("{name}.key"), key.serialize_pem());
        (Config::new().certificate(&cert, &key), made.der().to_vec())
    };
    let [old, renewed, rekeyed] =
        [("old", &first), ("renewed", &first), ("rekeyed", &other)].map(|(name, key)| made(name, key));
    let mut dotd = Server::start(&network, &old.0);
    save_session(&network.client, SERVER_V4, &saved, &framed(&Query::new(1, "dotd.test", A).octets()));
    for ((config, certificate), is_resumed) in [(renewed, true), (rekeyed, false)] {
        dotd.rewrite_config(&config);
        dotd.signal(Signal::SIGHUP);
        eventually("the certificate is served", || (leaf(&network) == certificate).then_some(()));
        let said = s_client(&network.client, SERVER_V4, &["-tls1_3", "-sess_in", &saved]);
        assert_eq!(said.has("Reused, TLSv1.3"), is_resumed, "{}", said.text);
    }
}

//! Idle sessions free the memory of their keys, and go on when their clients ask again.
//!
//! Before: sessions of OpenSSL and of rustls in every suite, whose clients rest. After: `sessions rested` counts each once, and
//! every client is answered, told of the end, or moved to the next engine as if nothing had been.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use dot_tests::{
    harness::{
        config::Config,
        dot::{Dot, End},
        message::{framed, www},
        netns::{Network, SERVER_V4},
        offer::Offer,
        s_client::SClient,
        scene::embedded,
        server::Server,
    },
    require,
};

/// What OpenSSL calls the suites that dotd has for an ECDSA certificate, and their versions.
const SUITES: [(&str, &str, &str); 6] = [
    ("-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"),
    ("-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"),
    ("-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"),
    ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ("-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"),
];

fn config(idle_timeout: &str) -> Config {
    Config::new().xdp("off").set("session", "idle_timeout", idle_timeout)
}

fn tls12() -> Offer {
    Offer { is_tls12: true, ..Offer::default() }
}

/// Waits until sessions have rested that often in all.
fn await_rests(dotd: &Server, rests: usize) {
    dotd.counts(&format!("{rests} rests"), |stats| stats.counter("sessions", "rested") == rests as u64);
}

/// Asks for the address of `www` with this ID, of which no part of an answer has the octets, and waits for its answer.
fn ask(client: &mut SClient, id: u16) {
    client.write(&framed(&www(id)));
    client.await_said(&id.to_be_bytes(), 1);
}

fn openssl(network: &Network, server: IpAddr) -> Vec<SClient> {
    let start = |(version, key, suite): &(&str, &str, &str)| {
        SClient::start(&network.client, server, &["-quiet", "-no_ign_eof", version, key, suite])
    };
    SUITES.iter().map(start).collect()
}

/// Goal: a client that asks, rests and asks again is answered in every suite of TLS 1.3 and 1.2, any number of times; over an
/// upgrade while its keys are at rest too, after which they rest in the next engine; a session that asks all the time never
/// rests. Method: OpenSSL's client, and rustls's client for the busy session; the counter of rests, which grows by one for
/// each session between its queries. Covers, C-830, C-834
#[test]
fn openssl_rests_and_asks_again() {
    require!(Root, Command("openssl"));
    let (network, dotd) = embedded(&config("\"10m\""));
    let mut clients = openssl(&network, SERVER_V4);
    let mut busy = Dot::connect(&network.client, SERVER_V4);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !is_over.load(Relaxed) {
                assert_eq!(busy.exchange(&www(7)).rcode(), 0);
            }
        });
        let mut rests = 0;
        for round in 0..2_u16 {
            clients.iter_mut().for_each(|client| ask(client, 0xabc0 + round));
            rests += clients.len();
            await_rests(&dotd, rests);
        }
        let said = dotd.operate(&["upgrade"]);
        assert!(said.is_success, "{} {}", said.text, dotd.stderr());
        let all = clients.len() as u64 + 1;
        dotd.counts("all are there", |stats| stats.counter("connections", "adopted") == all);
        for round in 2..4_u16 {
            clients.iter_mut().for_each(|client| ask(client, 0xabc0 + round));
            rests += clients.len();
            await_rests(&dotd, rests);
        }
        is_over.store(true, Relaxed);
        asking.join().expect("it was always answered");
    });
    for client in clients {
        client.finish();
    }
    drop(busy);
    let stats = dotd.counts("each has one end", |stats| {
        stats.counter("connections_open", "open") == 0 && stats.difference() == [0; 3]
    });
    assert_eq!(stats.counter("session_ends", "tls"), 0);
    dotd.stop();
}

/// Goal: what comes while the keys are at rest has its effect: a KeyUpdate, after which both sides use the new keys; the
/// client's close_notify; a forged record, which ends the session with an alert. Method: rustls's client, which ends at the
/// first record that is not the next one; TLS 1.3, and 1.2 where it has the message. Covers: C-832, C-833
#[test]
fn what_comes_while_keys_rest_has_its_effect() {
    require!(Root);
    let (network, dotd) = embedded(&config("\"10m\""));
    let connect = |offer: Offer| Dot::attempt(&network.client, SERVER_V4, &offer).expect("a session");
    let mut updating = connect(Offer::default());
    let mut closing = [connect(Offer::default()), connect(tls12())];
    let mut forging = [connect(Offer::default()), connect(tls12())];
    await_rests(&dotd, 5);
    updating.update_keys();
    // It was woken by the record alone, and rests again before its client asks.
    await_rests(&dotd, 6);
    for id in 0..3 {
        assert_eq!(updating.exchange(&www(id)).rcode(), 0, "under the new keys");
    }
    for session in &mut closing {
        session.half_close();
        assert_eq!(session.end(), End::CloseNotify);
    }
    for session in &mut forging {
        let mut record = session.seal(&framed(&www(1)));
        *record.last_mut().expect("a record") ^= 1;
        session.send_below_tls(&record);
        assert_eq!(session.end(), End::Broken("received fatal alert: BadRecordMac".to_owned()));
    }
    let stats = dotd.counts("they have ended", |stats| stats.counter("connections_open", "open") == 1);
    assert_eq!((stats.counter("session_ends", "tls"), stats.counter("session_ends", "client")), (2, 2));
    dotd.stop();
}

/// Goal: dotd ends a session whose keys are at rest with close_notify, as any other. Method: an idle timeout that is longer
/// than the time after which keys rest; TLS 1.3 and 1.2. Covers: C-833
#[test]
fn a_session_at_rest_ends_with_close_notify() {
    require!(Root);
    let (network, dotd) = embedded(&config("\"8s\""));
    for mut session in [Offer::default(), tls12()].map(|offer| {
        let mut session = Dot::attempt(&network.client, SERVER_V4, &offer).expect("a session");
        assert_eq!(session.exchange(&www(1)).rcode(), 0);
        session
    }) {
        assert_eq!(session.end(), End::CloseNotify);
    }
    let stats = dotd.stats();
    assert_eq!((stats.counter("session_ends", "idle"), stats.counter("sessions", "rested")), (2, 2));
    dotd.stop();
}

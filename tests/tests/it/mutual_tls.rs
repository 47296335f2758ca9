//! Mutual TLS: only clients with a certificate of `tls.client_ca` are served (RFC 8310 §6.6).
//!
//! Before: an authority that the test made. After: kdig with its certificate is answered, others are not.

use std::path::PathBuf;

use dot_tests::{
    harness::{
        clients::{is_answered_over_tls, kdig, s_client},
        config::Config,
        message::{A, Query, framed},
        netns::{Network, SERVER_V4},
        s_client::save_session,
        scene::{honest, scripted_with},
        scratch::Scratch,
        server::Server,
    },
    require,
};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// A client's certificate and key, as kdig's options.
fn client_of(authority: &Authority, scratch: &Scratch, name: &str) -> String {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, authority).expect("a certificate");
    let cert: PathBuf = scratch.write(&format!("{name}.crt"), certificate.pem());
    let key: PathBuf = scratch.write(&format!("{name}.key"), key.serialize_pem());
    format!("+tls +tls-certfile={} +tls-keyfile={} dotd.test A", cert.display(), key.display())
}

/// Goal: a client with a certificate of the named authority is served; one without a certificate, or with another
/// authority's, is not, and each refusal has its own counter. Method: kdig three times; a query that passed would be
/// counted as received.
#[test]
fn only_clients_of_the_authority_are_served() {
    require!(Root, Command("kdig"));
    let (network, scratch) = (Network::new(), Scratch::new());
    let (ours, theirs) = (authority(), authority());
    let ca = scratch.write("ca.pem", ours.pem());
    let (known, unknown) = (client_of(&ours, &scratch, "known"), client_of(&theirs, &scratch, "unknown"));
    let config = Config::new().set("tls", "client_ca", &format!("\"{}\"", ca.display()));
    let dotd = Server::launch(&network, &config, scratch, &[]);
    let served = kdig(&network.client, SERVER_V4, &known);
    assert!(is_answered_over_tls(&served), "{}", served.text);
    for refused in ["+tls dotd.test A", &unknown] {
        let said = kdig(&network.client, SERVER_V4, refused);
        assert!(!said.has("NOERROR"), "{}", said.text);
    }
    let stats =
        dotd.counts("two refused", |stats| stats.counter("handshakes", "failed_client_certificate") >= 2);
    assert_eq!(stats.counter("queries", "received"), 1, "{stats:?}");
    dotd.stop();
}

/// Goal: a backend with `proxy_v2` learns the name that the client asked dotd for, and the common name in its certificate. Method: kdig
/// with both, before a backend that keeps headers. Covers: C-722
#[test]
fn a_backend_learns_the_names_of_a_handshake() {
    require!(Root, Command("kdig"));
    let scratch = Scratch::new();
    let ours = authority();
    let ca = scratch.write("ca.pem", ours.pem());
    let words = client_of(&ours, &scratch, "known");
    let config = Config::new().set("tls", "client_ca", &format!("\"{}\"", ca.display()));
    let (network, backend, _dotd) = scripted_with(config, "proxy_v2 = true", honest);
    let said = kdig(&network.client, SERVER_V4, &format!("{words} +tls-sni=dns.example"));
    assert!(is_answered_over_tls(&said), "{}", said.text);
    let header = backend.received()[0].proxy.clone().expect("a header");
    let has = |field: &[u8]| header.tlvs.windows(field.len()).any(|octets| octets == field);
    assert!(has(b"\x02\x00\x0bdns.example"), "{:?}", header.tlvs.escape_ascii().to_string());
    assert!(has(b"\x22\x00\x05known"), "{:?}", header.tlvs.escape_ascii().to_string());
    assert_eq!(
        header.tlvs.windows(3).filter(|octets| octets == b"\x20\x00\x17").count(),
        1,
        "within the field of TLS"
    );
}

/// Goal: an unusable authority file is named at start. Method: a file without a certificate.
#[test]
fn a_broken_authority_is_named() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let ca = scratch.write("ca.pem", "nothing\n");
    let config = Config::new().set("tls", "client_ca", &format!("\"{}\"", ca.display()));
    let ended = Server::attempt(&network, &config, scratch, &[]).expect_err("refused");
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("tls.client_ca: ") && ended.stderr.contains("ca.pem: is not PEM"),
        "{ended:?}"
    );
}

/// Goal: a ticket does not replace the certificate, which a resumed handshake would not check. Method: a session that
/// was saved while no certificate was needed is offered after a reload that asks for certificates.
#[test]
fn a_ticket_from_before_opens_no_door() {
    require!(Root, Command("openssl"));
    let (network, scratch) = (Network::new(), Scratch::new());
    let ca = scratch.write("ca.pem", authority().pem());
    let saved = scratch.path().join("session.pem").display().to_string();
    let open = Config::new();
    let mut dotd = Server::launch(&network, &open, scratch, &[]);
    let query = framed(&Query::new(1, "dotd.test", A).octets());
    save_session(&network.client, SERVER_V4, &saved, &query);
    let resumed = s_client(&network.client, SERVER_V4, &["-tls1_3", "-sess_in", &saved]);
    assert!(resumed.has("Reused, TLSv1.3"), "{}", resumed.text);
    dotd.rewrite_config(&open.set("tls", "client_ca", &format!("\"{}\"", ca.display())));
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == 1);
    let said = s_client(&network.client, SERVER_V4, &["-tls1_3", "-sess_in", &saved]);
    assert!(!said.has("Reused, TLSv1.3"), "{}", said.text);
    dotd.counts("refused for want of a certificate", |stats| {
        stats.counter("handshakes", "failed_client_certificate") >= 1
    });
    dotd.stop();
}

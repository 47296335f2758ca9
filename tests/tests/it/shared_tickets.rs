//! Several nodes with one `tls.ticket_secret`: a ticket from one node resumes on another.
//!
//! Before: nodes that do not communicate with each other. After: OpenSSL's client resumes exactly where the secrets are
//! equal.

use nix::sys::signal::Signal;

use dot_tests::{
    harness::{
        clients::s_client,
        config::Config,
        eventually,
        message::{A, Query, framed},
        netns::{Network, SERVER_V4},
        s_client::save_session,
        scratch::Scratch,
        server::Server,
    },
    require,
};

/// A node whose secret is `secret`.
fn node(network: &Network, secret: &str) -> Server {
    let scratch = Scratch::new();
    let file = scratch.write("ticket-secret", secret);
    let config = Config::new().set("tls", "ticket_secret", &format!("\"{}\"", file.display()));
    Server::launch(network, &config, scratch, &[])
}

/// Goal: a node opens another node's ticket if they share the secret, and only then. Method: nodes one after the other,
/// each with its own state and certificate; a session saved at the first. Covers: C-70, A-51
#[test]
fn a_ticket_resumes_on_a_node_with_the_same_secret() {
    require!(Root, Command("openssl"));
    let (network, keep) = (Network::new(), Scratch::new());
    let saved = keep.path().join("session.pem").display().to_string();
    let query = framed(&Query::new(1, "dotd.test", A).octets());
    let ours = "0123456789abcdef0123456789abcdef0123456789abcdef";
    let first = node(&network, ours);
    save_session(&network.client, SERVER_V4, &saved, &query);
    first.stop();
    for (secret, resumes) in [("another-secret-another-secret-another-secret", false), (ours, true)] {
        let next = node(&network, secret);
        let said = s_client(&network.client, SERVER_V4, &["-tls1_3", "-sess_in", &saved]);
        assert_eq!(said.has("Reused, TLSv1.3"), resumes, "{}", said.text);
        next.counts("the handshake is counted as what it was", |stats| {
            let kind = if resumes { "resumed_tls13" } else { "full_tls13" };
            stats.counter("handshakes", kind) == 1
        });
        next.stop();
    }
}

/// Goal: a secret that could be guessed is refused, with the file named. Method: a secret that is one octet too short.
#[test]
fn a_short_secret_is_refused() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let file = scratch.write("ticket-secret", "0123456789abcdef0123456789abcde");
    let config = Config::new().set("tls", "ticket_secret", &format!("\"{}\"", file.display()));
    let ended = Server::attempt(&network, &config, scratch, &[]).expect_err("refused");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("holds 31 octets, fewer than 32"), "{ended:?}");
}

/// Whether the session in `saved` resumes now.
fn resumes(network: &Network, saved: &str) -> bool {
    s_client(&network.client, SERVER_V4, &["-tls1_3", "-sess_in", saved]).has("Reused, TLSv1.3")
}

/// Goal: ticket keys rotate by command, on every worker at once: tickets of the previous key still resume, or none of
/// them if the operator says so; one node cannot change keys that it shares, and the verb says what to do instead.
/// Method: OpenSSL's client with a saved session, before and after each command. Covers: C-241
#[test]
fn ticket_keys_rotate_by_command() {
    require!(Root, Command("openssl"));
    let (network, keep) = (Network::new(), Scratch::new());
    let saved = keep.path().join("session.pem").display().to_string();
    let query = framed(&Query::new(1, "dotd.test", A).octets());
    let dotd = Server::start(&network, &Config::new());
    save_session(&network.client, SERVER_V4, &saved, &query);
    let said = dotd.operate(&["tickets", "rotate"]);
    assert!(said.is_success && said.has("older tickets are valid until this rotation ends"), "{}", said.text);
    assert!(resumes(&network, &saved));
    let said = dotd.operate(&["tickets", "rotate", "--end-old"]);
    assert!(said.is_success && said.has("older tickets are rejected"), "{}", said.text);
    (0..4).for_each(|_| assert!(!resumes(&network, &saved)));
    save_session(&network.client, SERVER_V4, &saved, &query);
    assert!(resumes(&network, &saved));
    dotd.stop();
    let sharing = node(&network, "0123456789abcdef0123456789abcdef0123456789abcdef");
    let said = sharing.operate(&["tickets", "rotate"]);
    assert!(!said.is_success && said.has("write a new one on every node"), "{}", said.text);
}

/// Goal: tickets end with the key of the certificate: a reload with another key ends earlier tickets; one with the same
/// keys keeps them. Method: HUP with the same certificate, and with another. Covers: C-241
#[test]
fn tickets_end_with_the_key_of_their_certificate() {
    require!(Root, Command("openssl"));
    let (network, keep, scratch) = (Network::new(), Scratch::new(), Scratch::new());
    let saved = keep.path().join("session.pem").display().to_string();
    let query = framed(&Query::new(1, "dotd.test", A).octets());
    let write = |folder: &Scratch| {
        let made = rcgen::generate_simple_self_signed(["ns.dotd.test".to_owned()]).expect("a certificate");
        let cert = folder.write("cert.pem", made.cert.pem());
        (cert, folder.write("key.pem", made.signing_key.serialize_pem()))
    };
    let (cert, key) = write(&scratch);
    let config = Config::new().certificate(&cert, &key);
    let mut dotd = Server::launch(&network, &config, scratch, &[]);
    save_session(&network.client, SERVER_V4, &saved, &query);
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == 1);
    assert!(resumes(&network, &saved));
    let (cert, key) = write(&keep);
    dotd.rewrite_config(&Config::new().certificate(&cert, &key));
    dotd.signal(Signal::SIGHUP);
    eventually("another certificate", || {
        dotd.stderr().contains("older session tickets are rejected").then_some(())
    });
    assert!(!resumes(&network, &saved));
}

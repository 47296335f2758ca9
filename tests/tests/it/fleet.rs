//! A fleet of nodes with one `tls.ticket_secret`: a ticket from one node resumes on another.
//!
//! Before: nodes that never speak to each other. After: OpenSSL's client resumes, or not, as the secrets say.

use dot_tests::{
    harness::{
        clients::s_client,
        config::Config,
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

/// Goal: what one node sealed another opens when they share the secret, and only then. Method: nodes one after
/// the other, each with its own state and certificate; a session saved at the first. Covers: C-70, A-51
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

/// Goal: a secret that could be guessed is refused by name. Method: one octet too few.
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

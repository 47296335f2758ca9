//! The two setups of most tests: dotd with its embedded zone, and dotd in front of a scripted backend.
//!
//! Before: a [`Config`]. After: everything runs; the part that was started last is dropped first.
//! Never: hides a choice that matters to a test: a test's choices are in its config and its script.

use super::{
    config::Config,
    dot::Dot,
    message::{A, Opt, append_opt, reply_to, www},
    netns::Network,
    response::Message,
    scripted::{Act, Received, Scripted},
    server::Server,
};

/// The address that [`honest`] gives for every name.
pub const HONEST: [u8; 4] = [192, 0, 2, 77];

/// Starts dotd with its embedded zone.
#[must_use]
pub fn embedded(config: &Config) -> (Network, Server) {
    let network = Network::new();
    let dotd = Server::start(&network, config);
    (network, dotd)
}

/// Starts dotd in front of a backend that follows `script`, over UDP (TCP after TC=1) with a timeout of two seconds.
#[must_use]
pub fn scripted(
    config: Config,
    script: impl Fn(&Received) -> Vec<Act> + Send + Sync + 'static,
) -> (Network, Scripted, Server) {
    scripted_with(config, "", script)
}

/// The same with more keys for the backend, in TOML lines.
#[must_use]
pub fn scripted_with(
    config: Config,
    keys: &str,
    script: impl Fn(&Received) -> Vec<Act> + Send + Sync + 'static,
) -> (Network, Scripted, Server) {
    let network = Network::new();
    let backend = Scripted::start(&network, script);
    let dotd = Server::start(&network, &config.backend_with(backend.address, keys));
    (network, backend, dotd)
}

/// A script: one A record for every query, at once, and OPT to OPT as real servers do.
#[must_use]
pub fn honest(query: &Received) -> Vec<Act> {
    let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
    if Message::parse(&query.octets).is_some_and(|query| query.opt_count() > 0) {
        append_opt(&mut reply, &Opt::default());
    }
    vec![Act::Send(reply)]
}

/// Asserts that another client is served while a test runs, where the backend is [`honest`].
///
/// # Panics
/// When it is not served.
pub fn assert_served(innocent: &mut Dot) {
    assert_eq!(innocent.exchange(&www(1)).rdata(A), [HONEST]);
}

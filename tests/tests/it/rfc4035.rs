//! RFC 4035, DNSSEC: a validator that asks through dotd comes to the same verdict as one that asks the server.
//!
//! Before: NSD with a signed zone. After: Unbound, a client of dotd over TLS, has validated the answers, or refused
//! them.

use std::net::SocketAddr;

use dot_tests::{
    harness::{
        backends::Backend,
        clients::{Said, tool},
        config::Config,
        eventually,
        netns::{Network, SERVER_V4},
        process::{Process, bound_to_namespace},
        scratch::Scratch,
        server::Server,
        servers::{Kind, signed},
    },
    require,
};

/// Unbound in the client's namespace: it forwards over TLS to dotd alone, trusts the zone's key, and validates.
fn validator(network: &Network, scratch: &Scratch) -> Process {
    let folder = scratch.folder("validator").display().to_string();
    let text = format!(
        "server:\n interface: 127.0.0.1@5353\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n \
         directory: \"{folder}\"\n pidfile: \"\"\n use-syslog: no\n verbosity: 0\n num-threads: 1\n \
         module-config: \"validator iterator\"\n local-zone: \"test.\" nodefault\n do-ip6: no\n \
         trust-anchor: \"{}\"\nforward-zone:\n name: \".\"\n forward-addr: {SERVER_V4}@853\n \
         forward-tls-upstream: yes\nremote-control:\n control-enable: no\n",
        signed().anchor
    );
    let mut command = bound_to_namespace("unbound");
    command.arg("-d").arg("-c").arg(scratch.write("validator.conf", text));
    Process::start("unbound", &network.client, scratch, command)
}

fn ask(network: &Network, question: &str) -> Said {
    let mut words = vec!["@127.0.0.1", "-p", "5353", "+dnssec", "+timeout=8", "+retry=1"];
    words.extend(question.split_whitespace());
    tool(&network.client, "kdig", &words)
}

/// Starts dotd in front of `address` and a validator that forwards to dotd; asks until the validator is ready.
fn scene(network: &Network, address: SocketAddr) -> (Server, Scratch, Process) {
    let dotd = Server::start(network, &Config::new().xdp("off").backend(address));
    let scratch = Scratch::new();
    let unbound = validator(network, &scratch);
    eventually("the validator answers", || ask(network, "www.dotd.test A").has("status: ").then_some(()));
    (dotd, scratch, unbound)
}

/// Goal: signatures, keys and proofs of non-existence pass unchanged. Method: Unbound validates over TLS through dotd
/// and sets AD on a positive, a big, an empty and an absent answer. Covers: C-44, C-53
#[test]
fn a_validator_trusts_what_comes_through() {
    require!(Root, Command("kdig"), Command("nsd"), Command("unbound"), Command("dnssec-signzone"));
    let network = Network::new();
    let nsd = Kind::Nsd.start(&network, 5300);
    let (dotd, _scratch, _unbound) = scene(&network, nsd.address);
    for (question, status) in [
        ("www.dotd.test A", "NOERROR"),
        ("big.dotd.test TXT", "NOERROR"),
        ("txt.dotd.test AAAA", "NOERROR"),
        ("absent.dotd.test A", "NXDOMAIN"),
    ] {
        let said = ask(&network, question);
        assert!(said.has(&format!("status: {status}")), "{question}: {}", said.text);
        let flags = said.text.lines().find(|line| line.starts_with(";; Flags:")).unwrap_or_default();
        assert!(flags.contains(" ad;"), "{question}: {}", said.text);
    }
    assert!(dotd.stats().counter("queries", "forwarded") >= 5, "the validator asked us");
}

/// Goal: the verdict above comes from the validator. Method: the same with a server whose zone is not signed. Covers:
/// C-44
#[test]
fn a_validator_refuses_what_is_not_signed() {
    require!(Root, Command("kdig"), Command("nsd"), Command("unbound"), Command("dnssec-signzone"));
    let network = Network::new();
    let nsd = Backend::nsd(&network, 5300);
    let (_dotd, _scratch, _unbound) = scene(&network, nsd.address);
    let said = ask(&network, "www.dotd.test A");
    assert!(said.has("status: SERVFAIL"), "{}", said.text);
}

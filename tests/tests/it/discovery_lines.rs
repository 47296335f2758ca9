//! `dotd discovery`: the programs that its lines are for read them, and those that are clients get answers by them.
//!
//! Before: a certificate for a name and addresses, and the printed text, cut at its headings. After: each program accepts its part;
//! Stubby and Unbound have asked dotd over TLS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dot_tests::{
    harness::{
        clients::{tool, udp},
        config::Config,
        eventually,
        message::{A, Opt, Query},
        netns::{Network, SERVER_V4, SERVER_V6},
        process::{Process, bound_to_namespace, bounded},
        response::Message,
        scratch::Scratch,
        server::{Server, binary},
    },
    require,
};

const NAME: &str = "dns.dotd.test";
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A dotd whose self-signed certificate names it and its addresses, and the text for both addresses.
fn discovered() -> (Network, Server, String) {
    let network = Network::new();
    let scratch = Scratch::new();
    let names = [NAME.to_owned(), SERVER_V4.to_string(), SERVER_V6.to_string()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let (cert, key) = (
        scratch.write("cert.pem", made.cert.pem()),
        scratch.write("key.pem", made.signing_key.serialize_pem()),
    );
    let dotd = Server::launch(&network, &Config::new().xdp("off").certificate(&cert, &key), scratch, &[]);
    let [v4, v6] = [SERVER_V4, SERVER_V6].map(|address| address.to_string());
    let mut command = bounded(&binary().display().to_string());
    command
        .args(["discovery", "--address", &v4, "--address", &v6, "-c"])
        .arg(dotd.folder().join("dotd.toml"));
    let output = command.output().expect("dotd can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (network, dotd, text)
}

/// The lines below the heading that begins like this, up to the next heading.
fn part<'t>(text: &'t str, heading: &str) -> &'t str {
    let start = text.find(&format!("\n# {heading}")).unwrap_or_else(|| panic!("no {heading}: {text}"));
    let lines = text[start + 1..].split_once('\n').expect("lines below it").1;
    lines.split_once("\n# ").map_or(lines, |(part, _)| part)
}

/// Goal: the programs named in the output accept their part of it. Method: each program's own check of its config, with the part in
/// place. Covers: C-514, C-801
#[test]
fn programs_accept_their_lines() {
    require!(
        Root,
        Command("dnsmasq"),
        Command("kea-dhcp4"),
        Command("kea-dhcp6"),
        Command("radvd"),
        Command("unbound-checkconf"),
        Command("plistutil"),
    );
    let (network, dotd, text) = discovered();
    let part = |heading: &str| part(&text, heading);
    let kea = |version: &str, option: &str| {
        format!(
            "{{\"Dhcp{version}\": {{\"interfaces-config\": {{\"interfaces\": []}}, \
             \"lease-database\": {{\"type\": \"memfile\", \"persist\": false}}, \"option-data\": [{option}]}}}}"
        )
    };
    let profile = text.find("<?xml").map(|start| &text[start..]).expect("a profile");
    for (program, words, config) in [
        ("dnsmasq", &["--test", "-C"][..], part("dnsmasq, DHCPv4").to_owned() + part("dnsmasq, DHCPv6")),
        ("kea-dhcp4", &["-t"], kea("4", part("Kea, DHCPv4"))),
        ("kea-dhcp6", &["-t"], kea("6", part("Kea, DHCPv6"))),
        ("radvd", &["-c", "-C"], format!("interface lo {{ AdvSendAdvert on; {} }};\n", part("radvd"))),
        ("unbound-checkconf", &[], part("Unbound").to_owned()),
        ("plistutil", &["-i"], profile.to_owned()),
    ] {
        let file = dotd.write(program, config).display().to_string();
        let said = tool(&network.client, program, &[words, &[&file]].concat());
        assert!(said.is_success, "{program}: {}", said.text);
    }
    // A profile that was not understood would be written as an empty one.
    let file = dotd.folder().join("plistutil").display().to_string();
    let said = tool(&network.client, "plistutil", &["-i", &file, "-f", "xml"]);
    assert!(said.has("com.apple.dnsSettings.managed") && said.has(&SERVER_V6.to_string()), "{}", said.text);
}

/// Goal: Stubby with its lines, and with the pin as its only proof of dotd, and Unbound with its lines and the certificate among those
/// that it trusts, ask dotd over TLS for their clients. Method: both beside the client, a name through each. Covers: C-801
#[test]
fn clients_are_served_by_their_lines() {
    require!(Root, Command("stubby"), Command("unbound"));
    let (network, dotd, text) = discovered();
    let certificate = dotd.folder().join("cert.pem").display().to_string();
    let stubby = part(&text, "Stubby")
        .replace("  - 127.0.0.1\n  - 0::1\n", "  - 127.0.0.1@8053\n")
        .replace(&format!("    tls_auth_name: \"{NAME}\"\n"), "");
    assert!(stubby.contains("@8053") && !stubby.contains(NAME), "{stubby}");
    let unbound = part(&text, "Unbound").replace("/etc/ssl/certs/ca-certificates.crt", &certificate);
    let unbound = format!(
        "server:\n interface: 127.0.0.1@8054\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n pidfile: \"\"\n \
         use-syslog: no\n module-config: \"iterator\"\n do-not-query-localhost: no\n local-zone: \"test.\" nodefault\n\
         remote-control:\n control-enable: no\n{unbound}"
    );
    let own = |name: &str, config: String| dotd.write(name, config).display().to_string();
    let (stubby, unbound) = (own("stubby.yml", stubby), own("unbound.conf", unbound));
    let scratch = Scratch::new();
    let start = |program: &str, words: &[&str]| {
        let mut command = bound_to_namespace(program);
        let log = std::fs::File::create(scratch.path().join(program)).expect("our own folder");
        command.args(words).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        Process::start(program, &network.client, &scratch, command)
    };
    let _running = [start("stubby", &["-C", &stubby]), start("unbound", &["-d", "-c", &unbound])];
    for (port, program) in [(8053, "stubby"), (8054, "unbound")] {
        let socket = udp(&network.client, SocketAddr::new(IpAddr::V4(LOOPBACK), port));
        let query = Query::new(port, "dotd.test", A).opt(Opt::default()).octets();
        let heard = || {
            // Its port refuses the datagram until the program listens.
            socket.send(&query).ok()?;
            let mut octets = [0; 4096];
            let length = socket.recv(&mut octets).ok()?;
            Message::parse(&octets[..length]).filter(|answer| answer.rcode() == 0)
        };
        let answer = eventually(&format!("{program} gets an answer"), heard);
        assert_eq!(answer.rdata(A).len(), 1, "{program}: {answer:?}");
    }
    let stats = dotd.counts("both came over TLS", |stats| stats.counter("handshakes", "full_tls13") >= 2);
    assert_eq!(stats.counter("do53", "received_udp"), 0);
}

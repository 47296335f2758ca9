//! Tests of `import`: each shape of config that operators have in front of port 853, and what no text may do.
//!
//! Before: texts. After: `config::parse` accepts every draft, and each old line is a value or a remark. Never: reads a file.

mod shapes;

use proptest::prelude::*;

use super::*;
use crate::config::{self, BackendAddress, Config, Policy, TlsVersion, Transport};

/// The draft of one file called `old`, and the config that it means.
fn imported(program: Program, text: &str) -> (String, Config) {
    let mut draft = Draft::default();
    read(program, "old", text, &mut draft);
    assert!(!draft.is_empty(), "nothing found in\n{text}");
    let toml = draft.to_toml();
    let config = config::parse(&toml, "draft").unwrap_or_else(|errors| panic!("{errors}\n{toml}"));
    (toml, config)
}

fn addresses(config: &Config) -> Vec<String> {
    let address = |backend: &config::Backend| match &backend.address {
        BackendAddress::Socket(address) => address.to_string(),
        BackendAddress::Embedded => "embedded".to_owned(),
        BackendAddress::Named(host) => host.to_string(),
    };
    config.backend.iter().map(address).collect()
}

/// Goal: the config of an appliance comes over whole. Method: a server service with every option that has a counterpart,
/// global defaults, and lines that have none.
#[test]
fn stunnel_server() {
    let (toml, config) = imported(
        Program::Stunnel,
        "; of an appliance\nsetuid = stunnel4\nsetgid = stunnel4\npid = /run/stunnel.pid\ndebug = 4\n\
         cert = /etc/tls/dot.pem\nsslVersionMin = TLSv1.3\noptions = NO_SSLv2\n\n\
         [dns]\naccept = 853\nconnect = 127.0.0.1:53\nTIMEOUTidle = 43200\nTIMEOUTbusy = 10\nciphers = HIGH\n\
         CAfile = /etc/tls/clients.pem\nverify = 2\nsessionCacheSize = 1000\n\n\
         [dns6]\naccept = :::853\nconnect = ::1:domain\n\n[imaps]\naccept = 993\nconnect = 143\n",
    );
    assert_eq!(config.server.user, "stunnel4");
    assert_eq!(config.listen.dot, ["0.0.0.0:853".parse().unwrap(), "[::]:853".parse().unwrap()]);
    assert_eq!(config.tls.certificates.len(), 1);
    assert_eq!(config.tls.certificates[0].key, std::path::Path::new("/etc/tls/dot.pem"));
    assert_eq!(config.tls.client_ca, std::path::Path::new("/etc/tls/clients.pem"));
    assert_eq!(config.tls.min_version, TlsVersion::V1_3);
    assert_eq!(config.session.idle_timeout.as_secs(), 3600);
    assert_eq!(config.session.handshake_timeout.as_secs(), 10);
    assert_eq!(addresses(&config), ["127.0.0.1:53", "[::1]:53"]);
    for word in
        ["`setgid`", "`pid`", "`debug`", "NO_SSLv2", "`ciphers`", "`sessioncachesize`", "imaps", "was 12h"]
    {
        assert!(toml.contains(word), "no word of {word} in\n{toml}");
    }
}

/// Goal: a service that encrypts queries becomes a TLS backend only if it verifies the server. Method: one that does, one
/// that does not.
#[test]
fn stunnel_client() {
    let (toml, config) = imported(
        Program::Stunnel,
        "[quad]\nclient = yes\naccept = 127.0.0.1:5353\nconnect = 192.0.2.9:853\ncheckHost = dot.example.net\n\
         verifyChain = yes\nCAfile = /etc/ssl/certs/ca.pem\n\
         [blind]\nclient = yes\naccept = 127.0.0.1:5354\nconnect = 192.0.2.10:853\n",
    );
    assert_eq!(addresses(&config), ["192.0.2.9:853"]);
    assert_eq!(config.backend[0].transport, Transport::Tls);
    assert_eq!(config.backend[0].server_name, "dot.example.net");
    assert_eq!(config.listen.do53.len(), 2);
    assert!(config.listen.dot.is_empty(), "{toml}");
    assert!(toml.contains("without `checkHost`"), "{toml}");
}

/// Goal: several `connect` lines and a remote server in clear. Method: their keys. `allow_cleartext` is what stunnel did.
#[test]
fn stunnel_balances() {
    let (_, config) = imported(
        Program::Stunnel,
        "[a]\naccept = 192.0.2.1:853\nconnect = 192.0.2.2:53\nconnect = 127.0.0.1:53\nfailover = prio\nprotocol = proxy\n",
    );
    assert_eq!(addresses(&config), ["192.0.2.2:53", "127.0.0.1:53"]);
    assert!(config.backend[0].allow_cleartext && !config.backend[1].allow_cleartext);
    assert!(config.backend.iter().all(|backend| backend.proxy_v2 && backend.transport == Transport::Tcp));
    assert_eq!(config.balance.policy, Policy::First);
}

/// Goal: a front end of HAProxy and the back end that it names; others stay. Method: a config with both kinds.
#[test]
fn haproxy_frontend() {
    let (toml, config) = imported(
        Program::Haproxy,
        "global\n    user haproxy\n    group haproxy\n    maxconn 20000\n    ssl-default-bind-ciphers X\n\
         defaults\n    mode tcp\n    timeout client 30s\n    timeout server 5000\n\
         frontend web\n    bind :443 ssl crt /etc/web.pem\n    default_backend web\n\
         frontend dot # DNS\n    bind :853,:::853 ssl crt /etc/dot.pem crt /etc/rsa.pem ssl-min-ver TLSv1.3 alpn dot\n\
         \x20   tcp-request content reject if { src -f /bad }\n    default_backend dns\n\
         backend web\n    server w 127.0.0.1:80\n\
         backend dns\n    balance leastconn\n    server a 127.0.0.1:53 check weight 3 send-proxy-v2\n\
         \x20   server b resolver.example:53\n    server c 192.0.2.3:853 ssl verify required ca-file /ca.pem sni str(dns.example)\n",
    );
    assert_eq!(config.server.user, "haproxy");
    assert_eq!(config.session.connections_max, 20_000);
    assert_eq!(config.session.idle_timeout.as_secs(), 30);
    assert_eq!(config.listen.dot, ["0.0.0.0:853".parse().unwrap(), "[::]:853".parse().unwrap()]);
    assert_eq!(config.tls.certificates.len(), 2);
    assert_eq!(config.tls.min_version, TlsVersion::V1_3);
    assert_eq!(addresses(&config), ["127.0.0.1:53", "192.0.2.3:853"]);
    assert_eq!((config.backend[0].weight, config.backend[0].proxy_v2), (3, true));
    assert_eq!(config.backend[1].server_name, "dns.example");
    for word in ["bind :443", "tcp-request", "resolver.example:53", "`group`", "ssl-default-bind-ciphers"] {
        assert!(toml.contains(word), "no word of {word} in\n{toml}");
    }
}

/// Goal: a `listen` section holds its servers itself. Method: one, with client certificates and a spare server.
#[test]
fn haproxy_listen() {
    let (_, config) = imported(
        Program::Haproxy,
        "listen dot\n    bind 192.0.2.1:853 ssl crt /d.pem ca-file /c.pem verify required accept-proxy\n    balance roundrobin\n\
         \x20   server a 127.0.0.1:53\n    server b 127.0.0.2:53 backup\n",
    );
    assert_eq!(config.tls.client_ca, std::path::Path::new("/c.pem"));
    assert_eq!(addresses(&config), ["127.0.0.1:53", "127.0.0.2:53"]);
    assert_eq!(config.balance.policy, Policy::RoundRobin, "the first word counts, the second is a remark");
}

/// Goal: nginx's blocks, quotes and remarks; upstreams by name and servers by address. Method: a whole file.
#[test]
fn nginx_stream() {
    let (toml, config) = imported(
        Program::Nginx,
        "user www-data;\nhttp { server { listen 443 ssl; } }\nstream {\n  upstream dns { least_conn; zone dns 64k;\n\
         server 127.0.0.1:53 weight=2; server 127.0.0.2:53; }\n  server {\n    listen 853 ssl; listen [::]:853 ssl;\n\
         ssl_certificate \"/etc/my certs/dot.pem\"; # chain\n    ssl_certificate_key '/etc/dot.key';\n\
         ssl_protocols TLSv1.3;\n    ssl_ciphers HIGH;\n    proxy_pass dns;\n    proxy_timeout 20s;\n  }\n\
         server { listen 8443 ssl; proxy_pass 127.0.0.1:1; }\n}\n",
    );
    assert_eq!(config.listen.dot.len(), 2);
    assert_eq!(config.tls.certificates[0].cert, std::path::Path::new("/etc/my certs/dot.pem"));
    assert_eq!(config.tls.min_version, TlsVersion::V1_3);
    assert_eq!(config.session.idle_timeout.as_secs(), 20);
    assert_eq!(addresses(&config), ["127.0.0.1:53", "127.0.0.2:53"]);
    assert_eq!((config.backend[0].weight, config.balance.policy), (2, Policy::LeastOutstanding));
    assert!(toml.contains("ssl_ciphers") && toml.contains("keep nginx for it"), "{toml}");
}

/// Goal: a file without `stream` around its servers, as an include is; both versions allowed leaves the default.
#[test]
fn nginx_include() {
    let (_, config) = imported(
        Program::Nginx,
        "server { listen 192.0.2.1:853 ssl; ssl_certificate /a; ssl_certificate_key /b; ssl_protocols TLSv1.2 TLSv1.3;\n\
         ssl_client_certificate /ca; ssl_verify_client on; proxy_pass 192.0.2.5:53; proxy_protocol on; }",
    );
    assert_eq!(config.tls.min_version, TlsVersion::V1_2);
    assert_eq!(config.tls.client_ca, std::path::Path::new("/ca"));
    assert!(config.backend[0].proxy_v2 && config.backend[0].allow_cleartext);
}

fn lists(config: &Config) -> [String; 2] {
    let of = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    [of(&config.access.allow), of(&config.access.deny)]
}

/// Goal: the clients that an old config takes are the clients that may ask; a rule without a counterpart is said, and opens nothing.
/// Method: rules of nginx and HAProxy in the shapes that operators write, for one service and for two. Covers: C-811
#[test]
fn the_clients_come_over() {
    let nginx = |rules: &str| {
        imported(
            Program::Nginx,
            &format!("server {{ listen 192.0.2.1:853 ssl; {rules} proxy_pass 127.0.0.1:53; }}"),
        )
    };
    let (_, config) = nginx("allow 192.0.2.0/24; allow 2001:db8::1; deny all;");
    assert_eq!(lists(&config), ["192.0.2.0/24 2001:db8::1/128", ""]);
    let (toml, config) = nginx("deny 192.0.2.7; allow unix:;");
    assert_eq!(lists(&config), ["", "192.0.2.7/32"]);
    assert!(toml.contains("`allow unix:`: list prefixes in access.allow"), "{toml}");
    let (toml, config) = nginx("allow 192.0.2.7; deny 192.0.2.0/24;");
    assert_eq!(lists(&config), ["", "192.0.2.0/24"]);
    assert!(toml.contains("access.deny has priority here"), "{toml}");
    let (_, config) = imported(
        Program::Nginx,
        "stream { allow 10.0.0.0/8; deny all;\nserver { listen 192.0.2.1:853 ssl; proxy_pass 127.0.0.1:53; }\n\
         server { listen 192.0.2.2:853 ssl; allow 192.0.2.0/24; deny all; proxy_pass 127.0.0.1:53; } }",
    );
    let of = |index: usize| {
        (
            config.access.listener[index].address.to_string(),
            config.access.listener[index].allow[0].to_string(),
        )
    };
    assert_eq!(lists(&config), ["", ""]);
    assert_eq!(of(0), ("192.0.2.1:853".into(), "10.0.0.0/8".into()));
    assert_eq!(of(1), ("192.0.2.2:853".into(), "192.0.2.0/24".into()));
    let haproxy = |rules: &str| {
        imported(
            Program::Haproxy,
            &format!("listen dot\n  bind 192.0.2.1:853 ssl crt /d.pem\n{rules}  server a 127.0.0.1:53\n"),
        )
    };
    for (rules, wanted) in [
        (
            "  acl lan src 10.0.0.0/8\n  acl lan src 192.0.2.1\n  tcp-request connection reject if !lan\n",
            ["10.0.0.0/8 192.0.2.1/32", ""],
        ),
        ("  tcp-request connection reject unless { src 10.0.0.0/8 }\n", ["10.0.0.0/8", ""]),
        ("  tcp-request connection reject if { src 10.0.0.1 10.0.0.2 }\n", ["", "10.0.0.1/32 10.0.0.2/32"]),
        (
            "  tcp-request connection reject if !{ src 10.0.0.0/8 }\n  tcp-request content reject if { src 10.1.0.0/16 }\n",
            ["10.0.0.0/8", "10.1.0.0/16"],
        ),
        (
            "  tcp-request connection accept if { src 10.0.0.0/8 }\n  tcp-request connection reject\n",
            ["10.0.0.0/8", ""],
        ),
    ] {
        let (toml, config) = haproxy(rules);
        assert_eq!(lists(&config), wanted, "{toml}");
        assert!(!toml.contains("tcp-request"), "{toml}");
    }
    let (toml, config) = haproxy(
        "  acl many src_conn_rate gt 10\n  tcp-request connection reject if many\n  tcp-request connection reject if !{ src -f /lan }\n\
         \x20 tcp-request connection track-sc0 src\n  tcp-request connection reject if { src 10.0.0.1 }\n",
    );
    assert_eq!(lists(&config), ["", "10.0.0.1/32"]);
    assert_eq!(toml.matches("not taken over; access.allow").count(), 3, "{toml}");
}

/// Goal: what dotd has once and the old config had for one service alone is said: client certificates, and a spare server under another way
/// of choosing. Method: two services of stunnel, one with `verify`; a `backup` behind `balance leastconn`. Covers: C-811
#[test]
fn what_would_hold_for_all_is_said() {
    let (toml, _) = imported(
        Program::Stunnel,
        "[open]\naccept = 853\ncert = /a\nconnect = 53\n[closed]\naccept = 192.0.2.1:8853\ncert = /a\nCAfile = /ca\nverify = 2\nconnect = 53\n",
    );
    assert!(
        toml.contains("#   old:2: asks for no certificate, and tls.client_ca of old:8 is for every listener"),
        "{toml}"
    );
    let (toml, config) = imported(
        Program::Haproxy,
        "listen dot\n  bind :853 ssl crt /d.pem\n  balance leastconn\n  server a 127.0.0.1:53\n  server b 127.0.0.2:53 backup\n",
    );
    assert_eq!(config.balance.policy, Policy::LeastOutstanding);
    assert!(
        toml.contains("#   old:5: `backup`: with balance.policy = \"least-outstanding\" of old:3"),
        "{toml}"
    );
}

/// Goal: values are quoted for TOML, whatever they hold. Method: a path with quotes, a backslash and a line's end in TOML.
#[test]
fn values_are_quoted() {
    let (_, config) = imported(Program::Stunnel, "[a]\naccept = 853\ncert = /a\"b\\c]\nconnect = 53\n");
    assert_eq!(config.tls.certificates[0].cert, std::path::Path::new("/a\"b\\c]"));
}

proptest! {
    /// Goal: no text makes a reader panic, or a draft that is no TOML. Method: lines of words that readers know.
    #[test]
    fn any_text_is_read(words in prop::collection::vec(
        prop::sample::select(vec!["[a]", "accept", "=", "853", "connect", "53", "\n", "{", "}", ";", "stream", "server", "listen",
            "ssl", "frontend", "bind", ":853", "crt", "f", "backend", "default_backend", "proxy_pass", "\"", "#", "timeout",
            "TIMEOUTidle", "9999999999", "weight=0", "weight", "-1", "'", "\u{feff}", "verify", "maxconn"]), 0..60)) {
        let text = words.join(" ").replace(" \n ", "\n");
        for program in [Program::Stunnel, Program::Haproxy, Program::Nginx] {
            let mut draft = Draft::default();
            read(program, "old", &text, &mut draft);
            let toml = draft.to_toml();
            prop_assert!(toml::from_str::<toml::Table>(&toml).is_ok(), "{toml}");
        }
    }
}

//! The shapes of configs that operators publish for DNS over TLS: what each becomes.
//!
//! Before: configs with the keys and the structure of published ones, and values of our own. After: each is a config that `dotd check`
//! accepts, with its listeners, certificates and backends, and says what it leaves out. docs/guide/from-stunnel.md has the table.

use super::*;

/// A config, and what it becomes.
struct Shape {
    name: &'static str,
    program: Program,
    text: &'static str,
    dot: &'static [&'static str],
    do53: &'static [&'static str],
    /// Certificates, without their keys.
    certificates: &'static [&'static str],
    backends: &'static [&'static str],
    /// Words of its remarks.
    says: &'static [&'static str],
}

const V4: &str = "0.0.0.0:853";
const V6: &str = "[::]:853";

const SHAPES: &[Shape] = &[
    Shape {
        name: "stunnel: a chroot, a user, certbot's files",
        program: Program::Stunnel,
        text: "sslVersion = TLSv1.2\nchroot = /var/run/stunnel4\nsetuid = stunnel4\nsetgid = stunnel4\npid = /stunnel.pid\n\
               [dns]\ncert = /etc/letsencrypt/live/d/fullchain.pem\nkey = /etc/letsencrypt/live/d/privkey.pem\naccept = 853\n\
               connect = 127.0.0.1:53\n#TIMEOUTidle = 1\n",
        dot: &[V4],
        do53: &[],
        certificates: &["/etc/letsencrypt/live/d/fullchain.pem"],
        backends: &["127.0.0.1:53"],
        says: &["`chroot`", "`setgid`", "`pid`"],
    },
    Shape {
        name: "stunnel: a certificate for all services, a list of options",
        program: Program::Stunnel,
        text: "pid = /run/s.pid\n#---\ncert = /etc/stunnel/s.pem\nkey = /etc/stunnel/k.pem\noptions = NO_SSLv2\noptions = NO_TLSv1\n\
               options = SINGLE_DH_USE\nciphers = HIGH:!aNULL\n[dot]\naccept = 853\nconnect = 127.0.0.1:53\n\
               [dot6]\naccept = :::8853\nconnect = 127.0.0.1:53\n",
        dot: &[V4, "[::]:8853", "0.0.0.0:8853"],
        do53: &[],
        certificates: &["/etc/stunnel/s.pem"],
        backends: &["127.0.0.1:53"],
        says: &["`options = NO_SSLv2`", "`ciphers`: rustls"],
    },
    Shape {
        name: "stunnel: a server on another machine",
        program: Program::Stunnel,
        text: "[dnstls]\ncert = /etc/d.pem\nkey = /etc/d.key\n\naccept = 853\nconnect = 10.10.10.10:53\n",
        dot: &[V4],
        do53: &[],
        certificates: &["/etc/d.pem"],
        backends: &["10.10.10.10:53"],
        says: &[],
    },
    Shape {
        name: "stunnel: a server and a client service, whose queries would go in a circle",
        program: Program::Stunnel,
        text: "[out]\nclient = yes\naccept = 54\nconnect = 192.0.2.1:853\nverifyChain = yes\nCApath = /etc/ssl/certs\ncheckHost = d.example\n\
               [dns]\naccept = 853\nconnect = 127.0.0.1:53\ncert = /etc/d.pem\nkey = /etc/d.key\n",
        dot: &[V4],
        do53: &[],
        certificates: &["/etc/d.pem"],
        backends: &["127.0.0.1:53"],
        says: &["in a circle"],
    },
    Shape {
        name: "stunnel: a client service alone, with a folder of authorities",
        program: Program::Stunnel,
        text: "[out]\nclient = yes\naccept = 127.0.0.1:54\nconnect = 192.0.2.1:853\nverifyChain = yes\nCApath = /etc/ssl/certs\n\
               checkHost = d.example\n",
        dot: &[],
        do53: &["127.0.0.1:54"],
        certificates: &[],
        backends: &["192.0.2.1:853"],
        says: &["the system's authorities", "by UDP too"],
    },
    Shape {
        name: "stunnel: relative paths, an authority that nobody checks",
        program: Program::Stunnel,
        text: "[dns]\naccept = 853\nconnect = localhost:53\ncert = certs/d.crt\nkey = certs/d.key\nCAfile = ca.crt\n",
        dot: &[V4],
        do53: &[],
        certificates: &["/old/certs/d.crt"],
        backends: &["127.0.0.1:53"],
        says: &["without `verify = 2`"],
    },
    Shape {
        name: "stunnel: options of sockets, a server by name",
        program: Program::Stunnel,
        text: "fips = no\ndebug = info\noutput = /var/log/s.log\nsocket = l:TCP_NODELAY=1\nsslVersion = all\noptions = -NO_SSLv3\n\
               [dot]\naccept = 0.0.0.0:853\nconnect = localhost:53\ncert = /d.pem\nTIMEOUTclose = 0\n\
               [dot6]\naccept = ::1:853\nconnect = dns.internal:53\ncert = /d.pem\n",
        dot: &[V4, "[::1]:853"],
        do53: &[],
        certificates: &["/d.pem"],
        backends: &["127.0.0.1:53"],
        says: &["`fips`", "`output`", "`socket`", "`timeoutclose`", "dns.internal:53"],
    },
    Shape {
        name: "HAProxy: one listen section, times of HTTP, a server on port 56",
        program: Program::Haproxy,
        text: "global\nlog 127.0.0.1 local2\nuser haproxy\ndaemon\npidfile /run/h.pid\ntune.ssl.default-dh-param 2048\n\
               \x20  ca-base /etc/ssl/certs\n   crt-base /etc/ssl/private\ndefaults\n    mode tcp\n    balance roundrobin\n\
               \x20   timeout http-request 10s\n    timeout client 1m\nlisten dns\n    log global\n    option tcplog\n\
               \x20   bind 0.0.0.0:853 ssl crt /etc/h/d.pem\n    server one 127.0.0.1:56\n",
        dot: &[V4],
        do53: &[],
        certificates: &["/etc/h/d.pem"],
        backends: &["127.0.0.1:56"],
        says: &["`daemon`", "`pidfile`", "`tune.ssl.default-dh-param`", "`timeout http-request`", "`option`"],
    },
    Shape {
        name: "HAProxy: resolvers between the sections, checks of servers",
        program: Program::Haproxy,
        text: "resolvers trusted\n    nameserver one 10.0.0.2:53\n    hold valid 10s\nfrontend dot\n    bind *:853 ssl crt /d.pem\n\
               \x20   mode tcp\n    default_backend dns\n\nbackend dns\n    mode tcp\n    option tcp-check\n\
               \x20   server a 10.0.0.2:53\n    server b 10.0.0.3:53 check inter 2s fall 3 rise 2\n",
        dot: &[V4],
        do53: &[],
        certificates: &["/d.pem"],
        backends: &["10.0.0.2:53", "10.0.0.3:53"],
        says: &["`option`"],
    },
    Shape {
        name: "HAProxy: clear and encrypted front ends of one back end",
        program: Program::Haproxy,
        text: "frontend clear\n    bind *:53\n    default_backend dns\n\nbackend dns\n    server one 10.0.0.10:5353 send-proxy-v2 check\n\
               frontend dot\n    bind *:853 ssl crt /d.pem\n    mode tcp\n    default_backend dns          # after TLS\n",
        dot: &[V4],
        do53: &[],
        certificates: &["/d.pem"],
        backends: &["10.0.0.10:5353"],
        says: &["`bind *:53`"],
    },
    Shape {
        name: "HAProxy: families and QUIC, a folder for relative names, defaults of servers, rules",
        program: Program::Haproxy,
        text: "global\n    crt-base /etc/h/ssl\nfrontend dot\n    bind ipv4@:853,ipv6@:853 v6only ssl crt d.pem alpn dot\n\
               \x20   bind [::]:8853 v4v6 ssl crt d.pem\n    bind quic4@:853 ssl crt d.pem alpn doq\n    use_backend r if { ssl_fc }\n\
               backend r\n    balance source\n    default-server check send-proxy-v2\n    server one ipv4@127.0.0.1:53\n\
               \x20   server two localhost:5353 backup\n    server-template s 5 _dns._tcp.example resolvers r\n",
        dot: &[V4, V6, "[::]:8853", "0.0.0.0:8853"],
        do53: &[],
        certificates: &["/etc/h/ssl/d.pem"],
        backends: &["127.0.0.1:53", "127.0.0.1:5353"],
        says: &["`bind quic4@:853`", "`use_backend r`", "`balance source`", "`server-template`"],
    },
    Shape {
        name: "HAProxy: a folder of certificates",
        program: Program::Haproxy,
        text: "frontend web\n    bind :443 ssl crt /etc/h/certs/ alpn h2\n    default_backend web\nfrontend dot\n\
               \x20   bind :853 ssl crt /etc/h/certs/\n    tcp-request inspect-delay 5s\n    default_backend dns\nbackend web\n\
               \x20   server w 127.0.0.1:8080\nbackend dns\n    server k 127.0.0.1:53\n",
        dot: &[V4],
        do53: &[],
        certificates: &[],
        backends: &["127.0.0.1:53"],
        says: &["is a folder", "`tcp-request inspect-delay`", "`bind :443`"],
    },
    Shape {
        name: "nginx: a whole file, two kinds of keys",
        program: Program::Nginx,
        text: "error_log /var/log/e warn;\nuser nginx;\nevents {\n  worker_connections 1024;\n}\nload_module \"/usr/lib/s.so\";\n\
               stream {\n  upstream u {\n    server [::1]:53;\n  }\n  server {\n    listen 853 ssl;\n    proxy_pass u;\n\n\
               ssl_certificate /e.crt;\nssl_certificate_key /e.key;\n\nssl_certificate /r.crt;\nssl_certificate_key /r.key;\n\
               ssl_handshake_timeout 30s;\nssl_session_cache shared:D:50m;\nssl_ciphers 'A:B';\n}\n}\n",
        dot: &[V4],
        do53: &[],
        certificates: &["/e.crt", "/r.crt"],
        backends: &["[::1]:53"],
        says: &["`ssl_session_cache`", "`ssl_ciphers`"],
    },
    Shape {
        name: "nginx: a file that a stream includes, certbot's remarks",
        program: Program::Nginx,
        text: "upstream dns-servers {\n    server 127.0.0.1:53;\n    server [::1]:53;\n}\nserver {\n    listen [::]:853 ssl;\n\
               \x20   listen 853 ssl; # managed by Certbot\n    ssl_certificate /f.pem; # managed by Certbot\n    ssl_certificate_key /k.pem;\n\
               ssl_dhparam /dh.pem;\nproxy_pass dns-servers;\n}\n",
        dot: &[V6, V4],
        do53: &[],
        certificates: &["/f.pem"],
        backends: &["127.0.0.1:53", "[::1]:53"],
        says: &["`ssl_dhparam`"],
    },
    Shape {
        name: "nginx: clear and encrypted in one server, a TLS server that is not verified",
        program: Program::Nginx,
        text: "stream {\n  upstream dot {\n    zone dot 64k;\n    server 192.0.2.8:853;\n  }\n  server {\n    listen 53;\n    listen 853 ssl;\n\
               ssl_certificate /d.pem;\nssl_certificate_key /d.key;\nproxy_ssl on;\nproxy_pass dot;\n}\n}\n",
        dot: &[V4],
        do53: &["0.0.0.0:53"],
        certificates: &["/d.pem"],
        backends: &[],
        says: &["without `proxy_ssl_name`", "without `ssl`", "NO BACKEND"],
    },
    Shape {
        name: "nginx: old versions of TLS, times",
        program: Program::Nginx,
        text: "stream {\n server {\n listen *:853 ssl;\n proxy_pass 127.0.0.1:53;\n proxy_connect_timeout 1s;\n preread_timeout 2s;\n\
               ssl_certificate /d.pem;\n ssl_certificate_key /d.key;\n ssl_session_timeout 1d;\n ssl_protocols TLSv1 TLSv1.1 TLSv1.2;\n}\n}\n",
        dot: &[V4],
        do53: &[],
        certificates: &["/d.pem"],
        backends: &["127.0.0.1:53"],
        says: &["`proxy_connect_timeout`", "`preread_timeout`"],
    },
    Shape {
        name: "nginx: datagrams beside it, PROXY headers",
        program: Program::Nginx,
        text: "server {\n listen 53 udp;\n proxy_pass 127.0.0.1:8053;\n proxy_responses 1;\n}\nserver {\n listen 853 ssl;\n\
               ssl_certificate /d.pem;\n ssl_certificate_key /d.key;\n proxy_pass 10.0.0.10:5353;\n proxy_protocol on;\n proxy_timeout 60s;\n}\n",
        dot: &[V4],
        do53: &[],
        certificates: &["/d.pem"],
        backends: &["10.0.0.10:5353"],
        says: &["keep nginx for it"],
    },
    Shape {
        name: "nginx: certificates of the stream, client certificates, a variable",
        program: Program::Nginx,
        text: "stream {\n map $ssl_client_s_dn $where {\n default 127.0.0.1:8853;\n }\n ssl_certificate /d.pem;\n ssl_certificate_key /d.key;\n\
               server {\n listen 853 ssl;\n listen [::]:853 ssl;\n ssl_verify_client on;\n ssl_client_certificate /ca.crt;\n\
               ssl_verify_depth 1;\n proxy_pass $where;\n}\n}\n",
        dot: &[V4, V6],
        do53: &[],
        certificates: &["/d.pem"],
        backends: &[],
        says: &["`$where`", "NO BACKEND", "client_ca = \"/ca.crt\""],
    },
    Shape {
        name: "nginx: relative paths, a socket of the file system, options of sockets",
        program: Program::Nginx,
        text: "stream {\n upstream u {\n server 127.0.0.1:53 fail_timeout=2s;\n server localhost:5353 backup;\n server unix:/run/d.sock;\n }\n\
               server {\n listen 853 ssl so_keepalive=on reuseport;\n listen [::]:853 ssl ipv6only=on;\n proxy_pass u;\n access_log off;\n\
               ssl_certificate d.crt;\n ssl_certificate_key d.key;\n}\n}\n",
        dot: &[V4, V6],
        do53: &[],
        certificates: &["/old/d.crt"],
        backends: &["127.0.0.1:53", "127.0.0.1:5353"],
        says: &["unix:/run/d.sock", "`access_log`"],
    },
];

/// Goal: each published shape becomes a config that means the same as far as dotd can, is accepted, and says what it leaves out; no line
/// is said twice. Method: the shapes; the draft is parsed as `dotd check` does. Covers: C-763
#[test]
fn published_shapes_come_over() {
    for shape in SHAPES {
        let mut draft = Draft::default();
        draft.folder = "/old".into();
        read(shape.program, "old", shape.text, &mut draft);
        let toml = draft.to_toml();
        let config =
            config::parse(&toml, "draft").unwrap_or_else(|errors| panic!("{}: {errors}\n{toml}", shape.name));
        let sockets =
            |list: &[std::net::SocketAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(sockets(&config.listen.dot), shape.dot, "{}\n{toml}", shape.name);
        assert_eq!(sockets(&config.listen.do53), shape.do53, "{}\n{toml}", shape.name);
        let certificates: Vec<_> =
            config.tls.certificates.iter().map(|one| one.cert.display().to_string()).collect();
        assert_eq!(certificates, shape.certificates, "{}\n{toml}", shape.name);
        assert_eq!(addresses(&config), shape.backends, "{}\n{toml}", shape.name);
        for word in shape.says {
            assert!(toml.contains(word), "{}: no word of {word} in\n{toml}", shape.name);
        }
        let mut remarks: Vec<_> = toml.lines().filter(|line| line.starts_with("#   ")).collect();
        let all = remarks.len();
        remarks.sort_unstable();
        remarks.dedup();
        assert_eq!(remarks.len(), all, "{}\n{toml}", shape.name);
    }
}

/// Goal: a server's own words count before those of `default-server`, which count for the servers after it. Method: weights.
#[test]
fn defaults_of_servers_come_after_their_own_words() {
    let (_, config) = imported(
        Program::Haproxy,
        "listen dot\n    bind :853 ssl crt /d.pem\n    server a 127.0.0.1:53\n    default-server weight 5 send-proxy-v2\n\
         \x20   server b 127.0.0.2:53\n    server c 127.0.0.3:53 weight 7\n",
    );
    let rows: Vec<_> = config.backend.iter().map(|one| (one.weight, one.proxy_v2)).collect();
    assert_eq!(rows, [(1, false), (5, true), (7, true)]);
}

/// Goal: paths of authorities become absolute like those of certificates, and HAProxy's name for the system's authorities is not taken for
/// a file. Method: relative paths in the three programs' configs, with `ca-base` and without. Covers: C-763
#[test]
fn authorities_have_absolute_paths() {
    let stunnel = "[dns]\naccept = 853\nconnect = localhost:53\ncert = d.pem\nverify = 2\nCAfile = ca.crt\n";
    let client = "[out]\nclient = yes\naccept = 53\nconnect = 192.0.2.3:853\ncheckHost = dns.example\nCAfile = ca.crt\n";
    let haproxy = |base: &str, file: &str| {
        format!(
            "global\n    {base}\nlisten dot\n    bind :853 ssl crt /d.pem verify required ca-file {file}\n\
             \x20   server a 192.0.2.3:853 ssl verify required ca-file {file} verifyhost dns.example\n"
        )
    };
    let nginx = "stream {\n server {\n listen 853 ssl;\n ssl_certificate d.crt;\n ssl_certificate_key d.key;\n ssl_verify_client on;\n\
                 ssl_client_certificate ca.crt;\n proxy_pass 192.0.2.3:853;\n proxy_ssl on;\n proxy_ssl_name dns.example;\n\
                 proxy_ssl_trusted_certificate ca.crt;\n}\n}\n";
    let (old, base) = ("/old/ca.crt", "/ca/ca.crt");
    for (program, text, clients, backends) in [
        (Program::Stunnel, stunnel.to_owned(), old, ""),
        (Program::Stunnel, client.to_owned(), "", old),
        (Program::Haproxy, haproxy("daemon", "ca.crt"), old, old),
        (Program::Haproxy, haproxy("ca-base /ca", "ca.crt"), base, base),
        (Program::Haproxy, haproxy("ca-base /ca", "/old/ca.crt"), old, old),
        (Program::Haproxy, haproxy("ca-base /ca", "@system-ca"), "", ""),
        (Program::Nginx, nginx.to_owned(), old, old),
    ] {
        let mut draft = Draft::default();
        draft.folder = "/old".into();
        read(program, "old", &text, &mut draft);
        let toml = draft.to_toml();
        let config = config::parse(&toml, "draft").unwrap_or_else(|errors| panic!("{errors}\n{toml}"));
        let paths = [&config.tls.client_ca, &config.backend[0].ca].map(|path| path.display().to_string());
        assert_eq!(paths, [clients, backends], "{text}\n{toml}");
    }
}

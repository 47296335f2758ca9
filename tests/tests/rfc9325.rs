//! RFC 9325, recommendations for TLS: what is offered by old clients and must not be taken.
//!
//! Before: dotd, and every suite that OpenSSL knows. After: six suites of TLS 1.2 work, and nothing else does.

use std::{io::Write, net::SocketAddr, process::Stdio, thread, time::Duration};

use dot_tests::{
    harness::{
        clients::{DOT_PORT, s_client, tool},
        config::Config,
        netns::SERVER_V4,
        process::bounded,
        scene::embedded,
        scratch::Scratch,
    },
    require,
};

/// A certificate with an RSA key, so that suites with RSA signatures have their chance.
fn rsa(scratch: &Scratch) -> Config {
    let (cert, key) = (scratch.path().join("rsa.pem"), scratch.path().join("rsa.key"));
    let (cert_text, key_text) = (cert.display().to_string(), key.display().to_string());
    let words = "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=ns.dotd.test -addext subjectAltName=DNS:ns.dotd.test";
    let mut all: Vec<&str> = words.split_whitespace().collect();
    all.extend(["-out", &cert_text, "-keyout", &key_text]);
    let mut command = bounded("openssl");
    let made = command.args(all).output().expect("openssl starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Config::new().xdp("off").certificate(&cert, &key)
}

/// Goal: of all suites of TLS 1.2 that OpenSSL can offer only forward-secret ones with AEAD are taken (RFC 9325
/// §4.1): no NULL, export, RC4, CBC, static RSA, DHE, PSK. Method: each suite alone, before a certificate with an
/// ECDSA key and one with an RSA key. Covers: C-59
#[test]
fn only_forward_secret_aead_suites_are_taken() {
    require!(Root, Command("openssl"));
    let scratch = Scratch::new();
    for (config, kind) in [(Config::new().xdp("off"), "ECDSA"), (rsa(&scratch), "RSA")] {
        let (network, _dotd) = embedded(&config);
        let all =
            tool(&network.client, "openssl", &["ciphers", "-tls1_2", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]);
        let suites: Vec<&str> =
            all.text.trim().split(':').filter(|suite| !suite.starts_with("TLS_")).collect();
        assert!(suites.len() > 40, "{}", all.text);
        let mut taken = Vec::new();
        for suite in suites {
            let words = ["-tls1_2", "-cipher", &format!("{suite}:@SECLEVEL=0")];
            let said = s_client(&network.client, SERVER_V4, &words);
            if said.has("New, TLSv1.2") {
                assert!(said.has(&format!("Cipher is {suite}")), "{suite}: {}", said.text);
                taken.push(suite.to_owned());
            }
        }
        taken.sort();
        let expected = ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"];
        assert_eq!(taken, expected.map(|suite| format!("ECDHE-{kind}-{suite}")));
    }
}

/// Goal: renegotiation in TLS 1.2 is refused (RFC 9325 §3.5), twice in a row too, and secure renegotiation is
/// signalled (RFC 5746). Method: s_client's command `R`. Covers: C-60, A-49
#[test]
fn renegotiation_is_refused() {
    require!(Root, Command("openssl"));
    let (network, _dotd) = embedded(&Config::new().xdp("off").set("session", "idle_timeout", "\"2s\""));
    for _ in 0..2 {
        let address = SocketAddr::new(SERVER_V4, DOT_PORT).to_string();
        let mut command = bounded("openssl");
        command.args(["s_client", "-connect", &*address, "-tls1_2"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = network.client.spawn(command);
        let mut stdin = child.stdin.take().expect("piped");
        // s_client takes commands once it has shown the session.
        thread::sleep(Duration::from_millis(500));
        let _ = stdin.write_all(b"R\n");
        thread::sleep(Duration::from_millis(300));
        let _ = stdin.write_all(b"R\n");
        let output = child.wait_with_output().expect("our own child");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(said.contains("Secure Renegotiation IS supported"), "{said}");
        let is_refused = said.contains("no renegotiation") || said.contains("alert unexpected message");
        assert!(said.contains("RENEGOTIATING") && is_refused, "{said}");
    }
}

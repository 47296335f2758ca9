//! RFC 9325, recommendations for TLS: offers of old clients that must not be accepted.
//!
//! Before: dotd, and every suite that OpenSSL knows. After: six suites of TLS 1.2 work, and nothing else does.

use dot_tests::{
    harness::{
        clients::{s_client, tool},
        config::Config,
        netns::SERVER_V4,
        process::bounded,
        s_client::SClient,
        scene::embedded,
        scratch::Scratch,
    },
    require,
};

/// A certificate with an RSA key, so that suites with RSA signatures could be chosen.
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

/// Goal: of all suites of TLS 1.2 that OpenSSL can offer only forward-secret ones with AEAD are accepted (RFC 9325
/// §4.1): no NULL, export, RC4, CBC, static RSA, DHE, PSK. Method: each suite alone, with a certificate with an ECDSA
/// key and one with an RSA key. Covers: C-59
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

/// Goal: renegotiation in TLS 1.2 is refused (RFC 9325 §3.5) for each client, and secure renegotiation is signalled
/// (RFC 5746). Method: s_client's command `R`, after which it ends by itself; twice. Covers: C-60, A-49
#[test]
fn renegotiation_is_refused() {
    require!(Root, Command("openssl"));
    let (network, _dotd) = embedded(&Config::new().xdp("off"));
    for _ in 0..2 {
        let mut client = SClient::start(&network.client, SERVER_V4, &["-tls1_2"]);
        client.write(b"R\n");
        client.await_said(b"RENEGOTIATING", 1);
        client.await_end();
        let said = client.finish_text();
        assert!(said.contains("Secure Renegotiation IS supported"), "{said}");
        let is_refused = said.contains("no renegotiation") || said.contains("alert unexpected message");
        assert!(said.contains("RENEGOTIATING") && is_refused, "{said}");
    }
}

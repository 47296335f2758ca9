//! Certificates in an operator's practice: an OCSP response beside one, keys of several types, groups.
//!
//! Before: an authority that the test made. After: the certificate that a client gets, and dotd's reports about its
//! files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use dot_tests::{
    harness::{
        clients::{s_client, tool},
        config::Config,
        dot::Dot,
        eventually,
        netns::{Network, SERVER_V4},
        offer::Offer,
        pairs::Pair,
        scratch::Scratch,
        server::Server,
    },
    require,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ED25519, PKCS_RSA_SHA256, SerialNumber,
};
use rustls::NamedGroup;

/// Serial number of [`Issued`]'s certificate, for openssl's list.
const SERIAL: &str = "1092";

/// A certificate of an authority, and the files that `openssl ocsp` needs to respond for that authority.
struct Issued {
    ca: PathBuf,
    ca_key: PathBuf,
    leaf: PathBuf,
    chain: PathBuf,
    key: PathBuf,
}

fn issued(scratch: &Scratch) -> Issued {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "an authority");
    let authority_key = KeyPair::generate().expect("a key");
    let ca_key = scratch.write("ca.key", authority_key.serialize_pem());
    let authority = CertifiedIssuer::self_signed(params, authority_key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["dns.dotd.test".to_owned()]).expect("a name");
    params.serial_number = Some(SerialNumber::from(0x1092_u64));
    let leaf = params.signed_by(&key, &authority).expect("signed");
    Issued {
        ca: scratch.write("ca.crt", authority.pem()),
        ca_key,
        chain: scratch.write("chain.crt", leaf.pem() + &authority.pem()),
        leaf: scratch.write("leaf.crt", leaf.pem()),
        key: scratch.write("leaf.key", key.serialize_pem()),
    }
}

impl Issued {
    /// Makes OpenSSL respond, as the authority, that the certificate is good ("V") or revoked ("R").
    fn respond(&self, network: &Network, scratch: &Path, status: &str, days: &str) {
        let revoked = if status == "R" { "250101000000Z" } else { "" };
        let index =
            format!("{status}\t490101000000Z\t{revoked}\t{SERIAL}\tunknown\t/CN=rcgen self signed cert\n");
        std::fs::write(scratch.join("index.txt"), index).expect("our own folder");
        let path = |path: &Path| path.display().to_string();
        let (index, out) = (path(&scratch.join("index.txt")), path(&scratch.join("leaf.ocsp")));
        let (ca, ca_key, leaf) = (path(&self.ca), path(&self.ca_key), path(&self.leaf));
        let words =
            ["ocsp", "-index", &*index, "-CA", &*ca, "-rsigner", &*ca, "-rkey", &*ca_key, "-issuer", &*ca];
        let words = [&words[..], &["-cert", &*leaf, "-respout", &*out, "-ndays", days]].concat();
        let said = tool(&network.client, "openssl", &words);
        assert!(Path::new(&out).exists(), "{}", said.text);
    }

    fn config(&self, scratch: &Path) -> Config {
        let (chain, key, ocsp) = (self.chain.display(), self.key.display(), scratch.join("leaf.ocsp"));
        let ocsp = ocsp.display();
        let entry = format!(r#"[{{ cert = "{chain}", key = "{key}", ocsp = "{ocsp}" }}]"#);
        Config::new().set("tls", "certificates", &entry)
    }
}

/// Goal: the OCSP response that an authority made is stapled in both TLS versions, to clients that ask (RFC 6066 §8),
/// and passes their check. Method: `openssl ocsp` makes it, `s_client -status` verifies it against the authority.
/// Covers: C-68
#[test]
fn an_ocsp_response_is_stapled() {
    require!(Root, Command("openssl"));
    let (network, scratch) = (Network::new(), Scratch::new());
    let (issued, folder) = (issued(&scratch), scratch.path().to_owned());
    issued.respond(&network, &folder, "V", "7");
    let dotd = Server::launch(&network, &issued.config(&folder), scratch, &[]);
    let ca = issued.ca.display().to_string();
    for version in ["-tls1_3", "-tls1_2"] {
        let words = [version, "-status", "-CAfile", &*ca, "-verify_return_error"];
        let said = s_client(&network.client, SERVER_V4, &words);
        assert!(said.has("OCSP Response Status: successful (0x0)"), "{version}: {}", said.text);
        assert!(said.has("Cert Status: good"), "{version}: {}", said.text);
        assert!(said.has("Verify return code: 0 (ok)"), "{version}: {}", said.text);
    }
    let said = s_client(&network.client, SERVER_V4, &["-CAfile", &*ca]);
    assert!(!said.has("OCSP Response Status"), "the client did not ask: {}", said.text);
    dotd.stop();
}

/// Goal: a response that says "revoked", or that is truncated, is refused at start, with its file named. Method: a
/// response of openssl, and half of one. Covers: C-68, A-57
#[test]
fn a_bad_ocsp_response_is_named() {
    require!(Root, Command("openssl"));
    let network = Network::new();
    for (status, share, part) in
        [("R", 1, "leaf.ocsp: the certificate is revoked"), ("V", 2, "leaf.ocsp: not an OCSP response")]
    {
        let scratch = Scratch::new();
        let (issued, folder) = (issued(&scratch), scratch.path().to_owned());
        issued.respond(&network, &folder, status, "7");
        let octets = std::fs::read(folder.join("leaf.ocsp")).expect("made");
        scratch.write("leaf.ocsp", &octets[..octets.len() / share]);
        let ended = Server::attempt(&network, &issued.config(&folder), scratch, &[]).expect_err("refused");
        assert_eq!(ended.code, Some(1));
        assert!(ended.stderr.contains(part), "{ended:?}");
    }
}

/// Goal: ECDSA, RSA and Ed25519 certificates serve side by side, chosen by the client's server name or its signature
/// schemes (RFC 8446 §4.4.2.2), in both versions. Method: three certificates; SNI for each; a client without SNI that
/// can verify only RSA, which gets the RSA certificate. Covers: C-66
#[test]
fn keys_of_every_kind_serve_by_name() {
    require!(Root, Command("openssl"));
    let (network, scratch) = (Network::new(), Scratch::new());
    let pairs = [
        ("ecdsa.dotd.test", Pair::new(&scratch, "ecdsa.dotd.test", &PKCS_ECDSA_P256_SHA256)),
        ("rsa.dotd.test", Pair::new(&scratch, "rsa.dotd.test", &PKCS_RSA_SHA256)),
        ("ed25519.dotd.test", Pair::new(&scratch, "ed25519.dotd.test", &PKCS_ED25519)),
    ];
    let entries = pairs.iter().map(|(_, pair)| pair.entry()).collect::<Vec<_>>().join(", ");
    let config = Config::new().set("tls", "certificates", &format!("[{entries}]"));
    let dotd = Server::launch(&network, &config, scratch, &[]);
    for (name, pair) in &pairs {
        for is_tls12 in [false, true] {
            let offer = Offer { server_name: Some(name), is_tls12, ..Offer::default() };
            let session = Dot::attempt(&network.client, SERVER_V4, &offer).expect("served");
            assert_eq!(session.certificates()[0], pair.der, "{name}, TLS 1.2: {is_tls12}");
        }
    }
    for (schemes, kind) in
        [("rsa_pss_rsae_sha256", "RSA-PSS"), ("ecdsa_secp256r1_sha256", "ECDSA"), ("ed25519", "ed25519")]
    {
        let said = s_client(&network.client, SERVER_V4, &["-noservername", "-tls1_3", "-sigalgs", schemes]);
        assert!(said.has(&format!("Peer signature type: {kind}")), "{schemes}: {}", said.text);
    }
    dotd.stop();
}

/// Goal: keys are agreed in X25519MLKEM768, X25519 or P-256, whichever the client supports, and in the first of them if
/// it supports all (draft-ietf-tls-ecdhe-mlkem). Method: offers of one group, then of all. Covers: C-61
#[test]
fn each_group_is_agreed() {
    require!(Root);
    let network = Network::new();
    let dotd = Server::start(&network, &Config::new());
    let groups = [NamedGroup::X25519MLKEM768, NamedGroup::X25519, NamedGroup::secp256r1];
    for group in groups {
        let offer = Offer { group: Some(group), ..Offer::default() };
        let session = Dot::attempt(&network.client, SERVER_V4, &offer).expect("served");
        assert_eq!(session.group(), Some(group));
    }
    assert_eq!(Dot::connect(&network.client, SERVER_V4).group(), Some(groups[0]));
    dotd.stop();
}

/// Goal: an OCSP response is renewed without a signal, and a broken one leaves the old one in service. Method: a
/// response for seven days, one for nine, and a few letters. Covers: C-68, A-57
#[test]
fn a_staple_is_renewed_without_a_signal() {
    require!(Root, Command("openssl"));
    let (network, scratch) = (Network::new(), Scratch::new());
    let (issued, folder) = (issued(&scratch), scratch.path().to_owned());
    issued.respond(&network, &folder, "V", "7");
    let dotd = Server::launch(&network, &issued.config(&folder), scratch, &[]);
    let staple = || {
        let said = s_client(&network.client, SERVER_V4, &["-status"]);
        said.text.lines().find(|line| line.contains("Next Update:")).map(str::to_owned)
    };
    let first = staple().expect("stapled");
    issued.respond(&network, &folder, "V", "9");
    eventually("the new response is stapled", || staple().filter(|line| *line != first));
    fs::write(folder.join("leaf.ocsp"), "half").expect("our own folder");
    eventually("a line names it", || {
        dotd.stderr().contains("leaf.ocsp: not an OCSP response to staple").then_some(())
    });
    assert!(staple().is_some());
    dotd.stop();
}

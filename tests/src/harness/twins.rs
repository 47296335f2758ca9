//! Two servers with the same keys, dotd's and rustls's own, that get the same records: both must treat them alike.
//!
//! Before: octets that choose records of a client, lawful and not. After: both servers returned the same plaintext,
//! both go on or end in the same way, and both sent the same; otherwise a panic shows the records.
//! Holds: a handshake without randomness (fixed randoms, a fixed key share, Ed25519), so that two servers agree on one
//! key.
//! Never: compares cases that RFC 8446 leaves open, or that the two are known to decide differently; each such case is
//! listed here.

use std::{
    io::{Read as _, Write as _},
    sync::{Arc, LazyLock},
};

use dot_userspace::tls::{
    cipher::Suite,
    records::{Closing, Records},
    secrets::{Logged, TrafficSecrets, take_logged},
};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::{
    ClientConfig, ClientConnection, Error, NamedGroup, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
    client::Resumption,
    crypto::{
        ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
        aws_lc_rs::default_provider,
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::{NoServerSessionStorage, UnbufferedServerConnection},
    unbuffered::{ConnectionState, UnbufferedStatus},
    version::{TLS12, TLS13},
};

use super::{
    any_certificate::AnyCertificate,
    sealer::{ALERT, APPLICATION_DATA, HANDSHAKE, Pen, Secrets},
};

/// Records of one script: fewer than the bounds of both servers on records that carry nothing.
const RECORDS_MAX: usize = 8;

/// Random numbers that are always the same, and a key exchange with a fixed key.
#[derive(Debug)]
struct Fixed;

impl SecureRandom for Fixed {
    fn fill(&self, octets: &mut [u8]) -> Result<(), GetRandomFailed> {
        octets.fill(0x42);
        Ok(())
    }
}

impl SupportedKxGroup for Fixed {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(Self))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for Fixed {
    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, Error> {
        Ok(SharedSecret::from(&[7; 32][..]))
    }

    fn pub_key(&self) -> &[u8] {
        &[9; 32]
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// The configuration of both servers and of their client.
struct Configs {
    server: Arc<ServerConfig>,
    provider: Arc<CryptoProvider>,
    version: &'static SupportedProtocolVersion,
}

static CONFIGS: LazyLock<[Configs; 2]> = LazyLock::new(|| [&TLS13, &TLS12].map(configs));

fn configs(version: &'static SupportedProtocolVersion) -> Configs {
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let params = CertificateParams::new(vec!["twins.test".to_owned()]).expect("a name");
    let chain: Vec<CertificateDer<'static>> = vec![params.self_signed(&key).expect("signed").der().clone()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = CryptoProvider { kx_groups: vec![&Fixed], secure_random: &Fixed, ..default_provider() };
    let provider = Arc::new(provider);
    let server =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[version]);
    let server = server.expect("versions of the provider").with_no_client_auth().with_single_cert(chain, key);
    let mut server = server.expect("a pair");
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.enable_secret_extraction = true;
    server.key_log = Arc::new(Logged);
    Configs { server: Arc::new(server), provider, version }
}

/// Two servers after one handshake, and the sealer for both.
struct Twins {
    theirs: ServerConnection,
    ours: Records,
    pen: Pen,
}

impl Twins {
    fn new(configs: &Configs) -> Self {
        let secrets = Arc::new(Secrets::default());
        let client = ClientConfig::builder_with_provider(Arc::clone(&configs.provider))
            .with_protocol_versions(&[configs.version])
            .expect("versions of the provider")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(Arc::clone(&configs.provider))));
        let mut client = client.with_no_client_auth();
        client.resumption = Resumption::disabled();
        client.enable_secret_extraction = true;
        client.key_log = Arc::clone(&secrets) as _;
        let name = ServerName::try_from("twins.test").expect("a name");
        let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
        let mut theirs = ServerConnection::new(Arc::clone(&configs.server)).expect("a server");
        let mut ours = UnbufferedServerConnection::new(Arc::clone(&configs.server)).expect("a server");
        let mut inbound = Vec::new();
        while client.is_handshaking() || theirs.is_handshaking() {
            let mut flight = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut flight).expect("memory does not fail");
            }
            hear(&mut theirs, &flight).expect("a handshake");
            inbound.extend(&flight);
            let said = shake(&mut ours, &mut inbound);
            let mut answer = Vec::new();
            while theirs.wants_write() {
                theirs.write_tls(&mut answer).expect("memory does not fail");
            }
            assert_eq!(said, answer, "one handshake");
            let mut rest = &answer[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest).expect("memory does not fail");
                client.process_new_packets().expect("a handshake");
            }
        }
        let keys = client.dangerous_extract_secrets().expect("the handshake is done");
        let (extracted, _) = ours.dangerous_into_kernel_connection().expect("the handshake is done");
        let suite = Suite::of(&extracted.tx.1).expect("a suite of ours");
        // Both servers log the same secrets: it is one handshake.
        let traffic = take_logged().and_then(|handed| TrafficSecrets::new(suite, handed));
        assert_eq!(traffic.is_some(), configs.version.version == rustls::ProtocolVersion::TLSv1_3);
        let ours = Records::new(extracted, traffic).expect("a suite of ours");
        Self { theirs, ours, pen: Pen::new(keys.tx, &secrets) }
    }
}

/// The answer of the unbuffered server to `inbound`.
fn shake(server: &mut UnbufferedServerConnection, inbound: &mut Vec<u8>) -> Vec<u8> {
    let mut said = Vec::new();
    loop {
        let UnbufferedStatus { discard, state, .. } = server.process_tls_records(inbound);
        let is_done = match state.expect("a handshake") {
            ConnectionState::EncodeTlsData(mut data) => {
                let mut room = vec![0; 1 << 16];
                let octets = data.encode(&mut room).expect("room enough");
                said.extend(&room[..octets]);
                false
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                false
            }
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => true,
            other => panic!("{other:?}"),
        };
        inbound.drain(..discard);
        if is_done {
            return said;
        }
    }
}

/// Gives `wire` to rustls; returns its plaintext, and whether the client has closed.
fn hear(server: &mut ServerConnection, mut wire: &[u8]) -> Result<(Vec<u8>, bool), (Vec<u8>, Error)> {
    let mut plaintext = Vec::new();
    let mut is_closed = false;
    while !wire.is_empty() && !is_closed {
        server.read_tls(&mut wire).expect("memory does not fail");
        let outcome = server.process_new_packets();
        let _ = server.reader().read_to_end(&mut plaintext);
        match outcome {
            Ok(state) => is_closed = state.peer_has_closed(),
            Err(error) => return Err((plaintext, error)),
        }
    }
    Ok((plaintext, is_closed))
}

/// The outcome of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Closed,
    Ended,
}

/// One sequence of records.
#[derive(Debug, Default)]
struct Script {
    wire: Vec<u8>,
    /// Each record, to explain a difference.
    said: Vec<String>,
    /// The script has a handshake message that is no KeyUpdate, an empty one, or octets that are no record: dotd ends
    /// the connection where rustls waits for more or goes on (RFC 8446 §5.4 demands the end).
    may_end_early: bool,
    /// The script has a record that both refuse, each with an alert of its own choice.
    has_own_alerts: bool,
    /// KeyUpdates that request one: dotd answers each, rustls answers all of them once; RFC 8446 §4.6.3 allows both.
    asked: usize,
}

impl Script {
    /// Adds the record that `[kind, first, second]` chooses.
    fn add(&mut self, pen: &mut Pen, is_tls13: bool, [kind, first, second]: [u8; 3]) {
        let content = vec![first; usize::from(second) * if kind > 127 { 70 } else { 1 }];
        self.said.push(format!("{kind} {first} {second}"));
        let record = match kind % 10 {
            0 | 1 => pen.seal_as([3, 3], APPLICATION_DATA, &content),
            2 if is_tls13 => {
                let update = [24, 0, 0, 1, first % 3];
                let cut = usize::from(second % 5);
                let parts = [&update[..cut], &update[cut..]];
                let parts = parts.iter().filter(|part| !part.is_empty());
                let wire = parts.flat_map(|part| pen.seal_as([3, 3], HANDSHAKE, part)).collect();
                pen.update_key();
                self.asked += usize::from(first % 3 == 1);
                wire
            }
            3 if is_tls13 => {
                let mut inside = content;
                inside.push([APPLICATION_DATA, HANDSHAKE, ALERT, 0, first][usize::from(first % 5)]);
                inside.resize(inside.len() + usize::from(second) * 64, 0);
                (self.may_end_early, self.has_own_alerts) = (true, true);
                inside.truncate(16_384 + 256 - 16);
                pen.seal_inside([3, 3], &inside)
            }
            4 => {
                self.has_own_alerts = true;
                // rustls ends at a user_canceled with the level fatal; RFC 8446 §6 says that the level is ignored.
                let is_fatal = first % 2 == 1 && !(is_tls13 && second == 90);
                pen.seal_as([3, 3], ALERT, &[1 + u8::from(is_fatal), second])
            }
            5 => {
                self.has_own_alerts = true;
                pen.seal_as([3, 3], ALERT, &[1, 90, 1][..usize::from(first % 4).min(3)])
            }
            6 => {
                // dotd sends record_overflow at a header that rustls accepts.
                self.has_own_alerts |= content.len() > 16_384;
                let mut record = pen.seal_as([3, 3], APPLICATION_DATA, &content);
                let place = 5 + usize::from(second) % (record.len() - 5);
                record[place] ^= 1 << (first % 8);
                record
            }
            7 if !is_tls13 => pen.seal_as([3, first % 5], APPLICATION_DATA, &content),
            8 => {
                (self.may_end_early, self.has_own_alerts) = (true, true);
                vec![first, 3, 3, 0, second.min(4), 1, 0, 0, 0]
            }
            9 if is_tls13 => {
                (self.may_end_early, self.has_own_alerts) = (true, true);
                pen.seal_as([3, 3], HANDSHAKE, &content[..content.len().min(200)])
            }
            _ => pen.seal_as([3, 3], APPLICATION_DATA, &[]),
        };
        self.wire.extend(record);
    }
}

/// Gives both servers the records that `octets` choose.
///
/// # Panics
/// When their outcomes differ.
pub fn assert_same_fate(octets: &[u8]) {
    let Some((choice, octets)) = octets.split_first() else { return };
    let is_tls13 = choice % 2 == 0;
    let Twins { mut theirs, mut ours, mut pen } = Twins::new(&CONFIGS[usize::from(choice % 2)]);
    let mut script = Script::default();
    for record in octets.as_chunks::<3>().0.iter().take(RECORDS_MAX) {
        script.add(&mut pen, is_tls13, *record);
    }

    let (expected, fate) = match hear(&mut theirs, &script.wire) {
        Ok((plaintext, is_closed)) => (plaintext, if is_closed { Fate::Closed } else { Fate::Open }),
        Err((plaintext, _)) => (plaintext, Fate::Ended),
    };
    let (mut wire, mut said) = (script.wire.clone(), Vec::new());
    let taken = ours.open(&mut wire, &mut said);
    let our_fate = match taken.closing {
        None => Fate::Open,
        Some(Closing::Notified) => Fate::Closed,
        Some(Closing::Alerted | Closing::Broken(_)) => Fate::Ended,
    };
    let plaintext = &wire[taken.plaintext.clone()];
    if script.may_end_early && our_fate == Fate::Ended {
        return assert!(expected.starts_with(plaintext), "TLS 1.3: {is_tls13}, {:?}", script.said);
    }
    assert!(plaintext == expected, "TLS 1.3: {is_tls13}, {:?}: other plaintext", script.said);
    assert_eq!(our_fate, fate, "TLS 1.3: {is_tls13}, {:?}, {:?}", script.said, taken.closing);
    if script.asked > 1 || (our_fate == Fate::Ended && script.has_own_alerts) {
        return;
    }
    match our_fate {
        Fate::Ended => ours.farewell(taken.closing, &mut said),
        Fate::Open | Fate::Closed => {
            ours.seal(b"an answer", &mut said).expect("a fresh key");
            theirs.writer().write_all(b"an answer").expect("memory does not fail");
        }
    }
    let mut their_words = Vec::new();
    while theirs.wants_write() {
        theirs.write_tls(&mut their_words).expect("memory does not fail");
    }
    assert_eq!(said, their_words, "TLS 1.3: {is_tls13}, {:?}", script.said);
}

//! A handshake without a socket: takes the client's octets and gives ours, until rustls has agreed on keys.
//!
//! Before: octets of a new connection. After: [`Records`], and the octets behind the handshake; or the cause of its
//! failure, with the alert among the octets to send.
//! Holds: rustls's connection and the octets of one flight each way; at most those of one ClientHello.
//! Never: waits, or gives rustls a record after the handshake's last one, which [`Records`] must open.
//!
//! Source: RFC 8446 §4 and §6.2, RFC 5246 §7.3.

use std::sync::Arc;

use rustls::{
    AlertDescription, Error as TlsError, PeerIncompatible, ProtocolVersion,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus},
};

use super::{
    HandshakeKind, Offer, Serving,
    certificate::{common_name_of, names_of},
    cipher::Suite,
    fingerprint,
    hello::{
        self, PROTOCOL_VERSION_ALERT, RECORD_OVERFLOW_ALERT, is_before_tls12, is_no_record, offers_session,
        prefers_chacha,
    },
    record::{self, Header},
    records::Records,
    secrets::{Handed, TrafficSecrets, take_logged},
    serving::take_asked_name,
    sessions::{self, OfConnection},
    steps::{Cost, Steps},
};
use crate::events::is_tracing;

/// Most octets of the client that are kept: rustls limits a ClientHello to 64 KiB, and record headers add little.
const INBOUND_OCTETS_MAX: usize = 80 * 1024;

/// Description of the alert close_notify (RFC 8446 §6.1).
const CLOSE_NOTIFY: u8 = 0;

/// What the handshake needs next.
pub enum Step {
    /// More octets, after all octets in `outbound` are sent.
    Read,
    /// A turn: the next complete message costs a signature, a key exchange, or the verification of a certificate.
    Turn {
        /// It costs less than a full handshake's signature: a ticket or a session is offered, or the signature is
        /// already made.
        is_short: bool,
    },
    /// Nothing: the keys are agreed on.
    Done,
}

/// A handshake in progress.
pub struct Dialogue<'a> {
    serving: &'a Serving,
    connection: UnbufferedServerConnection,
    /// Octets of the client that rustls has not consumed.
    inbound: Vec<u8>,
    /// How many of them rustls has seen.
    shown: usize,
    /// Offset of the next record.
    next: usize,
    steps: Steps,
    /// How many octets the last turn was for.
    covered: usize,
    has_begun: bool,
    is_old: bool,
    /// The ID of the session that the client may resume, or resumes (TLS 1.2).
    session_id: Option<Vec<u8>>,
    /// The server name that the client asks for.
    server_name: Option<Box<str>>,
    /// What the client offered, where an operator traces clients.
    offer: Option<Box<Offer>>,
    /// The traffic secrets (TLS 1.3).
    handed: Option<Handed>,
    /// Octets to send.
    pub outbound: Vec<u8>,
}

/// Names that a handshake showed.
pub struct Shown {
    /// The server name that the client asked for, in lower case.
    pub server_name: Option<Box<str>>,
    /// What the client offered, where an operator traces clients.
    pub offer: Option<Box<Offer>>,
    /// The names in its certificate, in lower case.
    pub client_names: Vec<String>,
    /// The common name of its subject.
    pub common_name: Option<String>,
}

/// The answer of rustls.
enum Said {
    More,
    Again,
    Done,
}

impl<'a> Dialogue<'a> {
    /// Begins a handshake, which waits for a ClientHello.
    ///
    /// # Errors
    /// The configuration does not suit rustls; impossible with ours.
    pub fn new(serving: &'a Serving) -> Result<Self, TlsError> {
        let connection = UnbufferedServerConnection::new(Arc::clone(&serving.ours))?;
        Ok(Self {
            serving,
            connection,
            inbound: Vec::new(),
            shown: 0,
            next: 0,
            steps: Steps::default(),
            covered: 0,
            has_begun: false,
            is_old: false,
            session_id: None,
            server_name: None,
            offer: None,
            handed: None,
            outbound: Vec::new(),
        })
    }

    /// The buffer for the client's next octets. Only append to it.
    pub fn inbound(&mut self) -> &mut Vec<u8> {
        &mut self.inbound
    }

    /// Goes on as far as possible with the octets that have come.
    ///
    /// # Errors
    /// The failure; its alert is in `outbound`.
    pub fn step(&mut self) -> Result<Step, TlsError> {
        loop {
            match self.hear()? {
                Said::Again => {}
                Said::Done => return Ok(Step::Done),
                Said::More if self.is_overflow() => {
                    self.outbound.extend_from_slice(&RECORD_OVERFLOW_ALERT);
                    return Err(TlsError::PeerSentOversizedRecord);
                }
                Said::More => match record::whole(self.inbound.get(self.next..).unwrap_or_default()) {
                    Ok(Some((header, _))) if self.is_goodbye(header) => {
                        return Err(TlsError::AlertReceived(AlertDescription::CloseNotify));
                    }
                    Ok(Some((header, octets))) => {
                        if !self.has_begun {
                            self.begin()?;
                        }
                        if self.next + octets > self.covered
                            && let Some(cost) = self.cost(header)
                        {
                            self.covered = self.inbound.len();
                            let record = self.inbound.get(self.next..).unwrap_or_default();
                            return Ok(Step::Turn {
                                is_short: cost == Cost::Share || offers_session(record),
                            });
                        }
                        self.show(header, octets);
                    }
                    // rustls reports octets that are not a record.
                    _ if self.shown < self.inbound.len() && self.is_lost() => self.shown = self.inbound.len(),
                    _ if self.is_lost() => return Err(TlsError::General("no record".into())),
                    _ => return Ok(Step::Read),
                },
            }
        }
    }

    /// The first record is complete: it tells the kind of client.
    fn begin(&mut self) -> Result<(), TlsError> {
        (self.has_begun, self.is_old) = (true, is_before_tls12(&self.inbound));
        if is_tracing() {
            self.offer = fingerprint::of(&self.inbound).map(Box::new);
        }
        if prefers_chacha(&self.inbound) {
            self.connection = UnbufferedServerConnection::new(Arc::clone(&self.serving.theirs))?;
        }
        Ok(())
    }

    /// The cost of the next record. If client certificates are verified and messages are encrypted, each record may be
    /// the costly one.
    fn cost(&self, header: Header) -> Option<Cost> {
        match header.content_type {
            record::HANDSHAKE => self.steps.cost(content(&self.inbound, self.next, header)),
            record::APPLICATION_DATA if self.serving.checks_clients => Some(Cost::Share),
            _ => None,
        }
    }

    /// Gives the next record to rustls.
    fn show(&mut self, header: Header, octets: usize) {
        match header.content_type {
            record::HANDSHAKE => {
                let _ = self.steps.take(content(&self.inbound, self.next, header));
            }
            record::CHANGE_CIPHER_SPEC => self.steps.take_change(),
            _ => {}
        }
        self.next += octets;
        self.shown = self.next;
    }

    /// Whether the next record is close_notify in clear. rustls would wait on, because any attacker on the path could
    /// have sent it. But such an attacker could as well reset the connection, and a client that sends it waits for
    /// nothing.
    fn is_goodbye(&self, header: Header) -> bool {
        let record = self.inbound.get(self.next..).unwrap_or_default();
        header.content_type == record::ALERT
            && header.octets == 2
            && record.get(record::HEADER_OCTETS + 1) == Some(&CLOSE_NOTIFY)
    }

    /// Whether the next record is too long, and the client still reads alerts in clear.
    fn is_overflow(&self) -> bool {
        let is_clear = || match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => {
                self.connection.handshake_kind() == Some(rustls::HandshakeKind::FullWithHelloRetryRequest)
                    && self.steps.hellos() < 2
            }
            _ => !self.steps.is_sealed(),
        };
        hello::is_overflow(self.inbound.get(self.next..).unwrap_or_default()) && is_clear()
    }

    fn is_lost(&self) -> bool {
        is_no_record(self.inbound.get(self.next..).unwrap_or_default())
            || self.inbound.len() > INBOUND_OCTETS_MAX
    }

    /// Gives rustls the records that it may see, and does what it asks for.
    fn hear(&mut self) -> Result<Said, TlsError> {
        let shown = self.inbound.get_mut(..self.shown).unwrap_or_default();
        let UnbufferedStatus { discard, state, .. } = self.connection.process_tls_records(shown);
        if let Some(id) = sessions::take_last() {
            self.session_id = Some(id);
        }
        if let Some(handed) = take_logged() {
            self.handed = Some(handed);
        }
        if let Some(name) = take_asked_name() {
            self.server_name = name;
        }
        let said = match state {
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, &mut self.outbound).map(|()| Said::Again)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Said::Again)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Said::More),
            Ok(ConnectionState::WriteTraffic(_)) => Ok(Said::Done),
            Ok(_) => Err(TlsError::General("closed in the middle of the handshake".into())),
            Err(error) => Err(error),
        };
        let discard = discard.min(self.inbound.len());
        self.inbound.drain(..discard);
        for place in [&mut self.shown, &mut self.next, &mut self.covered] {
            *place = place.saturating_sub(discard);
        }
        said.map_err(|error| self.fail(error))
    }

    /// Collects rustls's alert for `error`.
    fn fail(&mut self, error: TlsError) -> TlsError {
        self.session().into_iter().for_each(OfConnection::forget);
        if self.is_old {
            self.outbound = PROTOCOL_VERSION_ALERT.to_vec();
            return PeerIncompatible::Tls12NotOffered.into();
        }
        // Not again after its alert: rustls would go on reading at the failed place, and panic.
        while self.connection.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(data)) =
                self.connection.process_tls_records(&mut []).state
            && encode(data, &mut self.outbound).is_ok()
        {}
        error
    }

    fn session(&mut self) -> Option<OfConnection> {
        let id = self.session_id.take()?;
        Some(OfConnection { sessions: Arc::clone(&self.serving.sessions), id })
    }

    /// The names in the handshake; must be called once it is done.
    pub fn shown(&mut self) -> Shown {
        let certificate = self.connection.peer_certificates().and_then(<[_]>::first);
        Shown {
            server_name: self.server_name.take(),
            offer: self.offer.take(),
            client_names: certificate.map(|leaf| names_of(leaf)).unwrap_or_default(),
            common_name: certificate.and_then(|leaf| common_name_of(leaf)),
        }
    }

    /// The kind of handshake, the connection's records, the octets behind the handshake, and the unsent octets.
    ///
    /// # Errors
    /// rustls does not give its keys; impossible after [`Step::Done`].
    pub fn finish(mut self) -> Result<(HandshakeKind, Records, Vec<u8>, Vec<u8>), TlsError> {
        let kind = HandshakeKind {
            is_resumed: matches!(self.connection.handshake_kind(), Some(rustls::HandshakeKind::Resumed)),
            is_tls13: self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3),
            has_alpn: self.connection.alpn_protocol().is_some(),
            is_certified: self.connection.peer_certificates().is_some(),
        };
        let session = self.session();
        // The secrets from which rustls would derive the next keys are dropped: `secrets` derives them with a tenth of the memory.
        let (secrets, _) = self.connection.dangerous_into_kernel_connection()?;
        let handed = self.handed.filter(|_| kind.is_tls13);
        let traffic = Suite::of(&secrets.tx.1)
            .zip(handed)
            .and_then(|(suite, handed)| TrafficSecrets::new(suite, handed));
        if kind.is_tls13 != traffic.is_some() {
            return Err(TlsError::General("traffic secrets are missing".into()));
        }
        let mut records = Records::new(secrets, traffic)?;
        session.into_iter().for_each(|session| records.keep(session));
        Ok((kind, records, self.inbound, self.outbound))
    }
}

/// The content of the record at `start`.
fn content(octets: &[u8], start: usize, header: Header) -> &[u8] {
    let start = start + record::HEADER_OCTETS;
    octets.get(start..start + header.octets).unwrap_or_default()
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, out: &mut Vec<u8>) -> Result<(), TlsError> {
    let start = out.len();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = data.encode(&mut [])
    {
        out.resize(start + required_size, 0);
        let room = out.get_mut(start..).unwrap_or_default();
        data.encode(room).map_err(|error| TlsError::General(error.to_string()))?;
    }
    Ok(())
}

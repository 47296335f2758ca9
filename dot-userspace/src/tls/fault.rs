//! Classifies a failed handshake with a backend.
//!
//! Before: `backend_tls` or `inquiry` failed. After: the kind is counted, and an operator learns the remedy.
//! Never: judges a certificate; it reads the verdict of rustls or of dotd's own rule.

use std::io;

use rustls::{CertificateError as Refused, Error as TlsError};

use super::backend_tls::WRONG_PIN;
use crate::ledger::TlsFault;

/// The kind of `error`, with which a handshake ended.
#[must_use]
pub fn fault_of(error: &io::Error) -> TlsFault {
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        return of_rustls(error);
    }
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => TlsFault::Silent,
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => TlsFault::Closed,
        _ => TlsFault::Other,
    }
}

fn of_rustls(error: &TlsError) -> TlsFault {
    match error {
        TlsError::InvalidMessage(_) | TlsError::InappropriateMessage { .. } => TlsFault::NotTls,
        TlsError::AlertReceived(_) => TlsFault::Alert,
        TlsError::PeerIncompatible(_) => TlsFault::Incompatible,
        TlsError::General(why) if why == WRONG_PIN => TlsFault::Pin,
        TlsError::InvalidCertificate(refused) => match refused {
            Refused::NotValidForName | Refused::NotValidForNameContext { .. } => TlsFault::Name,
            Refused::Expired
            | Refused::ExpiredContext { .. }
            | Refused::NotValidYet
            | Refused::NotValidYetContext { .. } => TlsFault::Expired,
            Refused::UnknownIssuer | Refused::BadSignature => TlsFault::Authority,
            _ => TlsFault::Other,
        },
        _ => TlsFault::Other,
    }
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, InvalidMessage};

    use super::*;

    /// Goal: failures with different remedies have different kinds. Method: errors as rustls, tokio and the kernel
    /// return them.
    #[test]
    fn failures_are_told_apart() {
        let wrapped = |error: TlsError| fault_of(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(wrapped(TlsError::InvalidMessage(InvalidMessage::InvalidContentType)), TlsFault::NotTls);
        assert_eq!(wrapped(TlsError::AlertReceived(AlertDescription::HandshakeFailure)), TlsFault::Alert);
        assert_eq!(wrapped(TlsError::General(WRONG_PIN.into())), TlsFault::Pin);
        assert_eq!(wrapped(TlsError::General("else".into())), TlsFault::Other);
        assert_eq!(wrapped(Refused::NotValidForName.into()), TlsFault::Name);
        assert_eq!(wrapped(Refused::Expired.into()), TlsFault::Expired);
        assert_eq!(wrapped(Refused::UnknownIssuer.into()), TlsFault::Authority);
        assert_eq!(fault_of(&io::ErrorKind::TimedOut.into()), TlsFault::Silent);
        assert_eq!(fault_of(&io::ErrorKind::ConnectionReset.into()), TlsFault::Closed);
        assert_eq!(fault_of(&io::ErrorKind::UnexpectedEof.into()), TlsFault::Closed);
    }
}

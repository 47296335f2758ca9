//! The kinds of failures of TLS towards a backend, with their names in counters, files and output.
//!
//! Before: `tls` knows why a handshake failed. After: `backend` counts it, status and the history name it.
//! Never: holds the text of one failure; the error has that.

/// Why TLS with a backend failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum TlsFault {
    /// The connection was not accepted.
    Unconnected,
    /// The connection or the handshake was silent until its deadline.
    Silent,
    /// The peer closed or reset the connection within the handshake.
    Closed,
    /// The peer did not speak TLS.
    NotTls,
    /// The peer sent an alert.
    Alert,
    /// No version, cipher suite, group or extension in common.
    Incompatible,
    /// The certificate is for another name.
    Name,
    /// The certificate has expired, or is not valid yet.
    Expired,
    /// No trusted authority has signed the certificate.
    Authority,
    /// The key has none of the configured pins.
    Pin,
    /// Anything else.
    Other,
}

impl TlsFault {
    /// Every kind, in the order of its number.
    pub const ALL: [Self; 11] = [
        Self::Unconnected,
        Self::Silent,
        Self::Closed,
        Self::NotTls,
        Self::Alert,
        Self::Incompatible,
        Self::Name,
        Self::Expired,
        Self::Authority,
        Self::Pin,
        Self::Other,
    ];

    /// Its name in JSON, files and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unconnected => "unconnected",
            Self::Silent => "silent",
            Self::Closed => "closed",
            Self::NotTls => "not_tls",
            Self::Alert => "alert",
            Self::Incompatible => "incompatible",
            Self::Name => "name",
            Self::Expired => "expired",
            Self::Authority => "authority",
            Self::Pin => "pin",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each kind has its own place and its own name. Method: all kinds.
    #[test]
    fn kinds_have_their_places() {
        for (place, fault) in TlsFault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, place);
            let same = TlsFault::ALL.iter().filter(|other| other.label() == fault.label());
            assert_eq!(same.count(), 1, "{}", fault.label());
        }
    }
}

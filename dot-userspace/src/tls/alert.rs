//! Alerts: which ones dotd sends, and the meaning of received ones.
//!
//! Before: a record whose content is an alert was opened. After: the connection goes on, or the reason why it ends is
//! known.
//! Never: looks at the level in TLS 1.3, where only the description counts.
//!
//! Source: RFC 8446 §6, RFC 5246 §7.2.

/// Levels.
pub const WARNING: u8 = 1;
/// See [`WARNING`].
pub const FATAL: u8 = 2;

/// Descriptions. Source: RFC 8446 §6, RFC 5246 §7.2.
pub const CLOSE_NOTIFY: u8 = 0;
/// See [`CLOSE_NOTIFY`].
pub const UNEXPECTED_MESSAGE: u8 = 10;
/// See [`CLOSE_NOTIFY`].
pub const BAD_RECORD_MAC: u8 = 20;
/// See [`CLOSE_NOTIFY`].
pub const RECORD_OVERFLOW: u8 = 22;
/// See [`CLOSE_NOTIFY`].
pub const ILLEGAL_PARAMETER: u8 = 47;
/// See [`CLOSE_NOTIFY`].
pub const DECODE_ERROR: u8 = 50;
/// See [`CLOSE_NOTIFY`].
pub const INTERNAL_ERROR: u8 = 80;
/// See [`CLOSE_NOTIFY`].
pub const USER_CANCELED: u8 = 90;

/// The name of an alert in the registry.
#[must_use]
pub fn name(description: u8) -> &'static str {
    match description {
        CLOSE_NOTIFY => "close_notify",
        UNEXPECTED_MESSAGE => "unexpected_message",
        BAD_RECORD_MAC => "bad_record_mac",
        RECORD_OVERFLOW => "record_overflow",
        40 => "handshake_failure",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        ILLEGAL_PARAMETER => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        DECODE_ERROR => "decode_error",
        51 => "decrypt_error",
        70 => "protocol_version",
        71 => "insufficient_security",
        INTERNAL_ERROR => "internal_error",
        USER_CANCELED => "user_canceled",
        109 => "missing_extension",
        110 => "unsupported_extension",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        116 => "certificate_required",
        120 => "no_application_protocol",
        _ => "another",
    }
}

/// The meaning of a peer's alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The peer sends no more (RFC 8446 §6.1).
    Closing,
    /// The connection may go on.
    Warning,
    /// The connection is over.
    Error,
    /// It is not an alert; the peer must get this one.
    Broken(u8),
}

/// The meaning of the alert in a record's `content`.
#[must_use]
pub fn meaning(content: &[u8], is_tls13: bool) -> Meaning {
    match (content, is_tls13) {
        (&[], _) => Meaning::Broken(UNEXPECTED_MESSAGE),
        // RFC 8446 §6: the level "can safely be ignored"; unknown descriptions are errors.
        (&[_, CLOSE_NOTIFY], true) => Meaning::Closing,
        (&[_, USER_CANCELED], true) => Meaning::Warning,
        (&[_, _], true) => Meaning::Error,
        (&[WARNING | FATAL, CLOSE_NOTIFY], false) => Meaning::Closing,
        (&[WARNING, _], false) => Meaning::Warning,
        (&[FATAL, _], false) => Meaning::Error,
        (&[_, _], false) => Meaning::Broken(ILLEGAL_PARAMETER),
        _ => Meaning::Broken(DECODE_ERROR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an alert is read by its description in TLS 1.3, by its level in TLS 1.2, and an alert of another length is
    /// invalid (RFC 8446 §5.4, §6; RFC 5246 §6.2.1, §7.2). Covers: C-280, C-282, C-283, C-284, C-287
    #[test]
    fn alerts_mean_what_their_version_says() {
        let cases: [(&[u8], Meaning, Meaning); 9] = [
            (&[], Meaning::Broken(UNEXPECTED_MESSAGE), Meaning::Broken(UNEXPECTED_MESSAGE)),
            (&[1, CLOSE_NOTIFY], Meaning::Closing, Meaning::Closing),
            (&[2, CLOSE_NOTIFY], Meaning::Closing, Meaning::Closing),
            (&[1, USER_CANCELED], Meaning::Warning, Meaning::Warning),
            (&[1, 40], Meaning::Error, Meaning::Warning),
            (&[2, 40], Meaning::Error, Meaning::Error),
            (&[1, 255], Meaning::Error, Meaning::Warning),
            (&[3, 40], Meaning::Error, Meaning::Broken(ILLEGAL_PARAMETER)),
            (&[1], Meaning::Broken(DECODE_ERROR), Meaning::Broken(DECODE_ERROR)),
        ];
        for (content, tls13, tls12) in cases {
            assert_eq!(meaning(content, true), tls13, "{content:?} in TLS 1.3");
            assert_eq!(meaning(content, false), tls12, "{content:?} in TLS 1.2");
        }
        assert_eq!(meaning(&[1, 0, 1, 0], true), Meaning::Broken(DECODE_ERROR), "two in a record");
    }
}

//! The outer form of TLS records: where one ends, its type, and its maximum length.
//!
//! Before: octets from the socket. After: the header of a complete record, or the missing octets.
//! Never: decrypts, keeps octets, or accepts a length above the protocol's limit.
//!
//! Source: RFC 8446 §5.1 and §5.2, RFC 5246 §6.2.

/// Octets of a record's header: type, version, length.
pub const HEADER_OCTETS: usize = 5;
/// Octets of plaintext in one record.
pub const PLAINTEXT_OCTETS_MAX: usize = 1 << 14;
/// Octets after the header of an encrypted record: TLS 1.2 allows the most.
pub const CIPHERTEXT_OCTETS_MAX: usize = PLAINTEXT_OCTETS_MAX + 2048;
/// The same in TLS 1.3.
pub const CIPHERTEXT13_OCTETS_MAX: usize = PLAINTEXT_OCTETS_MAX + 256;
/// The version that every record since TLS 1.2 carries.
pub const LEGACY_VERSION: [u8; 2] = [3, 3];

/// Content types. Source: RFC 8446 appendix B.1.
pub const CHANGE_CIPHER_SPEC: u8 = 20;
/// See [`CHANGE_CIPHER_SPEC`].
pub const ALERT: u8 = 21;
/// See [`CHANGE_CIPHER_SPEC`].
pub const HANDSHAKE: u8 = 22;
/// See [`CHANGE_CIPHER_SPEC`].
pub const APPLICATION_DATA: u8 = 23;

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The content type visible on the wire.
    pub content_type: u8,
    /// Octets after the header.
    pub octets: usize,
}

/// The length exceeds the limit of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

/// The header at the beginning of `octets`, once it is complete.
///
/// # Errors
/// [`Overflow`]: the record claims to be longer than allowed.
pub fn header(octets: &[u8]) -> Result<Option<Header>, Overflow> {
    let Some(&[content_type, _, _, high, low]) = octets.first_chunk::<HEADER_OCTETS>() else {
        return Ok(None);
    };
    let octets = usize::from(u16::from_be_bytes([high, low]));
    if octets > CIPHERTEXT_OCTETS_MAX { Err(Overflow) } else { Ok(Some(Header { content_type, octets })) }
}

/// The length of the whole record at the beginning of `octets`. `None`: some octets are missing.
///
/// # Errors
/// [`Overflow`], as [`header`].
pub fn whole(octets: &[u8]) -> Result<Option<(Header, usize)>, Overflow> {
    let header = header(octets)?;
    let whole = header.map(|header| (header, HEADER_OCTETS + header.octets));
    Ok(whole.filter(|(_, end)| *end <= octets.len()))
}

/// Writes a header.
pub fn put_header(out: &mut Vec<u8>, content_type: u8, octets: usize) -> [u8; HEADER_OCTETS] {
    // No caller seals more than a record may hold.
    let [high, low] = u16::try_from(octets).unwrap_or(u16::MAX).to_be_bytes();
    let header = [content_type, LEGACY_VERSION[0], LEGACY_VERSION[1], high, low];
    out.extend_from_slice(&header);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_with_its_last_octet() {
        let record = [23, 3, 3, 0, 2, 0xaa, 0xbb, 0xcc];
        let header = Header { content_type: APPLICATION_DATA, octets: 2 };
        for length in 0..7 {
            assert_eq!(whole(&record[..length]), Ok(None), "{length}");
        }
        assert_eq!(whole(&record), Ok(Some((header, 7))));
        assert_eq!(super::header(&record[..4]), Ok(None));
    }

    /// Covers: C-63.
    #[test]
    fn a_length_above_the_protocols_is_refused_at_its_header() {
        let [high, low] = u16::try_from(CIPHERTEXT_OCTETS_MAX + 1).unwrap().to_be_bytes();
        assert_eq!(header(&[23, 3, 3, high, low]), Err(Overflow));
        assert_eq!(whole(&[23, 3, 3, high, low]), Err(Overflow));
    }
}

//! ClientHellos made by hand: a test must be able to send what no library would.
//!
//! Before: a test names the unusual part. After: the octets of a hello, and of the record around it.
//! Holds: TLS 1.2's hello with GREASE, which dotd answers. Never: goes on with the handshake.
//!
//! Source: RFC 5246 §7.4.1.2, RFC 8701, RFC 6066 §3.

/// The hello that OpenSSL sends, with GREASE (RFC 8701) in front of its suites, extensions and groups.
///
/// # Panics
/// Never: it is short.
#[must_use]
pub fn greased_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([0x42; 32]);
    body.extend([0, 0, 4, 0x1a, 0x1a, 0xc0, 0x2b, 1, 0]);
    // GREASE, supported_groups (GREASE, P-256), signature_algorithms (GREASE, ecdsa_secp256r1_sha256), EMS, GREASE.
    let extensions = [
        &[0x2a, 0x2a, 0, 0][..],
        &[0, 10, 0, 6, 0, 4, 0x3a, 0x3a, 0, 23],
        &[0, 13, 0, 6, 0, 4, 0x4a, 0x4a, 4, 3],
        &[0, 23, 0, 0],
        &[0x5a, 0x5a, 0, 1, 0],
    ];
    let extensions = extensions.concat();
    body.extend(u16::try_from(extensions.len()).expect("short").to_be_bytes());
    body.extend(extensions);
    [&[1, 0, 0, u8::try_from(body.len()).expect("short")], &*body].concat()
}

/// Two hellos of TLS 1.3: the first one has a key share for X448, which dotd lacks, so that a HelloRetryRequest asks
/// for the second, with X25519.
///
/// # Panics
/// Never: they are short.
#[must_use]
pub fn retried_hellos() -> [Vec<u8>; 2] {
    let short = |octets: usize| u16::try_from(octets).expect("short").to_be_bytes();
    let hello = |group: u8, share: &[u8]| {
        let mut body = vec![3, 3];
        body.extend([0x42; 32]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
        // supported_versions (1.3), supported_groups (X448, X25519), signature_algorithms (ecdsa_secp256r1_sha256), key_share.
        let fixed =
            [&[0, 43, 0, 3, 2, 3, 4][..], &[0, 10, 0, 6, 0, 4, 0, 30, 0, 29], &[0, 13, 0, 4, 0, 2, 4, 3]];
        let entry = [&[0, group][..], &short(share.len()), share].concat();
        let key_share = [&[0, 51][..], &short(entry.len() + 2), &short(entry.len()), &entry].concat();
        let extensions = [&fixed.concat()[..], &key_share].concat();
        body.extend(short(extensions.len()));
        body.extend(extensions);
        [&[1, 0][..], &short(body.len()), &body].concat()
    };
    [hello(30, &[9; 56]), hello(29, &[9; 32])]
}

/// One record of a handshake.
///
/// # Panics
/// When it would be too long.
#[must_use]
pub fn handshake_record(octets: &[u8]) -> Vec<u8> {
    let length = u16::try_from(octets.len()).expect("short").to_be_bytes();
    [&[22, 3, 1][..], &length, octets].concat()
}

/// [`greased_hello`] with a server name.
///
/// # Panics
/// When the name is too long for a hello.
#[must_use]
pub fn named_hello(name: &[u8]) -> Vec<u8> {
    let mut hello = greased_hello();
    let short = |octets: usize| u16::try_from(octets).expect("short").to_be_bytes();
    let (list, all) = (short(name.len() + 3), short(name.len() + 5));
    let extension = [&[0, 0][..], &all, &list, &[0], &short(name.len()), name].concat();
    let extensions_at = 4 + 2 + 32 + 1 + 6 + 2;
    let before = usize::from(u16::from_be_bytes([hello[extensions_at], hello[extensions_at + 1]]));
    hello.extend(&extension);
    hello[extensions_at..extensions_at + 2].copy_from_slice(&short(before + extension.len()));
    let body = short(hello.len() - 4);
    hello[2..4].copy_from_slice(&body);
    hello
}

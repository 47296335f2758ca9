//! PROXY headers of version 2: read the same however they arrive, and read back as written.
//!
//! Before: octets of a connection. After: parsed whole and from each part; written again from what was read.
//! Never: reads version 1, which dotd does not.
//!
//! Source: "The PROXY protocol, versions 1 & 2", section 2.2.

use std::net::SocketAddr;

use dot_userspace::proxy::{
    Client, ClientTls, Tlvs,
    header::{PREAMBLE_OCTETS, SIGNATURE, WRITTEN_OCTETS_MAX, parse, write},
};

/// Octets that are also parsed from every shorter part.
const STEPS_MAX: usize = 600;

/// Runs the target.
///
/// # Panics
/// When two ways of reading differ, or what is written cannot be read.
pub fn run(octets: &[u8]) {
    let whole = parse(octets);
    match &whole {
        Ok(Some((named, length))) => {
            let length = *length;
            assert!(octets.starts_with(&SIGNATURE) && (PREAMBLE_OCTETS..=octets.len()).contains(&length));
            assert_eq!(usize::from(u16::from_be_bytes([octets[14], octets[15]])) + PREAMBLE_OCTETS, length);
            for end in 0..length.min(STEPS_MAX) {
                assert_eq!(parse(&octets[..end]), Ok(None), "a part of {end} octets");
            }
            assert_eq!(parse(&octets[..length]), whole, "what follows does not matter");
            if let Some((source, destination)) = named.addresses {
                assert_written(source, destination, named.tlvs.clone(), octets[length - 1]);
            }
        }
        Ok(None) => {
            let longest = PREAMBLE_OCTETS
                + octets.get(14..16).map_or(0, |two| usize::from(two[0]) << 8 | usize::from(two[1]));
            assert!(octets.len() < longest.max(PREAMBLE_OCTETS), "all of it is there");
        }
        // More octets do not make it a header either.
        Err(error) => assert_eq!(parse(&[octets, &[0; 300]].concat()), Err(*error)),
    }
}

/// Writes a header for these addresses and reads it back.
fn assert_written(source: SocketAddr, destination: SocketAddr, tlvs: Option<Tlvs>, choice: u8) {
    let tls = (choice & 1 != 0).then_some(ClientTls {
        is_tls13: choice & 2 != 0,
        has_alpn: choice & 4 != 0,
        is_certified: choice & 8 != 0,
    });
    let client = Client { source, destination, is_datagram: choice & 16 != 0, tls, tlvs };
    let mut written = Vec::new();
    write(Some(&client), &mut written);
    let (read, length) = parse(&written).expect("a header").expect("whole");
    assert_eq!((read.addresses, length), (Some((source, destination)), written.len()));
    assert_eq!(read.is_datagram, client.is_datagram);
    assert!(written.len() <= WRITTEN_OCTETS_MAX);
}

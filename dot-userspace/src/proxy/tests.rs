//! Tests of the header against the specification, against any octets, and of writing against reading.
//!
//! Before: octets written by hand, or random ones. After: reading and writing agree.
//! Never: opens a socket.

use std::time::Duration;

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::{
    header::{Malformed, PREAMBLE_OCTETS, SIGNATURE, WRITTEN_OCTETS_MAX, parse, write},
    *,
};

const TLS: ClientTls = ClientTls { is_tls13: true, has_alpn: true, is_certified: false };

fn client(source: &str, destination: &str, tls: Option<ClientTls>) -> Client {
    Client {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        is_datagram: false,
        tls,
        tlvs: None,
    }
}

fn written(client: Option<&Client>) -> Vec<u8> {
    let mut out = Vec::new();
    write(client, &mut out);
    out
}

fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&SIGNATURE, &[command, family][..], &length, body].concat()
}

/// Goal: every octet is as in the specification. Method: one header by hand, IPv4 over TLS 1.3 with ALPN.
#[test]
fn writes_addresses_ports_alpn_and_tls() {
    let expected = [
        &SIGNATURE[..],
        &[0x21, 0x11, 0, 12 + 6 + 18],
        &[192, 0, 2, 1, 198, 51, 100, 2],
        &40_000_u16.to_be_bytes(),
        &853_u16.to_be_bytes(),
        &[0x01, 0, 3],
        b"dot",
        &[0x20, 0, 15, 0x01, 0, 0, 0, 1, 0x21, 0, 7],
        b"TLSv1.3",
    ]
    .concat();
    let client = client("192.0.2.1:40000", "198.51.100.2:853", Some(TLS));
    assert_eq!(written(Some(&client)), expected);
    let certified = ClientTls { is_tls13: false, has_alpn: false, is_certified: true };
    let octets = written(Some(&Client { tls: Some(certified), ..client.clone() }));
    assert_eq!(&octets[28..], [&[0x20, 0, 15, 0x07, 0, 0, 0, 0, 0x21, 0, 7][..], b"TLSv1.2"].concat());
    assert_eq!(written(None), header(0x20, 0, &[]));
}

/// Goal: a backend learns the host name that the client asked for (PP2_TYPE_AUTHORITY) and the common name in its certificate, within
/// PP2_TYPE_SSL; an earlier hop's host name stays where there is no other; no client can put a common name there by a header of its own.
/// Method: octets by hand. Covers: C-722
#[test]
fn writes_the_names_of_a_handshake() {
    let certified = ClientTls { is_tls13: false, has_alpn: false, is_certified: true };
    let client = client("192.0.2.1:40000", "198.51.100.2:853", Some(certified));
    let earlier = b"\x02\x00\x03lb.\xe0\x00\x01\x09\x22\x00\x04root\x20\x00\x05\x01\x00\x00\x00\x00";
    let fields = |server: Option<&str>, common: Option<&str>| {
        let tlvs = Tlvs::named(Tlvs::read(earlier), server, common);
        assert_eq!(tlvs.as_ref().and_then(|tlvs| Tlvs::again(tlvs.octets())), tlvs);
        written(Some(&Client { tlvs, ..client.clone() }))[28..].to_vec()
    };
    let plain = [&[0x20, 0, 15, 0x07, 0, 0, 0, 0, 0x21, 0, 7][..], b"TLSv1.2"].concat();
    assert_eq!(fields(None, None), [&plain[..], b"\x02\x00\x03lb.\xe0\x00\x01\x09"].concat());
    let named = [&[0x20, 0, 22, 0x07, 0, 0, 0, 0, 0x21, 0, 7][..], b"TLSv1.2\x22\x00\x04Anna"].concat();
    let own = b"\xe0\x00\x01\x09\x02\x00\x0bdns.example";
    assert_eq!(fields(Some("dns.example"), Some("Anna")), [&named[..], own].concat());
    assert_eq!(fields(None, Some(&"x".repeat(65))), fields(None, None), "too long");
    assert_eq!(fields(Some("dns.example"), None), [&plain[..], own].concat());
}

/// Goal: a client of another address family than the listener's, and a client by datagram, are described correctly.
#[test]
fn writes_ipv6_where_one_end_is_and_the_clients_transport() {
    let mixed = client("[::ffff:192.0.2.1]:1", "[2001:db8::2]:853", None);
    let octets = written(Some(&mixed));
    assert_eq!(octets[12..16], [0x21, 0x21, 0, 36]);
    assert_eq!(parse(&octets).unwrap().unwrap().0.addresses.unwrap().0, "192.0.2.1:1".parse().unwrap());
    let datagram = Client { is_datagram: true, ..client("[2001:db8::1]:1", "[2001:db8::2]:53", None) };
    assert_eq!(written(Some(&datagram))[13], 0x22);
    let longest = client("[2001:db8::1]:1", "[2001:db8::2]:853", Some(TLS));
    let own = written(Some(&longest)).len();
    let tlvs = Tlvs::read(&[&[0xe0, 0, 253][..], &[7; 253]].concat());
    assert_eq!(written(Some(&Client { tlvs: tlvs.clone(), ..longest.clone() })).len(), own + 256);
    let (server, common) = ("a".repeat(255), "b".repeat(64));
    let tlvs = Tlvs::named(tlvs, Some(&server), Some(&common));
    assert_eq!(written(Some(&Client { tlvs, ..longest })).len(), WRITTEN_OCTETS_MAX);
}

/// Goal: LOCAL and unspecified name no client, and cause no error, whatever else they contain.
#[test]
fn local_and_unspecified_leave_the_connections_addresses() {
    for (command, family, body) in
        [(0x20, 0, &[][..]), (0x20, 0x11, &[1; 12]), (0x20, 0xff, &[7; 5]), (0x21, 0, &[9; 3])]
    {
        let octets = header(command, family, body);
        assert_eq!(parse(&octets), Ok(Some((Named::default(), octets.len()))));
    }
}

/// Goal: each malformed header is refused with its own reason.
#[test]
fn malformed_headers_are_refused_by_cause() {
    for (octets, cause) in [
        (header(0x11, 0x11, &[0; 12]), Malformed::Command(0x11)),
        (header(0x22, 0x11, &[0; 12]), Malformed::Command(0x22)),
        (header(0x21, 0x31, &[0; 216]), Malformed::Family(0x31)),
        (header(0x21, 0x13, &[0; 12]), Malformed::Family(0x13)),
        (header(0x21, 0x11, &[0; 11]), Malformed::Addresses(11)),
        (header(0x21, 0x21, &[0; 12]), Malformed::Addresses(12)),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 40000 853\r\n".to_vec(), Malformed::Signature),
        (vec![0x16, 3, 1, 2, 0], Malformed::Signature),
    ] {
        assert_eq!(parse(&octets), Err(cause));
    }
}

/// Goal: a load balancer's fields beside the addresses are passed on, except those that are valid only for its own
/// header (a checksum), empty ones, and, if the client's TLS ended here, those about TLS; fields beyond a bound, or
/// that do not fit, are not. Method: one header there and back. Covers: C-243
#[test]
fn what_a_load_balancer_says_is_passed_on() {
    let custom = [0xe0, 0, 3, b'a', b'b', b'c'];
    let (alpn, ssl) = ([0x01, 0, 2, b'h', b'2'], [0x20, 0, 5, 1, 0, 0, 0, 0]);
    let (checksum, nothing) = ([0x03, 0, 4, 1, 2, 3, 4], [0x04, 0, 1, 0]);
    let said = [&custom[..], &checksum, &alpn, &nothing, &ssl].concat();
    let ends = [192, 0, 2, 1, 198, 51, 100, 2, 0x9c, 0x40, 0, 53];
    let octets = header(0x21, 0x12, &[&ends[..], &said].concat());
    let (named, length) = parse(&octets).unwrap().unwrap();
    assert_eq!((length, named.is_datagram), (octets.len(), true));
    let (source, destination) = named.addresses.unwrap();
    let client = Client { source, destination, is_datagram: true, tls: None, tlvs: named.tlvs };
    let expected = [&ends[..], &custom, &alpn, &ssl].concat();
    assert_eq!(written(Some(&client)), header(0x21, 0x12, &expected));
    let own = written(Some(&Client { tlvs: None, tls: Some(TLS), ..client.clone() }));
    let both = written(Some(&Client { tls: Some(TLS), ..client }));
    assert_eq!(both[16..], [&own[16..], &custom].concat());
    assert!(Tlvs::read(&[&[0xe0, 1, 0][..], &[7; 256]].concat()).is_none(), "more than is passed on");
    assert!(Tlvs::read(&[0xe0, 0, 3, 1]).is_none() && Tlvs::read(&[]).is_none());
}

#[test]
fn only_named_prefixes_are_trusted() {
    let trusted = ["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let is_trusted = |host: &str| is_trusted(&trusted, host.parse().unwrap());
    assert!(is_trusted("192.0.2.9") && is_trusted("::ffff:192.0.2.9") && is_trusted("2001:db8:1::1"));
    assert!(!is_trusted("192.0.3.1") && !is_trusted("2001:db9::1"));
}

fn socket() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
}

proptest! {
    /// Goal: a written header is read back, the octets behind it are not touched, and every shorter part waits.
    #[test]
    fn reads_what_was_written(source in socket(), destination in socket(), tls: bool, behind in prop::collection::vec(any::<u8>(), 0..40)) {
        let client = Client { source, destination, is_datagram: false, tls: tls.then_some(TLS), tlvs: None };
        let octets = written(Some(&client));
        let whole = [&octets[..], &behind].concat();
        let read = parse(&whole).unwrap().map(|(named, length)| (named.addresses, named.is_datagram, length));
        prop_assert_eq!(read, Some((Some((source, destination)), false, octets.len())));
        for end in 0..octets.len() {
            prop_assert_eq!(parse(&octets[..end]), Ok(None));
        }
    }

    /// Goal: no octets cause a panic or a read beyond their end; a header has the length that it states.
    #[test]
    fn any_octets_have_one_outcome(begins: bool, rest in prop::collection::vec(any::<u8>(), 0..300)) {
        let octets = if begins { [&SIGNATURE[..], &rest].concat() } else { rest };
        if let Ok(Some((_, length))) = parse(&octets) {
            prop_assert!(length <= octets.len() && length >= PREAMBLE_OCTETS);
        }
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// Goal: exactly the header is read, in any pieces, and 65,535 octets of it are only skipped.
#[test]
fn takes_the_header_and_nothing_behind_it() {
    let mut body = vec![192, 0, 2, 1, 198, 51, 100, 2, 0, 7, 3, 85];
    body.resize(65_535, 4);
    let octets = [header(0x21, 0x11, &body), b"\x16\x03\x01".to_vec()].concat();
    run(async {
        let (mut near, mut far) = tokio::io::duplex(7);
        let send = async {
            far.write_all(&octets).await.unwrap();
            drop(far);
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        let (addresses, ()) = tokio::join!(
            async {
                let addresses = receive(&mut near, deadline).await;
                let mut rest = Vec::new();
                near.read_to_end(&mut rest).await.unwrap();
                assert_eq!(rest, b"\x16\x03\x01");
                addresses
            },
            send
        );
        let expected = ("192.0.2.1:7".parse().unwrap(), "198.51.100.2:853".parse().unwrap());
        let named = addresses.unwrap();
        assert_eq!((named.addresses, named.tlvs), (Some(expected), None), "more is said than is passed on");
    });
}

/// Goal: the three ways of not sending one are distinguished.
#[test]
fn silence_an_end_and_garbage_differ() {
    run(async {
        let (mut near, mut far) = tokio::io::duplex(64);
        far.write_all(&SIGNATURE).await.unwrap();
        let soon = Instant::now() + Duration::from_millis(10);
        assert!(matches!(receive(&mut near, soon).await, Err(Refusal::Timeout)));
        drop(far);
        let later = Instant::now() + Duration::from_secs(60);
        assert!(matches!(receive(&mut near, later).await, Err(Refusal::Closed)));
        let (mut near, mut far) = tokio::io::duplex(64);
        far.write_all(b"\x16").await.unwrap();
        assert!(matches!(receive(&mut near, later).await, Err(Refusal::Malformed(Malformed::Signature))));
    });
}

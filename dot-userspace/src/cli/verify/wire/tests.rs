//! Goal: octets in clear are never counted as TLS, nor TLS as in clear, however segments are cut, repeated or lost.

use super::*;

const CLIENT: u16 = 40_000;

/// A packet of IPv4 from one port of 192.0.2.1 to another.
fn packet(from: u16, to: u16, flags: u8, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(40 + payload.len()).unwrap().to_be_bytes();
    let mut packet =
        vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 1];
    packet.extend(from.to_be_bytes());
    packet.extend(to.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    packet.extend(payload);
    packet
}

fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3, length[0], length[1]], payload].concat()
}

/// A ServerHello with this suite.
fn server_hello(suite: [u8; 2]) -> Vec<u8> {
    let mut hello = vec![2, 0, 0, 40, 3, 3];
    hello.extend([7; 32]);
    hello.push(0);
    hello.extend(suite);
    hello.extend([0; 4]);
    record(22, &hello)
}

/// Octets of one direction in segments of this length, after its SYN.
fn say(wire: &mut Wire, (from, to): (u16, u16), octets: &[u8], length: usize) {
    wire.packet(&packet(from, to, 0x02, 0, &[]));
    let mut sequence = 1;
    for piece in octets.chunks(length) {
        wire.packet(&packet(from, to, 0x10, sequence, piece));
        // Each comes twice, as over a bridge and its port.
        wire.packet(&packet(from, to, 0x10, sequence, piece));
        sequence += u32::try_from(piece.len()).unwrap();
    }
}

/// Goal: records are counted by their connection's version, wherever segments end. Method: both versions, a PROXY header
/// of each version before the client's octets, segments of each length. Covers: C-585
#[test]
fn records_have_the_version_of_their_connection() {
    for (suite, proxy) in [([0x13, 1], &b"PROXY TCP4 192.0.2.9 192.0.2.1 5 853\r\n"[..]), ([0xc0, 0x2b], b"")]
    {
        for length in [1, 2, 3, 5, 7, 64, 1000] {
            let mut wire = Wire::new(vec![853]);
            let client = [proxy, &record(22, &[1; 200]), &record(23, &[0; 40])].concat();
            let server = [server_hello(suite), record(23, &[9; 300])].concat();
            say(&mut wire, (CLIENT, 853), &client, length);
            say(&mut wire, (853, CLIENT), &server, length.max(64));
            let seen = wire.seen();
            let octets = (client.len() - proxy.len() + server.len()) as u64;
            let records = if suite[0] == 0x13 { seen.tls13 } else { seen.tls12 };
            assert_eq!(records, Records { records: 4, octets }, "{length}");
            assert_eq!(seen.proxy_octets, proxy.len() as u64, "{length}");
            assert_eq!((seen.client_clear_octets, seen.server_clear_octets, seen.unjudged_octets), (0, 0, 0));
            assert_eq!(seen.connections, 1);
        }
    }
}

/// Goal: octets in clear are counted by their sender, and none behind them is taken for TLS. Method: a DNS message in
/// clear, then a record; a record, then an answer in clear. Covers: C-585
#[test]
fn octets_in_clear_are_counted() {
    for length in [1, 4, 1000] {
        let mut wire = Wire::new(vec![853]);
        let query = b"\0\x1d\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03net\0\0\x01\0\x01";
        say(&mut wire, (CLIENT, 853), &[&query[..], &record(23, b"x")].concat(), length);
        say(&mut wire, (853, CLIENT), &[&record(21, &[2, 10])[..], b"cleartext"].concat(), length);
        let seen = wire.seen();
        assert_eq!(seen.client_clear_octets, query.len() as u64 + 6, "{length}");
        assert_eq!(seen.server_clear_octets, 9, "{length}");
        assert_eq!(seen.tls, Records { records: 1, octets: 7 }, "{length}");
    }
}

/// Goal: a capture that begins inside a connection, or loses packets, judges nothing until a record begins. Method:
/// segments without a SYN; a gap inside a record. Covers: C-585
#[test]
fn what_cannot_be_judged_is_said() {
    let mut wire = Wire::new(vec![853]);
    wire.packet(&packet(853, CLIENT, 0x10, 500, b"the rest of a record"));
    wire.packet(&packet(853, CLIENT, 0x10, 520, &record(23, &[1; 20])));
    wire.packet(&packet(853, CLIENT, 0x10, 600, b"behind a gap"));
    wire.packet(&packet(853, CLIENT, 0x10, 612, &record(23, &[1; 20])));
    let seen = wire.seen();
    assert_eq!(seen.unjudged_octets, 32);
    assert_eq!(seen.tls, Records { records: 2, octets: 50 });
    assert_eq!(seen.server_clear_octets, 0);
}

/// Goal: connections are bounded, and none that gives way is left out of the counts; the same ports make another
/// connection. Method: more connections than are followed; then a SYN at known ports. Covers: C-585
#[test]
fn connections_are_bounded() {
    let mut wire = Wire::new(vec![853, 8853]);
    let all = u16::try_from(CONNECTIONS_MAX).unwrap() + 10;
    for port in 0..all {
        wire.packet(&packet(20_000 + port, 853, 0x02, 0, &[]));
        wire.packet(&packet(20_000 + port, 853, 0x10, 1, &record(22, &[1; 10])));
    }
    assert_eq!(wire.connections.len(), CONNECTIONS_MAX);
    assert_eq!(wire.seen().tls.records, u64::from(all));
    wire.packet(&packet(20_000 + all - 1, 853, 0x02, 77_000, &[]));
    wire.packet(&packet(20_000 + all - 1, 853, 0x10, 77_001, b"GET / HTTP/1.0"));
    let seen = wire.seen();
    assert_eq!((seen.tls.records, seen.connections), (u64::from(all), u64::from(all) + 1));
    assert_eq!(seen.client_clear_octets, 14);
    wire.packet(&packet(1, 2, 0x10, 1, b"of another port"));
    assert_eq!(wire.seen(), seen);
}

/// Goal: a client costs few octets of memory, whatever length its PROXY header claims, and the header ends where it says. Method: a
/// header of version 2 that claims 300 octets and brings them one by one; one that claims 65,535 and brings few. Covers: C-585
#[test]
fn a_header_of_a_load_balancer_is_not_kept() {
    let header = |length: u16| [PROXY_V2, &[0x21, 0x11], &length.to_be_bytes()].concat();
    let mut wire = Wire::new(vec![853]);
    let client = [&header(300)[..], &[0x16; 300], &record(22, b"x")].concat();
    say(&mut wire, (CLIENT, 853), &client, 1);
    let seen = wire.seen();
    assert_eq!((seen.proxy_octets, seen.tls), (316, Records { records: 1, octets: 6 }));
    say(&mut wire, (CLIENT + 1, 853), &[&header(u16::MAX)[..], &[0; 30_000]].concat(), 1000);
    assert!(wire.connections.values().all(|one| one.client.begun.capacity() <= PROXY_V1_MAX));
    assert_eq!(wire.seen().client_clear_octets, 0);
}

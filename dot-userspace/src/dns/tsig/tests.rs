//! Tests of TSIG: messages that the key signed are accepted, and no others.

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_700_000_000;

fn key(algorithm: &str, secret: &[u8]) -> TsigKey {
    TsigKey::new("Key.dotd.test.", algorithm, secret).unwrap()
}

/// A query for the SOA record of the root.
fn query() -> Vec<u8> {
    vec![1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 1]
}

/// A response to it without a record.
fn response() -> Vec<u8> {
    vec![1, 2, 0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 1]
}

/// The digest of RFC 8945 §4.3 for a message of a stream after the first: the previous signature, unsigned messages,
/// the message, the times.
fn sign_next(key: &TsigKey, before: &[u8], unsigned: &[Vec<u8>], message: &mut Vec<u8>) -> Vec<u8> {
    let mut context = key.begin(before);
    unsigned.iter().for_each(|message| context.update(message));
    context.update(message);
    context.update(&times(NOW));
    let mac = context.sign().as_ref().to_vec();
    let octets = u16::try_from(mac.len()).unwrap();
    let rdata = [key.algorithm, &times(NOW)[..], &octets.to_be_bytes(), &mac, &[1, 2], &[0; 4]].concat();
    let length = u16::try_from(rdata.len()).unwrap().to_be_bytes();
    message.extend([&key.name[..], &[0, 250, 0, 255, 0, 0, 0, 0], &length, &rdata].concat());
    message[11] += 1;
    mac
}

fn mac_of(message: &[u8]) -> Vec<u8> {
    Tsig::read(message).unwrap().unwrap().mac.to_vec()
}

/// Goal: both ends agree for each algorithm, also if a server on the path changed the ID; a wrong secret, another
/// key, another algorithm, an old signature and a changed octet each give their own error. Covers: C-560
#[test]
fn what_is_signed_is_believed() {
    for (_, algorithm, _) in ALGORITHMS {
        let key = key(algorithm, b"secret");
        let mut message = query();
        let mut stream = key.sign_query(&mut message, NOW);
        let request = key.verify_query(&message, NOW + 299).unwrap();
        assert_eq!(request, mac_of(&message));
        let mut answer = response();
        key.sign_response(&mut answer, &request, NOW);
        assert_eq!(stream.take(&answer, NOW), Ok(()), "{algorithm}");
        assert!(stream.is_covered());
        let mut moved = message.clone();
        moved[0] = 9;
        assert_eq!(key.verify_query(&moved, NOW), Ok(request), "the original ID is what is signed");
        assert_eq!(key.verify_query(&message, NOW + 301), Err(TsigError::BadTime(301)));
        message[14] ^= 1;
        assert_eq!(key.verify_query(&message, NOW), Err(TsigError::BadSignature));
    }
    let mut message = query();
    key("hmac-sha256", b"secret").sign_query(&mut message, NOW);
    let of = |key: TsigKey| key.verify_query(&message, NOW);
    assert_eq!(of(key("hmac-sha256", b"other")), Err(TsigError::BadSignature));
    assert_eq!(of(key("hmac-sha512", b"secret")), Err(TsigError::OtherKey));
    assert_eq!(of(TsigKey::new("other.", "hmac-sha256", b"secret").unwrap()), Err(TsigError::OtherKey));
    assert_eq!(key("hmac-sha256", b"secret").verify_query(&query(), NOW), Err(TsigError::Unsigned));
    assert!(TsigKey::new("a.", "hmac-md5", b"x").is_err() && TsigKey::new("a.", "hmac-sha1", b"").is_err());
}

/// Goal: of a transfer, up to 99 messages between two signatures may have none; the first and the last must have one,
/// and a message that was inserted, removed or changed is found at the next signature. Covers: C-561
#[test]
fn messages_between_two_signatures_are_covered_by_the_second() {
    let key = key("hmac-sha256", b"secret");
    let mut message = query();
    let request = {
        key.sign_query(&mut message, NOW);
        mac_of(&message)
    };
    let stream = || TsigStream {
        context: key.begin(&request),
        key: key.clone(),
        unsigned: 0,
        is_first: true,
        is_signed: false,
    };
    let mut first = response();
    key.sign_response(&mut first, &request, NOW);
    let between: Vec<_> = (0..3_u8)
        .map(|number| {
            let mut message = response();
            message[13] = number;
            message
        })
        .collect();
    // The octet that differs is in the type of the question.
    let mut last = response();
    sign_next(&key, &mac_of(&first), &between, &mut last);
    let take_all = |messages: &[&Vec<u8>]| {
        let mut stream = stream();
        messages.iter().try_for_each(|message| stream.take(message, NOW)).map(|()| stream.is_covered())
    };
    assert_eq!(take_all(&[&first, &between[0], &between[1], &between[2], &last]), Ok(true));
    assert_eq!(take_all(&[&first, &between[0], &between[1], &between[2]]), Ok(false), "the last has none");
    assert_eq!(
        take_all(&[&first, &between[0], &between[2], &last]),
        Err(TsigError::BadSignature),
        "left out"
    );
    assert_eq!(
        take_all(&[&first, &between[1], &between[0], &between[2], &last]),
        Err(TsigError::BadSignature)
    );
    assert_eq!(take_all(&[&between[0]]), Err(TsigError::Unsigned), "the first has none");
    let many: Vec<_> = std::iter::once(&first).chain(std::iter::repeat_n(&between[0], 100)).collect();
    assert_eq!(take_all(&many[..100]), Ok(false));
    assert_eq!(take_all(&many), Err(TsigError::Unsigned), "too many have none");
}

/// Goal: a server's error is reported by its name, and a TSIG record that is not the last record is refused. Covers: C-560
#[test]
fn a_servers_refusal_is_told() {
    let key = key("hmac-sha256", b"secret");
    let mut message = query();
    let mut stream = key.sign_query(&mut message, NOW);
    let mut answer = response();
    key.sign_response(&mut answer, &[], NOW);
    let error_at = answer.len() - 3;
    answer[error_at] = 17;
    assert!(matches!(stream.take(&answer, NOW), Err(TsigError::Refused(why)) if why.contains("BADKEY")));
    let mut behind = message.clone();
    behind.extend([0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
    behind[11] += 1;
    assert_eq!(key.verify_query(&behind, NOW), Err(TsigError::Broken));
}

proptest! {
    /// Goal: no octets make the reader panic, and no unsigned octet is accepted. Covers: C-560
    #[test]
    fn no_octets_are_believed(cut in 0..200_usize, place in any::<prop::sample::Index>(), bits in 1..=255_u8) {
        let key = key("hmac-sha256", b"secret");
        let mut message = query();
        key.sign_query(&mut message, NOW);
        let cut = cut.min(message.len());
        if cut < message.len() {
            prop_assert!(key.verify_query(&message[..cut], NOW).is_err());
        }
        // The ID may differ from the signed one, and letters of a name may have either case.
        let at = place.index(message.len() - 2) + 2;
        let before = message[at];
        message[at] ^= bits;
        let is_same = before.eq_ignore_ascii_case(&message[at]);
        prop_assert!(key.verify_query(&message, NOW).is_err() || is_same, "octet {at}");
    }
}

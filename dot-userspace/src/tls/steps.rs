//! Finds the records of a handshake in clear that complete a message which costs a private-key operation.
//!
//! Before: `dialogue` has a complete record. After: it knows whether rustls may see that record only in a turn.
//! Holds: the header of the incomplete message, and how many of its octets have come.
//! Never: keeps a message's octets, decides anything about security, or assumes that messages and records begin
//! together.
//!
//! Source: RFC 8446 §4 and §5.1, RFC 5246 §7.4: a message may be divided into records of any length.

/// ClientHello: dotd answers with a signature, also to the second one after a HelloRetryRequest (RFC 8446 §4.1.4).
const CLIENT_HELLO: u8 = 1;
/// CertificateVerify: dotd verifies the client's signature.
const CERTIFICATE_VERIFY: u8 = 15;
/// ClientKeyExchange (TLS 1.2): dotd computes the shared secret.
const CLIENT_KEY_EXCHANGE: u8 = 16;

/// Octets before a message's body: its type, and three octets of length.
const HEADER_OCTETS: usize = 4;

/// The cost of a record for dotd, once rustls has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    /// A part of a handshake whose signature is made.
    Share,
    /// A signature, unless its ClientHello resumes a session.
    Signature,
}

/// The state of a client's handshake messages, after the records so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    header: [u8; HEADER_OCTETS],
    /// Octets of the current message so far, its header included.
    octets: usize,
    hellos: u8,
    has_key_exchange: bool,
    is_sealed: bool,
}

impl Steps {
    /// The cost of the messages that `fragment`, the content of a handshake record, completes. `None`: nothing.
    pub fn cost(self, fragment: &[u8]) -> Option<Cost> {
        let mut steps = self;
        steps.take(fragment)
    }

    /// The same, and moves past `fragment`.
    pub fn take(&mut self, mut fragment: &[u8]) -> Option<Cost> {
        let mut cost = None;
        while !self.is_sealed && !fragment.is_empty() {
            let missing = self.whole().saturating_sub(self.octets);
            let (part, rest) = fragment.split_at(missing.min(fragment.len()));
            let header = self.header.iter_mut().skip(self.octets);
            header.zip(part).for_each(|(octet, new)| *octet = *new);
            self.octets += part.len();
            fragment = rest;
            if self.octets >= HEADER_OCTETS && self.octets == self.whole() {
                let [kind, ..] = self.header;
                cost = cost.max(match kind {
                    CLIENT_HELLO => Some(Cost::Signature),
                    CERTIFICATE_VERIFY | CLIENT_KEY_EXCHANGE => Some(Cost::Share),
                    _ => None,
                });
                self.hellos = self.hellos.saturating_add(u8::from(kind == CLIENT_HELLO));
                self.has_key_exchange |= kind == CLIENT_KEY_EXCHANGE;
                self.octets = 0;
            }
        }
        cost
    }

    /// The client changes its cipher spec. In TLS 1.2 everything after it is encrypted; in TLS 1.3 the record means
    /// nothing.
    pub fn take_change(&mut self) {
        self.is_sealed = self.has_key_exchange;
    }

    /// Number of whole ClientHellos; a second one follows a HelloRetryRequest.
    pub fn hellos(self) -> u8 {
        self.hellos
    }

    /// Whether the following records are encrypted, in TLS 1.2.
    pub fn is_sealed(self) -> bool {
        self.is_sealed
    }

    /// Octets of the current message, as far as known: its header's, until that is complete.
    fn whole(&self) -> usize {
        let [_, high, middle, low] = self.header;
        let body = if self.octets < HEADER_OCTETS { 0 } else { u32::from_be_bytes([0, high, middle, low]) };
        HEADER_OCTETS + usize::try_from(body).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message of this type with a body of this length.
    fn message(kind: u8, octets: u16) -> Vec<u8> {
        let [high, low] = octets.to_be_bytes();
        let mut message = vec![kind, 0, high, low];
        message.resize(HEADER_OCTETS + usize::from(octets), 7);
        message
    }

    /// Goal: the record with a costly message's last octet is the costly one, and other messages cost nothing. Method:
    /// a ClientHello, a certificate, a key exchange and later messages, before and after the change of the cipher spec.
    ///
    #[test]
    fn the_last_octet_costs() {
        let mut steps = Steps::default();
        let hello = message(CLIENT_HELLO, 300);
        assert_eq!((steps.take(&hello[..1]), steps.take(&hello[1..303])), (None, None));
        assert_eq!(steps.cost(&hello[303..]), Some(Cost::Signature));
        assert_eq!((steps.take(&hello[303..]), steps.cost(&hello[303..])), (Some(Cost::Signature), None));
        assert_eq!(steps.take(&message(11, 900)), None);
        steps.take_change();
        assert_eq!(
            steps.take(&message(CLIENT_HELLO, 9)),
            Some(Cost::Signature),
            "a change of TLS 1.3 seals nothing"
        );
        assert_eq!(steps.take(&message(CLIENT_KEY_EXCHANGE, 33)), Some(Cost::Share));
        assert_eq!(steps.take(&message(CERTIFICATE_VERIFY, 70)), Some(Cost::Share));
        steps.take_change();
        assert_eq!(steps.take(&message(CLIENT_HELLO, 5)), None, "sealed octets are no messages");
    }

    proptest! {
        /// Goal: however messages are divided into records, each costly one costs once. Method: any messages, divided
        /// anywhere.
        ///
        #[test]
        fn each_message_costs_once_however_it_is_cut(
            kinds in prop::collection::vec((prop::sample::select(vec![1u8, 11, 15, 20]), 0u16..600), 1..6),
            cuts in prop::collection::vec(1usize..700, 1..40),
        ) {
            let octets: Vec<u8> = kinds.iter().flat_map(|(kind, octets)| message(*kind, *octets)).collect();
            // At least one octet of each record.
            let (mut steps, mut rest, mut costly) = (Steps::default(), &octets[..], 0);
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (record, behind) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                costly += usize::from(steps.take(record).is_some());
                rest = behind;
            }
            let all = kinds.iter().filter(|(kind, _)| [1, 15].contains(kind)).count();
            prop_assert!(costly <= all && (costly > 0) == (all > 0));
            let mut steps = Steps::default();
            let singly = octets.chunks(1).filter(|octet| steps.take(octet).is_some()).count();
            prop_assert_eq!(singly, all);
        }
    }
}

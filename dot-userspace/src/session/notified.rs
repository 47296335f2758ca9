//! NOTIFY messages over every transport, from the primary servers of policy zones.
//!
//! Before: `dns::triage` found a NOTIFY, and some policy zones have primary servers. After: the zone's task is awake,
//! and the sender has a response.
//! Never: transfers a zone: another thread does.
//!
//! Source: RFC 1996 §3.7 and §4.7, RFC 8945 §5.2 (NOTAUTH).

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{WorkerShared, screening, shared_answers::Asker};
use crate::{
    dns::{Asked, Ede, HEADER_OCTETS, Labels, Made, Query, ResponseCode, Screening},
    ledger::{Counter, turn_time},
    policy::{Notice, Notified},
};

/// AA in the third octet of a header.
const AUTHORITATIVE: u8 = 0x04;

impl WorkerShared {
    /// Sets the zones that a NOTIFY can be about. `None`: there are none.
    pub fn hear_of(&self, notified: Option<Arc<Notified>>) {
        self.notified.replace(notified);
    }
}

/// Answers a NOTIFY, or passes it on as `dns.notify` says.
pub(super) fn notified(shared: &WorkerShared, message: &[u8], query: &Query, asker: &impl Asker) {
    let known = shared.notified.borrow();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let zone = Labels::read(message, HEADER_OCTETS);
    let heard = known.as_deref().zip(zone.as_ref()).map(|(known, zone)| {
        let message = message.get(..query.end).unwrap_or(message);
        known.hear(zone, asker.source(), message, query.is_signed, now)
    });
    let (rcode, ede, key) = match heard.unwrap_or(Notice::Foreign) {
        Notice::Taken(key) => (ResponseCode::NoError, None, key),
        Notice::Forged => (ResponseCode::NotAuth, None, None),
        Notice::Foreign if shared.limits().allowed.notify => {
            return screening::ask(shared, message, query, asker);
        }
        Notice::Foreign => {
            (ResponseCode::Refused, Some((Ede::BLOCKED_OPCODE.code, Ede::BLOCKED_OPCODE.text)), None)
        }
    };
    let counter =
        if rcode == ResponseCode::NoError { Counter::PolicyNotified } else { Counter::PolicyNotifyRefused };
    shared.counters.add(counter, 1);
    let asked = Asked { since: Some(turn_time::moment()), screening: Screening::Done, ..Asked::by(query) };
    let mut made = shared.made.take();
    let begun = Made::begin(message.get(..query.question_end).unwrap_or_default(), 0, &mut made);
    // A signed response leaves unchanged. It has no OPT, because its query has none.
    if key.is_none() {
        begun.finish(rcode, ede, false);
    }
    if let Some(octet) = made.get_mut(2) {
        *octet |= AUTHORITATIVE;
    }
    if let Some((key, mac)) = key {
        key.sign_response(&mut made, &mac, now);
    }
    asker.pass_made(asked, &made, false);
    shared.made.replace(made);
    shared.counters.add(Counter::Responded, 1);
}

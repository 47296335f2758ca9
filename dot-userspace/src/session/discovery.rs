//! Answers queries about this resolver itself (RFC 9462), over TLS and in clear.
//!
//! Before: `dns::triage` found a question about `resolver.arpa`, or a query asks for a service. After: the asker has
//! SVCB records, or NODATA.
//! Never: sends a query about `resolver.arpa` to a backend.

use std::sync::Arc;

use super::{WorkerShared, shared_answers::Asker};
use crate::{
    dns::{
        Asked, Designation, HEADER_OCTETS, Labels, Made, Proofs, Query, ResponseCode, Screening, TYPE_SVCB,
    },
    ledger::{Counter, turn_time},
};

impl WorkerShared {
    /// Sets how dotd describes itself. `None`: it does not.
    pub fn describe_by(&self, designation: Option<Arc<Designation>>) {
        self.designation.replace(designation);
    }

    /// Sets the names below which an ACME authority looks for a proof, and their records. `None`: there are none.
    pub fn prove_by(&self, proofs: Option<Arc<Proofs>>) {
        self.proofs.replace(proofs);
        self.note_judges();
    }
}

/// Answers a query about `resolver.arpa`.
pub(super) fn describe(shared: &WorkerShared, message: &[u8], query: &Query, asker: &impl Asker) {
    let designation = shared.designation.borrow();
    let asked = Asked { since: Some(turn_time::moment()), screening: Screening::Done, ..Asked::by(query) };
    let front = message.get(..query.question_end).unwrap_or_default();
    let mut made = shared.made.take();
    match (designation.as_deref(), asker.client()) {
        (Some(designation), Some(client)) => {
            designation.write(front, client.destination.ip(), asked.dnssec_ok, &mut made);
        }
        _ => Made::begin(front, 0, &mut made).finish(ResponseCode::NoError, None, asked.dnssec_ok),
    }
    asker.pass_made(asked, &made, false);
    shared.made.replace(made);
    shared.counters.add(Counter::Responded, 1);
}

/// Answers a query for a service if it is about the resolver's own name. `false`: it is about another name.
pub(super) fn describes(shared: &WorkerShared, message: &[u8], query: &Query, asker: &impl Asker) -> bool {
    let is_own = query.qtype == TYPE_SVCB
        && query.opcode == 0
        && shared.designation.borrow().as_deref().is_some_and(|designation| {
            Labels::read(message, HEADER_OCTETS).is_some_and(|name| designation.is_own_name(name.octets()))
        });
    if is_own {
        describe(shared, message, query, asker);
    }
    is_own
}

/// Answers a query for the proof of a name of the certificate. `false`: it is about another name.
pub(super) fn proves(shared: &WorkerShared, message: &[u8], query: &Query, asker: &impl Asker) -> bool {
    let proofs = shared.proofs.borrow();
    let Some(proofs) = proofs.as_deref() else { return false };
    if query.opcode != 0 || !proofs.has(message) {
        return false;
    }
    let asked = Asked { since: Some(turn_time::moment()), screening: Screening::Done, ..Asked::by(query) };
    let mut made = shared.made.take();
    proofs.write(message.get(..query.question_end).unwrap_or_default(), asked.dnssec_ok, &mut made);
    asker.pass_made(asked, &made, false);
    shared.made.replace(made);
    shared.counters.add(Counter::Responded, 1);
    true
}

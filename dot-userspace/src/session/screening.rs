//! Answers queries by the rules of policy zones.
//!
//! Before: `dns::triage` said forward, for any transport; or a response has come from a backend or the cache.
//! After: the asker has the response of a rule, no response, or the response unchanged.
//! Holds: nothing; the zones belong to `policy`.
//! Never: costs more than a branch while there is no zone; allocates for a rule that needs no other name.

use std::{net::IpAddr, rc::Rc, sync::Arc};

use super::{
    WorkerShared,
    discovery::{describes, proves},
    screened_alias::ScreenedAlias,
    shared_answers::{self, Asker},
};
use crate::{
    backend::{Broken, Sink},
    dns::{self, Asked, HEADER_OCTETS, Labels, Query, Screening, TYPE_SVCB},
    ledger::{Counter, turn_time},
    policy::{Action, Answered, Judged, OfAnswer, Place, Ruling, Screen, TenantId, alias_of, write},
};

const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;

impl WorkerShared {
    /// Sets the zones that change responses from now on, also cached ones. `None`: no zone does.
    pub fn screen_by(&self, screen: Option<Arc<Screen>>) {
        self.screen.replace(screen);
        self.note_judges();
    }

    /// Notes whether zones or proofs may answer, after one of these changed.
    pub(super) fn note_judges(&self) {
        let is_judging =
            self.screen.borrow().is_some() || self.has_tenants_zones() || self.proofs.borrow().is_some();
        self.is_judging.set(is_judging);
    }

    /// Whether zones may change responses.
    #[inline]
    pub(super) fn is_screened(&self, tenant: TenantId) -> bool {
        self.is_judging.get() && self.screen_of(tenant).is_some()
    }
}

/// Answers `message`, which `query` describes, by policy zones, the cache or a backend.
#[inline]
pub(super) fn ask(shared: &WorkerShared, message: &[u8], query: &Query, asker: &impl Asker) {
    // Most queries of most workers: a call that is not made saves more instructions than all these branches.
    match shared.is_judging.get() || query.qtype == TYPE_SVCB {
        false => shared_answers::ask(shared, message, query, asker),
        true => ask_judges(shared, message, query, asker),
    }
}

/// Has the resolver's own names, proofs and zones answer, if they do.
#[inline(never)]
fn ask_judges(shared: &WorkerShared, message: &[u8], query: &Query, asker: &impl Asker) {
    if describes(shared, message, query, asker) || proves(shared, message, query, asker) {
        return;
    }
    let screen = shared.screen_of(asker.tenant());
    match screen.as_deref() {
        Some(screen) if query.opcode == 0 && matches!(query.qclass, CLASS_IN | CLASS_ANY) => {
            judge(shared, screen, message, query, asker);
        }
        _ => shared_answers::ask(shared, message, query, asker),
    }
}

fn judge(shared: &WorkerShared, screen: &Screen, message: &[u8], query: &Query, asker: &impl Asker) {
    let Some(name) = Labels::read(message, HEADER_OCTETS) else {
        return shared_answers::ask(shared, message, query, asker);
    };
    let dnssec_ok = query.opt.is_some_and(|opt| opt.dnssec_ok);
    let screening = match screen.judge(&name, asker.source(), dnssec_ok, |ruling| note(shared, ruling)) {
        Judged::Ask(screening) => screening,
        Judged::Ruling(ruling) => {
            note(shared, &ruling);
            match follow(shared, &ruling, message, query, asker) {
                Some(screening) => screening,
                None => return,
            }
        }
    };
    shared_answers::ask(shared, message, &Query { screening, ..*query }, asker);
}

/// Acts on a rule. `Some`: the cache or a backend answers the query instead.
fn follow(
    shared: &WorkerShared,
    ruling: &Ruling<'_>,
    message: &[u8],
    query: &Query,
    asker: &impl Asker,
) -> Option<Screening> {
    let asked = Asked { since: Some(turn_time::moment()), screening: Screening::Done, ..Asked::by(query) };
    let place = Place {
        front: message.get(..query.question_end).unwrap_or_default(),
        answers: 0,
        question_end: query.question_end,
        owner: None,
        dnssec_ok: asked.dnssec_ok,
    };
    let mut made = shared.made.take();
    let mut screening = None;
    match ruling.action {
        Action::Drop => shared.counters.add(Counter::DroppedPolicy, 1),
        Action::Passthru => screening = Some(Screening::Done),
        Action::TcpOnly if !asker.is_datagram() => screening = Some(Screening::Done),
        Action::TcpOnly => {
            dns::Made::begin(place.front, 0, &mut made).finish(dns::ResponseCode::NoError, None, false);
            asker.pass_made(asked, &made, true);
            shared.counters.add(Counter::Responded, 1);
        }
        Action::Alias(..) if leads_on(ruling, place) => {
            if !asker.is_deferred(message, query) {
                ScreenedAlias::of(ruling, place, asked, (asker.expect(), asker.tenant())).ask(shared);
            }
        }
        _ => {
            write(ruling, place, &mut made);
            asker.pass_made(asked, &made, false);
            shared.counters.add(Counter::Responded, 1);
        }
    }
    shared.made.replace(made);
    screening
}

/// Whether the target of the rule's alias must be asked for.
fn leads_on(ruling: &Ruling<'_>, place: Place<'_>) -> bool {
    let wants_alias = matches!(dns::qtype_of(place.front, place.question_end), dns::TYPE_CNAME | 255);
    !wants_alias && alias_of(ruling, place).is_some()
}

/// Passes a response on as policy zones change it. `write` gets the response for the client, and whether it is
/// truncated for a datagram. `expect` returns the sink for another outcome, if one is still to come. `client` gives
/// the client's address, and whether it asks by datagrams.
///
/// # Errors
/// The answer is broken.
pub(super) fn screen_answer(
    shared: &Rc<WorkerShared>,
    asked: Asked,
    response: &[u8],
    (client, is_datagram, tenant): (IpAddr, bool, TenantId),
    expect: impl FnOnce() -> Option<Rc<dyn Sink>>,
    write_out: impl FnOnce(Asked, &[u8], bool) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let screen = shared.screen_of(tenant);
    let question_end = usize::from(asked.question_end);
    let found = screen.as_deref().and_then(|screen| {
        let (dnssec_ok, screening) = (asked.dnssec_ok, asked.screening);
        let answered = Answered { response, question_end, dnssec_ok, screening };
        screen.judge_answer(answered, client, |ruling| note(shared, ruling))
    });
    let Some(OfAnswer { ruling, kept: (answers, end), owner }) = found else {
        return write_out(asked, response, false);
    };
    note(shared, &ruling);
    let asked = Asked { screening: Screening::Done, ..asked };
    let owner = owner.and_then(|start| Labels::read(response, start));
    let front = response.get(..end).ok_or(Broken)?;
    let place = Place { front, answers, question_end, owner: owner.as_ref(), dnssec_ok: asked.dnssec_ok };
    match ruling.action {
        Action::Passthru => write_out(asked, response, false),
        Action::TcpOnly => write_out(asked, response, is_datagram),
        Action::Drop => {
            shared.counters.add(Counter::AnswerDropped, 1);
            Ok(())
        }
        Action::Alias(..) if leads_on(&ruling, place) => {
            match expect() {
                // The present outcome is used up; another one comes through this sink.
                Some(sink) => {
                    shared.counters.add(Counter::PolicyAskedAgain, 1);
                    ScreenedAlias::of(&ruling, place, asked, (sink, tenant)).ask_later(shared);
                }
                None => shared.counters.add(Counter::DroppedClientGone, 1),
            }
            Ok(())
        }
        _ => {
            let mut made = shared.made.take();
            write(&ruling, place, &mut made);
            let outcome = write_out(asked, &made, false);
            shared.made.replace(made);
            outcome
        }
    }
}

fn note(shared: &WorkerShared, ruling: &Ruling<'_>) {
    shared.counters.add(ruling.counter(), 1);
    shared.counters.add(ruling.found.counter(), 1);
    ruling.zone.hit();
    let zone = ruling.zone.config().name.as_str();
    // The line is read from memory that nothing else here reads: only if the event is wanted.
    tracing::trace!(
        zone,
        line = ruling.line(),
        found = ruling.found.label(),
        "a rule of a policy zone holds"
    );
}

//! Asks for the target of an alias that a policy rule gives, such as the name of a walled garden, and answers with
//! both.
//!
//! Before: `screening` found a rule that gives an alias. After: its asker has the alias and the records of its
//! target, or the failure.
//! Holds: the question, the records before the alias, and the alias.
//! Never: applies policy to the second response; gives its asker two outcomes.
//!
//! Source: RFC 1034 §3.6.2 (aliases are followed), RFC 1035 §4.1.4.

use std::{net::IpAddr, rc::Rc};

use tokio::task::spawn_local;

use super::{
    WorkerShared,
    asker::Suspect,
    shared_answers::{self, Asker},
};
use crate::{
    backend::{Broken, Failure, Sink},
    dns::{self, Asked, Labels, Made, Query, Screening, TYPE_CNAME, query_for},
    ledger::Counter,
    policy::{Place, Ruling, TenantId, alias_of},
    proxy::Client,
};

/// An alias that is being followed.
pub(super) struct ScreenedAlias {
    /// The query for the alias's target.
    query: Vec<u8>,
    follower: Rc<Follower>,
}

/// Waits for the response to that query.
struct Follower {
    /// The response so far. Its answer section has `answers` records.
    front: Vec<u8>,
    answers: u16,
    asked: Asked,
    zone: Option<Soa>,
    ede: Option<(u16, Box<str>)>,
    sink: Rc<dyn Sink>,
    tenant: TenantId,
}

/// A zone's SOA record: name, TTL and RDATA.
struct Soa(Box<[u8]>, u32, Box<[u8]>);

impl ScreenedAlias {
    /// `sink` waits for the response to `ruling`, whose alias leads to another name.
    pub(super) fn of(
        ruling: &Ruling<'_>,
        place: Place<'_>,
        asked: Asked,
        (sink, tenant): (Rc<dyn Sink>, TenantId),
    ) -> Self {
        let mut front = Vec::new();
        let target = alias_of(ruling, place);
        {
            let mut made = Made::begin(place.front, place.answers, &mut front);
            if let Some((target, ttl)) = &target {
                made.answer(place.owner.map(Labels::octets), TYPE_CNAME, *ttl, target.octets());
            }
        }
        let target = target.as_ref().map_or(&[0][..], |(target, _)| target.octets());
        let query = query_for(target, &front, place.question_end, asked.has_opt, asked.dnssec_ok);
        let soa = ruling.zone.rules().start().soa.as_ref();
        let zone = soa.map(|(ttl, rdata)| Soa(ruling.zone.wire().into(), *ttl, rdata.clone()));
        let ede = ruling.zone.ede().map(|(code, text)| (code, text.into()));
        let answers = place.answers + 1;
        Self { query, follower: Rc::new(Follower { front, answers, asked, zone, ede, sink, tenant }) }
    }

    /// Sends the query for the target.
    pub(super) fn ask(&self, shared: &WorkerShared) {
        match Query::parse(&self.query) {
            Ok(query) => {
                let query = Query { screening: Screening::Done, ..query };
                shared_answers::ask(shared, &self.query, &query, &self.follower);
            }
            // Unreachable: the name was parsed before.
            Err(_) => {
                shared.counters.add(Counter::Responded, 1);
                self.follower.failure(self.follower.asked, &self.query, Failure::Unreachable);
            }
        }
    }

    /// Sends the query after this turn: the response that is being passed on holds the borrows that it needs.
    pub(super) fn ask_later(self, shared: &Rc<WorkerShared>) {
        let shared = Rc::clone(shared);
        spawn_local(async move { self.ask(&shared) });
    }
}

impl Follower {
    /// The whole response. `None`: the second response is broken.
    fn whole(&self, question_end: usize, response: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(self.front.len() + response.len());
        let mut made = Made::begin(&self.front, self.answers, &mut out);
        made.copy_answers(response, question_end)?;
        if let Some(Soa(name, ttl, rdata)) = &self.zone {
            made.additional(Some(name), 6, *ttl, rdata);
        }
        let ede = self.ede.as_ref().map(|(code, text)| (*code, &**text));
        made.finish(dns::rcode_of(response), ede, self.asked.dnssec_ok);
        Some(out)
    }
}

impl Asker for Rc<Follower> {
    fn pass(&self, asked: Asked, response: &[u8]) -> bool {
        // A cached response: its result is the outcome of this follower.
        self.response(asked, response).is_ok()
    }

    fn expect(&self) -> Rc<dyn Sink> {
        Rc::clone(self) as Rc<dyn Sink>
    }

    fn client(&self) -> Option<Client> {
        Sink::client(&**self)
    }

    fn source(&self) -> IpAddr {
        self.sink.asker().unwrap_or(IpAddr::from([0, 0, 0, 0]))
    }

    fn pass_made(&self, asked: Asked, response: &[u8], _: bool) {
        let _ = self.response(asked, response);
    }

    fn is_datagram(&self) -> bool {
        false
    }

    fn is_deferred(&self, _: &[u8], _: &Query) -> bool {
        false
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn suspect(&self) -> Option<&dyn Suspect> {
        None
    }
}

impl Sink for Follower {
    fn client(&self) -> Option<Client> {
        self.sink.client()
    }

    fn asker(&self) -> Option<IpAddr> {
        self.sink.asker()
    }

    fn response(&self, asked: Asked, response: &[u8]) -> Result<(), Broken> {
        let whole = self.whole(usize::from(asked.question_end), response).ok_or(Broken)?;
        self.sink.response(self.asked, &whole)?;
        Ok(())
    }

    fn failure(&self, _: Asked, _: &[u8], failure: Failure) {
        self.sink.failure(self.asked, &self.front, failure);
    }
}

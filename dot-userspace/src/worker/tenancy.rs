//! What each tenant has of its own on one worker, as the settings say.
//!
//! Before: settings of the control thread. After: `session` answers each tenant's clients by it.
//! Never: replaces backends or caches that stay the same, because their queries are in flight; gives a tenant whose backends have no
//! address the backends of other clients.

use std::{rc::Rc, sync::Arc};

use super::{
    Settings,
    settings::{are_answers_same, says_the_same},
    tenants::{Own, Plan},
};
use crate::{
    backend::Backends,
    config::ClientSubnet,
    session::{SharedAnswers, Tenancy, WorkerShared},
};

/// The values with which a tenant's pool of backends is started.
fn start(own: &Own, settings: &Settings) -> (u8, ClientSubnet) {
    (settings.hedge_percent, own.client_subnet.unwrap_or(settings.client_subnet))
}

/// Starts to serve.
pub(super) fn serve(shared: &WorkerShared, settings: &Settings) {
    let own = settings.tenancy.own.iter().map(|own| begin(shared, settings, own, None));
    install(shared, settings, own.collect());
}

/// Serves by other settings. Each tenant of the same name keeps its pool of backends and its cache where they stay valid;
/// `keeps_answers`: the caches stay valid.
pub(super) fn reload(shared: &WorkerShared, old: &Settings, new: &Settings, keeps_answers: bool) {
    let mut before: Vec<_> = shared.take_tenancies().into_iter().map(Some).collect();
    let mut own = Vec::with_capacity(new.tenancy.own.len());
    for tenant in &new.tenancy.own {
        let place = old.tenancy.own.iter().position(|one| one.name == tenant.name);
        let was = place.and_then(|place| {
            let tenancy = before.get_mut(place)?.take()?;
            Some(Was { own: old.tenancy.own.get(place)?, settings: old, tenancy, keeps_answers })
        });
        own.push(begin(shared, new, tenant, was));
    }
    before.into_iter().flatten().for_each(retire);
    install(shared, new, own);
}

/// A tenant as it was.
struct Was<'a> {
    own: &'a Own,
    settings: &'a Settings,
    tenancy: Tenancy,
    keeps_answers: bool,
}

impl Was<'_> {
    fn has_same_backends(&self, settings: &Settings, own: &Own) -> bool {
        let (Some(old), Some(new)) = (&self.own.backends, &own.backends) else { return false };
        old.len() == new.len()
            && start(self.own, self.settings) == start(own, settings)
            && old.iter().zip(new).all(|(old, new)| old.is_same_but_for_limits(new))
    }

    fn has_same_answers(&self, settings: &Settings, own: &Own) -> bool {
        if self.keeps_answers {
            return true;
        }
        let is_kept_alike = self.settings.keeping == settings.keeping;
        match (&self.own.backends, &own.backends) {
            (None, None) => are_answers_same(self.settings, settings),
            (Some(old), Some(new)) => {
                let learn = (start(self.own, self.settings).1, start(own, settings).1);
                is_kept_alike && learn.0 == learn.1 && says_the_same(old, new)
            }
            _ => false,
        }
    }
}

fn begin(shared: &WorkerShared, settings: &Settings, own: &Own, was: Option<Was<'_>>) -> Tenancy {
    let (keeps_pool, keeps_answers) = was.as_ref().map_or((false, false), |was| {
        (was.has_same_backends(settings, own), was.has_same_answers(settings, own))
    });
    let mut old = was.map(|was| was.tenancy).unwrap_or_default();
    let pool = old.backends.take().filter(|_| keeps_pool);
    let backends = own.backends.as_ref().map(|backends| {
        let (hedge, subnet) = start(own, settings);
        let begin = || Rc::new(Backends::start(backends, settings.policy, hedge, subnet, &shared.counters));
        let pool = pool.unwrap_or_else(begin);
        pool.reload(settings.policy, backends);
        pool
    });
    let make =
        || (settings.keeping.entries > 0).then(|| SharedAnswers::new(settings.keeping, &shared.counters));
    let answers = if keeps_answers { old.answers.take() } else { make() };
    retire(old);
    Tenancy { backends, answers, rate: own.rate, ..Tenancy::default() }
}

fn retire(old: Tenancy) {
    old.answers.into_iter().for_each(|answers| answers.retire());
}

fn install(shared: &WorkerShared, settings: &Settings, own: Vec<Tenancy>) {
    let Plan { tenants, rates, .. } = &settings.tenancy;
    shared.serve_tenants(tenants.clone(), Arc::clone(rates), own);
    shared.screen_each(settings.screen.as_deref());
}

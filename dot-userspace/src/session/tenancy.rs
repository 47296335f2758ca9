//! The backends, the cache, the policy zones and the rate of each tenant on one worker.
//!
//! Before: a client's tenant is known. After: its queries are answered by what belongs to that tenant.
//! Holds: a row for each `[[tenant]]`; clients of no tenant have what [`WorkerShared`] has for everybody.
//! Never: costs more than a comparison for a client of no tenant; lets one tenant's answer reach another.

use std::{
    cell::{Cell, Ref, RefCell},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use dot_common::rate::Rate;

use super::{QueryRate, Rates, SharedAnswers, WorkerShared, disposition::Refusal, rates::Pace};
use crate::{
    backend::{Backends, Shares},
    cache::{Forget, Keeping},
    config::QueriesOver,
    ledger::turn_time,
    policy::{Identity, Member, Screen, TenantId, Tenants},
};

/// The octets of an address that are a row; no row is an IPv4 address.
const ROW_BITS: (u8, u8) = (32, 64);

/// What one tenant has of its own.
#[derive(Default)]
pub struct Tenancy {
    /// `None`: it asks the backends of everybody.
    pub backends: Option<Rc<Backends>>,
    /// `None`: the cache is off.
    pub answers: Option<Rc<SharedAnswers>>,
    /// Messages of all its clients together.
    pub rate: Rate,
    /// The policy zones that apply to it; [`WorkerShared::screen_each`] sets them.
    pub screen: Option<Arc<Screen>>,
}

/// The tenants of one worker.
#[derive(Default)]
pub(super) struct Tenancies {
    is_on: Cell<bool>,
    tenants: RefCell<Option<Arc<Tenants>>>,
    own: RefCell<Vec<Tenancy>>,
    /// What all workers count of each tenant's rate.
    rates: RefCell<Arc<Rates>>,
}

impl WorkerShared {
    /// Sets the tenants, each with its own. Clients of open sessions are judged again.
    pub fn serve_tenants(&self, tenants: Option<Arc<Tenants>>, rates: Arc<Rates>, own: Vec<Tenancy>) {
        let tenancies = &self.tenancies;
        tenancies.is_on.set(tenants.is_some());
        tenancies.tenants.replace(tenants);
        tenancies.rates.replace(rates);
        for old in tenancies.own.replace(own) {
            old.answers.into_iter().for_each(|answers| answers.retire());
        }
        self.note_judges();
        for inbox in self.sessions.borrow().values() {
            let (listener, identity) = inbox.standing.origin();
            inbox.member.set(self.member_of(listener, inbox.client.source.ip(), identity));
        }
    }

    /// What each tenant has, in their order, so that it can go on under other settings; until
    /// [`WorkerShared::serve_tenants`] no tenant has anything.
    pub fn take_tenancies(&self) -> Vec<Tenancy> {
        self.tenancies.own.take()
    }

    /// Sets the policy zones: for everybody, and for each tenant.
    pub fn screen_each(&self, screen: Option<&Screen>) {
        let tenants = self.tenancies.tenants.borrow();
        for (place, own) in self.tenancies.own.borrow_mut().iter_mut().enumerate() {
            let name = tenants.as_deref().and_then(|tenants| tenants.name(TenantId::at(place)));
            own.screen = screen.and_then(|screen| screen.of_tenant(name)).map(Arc::new);
        }
        self.screen_by(screen.and_then(|screen| screen.of_tenant(None)).map(Arc::new));
    }

    /// Whether a tenant has zones.
    pub(super) fn has_tenants_zones(&self) -> bool {
        self.tenancies.own.borrow().iter().any(|own| own.screen.is_some())
    }

    /// The tenant of a client.
    #[inline]
    #[must_use]
    pub fn member_of(
        &self,
        listener: Option<SocketAddr>,
        client: IpAddr,
        names: Option<&Identity>,
    ) -> Member {
        if !self.tenancies.is_on.get() {
            return Member::default();
        }
        let tenants = self.tenancies.tenants.borrow();
        tenants.as_deref().map(|tenants| tenants.choose(listener, client, names)).unwrap_or_default()
    }

    /// Whether a tenant is recognised by names, so that they must be kept for a reload.
    #[must_use]
    pub fn keeps_names(&self) -> bool {
        self.tenancies.tenants.borrow().as_deref().is_some_and(Tenants::are_by_names)
    }

    /// The name of a tenant.
    pub(super) fn tenant_name(&self, tenant: TenantId) -> Option<String> {
        self.tenancies.tenants.borrow().as_deref()?.name(tenant).map(str::to_owned)
    }

    /// Counts a message of a tenant's client. Why the tenant refuses it.
    #[inline]
    pub(super) fn judge_member(&self, member: Member) -> Option<Refusal> {
        self.judge_member_at(member.tenant.place()?, member)
    }

    #[inline(never)]
    fn judge_member_at(&self, place: usize, member: Member) -> Option<Refusal> {
        self.tenancies.tenants.borrow().iter().for_each(|tenants| tenants.note(member.tenant));
        if member.is_refused {
            return Some(Refusal::TENANTS_ALLOW);
        }
        let rate = self.tenancies.own.borrow().get(place)?.rate;
        if !rate.is_limit() {
            return None;
        }
        // A table of addresses that holds nothing but these rows: the row is the first half of an address.
        let row = Ipv6Addr::from_bits(u128::from(member.row) << u64::BITS).into();
        let limit = QueryRate { rate, over: QueriesOver::Refuse };
        let pace = self.tenancies.rates.borrow().take(row, ROW_BITS, limit, turn_time::now());
        (pace != Pace::Within).then_some(Refusal::TENANTS_RATE)
    }

    /// The backends that answer a tenant's clients.
    pub(super) fn backends_of(&self, tenant: TenantId) -> Rc<Backends> {
        let own = tenant.place().and_then(|place| self.tenancies.own.borrow().get(place)?.backends.clone());
        own.unwrap_or_else(|| self.backends())
    }

    /// Whether a backend learns who asks.
    #[must_use]
    pub fn learn_clients(&self) -> bool {
        let own = self.tenancies.own.borrow();
        self.backends().learn_clients()
            || own.iter().any(|own| own.backends.as_ref().is_some_and(|own| own.learn_clients()))
    }

    /// What `look` sees of those backends, without another owner of everybody's.
    #[inline]
    pub(super) fn look_at_backends_of<T>(&self, tenant: TenantId, look: impl FnOnce(&Backends) -> T) -> T {
        match tenant.place() {
            None => look(&self.backends.borrow()),
            Some(_) => look(&self.backends_of(tenant)),
        }
    }

    /// The shares of what these backends can have in flight.
    #[inline]
    pub(super) fn shares_of(&self, tenant: TenantId) -> Shares {
        self.look_at_backends_of(tenant, Backends::shares)
    }

    /// The cache of a tenant. `None`: the cache is off.
    #[inline]
    pub(super) fn answers_of(&self, tenant: TenantId) -> Option<Rc<SharedAnswers>> {
        match tenant.place() {
            None => self.answers(),
            Some(place) => self.tenancies.own.borrow().get(place)?.answers.clone(),
        }
    }

    /// The policy zones for a tenant.
    pub(super) fn screen_of(&self, tenant: TenantId) -> Option<Ref<'_, Arc<Screen>>> {
        match tenant.place() {
            None => Ref::filter_map(self.screen.borrow(), Option::as_ref).ok(),
            Some(place) => {
                let own = self.tenancies.own.borrow();
                Ref::filter_map(own, |own| own.get(place)?.screen.as_ref()).ok()
            }
        }
    }

    /// Removes the answers that `forget` selects from the caches of all tenants; `None`: all answers.
    pub fn forget_of_tenants(&self, forget: Option<&Forget>, keeping: Keeping) {
        for own in self.tenancies.own.borrow_mut().iter_mut() {
            match (forget, &own.answers) {
                (Some(forget), Some(answers)) => answers.forget(forget.clone()),
                (None, Some(answers)) => {
                    answers.retire();
                    own.answers = Some(SharedAnswers::new(keeping, &self.counters));
                }
                (_, None) => {}
            }
        }
    }
}

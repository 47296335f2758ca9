//! Finds the rule that matches a query, or the answer to it. Pure.
//!
//! Before: `session` has a query, and later its answer. After: it acts on the [`Ruling`] and counts it.
//! Holds: the zones in the order of the config.
//! Never: allocates, locks or waits; changes after it was built.
//!
//! Source: draft-vixie-dnsop-dns-rpz-00 §5: of two rules the one of the earlier name in a chain of aliases has
//! precedence, then the one of the earlier zone, then a client's before a name's, then the longer name or prefix. A
//! front end judges clients and names before it asks: rules about addresses in answers come after these, as in
//! Unbound.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{rules::Action, zone::Zone};
use crate::{
    dns::{self, Labels, Screening, TYPE_A, TYPE_AAAA, TYPE_CNAME, answers},
    ledger::Counter,
};

/// The trigger by which a rule was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The client's address.
    Client,
    /// The qname.
    Name,
    /// The name of an alias in the answer.
    Alias,
    /// An address in the answer.
    Address,
}

impl Found {
    /// Its counter in the ledger.
    #[must_use]
    pub fn counter(self) -> Counter {
        match self {
            Self::Client => Counter::PolicyByClient,
            Self::Name => Counter::PolicyByName,
            Self::Alias => Counter::PolicyByAlias,
            Self::Address => Counter::PolicyByAddress,
        }
    }

    /// The text in `dotd policy test`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Client => "client address",
            Self::Name => "name",
            Self::Alias => "alias in the answer",
            Self::Address => "address in the answer",
        }
    }
}

/// A rule that matches.
#[derive(Clone, Copy, Debug)]
pub struct Ruling<'s> {
    /// Its zone.
    pub zone: &'s Zone,
    /// Its number there.
    rule: u32,
    /// The trigger by which it was found.
    pub found: Found,
    /// Its action.
    pub action: Action<'s>,
}

impl Ruling<'_> {
    /// Its line in the zone's file.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.zone.rules().line(self.rule)
    }

    /// Its counter in the ledger.
    #[must_use]
    pub fn counter(&self) -> Counter {
        match self.action {
            _ if self.zone.only_counts() => Counter::PolicyOnlyCounted,
            Action::NxDomain => Counter::PolicyNxDomain,
            Action::NoData => Counter::PolicyNoData,
            Action::Passthru => Counter::PolicyPassthru,
            Action::Drop => Counter::PolicyDropped,
            Action::TcpOnly => Counter::PolicyTcpOnly,
            Action::Alias(..) | Action::Records(_) => Counter::PolicyLocal,
        }
    }
}

/// The verdict on a query.
#[derive(Clone, Copy, Debug)]
pub enum Judged<'s> {
    /// No rule matches so far: the query is answered, and its answer is checked in this way.
    Ask(Screening),
    /// A rule matches.
    Ruling(Ruling<'s>),
}

/// A rule that matches an answer.
#[derive(Clone, Copy, Debug)]
pub struct OfAnswer<'s> {
    /// The rule.
    pub ruling: Ruling<'s>,
    /// Records of the answer that are kept before those of the rule, and the end of the last one.
    pub kept: (u16, usize),
    /// First octet of the name that the rule is about. `None`: the qname.
    pub owner: Option<usize>,
}

/// A response, and facts about its query.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'r> {
    /// The whole response.
    pub response: &'r [u8],
    /// One past its question.
    pub question_end: usize,
    /// Whether the client asks for signatures.
    pub dnssec_ok: bool,
    /// The parts that are checked.
    pub screening: Screening,
}

/// The zones.
#[derive(Debug)]
pub struct Screen {
    zones: Box<[Zone]>,
}

impl Screen {
    /// These zones, in their order. `None`: there are none.
    #[must_use]
    pub fn new(zones: Vec<Zone>) -> Option<Self> {
        (!zones.is_empty()).then(|| Self { zones: zones.into() })
    }

    /// Those of the zones that are for the clients of a tenant; `None`: for clients of no tenant.
    #[must_use]
    pub fn of_tenant(&self, tenant: Option<&str>) -> Option<Self> {
        let is_for = |zone: &&Zone| {
            let tenants = &zone.config().tenants;
            tenants.is_empty() || tenant.is_some_and(|tenant| tenants.iter().any(|name| name == tenant))
        };
        Self::new(self.zones.iter().filter(is_for).cloned().collect())
    }

    /// The zones.
    #[must_use]
    pub fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// The verdict on a query for `name` from `client`, which asks for signatures if `dnssec_ok`. Matching rules that
    /// only count are passed to `note`.
    pub fn judge(
        &self,
        name: &Labels,
        client: IpAddr,
        dnssec_ok: bool,
        note: impl FnMut(&Ruling<'_>),
    ) -> Judged<'_> {
        match self.of_question(name, client, |_| true, note) {
            // Whether its answer is signed is not known yet.
            Some(ruling) if dnssec_ok && !ruling.zone.config().break_dnssec => match ruling.action {
                Action::Passthru => Judged::Ask(Screening::Done),
                _ => Judged::Ask(Screening::Whole),
            },
            Some(ruling) => Judged::Ruling(ruling),
            None => Judged::Ask(Screening::Answer),
        }
    }

    /// The rule that matches an answer.
    pub fn judge_answer(
        &self,
        answered: Answered<'_>,
        client: IpAddr,
        mut note: impl FnMut(&Ruling<'_>),
    ) -> Option<OfAnswer<'_>> {
        let Answered { response, question_end, dnssec_ok, screening } = answered;
        if screening == Screening::Done {
            return None;
        }
        let is_signed = dnssec_ok && dns::is_signed(response, question_end);
        let holds = |zone: &Zone| !is_signed || zone.config().break_dnssec;
        if screening == Screening::Whole {
            let name = Labels::read(response, dns::HEADER_OCTETS)?;
            if let Some(ruling) = self.of_question(&name, client, holds, &mut note) {
                return Some(OfAnswer { ruling, kept: (0, question_end), owner: None });
            }
        }
        self.of_aliases(response, question_end, holds, &mut note)
            .or_else(|| self.of_addresses(response, question_end, holds, &mut note))
    }

    fn of_question(
        &self,
        name: &Labels,
        client: IpAddr,
        holds: impl Fn(&Zone) -> bool,
        mut note: impl FnMut(&Ruling<'_>),
    ) -> Option<Ruling<'_>> {
        self.zones.iter().filter(|zone| holds(zone)).find_map(|zone| {
            let rules = zone.rules();
            let by_client = rules.by_client(client).map(|rule| (rule, Found::Client));
            let (rule, found) = by_client.or_else(|| Some((rules.by_name(name)?, Found::Name)))?;
            ruling(zone, rule, found, |alias| name.octets() == alias, &mut note)
        })
    }

    /// Checks the names of aliases in the answer, from the first one on.
    fn of_aliases(
        &self,
        response: &[u8],
        question_end: usize,
        holds: impl Fn(&Zone) -> bool,
        note: &mut impl FnMut(&Ruling<'_>),
    ) -> Option<OfAnswer<'_>> {
        let aliases = (1..).zip(answers(response, question_end));
        for (count, record) in aliases.filter(|(_, record)| record.rtype == TYPE_CNAME) {
            let target = Labels::read(response, record.rdata)?;
            let is_target = |alias: &[u8]| target.octets() == alias;
            let ruling = self.zones.iter().filter(|zone| holds(zone)).find_map(|zone| {
                ruling(zone, zone.rules().by_name(&target)?, Found::Alias, is_target, &mut *note)
            });
            if let Some(ruling) = ruling {
                return Some(OfAnswer { ruling, kept: (count, record.end), owner: Some(record.rdata) });
            }
        }
        None
    }

    /// Checks the addresses in the answer: in one zone the first address with a rule decides.
    fn of_addresses(
        &self,
        response: &[u8],
        question_end: usize,
        holds: impl Fn(&Zone) -> bool,
        note: &mut impl FnMut(&Ruling<'_>),
    ) -> Option<OfAnswer<'_>> {
        let has_addresses = |zone: &&Zone| zone.rules().has_addresses() && holds(zone);
        let is_owner = |alias: &[u8]| {
            let mut records = answers(response, question_end);
            let first = records.find(|record| matches!(record.rtype, TYPE_A | TYPE_AAAA));
            let owner = first.and_then(|record| Labels::read(response, record.start));
            owner.is_some_and(|owner| owner.octets() == alias)
        };
        let ruling = self.zones.iter().filter(has_addresses).find_map(|zone| {
            let mut addresses = answers(response, question_end)
                .filter_map(|record| address_of(record.rtype, response.get(record.rdata..record.end)?));
            let rule = addresses.find_map(|address| zone.rules().by_address(address))?;
            ruling(zone, rule, Found::Address, is_owner, &mut *note)
        })?;
        let (mut kept, mut owner) = ((0, question_end), None);
        for (count, record) in (1..).zip(answers(response, question_end)) {
            match record.rtype {
                TYPE_A | TYPE_AAAA => {
                    owner = Some(record.start);
                    break;
                }
                _ => kept = (count, record.end),
            }
        }
        Some(OfAnswer { ruling, kept, owner })
    }
}

/// The rule's action. `None`: it only counts. A walled garden that is on the list itself stays unchanged: `is_own`
/// says whether an alias is the name that the rule is about, which would lead to itself.
fn ruling<'s>(
    zone: &'s Zone,
    rule: u32,
    found: Found,
    is_own: impl FnOnce(&[u8]) -> bool,
    mut note: impl FnMut(&Ruling<'_>),
) -> Option<Ruling<'s>> {
    let action = match zone.action(rule) {
        Action::Alias(alias, _) if is_own(alias) => Action::Passthru,
        given => given,
    };
    let ruling = Ruling { zone, rule, found, action };
    if zone.only_counts() {
        note(&ruling);
        return None;
    }
    Some(ruling)
}

fn address_of(rtype: u16, rdata: &[u8]) -> Option<IpAddr> {
    match rtype {
        TYPE_A => Some(Ipv4Addr::from(<[u8; 4]>::try_from(rdata).ok()?).into()),
        TYPE_AAAA => Some(Ipv6Addr::from(<[u8; 16]>::try_from(rdata).ok()?).into()),
        _ => None,
    }
}

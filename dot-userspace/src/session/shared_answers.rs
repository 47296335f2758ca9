//! A worker's answers: from its cache, from a query that is already at a backend, or from a backend.
//!
//! Before: `dns::triage` said forward, for a query over any transport. After: its asker has an answer, or will get one.
//! Holds: the cache, and the askers that wait for an answer.
//! Never: changes an answer except TTLs and the question's case, which is each client's own; gives an asker two
//! outcomes; costs anything while the cache is off.
//!
//! Source: RFC 8767 §5: a backend is asked first, and an expired answer is given only if it fails.

use std::{cell::RefCell, net::IpAddr, rc::Rc};

use tokio::task::spawn_local;

pub(super) use super::asker::Asker;
use super::{WorkerShared, misused::is_held_back};
use crate::{
    backend::{Broken, Failure, Sink},
    cache::{Cache, Forget, Found, Joined, Keeping, Key, Pending, Place},
    dns::{self, Asked, HEADER_OCTETS, Query, Told},
    ledger::{Counter, WorkerCounters, turn_time},
    proxy::Client,
};

/// Answers `message`, which `query` describes.
pub(super) fn ask(shared: &WorkerShared, message: &[u8], query: &Query, asker: &impl Asker) {
    let tenant = asker.tenant();
    let Some(answers) = shared.answers_of(tenant) else { return forward(shared, message, query, asker) };
    let told = shared.look_at_backends_of(tenant, |backends| backends.told(query, || asker.client()));
    let Some(key) = Key::of(message, query, told) else {
        shared.counters.add(Counter::CacheBypassed, 1);
        return forward(shared, message, query, asker);
    };
    let now = turn_time::now();
    let since = Some(turn_time::moment());
    let asked = Asked { subnet_is_ours: matches!(told, Told::Added(_)), since, ..Asked::by(query) };
    let fetching = Fetching { shared, message, query, asked };
    let found = answers.cache.borrow_mut().look(&key, now);
    match found {
        Found::Fresh(place, wants_refresh) if answers.give(place, &key, &fetching, asker) => {
            shared.counters.add(Counter::CacheHit, 1);
            if wants_refresh {
                answers.refresh(place, key, &fetching, asker);
            }
        }
        Found::Stale(place, true) if answers.give(place, &key, &fetching, asker) => {
            shared.counters.add(Counter::CacheStale, 1);
        }
        _ => {
            shared.counters.add(Counter::CacheMissed, 1);
            if asker.is_deferred(message, query) || is_held_back(shared, message, query, asker) {
                return;
            }
            answers.wait(key, &fetching, asker);
        }
    }
}

/// A query that the cache may answer.
struct Fetching<'a> {
    shared: &'a WorkerShared,
    message: &'a [u8],
    query: &'a Query,
    asked: Asked,
}

impl Fetching<'_> {
    /// The message up to the end of the question.
    fn head(&self) -> &[u8] {
        self.message.get(..self.query.question_end).unwrap_or_default()
    }

    /// The question as the client wrote it.
    fn question(&self) -> &[u8] {
        self.head().get(HEADER_OCTETS..).unwrap_or_default()
    }
}

/// Sends a query to a backend. If no backend takes it, the asker gets SERVFAIL at once.
fn forward(shared: &WorkerShared, message: &[u8], query: &Query, asker: &impl Asker) {
    if asker.is_deferred(message, query) || is_held_back(shared, message, query, asker) {
        return;
    }
    let sink = asker.expect();
    if let Err(failure) = shared.backends_of(asker.tenant()).submit(message, query, Rc::clone(&sink)) {
        shared.counters.add(Counter::Responded, 1);
        let since = Some(turn_time::moment());
        sink.failure(Asked { since, ..Asked::by(query) }, message, failure);
    }
}

/// The cache, and the askers that wait.
pub struct SharedAnswers {
    cache: RefCell<Cache>,
    pending: RefCell<Pending<Waiter>>,
    /// Buffer in which a cached response is prepared for its client.
    ready: RefCell<Vec<u8>>,
    counters: WorkerCounters,
}

/// An asker that waits.
struct Waiter {
    sink: Rc<dyn Sink>,
    asked: Asked,
    /// Its message up to the end of the question: the case of the name is its own.
    head: Box<[u8]>,
    /// Its query is the one at the backend.
    is_first: bool,
}

impl SharedAnswers {
    /// An empty cache.
    #[must_use]
    pub fn new(keeping: Keeping, counters: &WorkerCounters) -> Rc<Self> {
        Rc::new(Self {
            cache: RefCell::new(Cache::new(keeping, counters)),
            pending: RefCell::default(),
            ready: RefCell::default(),
            counters: counters.clone(),
        })
    }

    /// Frees the memory, a part in each turn, of answers that are not used any more.
    pub fn retire(self: &Rc<Self>) {
        let answers = Rc::clone(self);
        spawn_local(async move {
            while answers.cache.borrow_mut().dismantle() {
                tokio::task::yield_now().await;
            }
        });
    }

    /// Removes the answers that `forget` selects, a part in each turn.
    pub fn forget(self: &Rc<Self>, forget: Forget) {
        let answers = Rc::clone(self);
        spawn_local(async move {
            let mut next = Some(0);
            while let Some(start) = next {
                next = answers.cache.borrow_mut().forget(&forget, start);
                tokio::task::yield_now().await;
            }
        });
    }

    /// Gives `asker` the answer at `place`.
    fn give(&self, place: Place, key: &Key, fetching: &Fetching<'_>, asker: &impl Asker) -> bool {
        let mut ready = self.ready.borrow_mut();
        self.cache.borrow().write(place, key, fetching.question(), &mut ready);
        let is_passed = asker.pass(fetching.asked, &ready);
        self.counters.add(Counter::Cached, u64::from(is_passed));
        is_passed
    }

    /// Makes `asker` wait for the answer, with others or as the one whose query goes to a backend.
    fn wait(self: &Rc<Self>, key: Key, fetching: &Fetching<'_>, asker: &impl Asker) {
        let waiter = |is_first| Waiter {
            sink: asker.expect(),
            asked: fetching.asked,
            head: fetching.head().into(),
            is_first,
        };
        let joined = self.pending.borrow_mut().join(&key, || waiter(false));
        match joined {
            Joined::Waits => {
                self.counters.add(Counter::Joined, 1);
                self.counters.add(Counter::CacheWaiting, 1);
            }
            Joined::IsFirst => self.ask_backend(key, None, fetching, Some(waiter(true)), asker),
            Joined::IsFull => forward(fetching.shared, fetching.message, fetching.query, asker),
        }
    }

    /// Refreshes the popular answer at `place` before it expires, unless that is under way. An answer for every client
    /// subnet is refreshed once for all of them.
    fn refresh(self: &Rc<Self>, place: Place, key: Key, fetching: &Fetching<'_>, asker: &impl Asker) {
        let shared = key.shared().filter(|_| place.is_for_all()).map(Box::new);
        if !self.pending.borrow().has(shared.as_deref().unwrap_or(&key)) {
            self.ask_backend(key, shared, fetching, None, asker);
        }
    }

    /// Asks a backend, for `first`, or without an asker to refresh the answer. Others find the query under `key`, or
    /// under `shared` if that is given.
    fn ask_backend(
        self: &Rc<Self>,
        key: Key,
        shared: Option<Box<Key>>,
        fetching: &Fetching<'_>,
        first: Option<Waiter>,
        asker: &impl Asker,
    ) {
        let is_refresh = first.is_none();
        self.pending.borrow_mut().begin(shared.as_deref().unwrap_or(&key), first);
        let client = if fetching.asked.subnet_is_ours { asker.client() } else { None };
        let backends = fetching.shared.backends_of(asker.tenant());
        let asker = asker.client().map(|client| client.source.ip());
        let fetch = Rc::new(Fetch { answers: Rc::clone(self), key, shared, client, asker, is_refresh });
        match backends.submit(fetching.message, fetching.query, Rc::clone(&fetch) as Rc<dyn Sink>) {
            Ok(()) => self.counters.add(Counter::CacheRefresh, u64::from(is_refresh)),
            Err(failure) => {
                self.counters.add(Counter::Responded, u64::from(!is_refresh));
                fetch.fail(failure);
            }
        }
    }
}

/// The cache's query at a backend.
struct Fetch {
    answers: Rc<SharedAnswers>,
    key: Key,
    /// The key for every client subnet, if the answer may be for all.
    shared: Option<Box<Key>>,
    /// The client whose subnet a backend learns.
    client: Option<Client>,
    /// The address of the first asker.
    asker: Option<IpAddr>,
    is_refresh: bool,
}

impl Fetch {
    /// The key under which waiting askers are found.
    fn place(&self) -> &Key {
        self.shared.as_deref().unwrap_or(&self.key)
    }

    /// No backend answered: each asker gets the expired answer, or the failure.
    fn fail(&self, failure: Failure) {
        let now = turn_time::now();
        let answers = &self.answers;
        answers.cache.borrow_mut().note_failure(&self.key, now);
        let waiting = answers.pending.borrow_mut().end(self.place());
        for waiter in waiting {
            let found = answers.cache.borrow_mut().look(&self.key, now);
            let has_answer = match found {
                Found::Fresh(place, _) | Found::Stale(place, _) => {
                    let mut ready = answers.ready.borrow_mut();
                    answers.cache.borrow().write(place, &self.key, waiter.question(), &mut ready);
                    let is_passed = waiter.sink.response(waiter.asked, &ready).is_ok();
                    answers.counters.add(Counter::CacheStale, u64::from(is_passed));
                    is_passed
                }
                Found::Nothing => false,
            };
            if !has_answer {
                waiter.sink.failure(waiter.asked, &waiter.head, failure);
            }
            self.settle(&waiter);
        }
    }

    fn settle(&self, waiter: &Waiter) {
        self.answers.counters.subtract(Counter::CacheWaiting, u64::from(!waiter.is_first));
    }

    /// Gives `response` to all askers. `Err`: its records are broken, and they wait on.
    fn give_all(&self, response: &[u8]) -> Result<(), Broken> {
        let mut waiting = self.answers.pending.borrow_mut().end(self.place());
        let mut ready = self.answers.ready.borrow_mut();
        for position in 0..waiting.len() {
            let Some(waiter) = waiting.get(position) else { break };
            ready.clear();
            ready.extend_from_slice(response);
            // The first asker's question came back as the backend wrote it; the questions of the others never went
            // there.
            let question = ready.get_mut(HEADER_OCTETS..self.key.question_end()).filter(|_| !waiter.is_first);
            if let Some(question) = question {
                question.copy_from_slice(waiter.question());
            }
            match waiter.sink.response(waiter.asked, &ready) {
                Ok(()) => {}
                // A broken response is broken for all. Askers before this one have left, and accept anything.
                Err(Broken) => {
                    drop(waiting.drain(..position));
                    self.answers.pending.borrow_mut().resume(self.place(), waiting);
                    return Err(Broken);
                }
            }
            self.settle(waiter);
        }
        Ok(())
    }
}

impl Waiter {
    fn question(&self) -> &[u8] {
        self.head.get(HEADER_OCTETS..).unwrap_or_default()
    }
}

impl Sink for Fetch {
    fn asker(&self) -> Option<IpAddr> {
        self.asker
    }

    fn client(&self) -> Option<Client> {
        self.client.clone()
    }

    fn response(&self, _: Asked, response: &[u8]) -> Result<(), Broken> {
        let now = turn_time::now();
        let is_failure = dns::rcode_of(response) == dns::ResponseCode::ServFail;
        let has_older = is_failure && self.answers.cache.borrow_mut().look(&self.key, now) != Found::Nothing;
        if has_older {
            self.fail(Failure::Unreachable);
        } else {
            self.give_all(response)?;
            self.answers.cache.borrow_mut().keep(&self.key, response, now);
        }
        self.answers.counters.add(Counter::CacheRefreshed, u64::from(self.is_refresh));
        Ok(())
    }

    fn failure(&self, _: Asked, _: &[u8], failure: Failure) {
        self.fail(failure);
        self.answers.counters.add(Counter::CacheRefreshed, u64::from(self.is_refresh));
    }
}

//! A worker's answers: from its cache, from a query that is at a backend already, or else from a backend.
//!
//! Before: `dns::triage` said forward, whichever way the query came. After: its asker has an answer, or will.
//! Holds: the cache, and who waits for an answer that is being asked for.
//! Never: changes what an answer says but for TTLs, and the question's case, which is each client's own; gives an
//! asker two outcomes; stands in the way when the cache is off.
//!
//! Source: RFC 8767 §5: a backend is asked first, and what has ended is given only when it fails.

use std::{cell::RefCell, net::IpAddr, rc::Rc};

use tokio::task::spawn_local;

use super::WorkerShared;
use crate::{
    backend::{Broken, Failure, Sink},
    cache::{Cache, Forget, Found, Joined, Keeping, Key, Pending, Place},
    dns::{self, Asked, HEADER_OCTETS, Query, Told},
    ledger::{Counter, WorkerCounters, turn_time},
    proxy::Client,
};

/// Who has a query answered: a session, or a datagram's sender.
pub(super) trait Asker {
    /// Passes a response on at once. `false`: it cannot be passed on.
    fn pass(&self, asked: Asked, response: &[u8]) -> bool;
    /// One outcome will come later, through what this returns.
    fn expect(&self) -> Rc<dyn Sink>;
    /// Who asks.
    fn client(&self) -> Option<Client>;
    /// What a backend must be asked for is not asked for now: the asker was told.
    fn is_deferred(&self, message: &[u8], query: &Query) -> bool;
}

/// Has `message`, which `query` describes, answered.
pub(super) fn ask(shared: &WorkerShared, message: &[u8], query: &Query, asker: &impl Asker) {
    let Some(answers) = shared.answers() else { return forward(shared, message, query, asker) };
    let told = shared.backends().told(query, || asker.client());
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
            if asker.is_deferred(message, query) {
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
    /// Its message up to the question's end.
    fn head(&self) -> &[u8] {
        self.message.get(..self.query.question_end).unwrap_or_default()
    }

    /// Its question, as its client wrote it.
    fn question(&self) -> &[u8] {
        self.head().get(HEADER_OCTETS..).unwrap_or_default()
    }
}

/// Sends a query to a backend; where none takes it, its asker hears SERVFAIL at once.
fn forward(shared: &WorkerShared, message: &[u8], query: &Query, asker: &impl Asker) {
    if asker.is_deferred(message, query) {
        return;
    }
    let sink = asker.expect();
    if let Err(failure) = shared.backends().submit(message, query, Rc::clone(&sink)) {
        shared.counters.add(Counter::Responded, 1);
        let since = Some(turn_time::moment());
        sink.failure(Asked { since, ..Asked::by(query) }, message, failure);
    }
}

/// The cache, and who waits.
pub struct SharedAnswers {
    cache: RefCell<Cache>,
    pending: RefCell<Pending<Waiter>>,
    /// Where a kept response is made ready for its client.
    ready: RefCell<Vec<u8>>,
    counters: WorkerCounters,
}

/// One that waits.
struct Waiter {
    sink: Rc<dyn Sink>,
    asked: Asked,
    /// Its message up to the question's end: the case of the name is its own.
    head: Box<[u8]>,
    /// Its query is the one that is at the backend.
    is_first: bool,
}

impl SharedAnswers {
    /// Nothing yet.
    #[must_use]
    pub fn new(keeping: Keeping, counters: &WorkerCounters) -> Rc<Self> {
        Rc::new(Self {
            cache: RefCell::new(Cache::new(keeping, counters)),
            pending: RefCell::default(),
            ready: RefCell::default(),
            counters: counters.clone(),
        })
    }

    /// Gives the memory back, a bit in each turn; for answers that nobody asks any more.
    pub fn retire(self: &Rc<Self>) {
        let answers = Rc::clone(self);
        spawn_local(async move {
            while answers.cache.borrow_mut().dismantle() {
                tokio::task::yield_now().await;
            }
        });
    }

    /// Forgets the answers that `forget` means, a bit in each turn.
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

    /// Has `asker` wait for the answer, with others or as the one whose query a backend gets.
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

    /// Has the popular answer at `place` anew before it ends, unless that is under way: of one for every client subnet,
    /// once for all of them.
    fn refresh(self: &Rc<Self>, place: Place, key: Key, fetching: &Fetching<'_>, asker: &impl Asker) {
        let shared = key.shared().filter(|_| place.is_for_all()).map(Box::new);
        if !self.pending.borrow().has(shared.as_deref().unwrap_or(&key)) {
            self.ask_backend(key, shared, fetching, None, asker);
        }
    }

    /// Asks a backend, for `first` or, when that is nobody, to have the answer anew. Others find that under `key`, or under
    /// `shared` where there is one.
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
        let asker = asker.client().map(|client| client.source.ip());
        let fetch = Rc::new(Fetch { answers: Rc::clone(self), key, shared, client, asker, is_refresh });
        let backends = fetching.shared.backends();
        match backends.submit(fetching.message, fetching.query, Rc::clone(&fetch) as Rc<dyn Sink>) {
            Ok(()) => self.counters.add(Counter::CacheRefresh, u64::from(is_refresh)),
            Err(failure) => {
                self.counters.add(Counter::Responded, u64::from(!is_refresh));
                fetch.fail(failure);
            }
        }
    }
}

/// A query of the cache at a backend.
struct Fetch {
    answers: Rc<SharedAnswers>,
    key: Key,
    /// Under what it is found, where it is for every client subnet.
    shared: Option<Box<Key>>,
    /// Whose subnet a backend is told.
    client: Option<Client>,
    /// Who asked first.
    asker: Option<IpAddr>,
    is_refresh: bool,
}

impl Fetch {
    /// Under what those who wait for it are found.
    fn place(&self) -> &Key {
        self.shared.as_deref().unwrap_or(&self.key)
    }

    /// Nobody gave an answer: whoever waits gets the one that has ended, or hears of the failure.
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

    /// Gives `response` to all who wait. `Err`: its records are broken, and they wait on.
    fn give_all(&self, response: &[u8]) -> Result<(), Broken> {
        let mut waiting = self.answers.pending.borrow_mut().end(self.place());
        let mut ready = self.answers.ready.borrow_mut();
        for position in 0..waiting.len() {
            let Some(waiter) = waiting.get(position) else { break };
            ready.clear();
            ready.extend_from_slice(response);
            // The first one's question came back as the backend wrote it; the others' have never been there.
            let question = ready.get_mut(HEADER_OCTETS..self.key.question_end()).filter(|_| !waiter.is_first);
            if let Some(question) = question {
                question.copy_from_slice(waiter.question());
            }
            match waiter.sink.response(waiter.asked, &ready) {
                Ok(()) => {}
                // What is broken is so for all. Those before have left, and take anything.
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

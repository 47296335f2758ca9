//! A worker's answers: from its cache, from a query that is at a backend already, or else from a backend.
//!
//! Before: `dns::triage` said forward, whichever way the query came. After: its asker has an answer, or will.
//! Holds: the cache, and who waits for an answer that is being asked for.
//! Never: changes what an answer says but for TTLs, and the question's case, which is each client's own; gives an
//! asker two outcomes; stands in the way when the cache is off.
//!
//! Source: RFC 8767 §5: a backend is asked first, and what has ended is given only when it fails.

use std::{cell::RefCell, rc::Rc};

use tokio::{task::spawn_local, time::Instant};

use super::Room;
use crate::{
    backend::{Broken, Failure, Sink},
    cache::{Cache, Found, Joined, Key, Pending, Place},
    dns::{self, Asked, HEADER_OCTETS, Query},
    ledger::{Counter, WorkerCounters},
};

/// Who has a query answered: a session, or a datagram's sender.
pub(super) trait Asker {
    /// Passes a response on at once. `false`: it cannot be passed on.
    fn pass(&self, asked: Asked, response: &[u8]) -> bool;
    /// One outcome will come later, through what this returns.
    fn expect(&self) -> Rc<dyn Sink>;
}

/// Has `message`, which `query` describes, answered.
pub(super) fn ask(room: &Room, message: &[u8], query: &Query, asker: &impl Asker) {
    let Some(answers) = room.answers() else { return forward(room, message, query, asker) };
    let Some(key) = Key::of(message, query) else {
        room.counters.add(Counter::CacheBypassed, 1);
        return forward(room, message, query, asker);
    };
    let now = Instant::now();
    let found = answers.cache.borrow_mut().look(&key, now);
    match found {
        Found::Fresh(place, wants_refresh) if answers.give(place, message, query, asker) => {
            room.counters.add(Counter::CacheHit, 1);
            if wants_refresh && !answers.pending.borrow().has(&key) {
                answers.ask_backend(room, message, query, key, None);
            }
        }
        Found::Stale(place, true) if answers.give(place, message, query, asker) => {
            room.counters.add(Counter::CacheStale, 1);
        }
        _ => {
            room.counters.add(Counter::CacheMissed, 1);
            answers.wait(room, message, query, key, asker);
        }
    }
}

/// Sends a query to a backend; where none takes it, its asker hears SERVFAIL at once.
fn forward(room: &Room, message: &[u8], query: &Query, asker: &impl Asker) {
    let sink = asker.expect();
    if let Err(failure) = room.backends().submit(message, query, Rc::clone(&sink)) {
        room.counters.add(Counter::Responded, 1);
        sink.failure(Asked::by(query), message, failure);
    }
}

/// The cache, and who waits.
pub struct Answers {
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

impl Answers {
    /// Nothing yet.
    #[must_use]
    pub fn new(entries: u32, counters: &WorkerCounters) -> Rc<Self> {
        Rc::new(Self {
            cache: RefCell::new(Cache::new(entries, counters)),
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

    /// Forgets the answers for `name` (wire format, lower case), a bit in each turn.
    pub fn forget(self: &Rc<Self>, name: Box<[u8]>) {
        let answers = Rc::clone(self);
        spawn_local(async move {
            let mut next = Some(0);
            while let Some(start) = next {
                next = answers.cache.borrow_mut().forget(&name, start);
                tokio::task::yield_now().await;
            }
        });
    }

    /// Gives `asker` the answer at `place`.
    fn give(&self, place: Place, message: &[u8], query: &Query, asker: &impl Asker) -> bool {
        let question = message.get(HEADER_OCTETS..query.question_end).unwrap_or_default();
        let mut ready = self.ready.borrow_mut();
        self.cache.borrow().write(place, question, &mut ready);
        let is_passed = asker.pass(Asked::by(query), &ready);
        self.counters.add(Counter::Cached, u64::from(is_passed));
        is_passed
    }

    /// Has `asker` wait for the answer, with others or as the one whose query a backend gets.
    fn wait(self: &Rc<Self>, room: &Room, message: &[u8], query: &Query, key: Key, asker: &impl Asker) {
        let waiter = |is_first| Waiter {
            sink: asker.expect(),
            asked: Asked::by(query),
            head: message.get(..query.question_end).unwrap_or_default().into(),
            is_first,
        };
        let joined = self.pending.borrow_mut().join(&key, || waiter(false));
        match joined {
            Joined::Waits => {
                self.counters.add(Counter::Joined, 1);
                self.counters.add(Counter::CacheWaiting, 1);
            }
            Joined::IsFirst => self.ask_backend(room, message, query, key, Some(waiter(true))),
            Joined::IsFull => forward(room, message, query, asker),
        }
    }

    /// Asks a backend, for `first` or, when that is nobody, to have the answer anew.
    fn ask_backend(
        self: &Rc<Self>,
        room: &Room,
        message: &[u8],
        query: &Query,
        key: Key,
        first: Option<Waiter>,
    ) {
        let is_refresh = first.is_none();
        self.pending.borrow_mut().begin(&key, first);
        let fetch = Rc::new(Fetch { answers: Rc::clone(self), key, is_refresh });
        match room.backends().submit(message, query, Rc::clone(&fetch) as Rc<dyn Sink>) {
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
    answers: Rc<Answers>,
    key: Key,
    is_refresh: bool,
}

impl Fetch {
    /// Nobody gave an answer: whoever waits gets the one that has ended, or hears of the failure.
    fn fail(&self, failure: Failure) {
        let now = Instant::now();
        let answers = &self.answers;
        answers.cache.borrow_mut().note_failure(&self.key, now);
        let waiting = answers.pending.borrow_mut().end(&self.key);
        for waiter in waiting {
            let found = answers.cache.borrow_mut().look(&self.key, now);
            let has_answer = match found {
                Found::Fresh(place, _) | Found::Stale(place, _) => {
                    let mut ready = answers.ready.borrow_mut();
                    answers.cache.borrow().write(place, waiter.question(), &mut ready);
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
        let mut waiting = self.answers.pending.borrow_mut().end(&self.key);
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
                    self.answers.pending.borrow_mut().resume(&self.key, waiting);
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
    fn response(&self, _: Asked, response: &[u8]) -> Result<(), Broken> {
        let now = Instant::now();
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

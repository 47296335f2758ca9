//! Sends questions and matches the answers: over one connection, in any order.
//!
//! Before: `wire` is open. After: a `Round`. Holds: the questions in flight, by ID.
//! Never: has more than `--in-flight` of them unanswered, or accepts an answer to another question.
//!
//! Source: RFC 7766 §6.2.1.1 and §7 (pipelining, order), RFC 5936 §2.2 (zone transfers), RFC 5452 §3.

use std::{
    collections::HashMap,
    io,
    time::{Duration, Instant},
};

use hickory_proto::{op::Message, rr::RecordType};

use super::{
    datagrams,
    failure::plain,
    matching::{READ_OCTETS, is_late, random_id, read},
    outcome::{Outcome, Reply, Round},
    plan::{Plan, Transport},
    wire::{NotOpened, Wire},
};
use crate::dns::framing::{append_message, cut_message};

/// Most octets of a zone that are kept to be printed.
const ZONE_OCTETS_MAX: usize = 256 << 20;

/// Asks every question once.
pub(super) fn round(plan: &Plan) -> Result<Round, String> {
    if plan.transport == Transport::Udp {
        return datagrams::round(plan);
    }
    match Wire::open(plan) {
        Ok(mut wire) => {
            let mut round = over(&mut wire, plan)?;
            round.opening = Some(wire.close(plan));
            Ok(round)
        }
        Err(refused) => Ok(unopened(*refused)),
    }
}

/// Asks every question `plan.rounds` times over one connection.
pub(super) fn rounds_of_one(plan: &Plan) -> Result<Vec<Round>, String> {
    if plan.transport == Transport::Udp {
        return (0..plan.rounds).map(|_| datagrams::round(plan)).collect();
    }
    let mut wire = match Wire::open(plan) {
        Ok(wire) => wire,
        Err(refused) => return Ok(vec![unopened(*refused)]),
    };
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        let round = over(&mut wire, plan)?;
        let is_over = round.replies.iter().any(|reply| matches!(reply.outcome, Outcome::Cut(_)));
        rounds.push(round);
        if is_over {
            break;
        }
    }
    if let Some(first) = rounds.first_mut() {
        first.opening = Some(wire.close(plan));
    }
    Ok(rounds)
}

fn unopened(refused: NotOpened) -> Round {
    Round {
        opening: Some(refused.opening),
        first_octet: None,
        replies: Vec::new(),
        failure: Some(refused.failure),
    }
}

/// A question that waits for its answer.
struct Waiting {
    question: usize,
    query_octets: usize,
    asked: Instant,
    messages: Vec<Message>,
    octets: usize,
}

/// A connection's questions.
struct Conversation<'a> {
    plan: &'a Plan,
    waiting: HashMap<u16, Waiting>,
    replies: Vec<Reply>,
    began: Instant,
    first_octet: Option<Duration>,
    answers: usize,
    kept: usize,
    is_over: bool,
}

fn over(wire: &mut Wire, plan: &Plan) -> Result<Round, String> {
    let mut talk = Conversation {
        plan,
        waiting: HashMap::new(),
        replies: Vec::new(),
        began: Instant::now(),
        first_octet: None,
        answers: 0,
        kept: 0,
        is_over: false,
    };
    let mut next = 0;
    let mut received = Vec::new();
    let mut buffer = vec![0; READ_OCTETS];
    while next < plan.questions.len() || !talk.waiting.is_empty() {
        let mut framed = Vec::new();
        while next < plan.questions.len() && talk.waiting.len() < plan.in_flight {
            talk.ask(next, &mut framed)?;
            next += 1;
        }
        let oldest = talk.waiting.values().map(|one| one.asked).min().unwrap_or(talk.began);
        let left = (oldest + plan.timeout).saturating_duration_since(Instant::now());
        let read = match framed.is_empty() {
            true => wire.read(&mut buffer, left),
            false => wire.write(&framed).and_then(|()| wire.read(&mut buffer, left)),
        };
        match read {
            Ok(0) => talk.cut("the server closed the connection", next),
            Ok(octets) => {
                talk.first_octet.get_or_insert_with(|| talk.began.elapsed());
                received.extend_from_slice(&buffer[..octets]);
                if let Err(reason) = talk.take(&mut received) {
                    talk.cut(&reason, next);
                }
            }
            Err(error) if is_late(&error) => talk.give_up_old(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => talk.cut(&plain(&error), next),
        }
        if talk.is_over {
            break;
        }
    }
    talk.replies.sort_by_key(|reply| reply.question);
    Ok(Round { opening: None, first_octet: talk.first_octet, replies: talk.replies, failure: None })
}

impl Conversation<'_> {
    /// Appends the question at this place, under an unused ID.
    fn ask(&mut self, place: usize, framed: &mut Vec<u8>) -> Result<(), String> {
        let Some(question) = self.plan.questions.get(place) else { return Ok(()) };
        let id = loop {
            let id = random_id()?;
            if !self.waiting.contains_key(&id) {
                break id;
            }
        };
        let octets = self.plan.manner.octets(question, id)?;
        let query_octets = octets.len();
        append_message(framed, |out| {
            out.extend_from_slice(&octets);
            Ok::<(), String>(())
        })?;
        let asked = Instant::now();
        self.waiting
            .insert(id, Waiting { question: place, query_octets, asked, messages: Vec::new(), octets: 0 });
        Ok(())
    }

    /// Takes every whole message from the front of `received`.
    fn take(&mut self, received: &mut Vec<u8>) -> Result<(), String> {
        let mut used = 0;
        while let Some(cut) = cut_message(&received[used..]).map_err(|error| error.to_string())? {
            used += cut.octets;
            self.hear(cut.message);
        }
        received.drain(..used);
        if self.kept > ZONE_OCTETS_MAX {
            return Err(format!("more than {ZONE_OCTETS_MAX} octets of a zone"));
        }
        Ok(())
    }

    fn hear(&mut self, octets: &[u8]) {
        let id = octets.first_chunk().map(|id| u16::from_be_bytes(*id));
        // A message that answers no question is dropped: its question, if any, times out.
        let Some(mut waiting) = id.and_then(|id| self.waiting.remove(&id)) else { return };
        waiting.octets += octets.len();
        match read(octets, self.plan, waiting.question) {
            Err(reason) => self.end(waiting, Outcome::Malformed(reason)),
            Ok(message) => {
                waiting.messages.push(message);
                if self.is_transfer(waiting.question) && !is_whole(&waiting.messages) {
                    self.kept += octets.len();
                    waiting.asked = Instant::now();
                    self.waiting.extend(id.map(|id| (id, waiting)));
                } else {
                    let messages = std::mem::take(&mut waiting.messages);
                    self.end(waiting, Outcome::Answered(messages));
                }
            }
        }
    }

    fn is_transfer(&self, question: usize) -> bool {
        self.plan.questions.get(question).is_some_and(|question| question.kind == RecordType::AXFR)
    }

    fn end(&mut self, waiting: Waiting, outcome: Outcome) {
        let is_answer = matches!(outcome, Outcome::Answered(_) | Outcome::Malformed(_));
        self.answers += usize::from(is_answer);
        self.replies.push(Reply {
            question: waiting.question,
            place: if is_answer { self.answers } else { 0 },
            query_octets: waiting.query_octets,
            octets: waiting.octets,
            elapsed: waiting.asked.elapsed(),
            was_truncated: false,
            kept_truncated: None,
            outcome,
        });
    }

    /// Ends questions that have waited for too long.
    fn give_up_old(&mut self) {
        let now = Instant::now();
        let timeout = self.plan.timeout;
        let old = self.waiting.extract_if(|_, one| one.asked + timeout <= now);
        let old: Vec<Waiting> = old.map(|(_, one)| one).collect();
        for waiting in old {
            self.end(waiting, Outcome::Silent);
        }
    }

    /// The connection has ended: this ends all waiting questions and those that were not sent yet.
    fn cut(&mut self, reason: &str, next: usize) {
        let waiting: Vec<Waiting> = self.waiting.drain().map(|(_, one)| one).collect();
        for one in waiting {
            self.end(one, Outcome::Cut(reason.to_owned()));
        }
        for question in next..self.plan.questions.len() {
            let outcome = Outcome::Cut("not sent: the connection had ended".to_owned());
            let (query_octets, octets, elapsed) = (0, 0, Duration::ZERO);
            self.replies.push(Reply {
                question,
                place: 0,
                query_octets,
                octets,
                elapsed,
                was_truncated: false,
                kept_truncated: None,
                outcome,
            });
        }
        self.is_over = true;
    }
}

/// Whether a zone transfer has ended: the second SOA, an error, or an answer without any record.
fn is_whole(messages: &[Message]) -> bool {
    let answers = messages.iter().flat_map(|message| message.answers.iter());
    let soas = answers.filter(|record| record.record_type() == RecordType::SOA).count();
    let is_over =
        |message: &Message| u16::from(message.metadata.response_code) != 0 || message.answers.is_empty();
    soas >= 2 || messages.iter().any(is_over)
}

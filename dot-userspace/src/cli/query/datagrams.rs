//! Sends questions by UDP, one after the other; a truncated answer is asked for again over TCP.
//!
//! Before: `plan` selects UDP. After: a `Round`. Never: accepts a datagram from another address, or one with another
//! ID.
//!
//! Source: RFC 1035 §4.2.1, RFC 7766 §5, RFC 5452 §9.

use std::{
    io,
    net::UdpSocket,
    time::{Duration, Instant},
};

use super::{
    failure::plain,
    matching::{READ_OCTETS, is_late, random_id, read},
    outcome::{Outcome, Reply, Round},
    plan::Plan,
    wire::Wire,
};
use crate::{
    dns::framing::{append_message, cut_message},
    proxy::header,
};

/// Asks every question once.
pub(super) fn round(plan: &Plan) -> Result<Round, String> {
    let mut round = Round { opening: None, first_octet: None, replies: Vec::new(), failure: None };
    for place in 0..plan.questions.len() {
        let reply = by_datagram(plan, place)?;
        round.first_octet = round.first_octet.or(Some(reply.elapsed));
        round.replies.push(Reply { place: if reply.octets > 0 { place + 1 } else { 0 }, ..reply });
    }
    Ok(round)
}

fn by_datagram(plan: &Plan, place: usize) -> Result<Reply, String> {
    let Some(question) = plan.questions.get(place) else { return Err("no such question".to_owned()) };
    let id = random_id()?;
    let query = plan.manner.octets(question, id)?;
    let began = Instant::now();
    let mut reply = Reply {
        question: place,
        place: 0,
        query_octets: query.len(),
        octets: 0,
        elapsed: Duration::ZERO,
        was_truncated: false,
        kept_truncated: None,
        outcome: Outcome::Silent,
    };
    match send_and_hear(plan, &query, began) {
        Ok(None) => {}
        Ok(Some(octets)) => {
            reply.octets = octets.len();
            reply.outcome = match read(&octets, plan, place) {
                Ok(message) => Outcome::Answered(vec![message]),
                Err(reason) => Outcome::Malformed(reason),
            };
        }
        Err(error) => reply.outcome = Outcome::Cut(error.to_string()),
    }
    reply.elapsed = began.elapsed();
    let is_truncated =
        matches!(&reply.outcome, Outcome::Answered(all) if all.iter().any(|one| one.metadata.truncation));
    if is_truncated && !plan.keeps_truncated {
        match by_stream(plan, place) {
            Ok(whole) => return Ok(whole),
            Err(reason) => reply.kept_truncated = Some(reason),
        }
    }
    Ok(reply)
}

/// The same question over TCP.
///
/// # Errors
/// Why it could not be asked there, or had no answer.
fn by_stream(plan: &Plan, place: usize) -> Result<Reply, String> {
    let mut wire = Wire::open_clear(plan).map_err(|refused| refused.failure.to_string())?;
    let id = random_id()?;
    let question = plan.questions.get(place).ok_or("no such question")?;
    let query = plan.manner.octets(question, id)?;
    let mut framed = Vec::new();
    append_message(&mut framed, |out| {
        out.extend_from_slice(&query);
        Ok::<(), String>(())
    })?;
    let began = Instant::now();
    wire.write(&framed).map_err(|error| plain(&error))?;
    let mut received = Vec::new();
    let mut buffer = vec![0; READ_OCTETS];
    loop {
        let left = (began + plan.timeout).checked_duration_since(Instant::now());
        let octets =
            wire.read(&mut buffer, left.ok_or("no answer in time")?).map_err(|error| plain(&error))?;
        if octets == 0 {
            return Err("the server closed the connection".to_owned());
        }
        received.extend_from_slice(&buffer[..octets]);
        let cut = cut_message(&received).map_err(|error| error.to_string())?;
        let Some(cut) = cut else { continue };
        let outcome = match read(cut.message, plan, place) {
            Ok(message) => Outcome::Answered(vec![message]),
            Err(reason) => Outcome::Malformed(reason),
        };
        let (octets, elapsed) = (cut.message.len(), began.elapsed());
        return Ok(Reply {
            question: place,
            place: 0,
            query_octets: query.len(),
            octets,
            elapsed,
            was_truncated: true,
            kept_truncated: None,
            outcome,
        });
    }
}

/// The first datagram of the server with the query's ID. `None`: none came in time.
fn send_and_hear(plan: &Plan, query: &[u8], began: Instant) -> io::Result<Option<Vec<u8>>> {
    let any = if plan.address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(plan.address)?;
    plan.note_use(socket.local_addr(), false);
    let mut datagram = Vec::new();
    if let Some(client) = &plan.proxy {
        header::write(Some(client), &mut datagram);
    }
    datagram.extend_from_slice(query);
    socket.send(&datagram)?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let left = (began + plan.timeout).saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match socket.recv(&mut buffer) {
            Ok(octets) if buffer[..octets].first_chunk::<2>() == query.first_chunk() => {
                buffer.truncate(octets);
                return Ok(Some(buffer));
            }
            Ok(_) => {}
            Err(error) if is_late(&error) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

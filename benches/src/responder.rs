//! The backend that coalesces: all queries of a read are answered in one write, by a rule instead of a zone.
//!
//! Before: an address. After: a front end's own cost shows, because the backend's many small writes are gone.
//! Holds: one thread for each core asked for, with listeners of its own; the same names as the zone of `peers`.
//! Never: serves real clients: it has no limits, no compression beyond the question, one record at most.
//!
//! Source: RFC 1035 §4.1 (messages), §4.2.2 (length prefix), RFC 6891 §7 (OPT is answered with OPT).

use std::{io, net::SocketAddr, rc::Rc, thread};

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UdpSocket},
    task::LocalSet,
};

use crate::floor::{PREFIX_OCTETS, take_all};

const BACKLOG: u32 = 1024;
const HEADER_OCTETS: usize = 12;
/// Type and class.
const QUESTION_TAIL_OCTETS: usize = 4;
const LABEL_OCTETS_MAX: u8 = 63;
const TYPE_A: [u8; 2] = [0, 1];
/// QR and AA in the third octet; opcode and RD are the query's.
const ANSWER_FLAGS: u8 = 0x84;
/// What `peers` puts into its zone for the apex, and the network of its hosts.
const APEX: [u8; 4] = [192, 0, 2, 53];
const HOSTS: [u8; 3] = [198, 51, 100];
/// A pointer to the question, type A, class IN, an hour, four octets.
const RECORD_HEAD: [u8; 12] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4];
/// The root, type OPT, 1232 octets over UDP, nothing else.
const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];
const DATAGRAM_OCTETS: usize = 4096;

/// A DNS server that answers by rule, over TCP with as few writes as can be, and over UDP.
///
/// A is 198.51.100.N for a name whose first label ends with the number N (modulo 256), else 192.0.2.53;
/// every other type is NOERROR without data.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "responder",
    version,
    after_help = "\
EXAMPLES:
    responder 127.0.0.1:5300                 a backend for any front end; kdig @127.0.0.1 -p 5300 +tcp host-7.test
    responder 127.0.0.1:5300 --threads 2     two threads, each with its own listeners

    `cargo xtask bench peers` starts it for the work that coalesces.

EXIT STATUS:
    It serves until it is ended; 1 when it could not start, 2 for a mistake in the command line."
)]
pub struct Options {
    /// Where to listen, over TCP and UDP
    listen: SocketAddr,
    /// Threads
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
}

/// Serves until the process ends.
///
/// # Errors
/// An address that cannot be used, or a thread that failed.
pub fn run(options: &Options) -> Result<()> {
    let more = (1..options.threads).map(|number| {
        let options = options.clone();
        thread::Builder::new().name(format!("responder-{number}")).spawn(move || one_thread(&options))
    });
    let more = more.collect::<io::Result<Vec<_>>>()?;
    one_thread(options)?;
    for thread in more {
        if thread.join().is_err() {
            bail!("a thread panicked");
        }
    }
    Ok(())
}

fn one_thread(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(options.listen))
}

async fn serve(listen: SocketAddr) -> Result<()> {
    let complaint = || format!("cannot listen on {listen}");
    let socket = if listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(listen).with_context(complaint)?;
    let listener = socket.listen(BACKLOG).with_context(complaint)?;
    // One thread is enough: UDP is only for health checks.
    if let Ok(socket) = UdpSocket::bind(listen).await {
        tokio::task::spawn_local(datagrams(Rc::new(socket)));
    }
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::task::spawn_local(async move {
            // The client counts connections that fail.
            let _ = connection(stream).await;
        });
    }
}

async fn connection(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut incoming, mut outgoing) = (Vec::with_capacity(1 << 16), Vec::with_capacity(1 << 16));
    while stream.read_buf(&mut incoming).await? > 0 {
        let mut is_fine = true;
        take_all(&mut incoming, |framed| is_fine &= append_framed(&framed[PREFIX_OCTETS..], &mut outgoing));
        stream.write_all(&outgoing).await?;
        outgoing.clear();
        if !is_fine {
            break;
        }
    }
    stream.shutdown().await
}

async fn datagrams(socket: Rc<UdpSocket>) {
    let mut query = vec![0; DATAGRAM_OCTETS];
    let mut response = Vec::new();
    while let Ok((octets, client)) = socket.recv_from(&mut query).await {
        response.clear();
        if answer(&query[..octets], &mut response) {
            // A client that is gone does not matter.
            let _ = socket.send_to(&response, client).await;
        }
    }
}

/// Appends prefix and response; appends nothing and returns false for a message that is no query.
fn append_framed(query: &[u8], outgoing: &mut Vec<u8>) -> bool {
    let begin = outgoing.len();
    outgoing.extend_from_slice(&[0; PREFIX_OCTETS]);
    if !answer(query, outgoing) {
        outgoing.truncate(begin);
        return false;
    }
    // Header, question, a record and OPT: some 300 octets at most.
    let octets = u16::try_from(outgoing.len() - begin - PREFIX_OCTETS).unwrap_or(u16::MAX);
    outgoing[begin..begin + PREFIX_OCTETS].copy_from_slice(&octets.to_be_bytes());
    true
}

/// Appends the response to a query with one question; false for anything else.
fn answer(query: &[u8], response: &mut Vec<u8>) -> bool {
    let Some((question, first_label)) = question(query) else { return false };
    let is_a = question[question.len() - QUESTION_TAIL_OCTETS..][..2] == TYPE_A;
    let has_opt = query[10..HEADER_OCTETS] != [0, 0];
    response.extend_from_slice(&[query[0], query[1], query[2] & 0x79 | ANSWER_FLAGS, 0, 0, 1]);
    response.extend_from_slice(&[0, u8::from(is_a), 0, 0, 0, u8::from(has_opt)]);
    response.extend_from_slice(question);
    if is_a {
        response.extend_from_slice(&RECORD_HEAD);
        response.extend_from_slice(&address(first_label));
    }
    if has_opt {
        response.extend_from_slice(&OPT);
    }
    true
}

/// The question section, and the first label of its name.
fn question(query: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = query.get(..HEADER_OCTETS)?;
    if header[2] & 0x80 != 0 || header[4..6] != [0, 1] {
        return None;
    }
    let mut at = HEADER_OCTETS;
    loop {
        match *query.get(at)? {
            0 => break,
            octets if octets > LABEL_OCTETS_MAX => return None,
            octets => at += 1 + usize::from(octets),
        }
    }
    let first = usize::from(query[HEADER_OCTETS]);
    let label = query.get(HEADER_OCTETS + 1..HEADER_OCTETS + 1 + first)?;
    Some((query.get(HEADER_OCTETS..at + 1 + QUESTION_TAIL_OCTETS)?, label))
}

fn address(label: &[u8]) -> [u8; 4] {
    let is_digit = |octet: &&u8| octet.is_ascii_digit();
    let digits = label.iter().rev().take_while(is_digit).count();
    if digits == 0 {
        return APEX;
    }
    let number = label[label.len() - digits..]
        .iter()
        .fold(0_u8, |number, digit| number.wrapping_mul(10).wrapping_add(digit - b'0'));
    [HOSTS[0], HOSTS[1], HOSTS[2], number]
}

#[cfg(test)]
mod tests {
    use dot_tests::harness::response::Message;

    use super::*;
    use crate::load::queries::Query;

    fn framed(name: &str, qtype: &str, id: u16) -> Vec<u8> {
        let mut framed = Vec::new();
        Query::new(name, qtype, false).expect("a query").write(id, &mut framed);
        framed
    }

    /// Goal: every answer is to its question, with its ID and the zone's address, and OPT to OPT. Method: names of
    /// the zone and others, read by the tests' own parser.
    #[test]
    fn answers_by_rule() {
        for (name, rdata) in [
            ("dotd.test.", [192, 0, 2, 53]),
            ("host-7.dotd.test", [198, 51, 100, 7]),
            ("host-999.dotd.test", [198, 51, 100, 231]),
            ("ns.dotd.test", [192, 0, 2, 53]),
        ] {
            let mut response = Vec::new();
            assert!(answer(&framed(name, "A", 0x1234)[2..], &mut response), "{name}");
            assert_eq!(Query::new(name, "A", false).expect("a query").check(&response), Ok(0), "{name}");
            let message = Message::parse(&response).expect("well-formed");
            assert_eq!((response[0], response[1], message.opt_count()), (0x12, 0x34, 1), "{name}");
            assert_eq!(message.records[0].rdata, rdata, "{name}");
        }
    }

    /// Goal: a type other than A has no data, and a query without OPT gets none. Method: SOA, OPT cut off.
    #[test]
    fn answers_without_data() {
        let mut query = framed("dotd.test", "SOA", 7).split_off(2);
        query.truncate(query.len() - OPT.len());
        query[11] = 0;
        let mut response = Vec::new();
        assert!(answer(&query, &mut response));
        assert_eq!((response.len(), response[7], response[11]), (query.len(), 0, 0));
    }

    /// Goal: a message that is no query is not answered. Method: a response, two questions, a pointer, and every prefix
    /// of a right query's question.
    #[test]
    fn refuses_what_is_no_query() {
        let query = framed("dotd.test", "A", 7).split_off(2);
        let damaged = |at: usize, octet: u8| {
            let mut query = query.clone();
            query[at] = octet;
            append_framed(&query, &mut Vec::new())
        };
        assert!(damaged(0, 9));
        assert!(!damaged(2, 0x81) && !damaged(5, 2) && !damaged(12, 0xc0));
        let end = query.len() - OPT.len();
        let mut outgoing = Vec::new();
        assert!((0..end).all(|octets| !append_framed(&query[..octets], &mut outgoing)));
        assert!(outgoing.is_empty());
    }
}

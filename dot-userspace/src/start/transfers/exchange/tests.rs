//! Tests of a primary server's answers: a zone is accepted from a server with right answers, and from no other.

use tokio::net::TcpListener;

use super::*;
use crate::{dns::wire_name, policy::copy_of};

const SOA: u16 = 6;
const IXFR: u16 = 251;
const AXFR: u16 = 252;

/// A record below the zone or, with a serial, its SOA record.
#[derive(Clone, Copy)]
enum Shape {
    Version(u32),
    Address(u8),
}
use Shape::{Address, Version};

/// The data of the SOA record of this version.
fn rdata(serial: u32) -> Vec<u8> {
    let numbers = [serial, 3600, 600, 86_400, 60].into_iter().flat_map(u32::to_be_bytes);
    [0, 0].into_iter().chain(numbers).collect()
}

/// The answer to a query, which ends with its question, with these records.
fn answer(question: &[u8], lines: &[Shape]) -> Vec<u8> {
    let mut octets =
        [&question[..2], &[0x84, 0, 0, 1, 0], &[lines.len() as u8], &[0; 4], &question[12..]].concat();
    for line in lines {
        let (owner, rtype, rdata) = match line {
            Version(serial) => (&b"\xc0\x0c"[..], SOA, rdata(*serial)),
            Address(last) => (&b"\x01a\xc0\x0c"[..], 1, vec![192, 0, 2, *last]),
        };
        octets.extend(
            [owner, &rtype.to_be_bytes(), &[0, 1, 0, 0, 0, 60, 0, rdata.len() as u8], &rdata].concat(),
        );
    }
    octets
}

/// The answers of a primary server to a query of each type, as messages.
type Script = fn(u16) -> Vec<Vec<Shape>>;

async fn serve(listener: TcpListener, wire: Box<[u8]>, script: Script) {
    while let Ok((mut stream, _)) = listener.accept().await {
        while let Ok(length) = stream.read_u16().await {
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await.unwrap();
            let question = &query[..12 + wire.len() + 4];
            let qtype = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
            for lines in script(qtype) {
                let message = answer(question, &lines);
                stream.write_u16(message.len().try_into().unwrap()).await.unwrap();
                stream.write_all(&message).await.unwrap();
            }
        }
    }
}

/// The result of asking a server with this `script`, with version 7 present: the method of the transfer, and the
/// addresses of the copy.
fn asked(script: Script) -> Result<Option<(&'static str, Vec<String>)>, String> {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of(folder.path(), "rpz.test");
    let text = "rpz.test. 60 SOA . . 7 3600 600 86400 60\na.rpz.test. 60 A 192.0.2.1\n";
    std::fs::write(&copy, text).unwrap();
    let rdata = rdata(7).into_boxed_slice();
    let held = Held { soa: Soa::read(&rdata).unwrap(), rdata };
    let wire = wire_name("rpz.test").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fetched = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let primary = Primary { address: listener.local_addr().unwrap(), tls: None, key: None };
        tokio::spawn(serve(listener, wire.clone(), script));
        fetch(&primary, &wire, Some(&held), &copy).await
    });
    let came = match fetched? {
        Fetched::Current => None,
        Fetched::Newer(draft, method) => {
            let text = std::fs::read_to_string(draft.path()).unwrap();
            let addresses =
                text.lines().filter_map(|line| line.split_once(" A ")).map(|(_, address)| address.to_owned());
            Some((method, addresses.collect()))
        }
    };
    assert_eq!(std::fs::read_to_string(&copy).unwrap(), text, "the copy is not changed in place");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a draft was left behind");
    Ok(came)
}

/// Goal: differences are used if they lead from the present version to the new one; if a step begins elsewhere, or a
/// message without records ends them early, the whole zone is requested instead. Method: a scripted server for each.
/// Covers: A-561, C-562
#[test]
fn differences_are_used_where_they_lead_to_the_new_version() {
    let came = |method, address: &str| Ok(Some((method, vec![address.to_owned()])));
    assert_eq!(asked(|_| vec![vec![Version(7)]]), Ok(None));
    let whole = asked(|qtype| match qtype {
        SOA => vec![vec![Version(9)]],
        _ => vec![vec![Version(9)], vec![Address(9)], vec![Version(9)]],
    });
    assert_eq!(whole, came("axfr", "192.0.2.9"));
    let in_step = asked(|qtype| match qtype {
        SOA => vec![vec![Version(9)]],
        _ => vec![
            vec![Version(9), Version(7), Address(1), Version(8), Address(2), Version(8)],
            vec![Address(2), Version(9), Address(3), Version(9)],
        ],
    });
    assert_eq!(in_step, came("ixfr", "192.0.2.3"));
    let out_of_step = asked(|qtype| match qtype {
        SOA => vec![vec![Version(9)]],
        AXFR => vec![vec![Version(9), Address(4), Version(9)]],
        _ => vec![vec![Version(9), Version(7), Version(8), Address(2), Version(7), Version(9), Version(9)]],
    });
    assert_eq!(out_of_step, came("axfr", "192.0.2.4"));
    let cut_off = asked(|qtype| match qtype {
        SOA => vec![vec![Version(9)]],
        AXFR => vec![vec![Version(9), Address(5), Version(9)]],
        IXFR => vec![vec![Version(9), Version(7), Version(8), Address(2), Version(8)], vec![]],
        _ => vec![],
    });
    assert_eq!(cut_off, came("axfr", "192.0.2.5"));
}

/// Goal: a server that announces a newer version by its SOA record, and transfers an older one, is not accepted, with
/// either method, and neither is one whose zone begins with another record. Method: a scripted server for each. Covers:
/// A-561, C-563
#[test]
fn no_older_version_is_transferred() {
    let whole = asked(|qtype| match qtype {
        SOA => vec![vec![Version(9)]],
        _ => vec![vec![Version(5), Address(9), Version(5)]],
    });
    assert_eq!(whole, Err("its version 5 is older than the present one, 7".to_owned()));
    let without_differences = asked(|qtype| match qtype {
        SOA => vec![vec![Version(9)]],
        AXFR => vec![vec![Version(6), Address(9), Version(6)]],
        _ => vec![vec![]],
    });
    assert_eq!(without_differences, Err("its version 6 is older than the present one, 7".to_owned()));
    let without_soa = asked(|qtype| match qtype {
        SOA => vec![vec![Version(9)]],
        AXFR => vec![vec![Address(9), Version(9)]],
        _ => vec![vec![]],
    });
    assert_eq!(without_soa, Err("the transfer is of another zone".to_owned()));
    assert_eq!(
        asked(|_| vec![vec![Version(6)]]),
        Err("its version 6 is older than the present one, 7".to_owned())
    );
}

//! Tests of the verdicts: cases of misuse, and cases that only look like it.

use super::*;
use crate::ledger::Disposal;

/// Limits of a test.
fn misuse(text: &str) -> Misuse {
    let config = config::parse(&format!("[misuse]\n{text}\n"), "f").expect("a sound config");
    Misuse::new(&config.misuse).expect("something is on")
}

fn client(last: u32) -> Suspect {
    Suspect { client: ClientPrefix::v4(0xc000_0200 + last, 32), is_datagram: false }
}

/// The same client, or an attacker that forges its address.
fn datagrams_of(last: u32) -> Suspect {
    Suspect { is_datagram: true, ..client(last) }
}

fn name(text: &str) -> Labels {
    Labels::parse(text.as_bytes(), None).expect("a name")
}

/// A response without records.
fn response(text: &str, qtype: u16, rcode: u8, more_octets: usize) -> Vec<u8> {
    let front = [0, 1, 0x80, 0x80 | rcode, 0, 1, 0, 0, 0, 0, 0, 0];
    let mut message = [&front[..], name(text).octets(), &qtype.to_be_bytes(), &[0, 1]].concat();
    message.resize(message.len() + more_octets, 0);
    message
}

const FLOOD: &str = "random_names = \"refuse\"\nrandom_names_min = 200\nrandom_names_budget = 50";

/// Goal: random names below one domain are a flood once most answers are NXDOMAIN; its servers get the budget and no more; queries for
/// names that existed before, and for other domains, pass as before; the flood is over some time after its end. Method: 2,000 names,
/// seconds set by hand.
#[test]
fn a_flood_is_found_and_bounded() {
    let mut misuse = misuse(FLOOD);
    let (mut passed, mut refused) = (0, 0);
    assert_eq!(misuse.miss(client(1), &name("www.victim.example."), 5), None);
    misuse.answered(client(1), &response("www.victim.example.", 1, 0, 0), Disposal::Forwarded, 5);
    for number in 0..2000 {
        let random = format!("x{number}z.victim.example.");
        match misuse.miss(client(number), &name(&random), 5) {
            Some(Verdict { action: MisuseAction::Refuse, kind: Kind::RandomNames, .. }) => refused += 1,
            Some(Verdict { action: MisuseAction::Count, is_new: true, .. }) | None => {
                passed += 1;
                misuse.answered(client(number), &response(&random, 1, 3, 0), Disposal::Forwarded, 5);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(misuse.miss(client(1), &name("www.victim.example."), 5), None, "it is there");
        assert_eq!(misuse.miss(client(1), &name(&format!("a{}.other.example.", number % 20)), 5), None);
    }
    // The bitmap counts about 200 names before the flood is found.
    assert!((220..290).contains(&passed) && refused > 1700, "{passed} {refused}");
    let found: Vec<_> = misuse.found(6).collect();
    assert_eq!(
        (found.len(), found[0].kind, &*found[0].domain),
        (1, Kind::RandomNames, &b"\x06victim\x07example\x00"[..])
    );
    assert_eq!(misuse.found(66).count(), 0);
    assert_eq!(misuse.miss(client(1), &name("new.victim.example."), 70), None, "it is over");
}

/// Goal: many names that exist, as in a content network or a list of addresses, are no flood, and neither are names below `arpa` or
/// below an ignored domain.
#[test]
fn many_names_are_no_flood_by_themselves() {
    let mut misuse = misuse(&format!("{FLOOD}\nignore = [\"List.example\"]"));
    for number in 0..3000_u32 {
        for (text, rcode) in [
            (format!("x{number}.cdn.example."), if number % 3 == 0 { 3 } else { 0 }),
            (format!("{}.{}.2.0.in-addr.arpa.", number % 256, number / 256), 3),
            (format!("{number}.zen.list.example."), 3),
        ] {
            assert_eq!(misuse.miss(client(1), &name(&text), 5), None, "{text}");
            misuse.answered(client(1), &response(&text, 1, rcode, 0), Disposal::Forwarded, 5);
        }
    }
}

/// Goal: long names that come only once are a tunnel of their client, and of no other client; the same names again and again, and short
/// names, are no tunnel; a stream of TXT answers is one.
#[test]
fn a_tunnel_is_its_clients() {
    let mut misuse = misuse("tunnel = \"close\"\ntunnel_name_octets = 8192\ntunnel_answer_octets = 65536");
    let long = |number: u64| {
        let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!(
            "{:016x}{:016x}{hash:016x}.{:016x}{:016x}{hash:016x}.t.example.",
            hash.rotate_left(7),
            !hash,
            hash ^ 77,
            hash.rotate_left(31)
        )
    };
    let at = (0..200).position(|number| misuse.miss(client(1), &name(&long(number)), 5).is_some());
    assert!(at.is_some_and(|at| (50..100).contains(&at)), "{at:?}");
    assert_eq!(misuse.miss(client(2), &name(&long(1)), 5), None, "another client");
    assert!(misuse.miss(client(1), &name("short.t.example."), 5).is_some(), "the same domain");
    assert_eq!(misuse.miss(client(1), &name("www.other.example."), 5), None, "another domain");
    for number in 0..2000 {
        assert_eq!(misuse.miss(client(3), &name(&long(number % 30)), 5), None);
        assert_eq!(misuse.miss(client(3), &name(&format!("w{number}.words.example.")), 5), None);
    }
    let text = "p1.answers.example.";
    let mut answers = 0;
    while misuse.miss(client(4), &name(text), 5).is_none() {
        misuse.answered(client(4), &response(text, 16, 0, 1000), Disposal::Forwarded, 5);
        misuse.answered(client(4), &response(text, 1, 0, 1000), Disposal::Forwarded, 5);
        answers += 1;
        assert!(answers < 100);
    }
    assert_eq!(answers, 66);
}

/// Goal: a client is found by its failures, its number of messages or the length of its answers, each alone, and its action lasts until the
/// hold ends; other clients are not affected.
#[test]
fn a_client_is_judged_by_what_it_does() {
    let mut misuse = misuse(
        "failures = \"refuse\"\nfailures_min = 100\nfailures_percent = 90\nqueries = \"delay\"\nqueries_max = 500\n\
         answer_octets = \"count\"\nanswer_octets_max = 100000",
    );
    let failure = response("a.example.", 1, 3, 0);
    let fine = response("a.example.", 1, 0, 0);
    let verdict = |misuse: &mut Misuse, last, second| {
        misuse.message(client(last), second).map(|found| (found.kind, found.action))
    };
    for number in 0..200 {
        for (last, answer) in [(1, &failure), (2, if number % 2 == 0 { &fine } else { &failure })] {
            misuse.message(client(last), 5);
            misuse.answered(client(last), answer, Disposal::Cached, 5);
        }
    }
    assert_eq!(verdict(&mut misuse, 1, 5), Some((Kind::Failures, MisuseAction::Refuse)));
    assert_eq!((verdict(&mut misuse, 2, 5), verdict(&mut misuse, 1, 66)), (None, None));
    for _ in 0..500 {
        assert_eq!(verdict(&mut misuse, 3, 5), None);
    }
    assert!(!misuse.delays(client(3).client, 5));
    assert_eq!(verdict(&mut misuse, 3, 5), Some((Kind::Queries, MisuseAction::Delay)));
    assert!(
        misuse.delays(client(3).client, 5)
            && !misuse.delays(client(2).client, 5)
            && !misuse.delays(client(3).client, 66)
    );
    misuse.message(client(4), 5);
    (0..4).for_each(|_| {
        misuse.answered(client(4), &response("a.example.", 16, 0, 30_000), Disposal::Cached, 5);
    });
    assert_eq!(verdict(&mut misuse, 4, 5), Some((Kind::AnswerOctets, MisuseAction::Count)));
    assert_eq!(misuse.found(5).count(), 3);
}

/// Goal: nobody can have another client's sessions ended or delayed by datagrams with its address; the acts of a client's
/// sessions count against its datagrams too. Method: each misuse of a client, by datagrams, and then a message and a query of its session;
/// then the other way round.
#[test]
fn forged_datagrams_hold_nothing_against_sessions() {
    type Act<'a> = &'a dyn Fn(&mut Misuse, Suspect);
    let limits = "failures = \"ban\"\nfailures_min = 10\nqueries = \"delay\"\nqueries_max = 50\ntunnel = \"close\"\ntunnel_answer_octets = 1024";
    let text = "x.list.example.";
    let (gone, long) = (response(text, 1, 3, 0), response(text, 16, 0, 2000));
    let acts: [Act<'_>; 3] = [
        &|misuse, who| {
            (0..60).for_each(|_| {
                misuse.message(who, 5);
            })
        },
        &|misuse, who| {
            (0..10).for_each(|_| {
                misuse.message(who, 5);
                misuse.answered(who, &gone, Disposal::Forwarded, 5);
            });
        },
        &|misuse, who| {
            misuse.miss(who, &name(text), 5);
            misuse.answered(who, &long, Disposal::Forwarded, 5);
        },
    ];
    let is_judged = |misuse: &mut Misuse, who| {
        let by_message = misuse.message(who, 5).is_some();
        misuse.miss(who, &name(text), 5).is_some() || by_message
    };
    for (number, act) in acts.into_iter().enumerate() {
        let mut forged = misuse(limits);
        act(&mut forged, datagrams_of(1));
        assert!(is_judged(&mut forged, datagrams_of(1)), "{number}");
        assert!(!is_judged(&mut forged, client(1)) && !forged.delays(client(1).client, 5), "{number}");
        let mut own = misuse(limits);
        act(&mut own, client(1));
        assert!(is_judged(&mut own, client(1)) && is_judged(&mut own, datagrams_of(1)), "{number}");
        assert!(!is_judged(&mut own, datagrams_of(2)), "{number}");
    }
}

/// Goal: backends that fail make no misuse of a client's queries. Method: SERVFAIL of dotd's own, and as many from a backend.
///
#[test]
fn failures_of_dotd_are_not_the_clients() {
    let mut misuse = misuse("failures = \"ban\"\nfailures_min = 10");
    let failure = response("a.example.", 1, 2, 0);
    let mut is_judged = |disposal| {
        (0..20).for_each(|_| {
            misuse.message(client(1), 5);
            misuse.answered(client(1), &failure, disposal, 5);
        });
        misuse.message(client(1), 5).is_some()
    };
    assert!(!is_judged(Disposal::Failed) && !is_judged(Disposal::Responded));
    assert!(is_judged(Disposal::Forwarded));
}

/// Goal: a misuse with a milder action neither replaces nor prolongs another one of the same client. Method: a client whose answers
/// fail, which is refused, and which then asks too much, which is only counted.
#[test]
fn each_misuse_of_a_client_has_its_own_time() {
    let mut misuse = misuse(
        "failures = \"refuse\"\nfailures_min = 10\nqueries = \"count\"\nqueries_max = 20\nwindow = \"10s\"\nhold = \"1m\"",
    );
    for _ in 0..10 {
        misuse.message(client(1), 5);
        misuse.answered(client(1), &response("a.example.", 1, 3, 0), Disposal::Forwarded, 5);
    }
    for second in 5..100 {
        let mut kinds = (0..40).filter_map(|_| Some(misuse.message(client(1), second)?.kind));
        let wanted = if second < 65 { Kind::Failures } else { Kind::Queries };
        assert_eq!(kinds.next_back(), Some(wanted), "{second}");
    }
}

/// Goal: operators see a misuse for as long as it goes on, with the time at which it began; one that comes back has a new beginning. Method:
/// each kind that is found by queries, for many holds. Covers: C-720
#[test]
fn a_misuse_that_goes_on_is_shown() {
    let limits = "random_names = \"count\"\nrandom_names_min = 10\ntunnel = \"count\"\ntunnel_answer_octets = 1024\nqueries = \"count\"\nqueries_max = 10\nwindow = \"10s\"\nhold = \"1m\"";
    let mut misuse = misuse(limits);
    let act = |misuse: &mut Misuse, second: u32| {
        for number in 0..20 {
            let text = format!("x{number}.flood.example.");
            misuse.message(client(1), second);
            misuse.miss(client(1), &name(&text), second);
            misuse.answered(client(1), &response(&text, 16, 3, 200), Disposal::Forwarded, second);
        }
    };
    let found = |misuse: &Misuse, second| {
        let mut found: Vec<_> = misuse.found(second).map(|found| (found.kind.label(), found.since)).collect();
        found.sort_unstable();
        found
    };
    let since = |second| vec![("queries", second), ("random_names", second), ("tunnel", second)];
    for second in (5..305).step_by(10) {
        act(&mut misuse, second);
        assert_eq!(found(&misuse, second), since(5), "{second}");
    }
    assert_eq!(found(&misuse, 400), []);
    act(&mut misuse, 405);
    assert_eq!(found(&misuse, 405), since(405));
}

/// Goal: nothing is counted while every kind is off.
#[test]
fn it_is_off_by_default() {
    assert!(Misuse::new(&config::Misuse::default()).is_none());
    for (number, kind) in Kind::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, number);
    }
}

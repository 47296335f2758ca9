//! Tests of whole zones: the rules of a file, its mistakes with their lines, and the rule that matches.

use std::{fs, net::IpAddr};

use super::*;
use crate::{
    config,
    dns::{self, Labels, Screening},
};

/// A zone `rpz.lab` with these lines; the rest of its section in the config.
fn zone_of(format: &str, text: &str, more: &str) -> Result<Zone, ZoneError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("zone");
    fs::write(&file, text).unwrap();
    let section = format!(
        "[[policy.zone]]\nname = \"rpz.lab\"\nfile = \"{}\"\nformat = \"{format}\"\n{more}",
        file.display()
    );
    Zone::load(&config::parse(&section, "f").unwrap().policy.zone[0])
}

fn rpz(text: &str) -> Result<Zone, ZoneError> {
    zone_of(
        "rpz",
        &format!("$TTL 60\n@ SOA localhost. root.localhost. 7 3600 600 86400 60\n NS localhost.\n{text}"),
        "",
    )
}

fn labels(name: &str) -> Labels {
    Labels::parse(name.as_bytes(), None).unwrap()
}

const NOBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// The action for a name, and its line: "nxdomain 4".
fn of(screen: &Screen, name: &str) -> String {
    match screen.judge(&labels(name), NOBODY, false, |_| {}) {
        Judged::Ruling(ruling) => format!("{} {}", ruling.action.text(), ruling.line()),
        Judged::Ask(_) => "-".to_owned(),
    }
}

/// Goal: each form of rule in the draft is read as the draft says, with its line; repeated owners, `$ORIGIN`, names
/// with and without the zone's name. Covers: C-441, C-442, C-443
#[test]
fn every_form_of_rule_is_read() {
    let text = "nx.test CNAME .\n\
                nodata.test 30 IN CNAME *.\n\
                *.pass.test CNAME rpz-passthru.\n\
                old.test CNAME old.test.\n\
                drop.test.rpz.lab. CNAME rpz-drop.\n\
                tcp.test CNAME RPZ-tcp-only.\n\
                $ORIGIN local.rpz.lab.\n\
                a A 192.0.2.1\n  AAAA 2001:db8::1\n  TXT \"x y\" z\n  MX 10 mail\n  HTTPS 1 . alpn=h2\n\
                garden CNAME garden.example.\nwide CNAME *.garden.example.\n";
    let zone = rpz(text).unwrap();
    assert_eq!((zone.rules().count(), zone.rules().start().serial), (9, Some(7)));
    let screen = Screen::new(vec![zone]).unwrap();
    for (name, rule) in [
        ("NX.test", "nxdomain 4"),
        ("x.nx.test", "-"),
        ("nodata.test", "nodata 5"),
        ("pass.test", "-"),
        ("a.b.pass.test", "passthru 6"),
        ("old.test", "passthru 7"),
        ("drop.test", "drop 8"),
        ("tcp.test", "tcp-only 9"),
        ("a.local", "local data, 5 records 11"),
        ("garden.local", "cname garden.example 16"),
        ("wide.local", "cname *.garden.example 17"),
    ] {
        assert_eq!(of(&screen, name), rule, "{name}");
    }
    let asked =
        |qtype: &str| Question { name: "a.local".into(), qtype: Some(qtype.into()), ..Question::default() };
    let records = |qtype| screen.explain(&asked(qtype)).unwrap().decides.unwrap().records;
    assert_eq!(records("MX"), ["60 MX 10 mail.local.rpz.lab."]);
    assert_eq!(records("AAAA"), ["60 AAAA 2001:db8::1"]);
    assert!(records("SRV").is_empty());
}

/// Goal: a mistake is reported with its line, and nothing of the zone is used.
#[test]
fn mistakes_have_their_lines() {
    for (text, line, what) in [
        ("a.test CNAME", 4, "a name is missing"),
        ("a.test CNAME rpz-bogus.", 4, "rpz-bogus is not a known action"),
        ("a.test CNAME .\na.test A 192.0.2.1", 5, "another rule for the same trigger is at line 4"),
        ("a.test A 192.0.2.300", 4, "192.0.2.300"),
        ("a..test CNAME .", 4, "a label is empty"),
        ("b.test. CNAME .", 4, "b.test is not in the zone rpz.lab"),
        ("33.1.2.0.192.rpz-ip CNAME .", 4, "not a prefix"),
        ("$INCLUDE other", 4, "write out its records"),
        ("a.test ( CNAME .\n", 4, "a parenthesis is not closed"),
        ("a.test NONSENSE .", 4, "no record type"),
        ("a.test TXT \"open", 4, "quotation mark"),
        (" CNAME .", 4, ""),
    ] {
        match rpz(text) {
            Ok(_) => assert!(what.is_empty(), "{text}"),
            Err(error) => {
                assert_eq!(error.line, line, "{error}");
                assert!(
                    error.what.contains(what) && error.to_string().contains(&format!("zone:{line}: ")),
                    "{error}"
                );
            }
        }
    }
    let error = zone_of("rpz", "a.test CNAME .\n", "").unwrap_err();
    assert!(error.what.contains("SOA record is missing"), "{error}");
    let absent = config::PolicyZone { file: "/nowhere/zone".into(), ..rpz("").unwrap().config().clone() };
    assert!(Zone::load(&absent).unwrap_err().to_string().contains("/nowhere/zone: cannot be read"));
}

/// Goal: rules about name servers, which only a resolver sees, are skipped, counted, and reported with the first
/// one's line; the others apply. Covers: C-447
#[test]
fn rules_about_name_servers_are_left_out() {
    let zone =
        rpz("a.test CNAME .\nns.evil.test.rpz-nsdname CNAME .\n32.1.2.0.192.rpz-nsip CNAME .\n").unwrap();
    let start = zone.rules().start().clone();
    assert_eq!((zone.rules().count(), start.left_out), (1, 2));
    let first = start.first_left_out.unwrap();
    assert!(first.starts_with("line 5: rpz-nsdname"), "{first}");
}

/// Goal: lists of hosts block names, lists of domains also all names below them; comments, addresses and names of the
/// host itself are no rules; a file that is not a list is refused with its first bad line. Covers: C-448, A-444
#[test]
fn plain_lists_are_read() {
    let hosts =
        "# list\n127.0.0.1 localhost\n0.0.0.0 ads.example.net tracker.example.net # two\n::1 ip6-loopback\n";
    let screen = Screen::new(vec![zone_of("hosts", hosts, "").unwrap()]).unwrap();
    let of_all =
        |screen: &Screen, names: &[&str]| names.iter().map(|name| of(screen, name)).collect::<Vec<_>>();
    let names = ["ads.example.net", "tracker.example.net", "x.ads.example.net", "localhost", "example.net"];
    assert_eq!(of_all(&screen, &names), ["nxdomain 3", "nxdomain 3", "-", "-", "-"]);
    let domains = "! list\nads.example.net\n\n*.wild.example.net\r\nads.example.net\n";
    let screen = Screen::new(vec![zone_of("domains", domains, "").unwrap()]).unwrap();
    let names = ["ads.example.net", "x.ads.example.net", "a.wild.example.net", "wild.example.net"];
    assert_eq!(of_all(&screen, &names), ["nxdomain 2", "nxdomain 2", "nxdomain 4", "-"]);
    let error = zone_of("domains", "<html>\nads.example.net\n", "").unwrap_err();
    assert!(error.line == 1 && error.what.contains("<html>"), "{error}");
    let error = zone_of("hosts", "0.0.0.0 *.ads.example.net\n", "").unwrap_err();
    assert!(error.what.contains("*.ads.example.net is not a name"), "{error}");
    let mostly = (0..100).map(|number| format!("n{number}.example.net\n")).collect::<String>() + "com\n";
    let zone = zone_of("domains", &mostly, "").unwrap();
    assert_eq!((zone.rules().count(), zone.rules().start().left_out), (200, 1));
}

/// Goal: a list with a byte order mark gives the same rules; one line in ten may be unusable, however many rules the
/// others have. Method: a mark before a comment, a name and a directive; nine and ten names with one unusable line.
/// Covers: C-448, A-444
#[test]
fn a_list_is_judged_by_its_lines() {
    for (format, text) in
        [("domains", "\u{feff}ads.test.example\n"), ("hosts", "\u{feff}# list\r\n0.0.0.0 a.test\r\n")]
    {
        let zone = zone_of(format, text, "").unwrap();
        assert_eq!((zone.rules().count() > 0, zone.rules().start().left_out), (true, 0), "{format}");
    }
    let marked = "\u{feff}$TTL 60\n@ SOA localhost. root.localhost. 7 3600 600 86400 60\na.test CNAME .\n";
    assert_eq!(zone_of("rpz", marked, "").unwrap().rules().count(), 1);
    let lines = |names: u32, per_line: &str| {
        (0..names).map(|number| format!("0.0.0.0 n{number}.test.example{per_line}\n")).collect::<String>()
    };
    assert!(zone_of("hosts", &(lines(9, "") + "bad\n"), "").is_ok());
    let error = zone_of("hosts", &(lines(8, " x.example.net y.example.net") + "bad\n"), "").unwrap_err();
    assert!(error.line == 9 && error.what.contains("1 lines do not have the format"), "{error}");
    let domains = (0..8).map(|number| format!("n{number}.test.example\n")).collect::<String>() + "bad line\n";
    assert!(zone_of("domains", &domains, "").is_err());
}

/// Goal: text of a file does not reach a terminal as an escape sequence, and a message stays short. Method: one in a
/// name, in a type, in the data of an invalid record, and in a TXT record that an operator displays; a word of 60,000
/// octets.
///
#[test]
fn a_zone_cannot_write_to_a_terminal() {
    let escape = "\u{1b}[31m";
    for text in [
        format!("{escape}.. CNAME ."),
        format!("a.test {escape} ."),
        format!("a.test HTTPS {escape}"),
        format!("a.test CAA 0 {escape} x"),
        format!("a.test {} .", "x".repeat(60_000)),
    ] {
        let error = rpz(&text).unwrap_err().to_string();
        assert!(!error.contains(char::is_control) && error.len() < 2_000, "{error}");
    }
    let list = zone_of("domains", &format!("{}\u{1b}\n", "x".repeat(60_000)), "").unwrap_err().to_string();
    assert!(!list.contains(char::is_control) && list.len() < 2_000, "{list}");
    let screen = Screen::new(vec![rpz("a.test TXT \"\\027[31m\"\n").unwrap()]).unwrap();
    let asked = Question { name: "a.test".into(), qtype: Some("TXT".into()), ..Question::default() };
    assert_eq!(screen.explain(&asked).unwrap().decides.unwrap().records, ["60 TXT \\027[31m"]);
}

/// Goal: the records of a rule fit into a message: a zone with a rule that does not is refused, with the line.
/// Method: strings of one record, and of many.
#[test]
fn records_of_a_rule_fit_into_a_message() {
    let string = format!(" \"{}\"", "x".repeat(250));
    let record = format!("a.test TXT{}\n", string.repeat(20));
    assert!(
        rpz(&(0..5).map(|number| record.replacen('x', &number.to_string(), 1)).collect::<String>()).is_ok()
    );
    let many = (0..15).map(|number| record.replacen("xx", &format!("{number:02}"), 1)).collect::<String>();
    let error = rpz(&many).unwrap_err();
    assert!(error.line == 15 && error.what.contains("more than 60000 octets"), "{error}");
    let long = rpz(&format!("a.test TXT (\n{})", format!("{string}\n").repeat(250))).unwrap_err();
    assert!(long.what.contains("more than 60000 octets"), "{long}");
}

/// Goal: a walled garden that is on the list itself is not an alias for itself: its answer is unchanged, by whichever
/// trigger the rule was found. Method: a list with the garden and its parent; queries for the garden, for a name
/// beside it, and answers with aliases to it.
/// Covers: C-444
#[test]
fn a_garden_on_the_list_is_no_alias_of_itself() {
    let list =
        zone_of("domains", "walled.test\nbad.test\n", "action = \"cname garden.walled.test\"").unwrap();
    let by_address =
        rpz("32.1.2.0.192.rpz-ip CNAME garden.walled.test.\n24.0.113.0.203.rpz-client-ip CNAME garden.walled.test.\n")
            .unwrap();
    let screen = Screen::new(vec![by_address, list]).unwrap();
    let decides = |name: &str, answer: &[&str], client: Option<&str>| {
        let answer = answer.iter().map(|word| (*word).to_owned()).collect();
        let client = client.map(|client| client.parse().unwrap());
        let asked = Question { name: name.into(), answer, client, ..Question::default() };
        screen.explain(&asked).unwrap().decides.map(|rule| rule.action)
    };
    let (garden, passthru) = (Some("cname garden.walled.test".to_owned()), Some("passthru".to_owned()));
    assert_eq!(decides("Garden.Walled.test", &[], None), passthru);
    assert_eq!(decides("x.walled.test", &[], None), garden);
    assert_eq!(decides("www.test", &["garden.walled.test"], None), passthru);
    assert_eq!(decides("www.test", &["bad.test"], None), garden);
    assert_eq!(decides("www.test", &["192.0.2.1"], None), garden);
    assert_eq!(decides("garden.walled.test", &[], Some("203.0.113.7")), passthru);
    assert_eq!(decides("www.test", &[], Some("203.0.113.7")), garden);
}

/// Goal: of several zones the first with a rule decides, one that only counts changes nothing, an action of the
/// config replaces the rule's, and a client's address has precedence over a name. Covers: C-444, C-445
#[test]
fn zones_are_asked_in_order() {
    let counted = zone_of("domains", "both.test\n", "mode = \"count\"").unwrap();
    let first = rpz("both.test CNAME rpz-passthru.\n24.0.2.0.192.rpz-client-ip CNAME rpz-drop.\n").unwrap();
    let second = zone_of("domains", "both.test\nlast.test\n", "action = \"cname walled.test\"").unwrap();
    let screen = Screen::new(vec![counted, first, second]).unwrap();
    let mut notes = 0;
    let judged = screen.judge(&labels("both.test"), NOBODY, false, |_| notes += 1);
    assert!(matches!(judged, Judged::Ruling(Ruling { action: Action::Passthru, found: Found::Name, .. })));
    assert_eq!((notes, of(&screen, "x.last.test")), (1, "cname walled.test 2".to_owned()));
    let judged = screen.judge(&labels("both.test"), "192.0.2.9".parse().unwrap(), false, |_| {});
    assert!(matches!(judged, Judged::Ruling(Ruling { action: Action::Drop, found: Found::Client, .. })));
}

/// Goal: an answer is checked by its names and addresses; the records before the name that a rule is about are kept.
/// Method: a chain of aliases, with `explain` and with `judge_answer`. Covers: C-446, C-449, A-447
#[test]
fn answers_are_judged_by_where_they_lead() {
    let zone =
        rpz("tracker.test CNAME .\n32.66.2.0.192.rpz-ip CNAME *.\n48.zz.db8.2001.rpz-ip A 192.0.2.1\n")
            .unwrap();
    let screen = Screen::new(vec![zone]).unwrap();
    let decides = |words: &[&str]| {
        let answer = words.iter().map(|word| (*word).to_owned()).collect();
        let asked = Question { name: "www.test".into(), answer, ..Question::default() };
        screen.explain(&asked).unwrap().decides.map(|rule| (rule.found, rule.line))
    };
    let alias = Some(("alias in the answer".to_owned(), 4));
    let address = |line| Some(("address in the answer".to_owned(), line));
    assert_eq!(decides(&["cdn.test", "tracker.test", "192.0.2.66"]), alias);
    assert_eq!(decides(&["cdn.test", "192.0.2.65", "192.0.2.66"]), address(5));
    assert_eq!(decides(&["2001:db8:0:1::7"]), address(6));
    assert_eq!(decides(&["cdn.test", "192.0.2.65"]), None);
}

/// Goal: for a client that asks for signatures, a signed answer is unchanged if the zone says so, and an unsigned one
/// is replaced; otherwise both are replaced. Covers: C-450, A-448
#[test]
fn signed_answers_stay_where_they_shall() {
    for (more, signed, unsigned) in [("", true, true), ("break_dnssec = false", false, true)] {
        let screen = Screen::new(vec![zone_of("domains", "bad.test\n", more).unwrap()]).unwrap();
        let judged = screen.judge(&labels("bad.test"), NOBODY, true, |_| {});
        let holds = |rtype: u16| match judged {
            Judged::Ruling(_) => true,
            Judged::Ask(screening) => {
                let front = [&[0; 12][..], labels("bad.test").octets(), &[0, 1, 0, 1]].concat();
                let mut response = Vec::new();
                let mut made = dns::Made::begin(&front, 0, &mut response);
                made.answer(None, rtype, 60, &[192, 0, 2, 1]);
                made.finish(dns::ResponseCode::NoError, None, true);
                assert_eq!(screening, Screening::Whole);
                let answered =
                    Answered { response: &response, question_end: front.len(), dnssec_ok: true, screening };
                screen.judge_answer(answered, NOBODY, |_| {}).is_some()
            }
        };
        assert_eq!((holds(46), holds(1)), (signed, unsigned), "{more}");
    }
}

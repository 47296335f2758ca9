//! Unit tests of `index`: the closest encloser, and tables of random names.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::dns::wire_name;

fn name(text: &str) -> Labels {
    Labels::read(&wire_name(text).unwrap(), 0).unwrap()
}

fn front(name: &Labels) -> &[u8] {
    name.last(name.count())
}

fn index(rules: &[&str]) -> Index {
    let mut names = Names::default();
    for (rule, text) in (1..).zip(rules) {
        let plain = text.strip_prefix("*.").or(text.strip_prefix('*')).unwrap_or(text);
        let node = names.insert(front(&name(if plain.is_empty() { "." } else { plain }))).unwrap();
        *names.rule(node, text.starts_with('*')).unwrap() = rule;
    }
    Index::new(&names)
}

/// Goal: a name has its own rule, else that of the wildcard at its closest encloser; an empty non-terminal, and
/// an existing name, hide a wildcard above from the names below them. Method: names of one small zone. Covers:
/// C-441
#[test]
fn the_closest_encloser_decides() {
    let rules = ["*.example.net", "www.example.net", "a.b.example.net", "*.test", "x.test", "*"];
    let index = index(&rules);
    let of = |text| index.find(&name(text)).map(|found| rules[found.rule as usize - 1]);
    for (text, rule) in [
        ("ftp.example.net", Some("*.example.net")),
        ("a.ftp.example.net", Some("*.example.net")),
        ("www.example.net", Some("www.example.net")),
        ("a.www.example.net", None),
        ("example.net", None),
        ("a.b.example.net", Some("a.b.example.net")),
        ("b.example.net", None),
        ("z.b.example.net", None),
        ("test", None),
        ("y.test", Some("*.test")),
        ("org", Some("*")),
        ("www.example.org", Some("*")),
        ("net", None),
        ("other.net", None),
        (".", None),
    ] {
        assert_eq!(of(text), rule, "{text}");
    }
}

/// Goal: a name is never taken for another one with the same hash: its label is compared to the last octet, and the
/// name above it too. Method: all names at one position of the table, labels up to 63 octets long that differ in one
/// octet, and one label below two names.
#[test]
fn equal_hashes_are_no_equal_names() {
    let label = |octets: usize, last: char| "a".repeat(octets - 1) + &String::from(last);
    let labels: Vec<String> = [1, 14, 15, 16, 19, 20, 21, 62, 63]
        .into_iter()
        .flat_map(|octets| ['a', 'b', 'c'].map(|last| label(octets, last)))
        .collect();
    let (known, others) = labels.iter().partition::<Vec<_>, _>(|label| !label.ends_with('c'));
    let under = |labels: &[&String], above: &str| -> Vec<String> {
        labels.iter().map(|label| format!("{label}.{above}")).collect()
    };
    let rules = [under(&known, "one.test"), under(&known, "two.test")].concat();
    let mut index = index(&rules.iter().map(String::as_str).collect::<Vec<_>>());
    // Every search begins at the first slot, and the filter lets every name pass.
    let slots: Vec<Slot> = index.slots.iter().filter(|slot| slot.parent != FREE).copied().collect();
    let places: Vec<usize> = (0..index.slots.len()).filter(|at| index.slots[*at].parent != FREE).collect();
    let moved = |parent: u32| match places.iter().position(|place| *place == parent as usize) {
        Some(place) => u32::try_from(place).unwrap(),
        None => parent,
    };
    let free = Slot { parent: FREE, rules: [0, 0], label: [0; LABEL_OCTETS] };
    index.slots =
        slots.iter().map(|slot| Slot { parent: moved(slot.parent), ..*slot }).chain([free]).collect();
    let find = |text: &str| {
        let (mut node, mut rules) = (ROOT, [0, 0]);
        for label in name(text).labels() {
            (node, rules) = index.probe(0, index.parent_at(0), node, label).ok()?;
        }
        Some(rules[0])
    };
    for (number, text) in (1..).zip(&rules) {
        assert_eq!(find(text), Some(number), "{text}");
    }
    for text in [under(&others, "one.test"), under(&known, "three.test"), under(&known, "test")].concat() {
        assert_eq!(find(&text), None, "{text}");
    }
}

proptest! {
    /// Goal: every inserted name is found, and no other, however many there are. Method: compared with a map of
    /// the standard library.
    ///
    #[test]
    fn what_was_put_in_is_found(
        names in prop::collection::vec("([a-c]{1,2}|[ab]a{17,20}[ab])(\\.([a-c]{1,2}|a{15}[ab]{1,6})){0,3}", 0..200)
    ) {
        let (mut growing, mut known) = (Names::default(), HashMap::new());
        for (rule, text) in (1..).zip(&names) {
            let node = growing.insert(front(&name(text))).unwrap();
            *growing.rule(node, false).unwrap() = rule;
            known.insert(text.clone(), rule);
        }
        let index = Index::new(&growing);
        for text in names.iter().cloned().chain(["a.b.c".to_owned(), "cc.cc.cc.cc.cc".to_owned()]) {
            let found = index.find(&name(&text)).map(|found| found.rule);
            prop_assert_eq!(found, known.get(&text).copied(), "{}", text);
        }
    }

    /// Goal: also with wildcards, and with more labels than are read at once, each name has the rule that RFC 4592 gives it.
    /// Method: names of up to nine labels, each with a rule of its own or with that of its wildcard; compared with a search among
    /// all names, from the longest.
    #[test]
    fn wildcards_are_found(
        rules in prop::collection::vec(("[ab](\\.([ab]|aaaaaaa[ab]{2})){0,8}", any::<bool>()), 0..200),
        others in prop::collection::vec("[ab](\\.([ab]|aaaaaaa[ab]{2})){0,8}", 0..50),
    ) {
        // The first label of a text is the last one here, so that names share their ends.
        let turned = |text: &str| text.rsplit('.').collect::<Vec<_>>().join(".");
        let (mut names, mut known) = (Names::default(), HashMap::<String, [u32; 2]>::new());
        known.insert(String::new(), [0, 0]);
        for (rule, (text, is_wildcard)) in (1..).zip(&rules) {
            let text = turned(text);
            let node = names.insert(front(&name(&text))).unwrap();
            *names.rule(node, *is_wildcard).unwrap() = rule;
            let mut rest = &text[..];
            while !rest.is_empty() {
                known.entry(rest.to_owned()).or_default();
                rest = rest.split_once('.').map_or("", |(_, rest)| rest);
            }
            known.get_mut(&text).unwrap()[usize::from(*is_wildcard)] = rule;
        }
        let index = Index::new(&names);
        let below = |(text, _): &(String, bool)| format!("b.a.{}", turned(text));
        let asked: Vec<String> = rules.iter().map(|(text, _)| turned(text)).chain(rules.iter().map(below)).collect();
        for text in asked.into_iter().chain(others.iter().map(|text| turned(text))) {
            let (mut encloser, mut is_wildcard) = (&text[..], false);
            let rules = loop {
                if let Some(rules) = known.get(encloser) {
                    break rules;
                }
                (encloser, is_wildcard) = (encloser.split_once('.').map_or("", |(_, rest)| rest), true);
            };
            let rule = rules[usize::from(is_wildcard)];
            let expected = (rule != 0).then_some(Match { rule, is_wildcard });
            prop_assert_eq!(index.find(&name(&text)), expected, "{}", text);
        }
    }
}

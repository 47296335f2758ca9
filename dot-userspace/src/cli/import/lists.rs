//! The clients that a service takes: rules of which the first one that matches counts, as lists of `[access]`.
//!
//! Before: a reader found rules of a service. After: an allow and a deny list; the deny list has priority in dotd.
//! Never: takes a client that the rules refuse: where lists cannot say the same, they are stricter, and a remark says so.

use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The clients of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Every client.
    All,
    /// Those of a prefix.
    Prefix(IpNet),
}

/// A rule, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) may: bool,
    pub(super) of: Of,
    pub(super) place: String,
}

/// The lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lists {
    pub(super) allow: Vec<IpNet>,
    pub(super) deny: Vec<IpNet>,
}

/// A service for clients.
#[derive(Debug, Default)]
pub(super) struct Service {
    pub(super) place: String,
    pub(super) listens: Vec<SocketAddr>,
    pub(super) lists: Lists,
    /// Where its rules stand.
    pub(super) rules: String,
    /// It asks clients for certificates.
    pub(super) wants_certificates: bool,
}

/// A prefix or an address.
pub(super) fn prefix(word: &str) -> Option<IpNet> {
    word.parse().ok().or_else(|| word.parse::<IpAddr>().ok().map(IpNet::from)).map(|net: IpNet| net.trunc())
}

/// The lists that mean the same as the rules, and the rule because of which they are stricter, if there is one.
pub(super) fn of(rules: &[Rule]) -> (Lists, Option<&Rule>) {
    let end = rules.iter().position(|rule| rule.of == Of::All).unwrap_or(rules.len());
    let may_others = rules.get(end).is_none_or(|rule| rule.may);
    let (rules, mut lists, mut stricter) = (rules.get(..end).unwrap_or_default(), Lists::default(), None);
    for (index, rule) in rules.iter().enumerate() {
        let Of::Prefix(net) = rule.of else { continue };
        let is_allowed = |rules: &[Rule]| {
            rules.iter().any(|rule| matches!(rule.of, Of::Prefix(other) if rule.may && overlap(other, net)))
        };
        let (before, after) =
            (rules.get(..index).unwrap_or_default(), rules.get(index..).unwrap_or_default());
        if rule.may {
            add(&mut lists.allow, net, !may_others);
        } else if may_others || is_allowed(after) {
            add(&mut lists.deny, net, true);
            // Some of its clients are taken by an earlier rule.
            stricter = stricter.or_else(|| is_allowed(before).then_some(rule));
        }
    }
    if !may_others && lists.allow.is_empty() {
        lists.deny = vec![Ipv4Net::default().into(), Ipv6Net::default().into()];
    }
    (lists, stricter)
}

fn add(list: &mut Vec<IpNet>, net: IpNet, is_needed: bool) {
    if is_needed && !list.contains(&net) {
        list.push(net);
    }
}

fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<Rule> {
        let rule = |word: &str| {
            let of = word.get(1..).unwrap();
            let of = if of == "all" { Of::All } else { Of::Prefix(prefix(of).unwrap()) };
            Rule { may: word.starts_with('+'), of, place: word.to_owned() }
        };
        text.split_whitespace().map(rule).collect()
    }

    fn first_match(rules: &[Rule], client: IpAddr) -> bool {
        let is_it = |rule: &&Rule| match rule.of {
            Of::All => true,
            Of::Prefix(net) => net.contains(&client),
        };
        rules.iter().find(is_it).is_none_or(|rule| rule.may)
    }

    fn by_lists(lists: &Lists, client: IpAddr) -> bool {
        let has = |list: &[IpNet]| list.iter().any(|net| net.contains(&client));
        !has(&lists.deny) && (lists.allow.is_empty() || has(&lists.allow))
    }

    /// Goal: lists take the clients that the rules take; where they cannot, they take fewer, and say which rule is the cause. Method: rules
    /// of each shape, and clients in and beside each prefix, judged both ways. Covers: C-811
    #[test]
    fn lists_take_no_client_that_the_rules_refuse() {
        let clients =
            ["10.0.0.1", "10.1.0.1", "10.1.2.3", "192.0.2.7", "198.51.100.1", "2001:db8::1", "2001:db9::1"];
        for (text, is_same) in [
            ("", true),
            ("+all", true),
            ("-all", true),
            ("+10.0.0.0/8 -all", true),
            ("+10.0.0.0/8 +2001:db8::/32 -all +192.0.2.0/24", true),
            ("-192.0.2.7", true),
            ("-192.0.2.0/24 -2001:db8::/32 +all", true),
            ("-10.1.0.0/16 +10.0.0.0/8 -all", true),
            ("+10.0.0.0/8 -10.1.0.0/16 -all", true),
            ("+10.1.2.0/24 -10.1.0.0/16 +10.0.0.0/8 -all", false),
            ("+10.1.0.0/16 -10.0.0.0/8", false),
        ] {
            let rules = rules(text);
            let (lists, stricter) = of(&rules);
            assert_eq!(stricter.is_none(), is_same, "{text}: {lists:?}");
            for client in clients.map(|client| client.parse().unwrap()) {
                let (wanted, is) = (first_match(&rules, client), by_lists(&lists, client));
                assert!(is == wanted || !is_same && !is, "{text}: {client} {lists:?}");
            }
        }
    }
}

//! Tests of `names`: addresses of a backend's name come and leave, are bounded, and outlast an engine.

use super::*;

/// Goal: each address of a name is a backend of its own with the keys of the one in the file, and is proved by that name; a
/// name without an address stays as it is. Method: a config with two names, one of them known.
#[test]
fn a_name_becomes_its_addresses() {
    let text = "[balance]\nbootstrap = [\"192.0.2.53:53\"]\n\
                [[backend]]\naddress = \"ns.example:853\"\ntransport = \"tls\"\nweight = 7\n\
                [[backend]]\nname = \"spare\"\naddress = \"other.example:53\"\nallow_cleartext = true\n";
    let config = crate::config::parse(text, "dotd.toml").unwrap();
    let mut names = Names::default();
    names.asked.0 = hosts(&config);
    let addresses = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap()).to_vec();
    let known = Known { addresses, reason: None };
    assert!(names.take(News { host: "ns.example".into(), known: known.clone() }));
    assert!(!names.take(News { host: "ns.example".into(), known: known.clone() }), "the same");
    assert!(!names.take(News { host: "gone.example".into(), known }), "no lookup was asked for");
    let expanded = names.expand(&config);
    let called: Vec<_> = expanded.backend.iter().map(Backend::called).collect();
    assert_eq!(called, ["ns.example:853/192.0.2.1", "ns.example:853/2001:db8::1", "spare"]);
    assert_eq!((&*expanded.backend[1].server_name, expanded.backend[1].weight), ("ns.example", 7));
    assert_eq!(expanded.backend[1].address, BackendAddress::Socket("[2001:db8::1]:853".parse().unwrap()));
    assert!(matches!(expanded.backend[2].address, BackendAddress::Named(_)));
    let served = super::super::plan::backends(&expanded, None, vec![None, None, None], &[]);
    assert_eq!(served.len(), 2, "no worker asks a name without an address");
}

/// Goal: many addresses of one family leave room for those of the other. Method: every number of each up to 20.
#[test]
fn neither_family_hides_the_other() {
    for (of_v4, of_v6) in (0..20_u8).flat_map(|v4| (0..20_u8).map(move |v6| (v4, v6))) {
        let v4: Vec<IpAddr> = (0..of_v4).map(|last| [192, 0, 2, last].into()).collect();
        let v6: Vec<IpAddr> =
            (0..of_v6).map(|last| [0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()].into()).collect();
        let some = some_of(&[v4, v6]);
        let is_v4 = some.iter().filter(|one| one.is_ipv4()).count();
        let all = usize::from(of_v4) + usize::from(of_v6);
        assert_eq!(some.len(), all.min(ADDRESSES_MAX), "{of_v4} and {of_v6}");
        assert!(is_v4 >= usize::from(of_v4.min(4)) && some.len() - is_v4 >= usize::from(of_v6.min(4)));
    }
}

/// Goal: the next engine has the addresses of the one before until it finds others, of the names that its config has, and no more of
/// them than it would have found. Method: addresses of a name of the config, of another one, and too many; no resolver.
///
#[tokio::test]
async fn addresses_outlast_an_engine() {
    let text = "[balance]\nbootstrap = [\"127.0.0.1:9\"]\n[[backend]]\naddress = \"ns.example:53\"\nallow_cleartext = true\n";
    let config = crate::config::parse(text, "dotd.toml").unwrap();
    let (mut before, mut after) = (Names::default(), Names::default());
    before.asked.0 = hosts(&config);
    let addresses: Vec<IpAddr> = (1..30_u8).map(|last| [192, 0, 2, last].into()).collect();
    before.take(News { host: "ns.example".into(), known: Known { addresses, reason: None } });
    let mut kept = before.addresses();
    kept.insert("else.example".into(), vec![[192, 0, 2, 99].into()]);
    kept.insert("none.example".into(), Vec::new());
    after.remember(kept);
    after.follow(&config);
    after.first().await;
    after.forget_others();
    let served = after.expand(&config).backend;
    assert_eq!((served.len(), served[0].called()), (ADDRESSES_MAX, "ns.example:53/192.0.2.1".to_owned()));
    assert_eq!(after.addresses().keys().collect::<Vec<_>>(), ["ns.example"]);
}

fn expanded(text: &str, addresses: &[&str]) -> Vec<String> {
    let config = crate::config::parse(text, "dotd.toml").unwrap();
    let mut names = Names::default();
    names.asked.0 = hosts(&config);
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    names.take(News { host: "ns.example".into(), known: Known { addresses, reason: None } });
    names.expand(&config).backend.iter().map(Backend::called).collect()
}

/// Goal: what a resolver says makes no loop, no backend that cannot be, and no second one at an address; cleartext that is
/// permitted comes back to dotd by no name. Method: answers that a config would be refused for.
#[test]
fn addresses_are_held_to_what_a_config_may_say() {
    let text = |keys: &str| {
        format!(
            "[listen]\ndot = [\"127.0.0.1:853\", \"192.0.2.9:853\"]\ndo53 = [\"192.0.2.9:53\"]\n\
             [balance]\nbootstrap = [\"192.0.2.53:53\"]\n[[backend]]\naddress = \"ns.example:{keys}\n"
        )
    };
    let alone = [text("853\"\ntransport = \"tls\""), text("53\"\nallow_cleartext = true")];
    for (text, port) in alone.iter().zip([853, 53]) {
        let bad = ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "192.0.2.9"];
        let called = expanded(text, &[bad.as_slice(), &["192.0.2.1"]].concat());
        assert_eq!(called, [format!("ns.example:{port}/192.0.2.1")]);
        assert_eq!(expanded(text, &bad), [format!("ns.example:{port}")], "none is left");
    }
    let falls_back = text(
        "8853\"\ntransport = \"tls\"\nprofile = \"opportunistic\"\non_tls_failure = \"cleartext\"\nallow_cleartext = true",
    );
    assert_eq!(expanded(&falls_back, &["192.0.2.9", "192.0.2.1"]), ["ns.example:8853/192.0.2.1"]);
    let twice =
        text("53\"\nallow_cleartext = true\n[[backend]]\naddress = \"192.0.2.1:53\"\nallow_cleartext = true");
    assert_eq!(
        expanded(&twice, &["192.0.2.1", "192.0.2.2", "192.0.2.2"]),
        ["ns.example:53/192.0.2.2", "192.0.2.1:53"]
    );
}

/// Goal: a reload that is refused costs no address of the config that stays. Method: another config is followed, then the
/// first again.
#[tokio::test]
async fn a_refused_config_costs_no_address() {
    let config = |name: &str| {
        let text = format!(
            "[balance]\nbootstrap = [\"192.0.2.53:53\"]\n[[backend]]\naddress = \"{name}:53\"\nallow_cleartext = true\n"
        );
        crate::config::parse(&text, "dotd.toml").unwrap()
    };
    let (served, refused) = (config("ns.example"), config("else.example"));
    let mut names = Names::default();
    names.follow(&served);
    let known = Known { addresses: vec![[192, 0, 2, 1].into()], reason: None };
    assert!(names.take(News { host: "ns.example".into(), known }));
    names.follow(&refused);
    names.follow(&served);
    assert_eq!(names.expand(&served).backend[0].called(), "ns.example:53/192.0.2.1");
    names.follow(&refused);
    names.forget_others();
    assert!(names.known.is_empty());
}

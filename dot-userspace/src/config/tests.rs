//! Tests of the config module: mistakes and their lines, defaults and the manual, and texts of any content.

mod acme;
mod mistakes;
mod ranges;

use std::{fs, path::Path};

use proptest::prelude::*;

use super::*;

/// The manual of the config file.
const MANUAL: &str = include_str!("../../../docs/config.md");

/// The `toml` blocks of the manual.
fn manual_blocks() -> Vec<&'static str> {
    MANUAL.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Goal: every mistake gives one line with place, key and remedy, and causes no other line.
/// Method: a table of texts with their exact lines. Covers: C-2, C-74, C-400, A-614.
#[test]
fn each_mistake_has_its_line() {
    for (text, expected) in mistakes::MISTAKES {
        let errors = parse(text, "f").expect_err(text);
        let lines: Vec<_> = errors.to_string().lines().map(|line| line.to_owned()).collect();
        let expected: Vec<_> = expected.iter().map(|line| format!("f:{line}")).collect();
        assert_eq!(lines, expected, "for {text:?}");
    }
}

/// Goal: no file, an empty file and the manual give the same config, so the defaults in the manual are right.
#[test]
fn manual_states_the_defaults() {
    assert_eq!(parse("", "f").unwrap(), Config::default());
    is_the_default("docs/config.md", &parse(manual_blocks()[0], "config.md").unwrap(), &Config::default());
    let with_backend = parse(manual_blocks()[1], "config.md").unwrap();
    let shortest = parse("[[backend]]\naddress = \"127.0.0.1:53\"", "f").unwrap();
    is_the_default("docs/config.md", &with_backend, &shortest);
}

/// Fails with each key of a page whose value is not the default, and both values.
#[track_caller]
fn is_the_default(page: &str, written: &Config, default: &Config) {
    let defaults = flat::keys(default);
    let differs =
        |key: &flat::Key| defaults.iter().find(|other| other.path == key.path && other.value != key.value);
    let differences: Vec<String> = flat::keys(written)
        .iter()
        .filter_map(|key| {
            differs(key)
                .map(|default| format!("{} = {}, the code has {}", key.path, key.value, default.value))
        })
        .collect();
    assert!(differences.is_empty(), "{page} has other defaults than the code: {differences:?}");
    assert_eq!(written, default);
}

/// Goal: the manual has every key. Method: serde lists all keys of a section when it meets an unknown one; each must
/// begin a line in the manual.
#[test]
fn manual_has_every_key() {
    let text = "[server]\n1=1\n[listen]\n1=1\n[tls]\n1=1\n[acme]\n1=1\n[access]\n1=1\n[[access.listener]]\n1=1\naddress=\"[::]:853\"\n[policy]\n1=1\n[[policy.zone]]\n1=1\nname=\"a.b\"\n[[policy.zone.primary]]\n1=1\naddress=\"127.0.0.1:53\"\n[misuse]\n1=1\n[discovery]\n1=1\n[session]\n1=1\n[balance]\n1=1\n[dns]\n1=1\n[xdp]\n1=1\n\
                [xdp.limit]\n1=1\n[control]\n1=1\n[dnstap]\n1=1\n[otlp]\n1=1\n[log]\n1=1\n[[backend]]\n1=1\naddress=\"embedded\"\n[[tenant]]\n1=1\nname=\"t\"\nprefixes=[\"10.0.0.0/8\"]";
    let errors = parse(text, "f").unwrap_err();
    assert_eq!(errors.mistakes.len(), 22, "{errors}");
    for mistake in &errors.mistakes {
        let (_, keys) = mistake.message.split_once("here are: ").expect(&mistake.message);
        for key in keys.split(", ") {
            let has = MANUAL.lines().any(|line| {
                line.trim_start_matches("# ").starts_with(&format!("{key} = "))
                    || line.starts_with(&format!("[xdp.{key}]"))
            });
            assert!(has, "{key} is not in docs/config.md");
        }
    }
}

/// Goal: the file that packages install has every key of the manual, with its default except for the keys that it
/// sets. Method: the file without those equals the default; each key of the manual begins a line of it, or a comment.
#[test]
fn the_installed_file_has_every_key() {
    let installed = include_str!("../../../packaging/dotd.toml");
    let mut config = parse(installed, "dotd.toml").unwrap();
    let own = (config.server.user.as_str(), config.tls.certificates.len(), config.backend.len());
    assert_eq!((own, config.control.http.is_some()), (("dotd", 0, 1), true));
    config.server.user.clear();
    config.backend.clear();
    config.control.http = None;
    is_the_default("packaging/dotd.toml", &config, &Config::default());
    for line in manual_blocks().iter().flat_map(|block| block.lines()) {
        let Some((key, _)) = line.split_once(" = ") else { continue };
        let (open, commented) = (format!("{key} = "), format!("# {key} = "));
        let has = installed.lines().any(|line| line.starts_with(&open) || line.starts_with(&commented));
        assert!(has, "{key} is not in packaging/dotd.toml");
    }
}

/// Goal: each complete config in examples/, and each block of the guide and README, is valid. Method: the same
/// parser; a block without a backend gets none added, because the default is used.
#[test]
fn examples_and_guides_are_valid() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut texts = Vec::new();
    for folder in ["examples", "docs/guide", "."] {
        for entry in fs::read_dir(top.join(folder)).expect("a folder of this repository") {
            let path = entry.expect("readable").path();
            let name = path.display().to_string();
            let read = || fs::read_to_string(&path).expect("UTF-8");
            if folder == "examples" && name.ends_with(".toml") {
                texts.push((name, read()));
            } else if folder != "." && name.ends_with(".md") || name.ends_with("README.md") {
                let blocks = read();
                let blocks = blocks.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
                texts.extend(blocks.map(|block| (name.clone(), block.to_owned())));
            }
        }
    }
    assert!(texts.len() >= 15, "{} configs", texts.len());
    for (name, text) in texts {
        if let Err(errors) = parse(&text, &name) {
            panic!("{errors}\n{text}");
        }
    }
}

/// Goal: every key that this version uses is accepted and has its value. Method: one file with a value of each kind.
#[test]
fn accepts_what_it_honours() {
    let config = parse(
        r#"
        [server]
        workers = 4
        user = "dotd"
        [listen]
        dot = ["127.0.0.1:8853", "[::1]:8853"]
        [tls]
        certificates = [{ cert = "a.pem", key = "a.key" }, { cert = "b.pem", key = "b.key", ocsp = "b.der" }]
        min_version = "1.3"
        [session]
        idle_timeout = "1min 30s"
        [[backend]]
        address = "192.0.2.1:53"
        allow_cleartext = true
        weight = 3
        [[backend]]
        address = "[::ffff:127.0.0.1]:53"
        [[backend]]
        address = "embedded"
        [balance]
        policy = "round-robin"
        [xdp]
        mode = "generic"
        interfaces = ["eth0", "eth0.853"]
        cleartext_853 = "count"
        deny = ["192.0.2.0/24", "2001:db8::/32"]
        allow = ["192.0.0.0/16"]
        [xdp.limit]
        udp53_over = "drop"
        mode = "count"
        [control]
        http = "127.0.0.1:9853"
        "#,
        "f",
    )
    .unwrap();
    assert_eq!(config.server.workers, Workers::Count(4));
    assert_eq!(config.tls.certificates.len(), 2);
    assert_eq!(config.session.idle_timeout.as_secs(), 90);
    assert_eq!(config.backend.len(), 3);
    assert_eq!(config.backend[2].address, BackendAddress::Embedded);
    assert_eq!(config.balance.policy, Policy::RoundRobin);
    assert_eq!(config.xdp.cleartext_853, Gate::Count);
    assert_eq!((config.xdp.limit.udp53_over, config.xdp.limit.mode), (Over::Drop, LimitMode::Count));
    assert_eq!(config.xdp.allow, ["192.0.0.0/16".parse().unwrap()]);
    assert_eq!(config.xdp.deny, ["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()]);
    assert_eq!(config.control.http, Some("127.0.0.1:9853".parse().unwrap()));
}

/// Goal: a missing file is a mistake only if the command line named it; a folder and text that is not UTF-8 are
/// mistakes.
#[test]
fn names_what_is_wrong_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent.toml");
    let line = load(Some(&absent)).unwrap_err().to_string();
    assert_eq!(
        line,
        format!("{}: no such file: name another with --config, or none for the defaults", absent.display())
    );
    let line = load(Some(folder.path())).unwrap_err().to_string();
    assert!(line.contains("cannot be read") && !line.contains('\n'), "{line}");
    let garbage = folder.path().join("garbage.toml");
    fs::write(&garbage, [0xff, 0xfe, 0x00]).unwrap();
    let line = load(Some(&garbage)).unwrap_err().to_string();
    assert!(line.ends_with("garbage.toml: is not UTF-8: save it as that"), "{line}");
    assert!(Path::new(DEFAULT_PATH).exists() || load(None) == Ok(Config::default()));
}

/// Goal: columns count characters, so that an editor finds the place. Method: umlauts before the mistake.
#[test]
fn columns_count_characters() {
    let errors = parse("[listen]\ndot = [\"äöü\", \"ä\"]", "f").unwrap_err();
    assert_eq!(
        errors.mistakes.iter().map(|mistake| mistake.place).collect::<Vec<_>>(),
        [Some((2, 8)), Some((2, 15))]
    );
}

/// Goal: the number of reported mistakes is bounded, and the file is still refused.
#[test]
fn number_of_mistakes_is_bounded() {
    let text: String = (0..2000).map(|number| format!("key{number} = 1\n")).collect();
    let errors = parse(&text, "f").unwrap_err();
    assert!((1..=51).contains(&errors.mistakes.len()), "{}", errors.mistakes.len());
}

/// A line of the manual: whole, truncated, doubled or with another value.
fn line() -> impl Strategy<Value = String> {
    let lines: Vec<&str> = manual_blocks().into_iter().flat_map(str::lines).collect();
    let value = prop_oneof![
        Just("0"),
        Just("-1"),
        Just("\"\""),
        Just("[]"),
        Just("[[]]"),
        Just("{}"),
        Just("{ a = 1 }"),
        Just("true"),
        Just("1e999"),
        Just("99999999999999999999"),
        Just("\"999999999999999999999s\""),
        Just("1979-05-27"),
        Just("\"\\u0000\""),
        Just("[\"::\", 1, {}]"),
    ];
    (prop::sample::select(lines), value, 0..4u8, any::<prop::sample::Index>()).prop_map(
        |(line, value, change, cut)| match change {
            0 => line.to_owned(),
            1 => line.chars().take(cut.index(line.chars().count() + 1)).collect(),
            2 => format!("{line}\n{line}"),
            _ => format!("{} = {value}", line.split(" = ").next().unwrap_or("")),
        },
    )
}

proptest! {
    /// Goal: no text makes the parser panic, and each mistake is one line with a place inside the text.
    #[test]
    fn any_text_is_a_config_or_mistakes(text in "\\PC*") {
        assert_sound(&text);
    }

    /// The same for text that is nearly a config.
    #[test]
    fn any_near_config_is_a_config_or_mistakes(lines in prop::collection::vec(line(), 0..12)) {
        assert_sound(&lines.join("\n"));
    }
}

fn assert_sound(text: &str) {
    let Err(errors) = parse(text, "f") else { return };
    assert!(!errors.mistakes.is_empty());
    for mistake in &errors.mistakes {
        assert!(!mistake.to_string().contains('\n'), "{mistake:?}");
        let (line, column) = mistake.place.unwrap_or((1, 1));
        let lines: Vec<_> = text.split('\n').collect();
        let within = lines.get(line - 1).is_some_and(|line| column <= line.chars().count() + 1);
        assert!(within, "{mistake:?} is outside of {text:?}");
    }
}

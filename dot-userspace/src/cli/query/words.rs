//! Parses questions as dig and kdig do: `@server name type +option=value`.
//!
//! Before: the shell's words. After: `arguments` has options that clap knows, and `plan` has questions and a server.
//! Never: guesses: a word that is neither server, option, type nor class is a name.

use std::{ffi::OsString, net::IpAddr};

use hickory_proto::rr::{DNSClass, Name, RecordType};

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Question {
    /// The name.
    pub(super) name: Name,
    /// The type.
    pub(super) kind: RecordType,
    /// The class.
    pub(super) class: DNSClass,
}

/// The words of a command line, or of a line of a list.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The word after the `@`.
    pub(super) server: Option<String>,
    /// In their order.
    pub(super) questions: Vec<Question>,
}

/// Options of kdig that have another name or form here.
const RENAMED: &[(&str, &str)] = &[
    ("nopadding", "--padding=0"),
    ("edns", "--bufsize=1232"),
    ("cookie", "--cookie="),
    ("nocookie", ""),
    ("recurse", ""),
    ("rdflag", ""),
];

/// Types of IANA's registry that hickory-proto has no name for; their data is written by number (RFC 3597 §5).
const TYPE_NAMES: &[(&str, u16)] = &[
    ("RP", 17),
    ("AFSDB", 18),
    ("X25", 19),
    ("ISDN", 20),
    ("RT", 21),
    ("NSAP", 22),
    ("PX", 26),
    ("LOC", 29),
    ("KX", 36),
    ("APL", 42),
    ("IPSECKEY", 45),
    ("DHCID", 49),
    ("HIP", 55),
    ("ZONEMD", 63),
    ("SPF", 99),
    ("NID", 104),
    ("L32", 105),
    ("L64", 106),
    ("LP", 107),
    ("EUI48", 108),
    ("EUI64", 109),
    ("TKEY", 249),
    ("URI", 256),
    ("AMTRELAY", 260),
];

/// The word after one of these is a pin, whose Base64 may begin with `+` (RFC 4648 §4).
const PIN_OPTIONS: [&str; 4] = ["--pin", "--tls-pin", "+pin", "+tls-pin"];

/// Converts `+name=value` after the verb `query` to `--name=value` for clap. Other verbs keep their words.
pub(in crate::cli) fn as_options(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let words: Vec<OsString> = words.collect();
    // The first word after the program and the config is the verb.
    let mut at = 1;
    while let Some(word) = words.get(at).and_then(|word| word.to_str()).filter(|word| word.starts_with('-')) {
        at += if matches!(word, "-c" | "--config") { 2 } else { 1 };
    }
    if words.get(at).is_none_or(|verb| verb != "query") {
        return words;
    }
    let option = |word: &OsString| word.to_str().and_then(|text| text.strip_prefix('+')).map(str::to_owned);
    let mut is_pin = false;
    let ours = words.into_iter().filter_map(|word| {
        let is_value = std::mem::replace(&mut is_pin, PIN_OPTIONS.iter().any(|option| word == *option));
        match option(&word) {
            Some(option) if !is_value => renamed(&option).map(OsString::from),
            _ => Some(word),
        }
    });
    ours.collect()
}

/// `None`: the option names the default.
fn renamed(option: &str) -> Option<String> {
    let name = option.split('=').next().unwrap_or_default();
    match RENAMED.iter().find(|(theirs, _)| *theirs == name) {
        Some((_, "")) => None,
        Some((_, ours)) if !option.contains('=') => Some((*ours).to_owned()),
        _ => Some(format!("--{option}")),
    }
}

/// Parses the words after the options.
///
/// # Errors
/// One line: a word is not a name, or a type has no name before it.
pub(super) fn read<'a>(words: impl Iterator<Item = &'a str>) -> Result<Asked, String> {
    let mut asked = Asked::default();
    // A type may come before the first name, as for dig.
    let mut kind_before = None;
    for word in words {
        if let Some(server) = word.strip_prefix('@') {
            asked.server = Some(server.to_owned());
        } else if let Some(kind) = kind(word) {
            match asked.questions.last_mut() {
                Some(question) => question.kind = kind,
                None => kind_before = Some(kind),
            }
        } else if let Some(class) = class(word) {
            let question = asked.questions.last_mut();
            question.ok_or_else(|| format!("\"{word}\" is a class: write the name before it"))?.class = class;
        } else {
            let kind = kind_before.take().unwrap_or(RecordType::A);
            asked.questions.push(Question { name: name(word)?, kind, class: DNSClass::IN });
        }
    }
    match kind_before {
        Some(kind) => {
            Err(format!("type {kind} without a name: write the name, or \"{kind}.\" if that is the name"))
        }
        None => Ok(asked),
    }
}

/// The question for the name of an address.
pub(super) fn reverse(address: IpAddr) -> Question {
    Question { name: Name::from(address), kind: RecordType::PTR, class: DNSClass::IN }
}

fn name(word: &str) -> Result<Name, String> {
    let parsed = if word.is_ascii() { Name::from_ascii(word) } else { Name::from_utf8(word) };
    let mut name = parsed.map_err(|error| format!("\"{word}\" is not a domain name: {error}"))?;
    name.set_fqdn(true);
    Ok(name)
}

/// `A`, `aaaa`, `TYPE65`. `None`: no type with that name is known.
fn kind(word: &str) -> Option<RecordType> {
    let word = word.to_ascii_uppercase();
    if let Some(number) = word.strip_prefix("TYPE").filter(|number| !number.is_empty()) {
        return number.parse::<u16>().ok().map(RecordType::from);
    }
    if word == "*" {
        return None;
    }
    let number = TYPE_NAMES.iter().find(|(name, _)| *name == word).map(|(_, number)| *number);
    number.map(RecordType::from).or_else(|| word.parse().ok())
}

/// The name of a type that hickory-proto has none for.
pub(super) fn type_name(number: u16) -> Option<&'static str> {
    TYPE_NAMES.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

fn class(word: &str) -> Option<DNSClass> {
    match word.to_ascii_uppercase().as_str() {
        "IN" => Some(DNSClass::IN),
        "CH" | "CHAOS" => Some(DNSClass::CH),
        "HS" => Some(DNSClass::HS),
        word => word.strip_prefix("CLASS")?.parse::<u16>().ok().map(DNSClass::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(line: &str) -> Result<Asked, String> {
        read(line.split_whitespace())
    }

    /// Goal: questions are parsed as dig does, several in a line; a name that looks like a type has a dot. Covers:
    /// C-470
    #[test]
    fn words_are_a_server_and_questions() {
        let asked = read_all("@192.0.2.1 a.test aaaa b.test c.test TYPE65 CH mx. MX").unwrap();
        assert_eq!(asked.server.as_deref(), Some("192.0.2.1"));
        let all: Vec<String> = asked
            .questions
            .iter()
            .map(|one| format!("{} {} {}", one.name.to_ascii(), u16::from(one.kind), one.class))
            .collect();
        assert_eq!(all, ["a.test. 28 IN", "b.test. 1 IN", "c.test. 65 CH", "mx. 15 IN"]);
        assert_eq!(read_all("MX a.test").unwrap().questions[0].kind, RecordType::MX);
        assert!(read_all("MX").unwrap_err().contains("without a name"));
        assert!(read_all("a..b").unwrap_err().contains("is not a domain name"));
        assert!(read_all("CH a.test").unwrap_err().contains("is a class"));
        assert_eq!(read_all("bücher.test").unwrap().questions[0].name.to_ascii(), "xn--bcher-kva.test.");
    }

    /// Goal: a type that hickory-proto does not know is a type by its name too, not another name to ask for. Method: each of the
    /// table, which has no name that hickory-proto knows. Covers: C-470
    #[test]
    fn types_without_a_form_have_a_name() {
        for (name, number) in TYPE_NAMES {
            assert!(name.parse::<RecordType>().is_err(), "{name} is known");
            let asked = read_all(&format!("a.test {}", name.to_lowercase())).unwrap();
            assert_eq!(asked.questions.len(), 1, "{name}");
            assert_eq!(u16::from(asked.questions[0].kind), *number);
            assert_eq!(super::super::zone_form::kind(asked.questions[0].kind), *name);
        }
    }

    /// Goal: kdig's options are accepted after `query` and nowhere else; a pin that begins with a plus stays a pin.
    /// Covers: C-486
    #[test]
    fn options_may_have_a_plus() {
        let typed = |line: &str| as_options(line.split(' ').map(OsString::from));
        assert_eq!(
            typed("dotd query @::1 a.test +short +tls-pin=AA= +nocookie +nopadding"),
            ["dotd", "query", "@::1", "a.test", "--short", "--tls-pin=AA=", "--padding=0"]
        );
        assert_eq!(
            typed("dotd query +tries=3 +retry=2"),
            ["dotd", "query", "--tries=3", "--retry=2"],
            "clap refuses them"
        );
        assert_eq!(typed("dotd query --pin +AA= +short"), ["dotd", "query", "--pin", "+AA=", "--short"]);
        assert_eq!(typed("dotd query +tls-pin +AA="), ["dotd", "query", "--tls-pin", "+AA="]);
        assert_eq!(typed("dotd -c x query +short"), ["dotd", "-c", "x", "query", "--short"]);
        assert_eq!(typed("dotd ban add +x"), ["dotd", "ban", "add", "+x"]);
        assert_eq!(typed("dotd -c query check +x"), ["dotd", "-c", "query", "check", "+x"]);
        assert_eq!(typed("dotd ban query +x"), ["dotd", "ban", "query", "+x"]);
    }
}

//! Unit tests of the history: what survives a restart, its bounds, which config counts, and what a name promises.

use super::*;
use crate::{config::TlsVersion, ledger::TlsFault};

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

/// Goal: the history of a server survives a restart, by its address and name; a damaged file is reported and has
/// no other effect. Method: write, read, another name at the same address; half a file, and one with a second
/// name.
#[test]
fn a_history_survives_a_restart() {
    let scratch = tempfile::tempdir().unwrap();
    let history = TlsHistory::read(scratch.path());
    let memory = history.memory_of("one", address(853), "ns.example");
    memory.note_success("one", (TlsVersion::V1_3, Some("PIN".into())));
    history.save();
    let read = TlsHistory::read(scratch.path());
    let row = read.memory_of("renamed", address(853), "ns.example").row();
    assert_eq!((&*row.pin, &*row.version), ("PIN", "1.3"));
    assert!(row.first_success > 0 && row.last_success >= row.first_success);
    assert_eq!(read.memory_of("one", address(853), "else.example").row(), Remembered::default());
    assert_eq!(read.memory_of("one", address(854), "ns.example").row(), Remembered::default());
    let path = scratch.path().join(FILE_NAME);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"name\": \"one\"") && text.contains("\"last_success\""), "{text}");
    for (damaged, is_read) in [(&text[..text.len() / 2], false), ("", false), ("{}", false), (&*text, true)] {
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(super::read(&path).is_ok(), is_read, "{damaged}");
        let row = TlsHistory::read(scratch.path()).memory_of("one", address(853), "ns.example").row();
        assert_eq!(row.last_success > 0, is_read);
    }
}

/// Goal: the history is bounded: if a config changes a thousand times, the servers that it no longer has are
/// removed, the oldest first. Method: a thousand servers, one of them in the config.
#[test]
fn a_history_is_bounded() {
    let history = TlsHistory::default();
    let text = "[[backend]]\nname = \"kept\"\naddress = \"192.0.2.1:1\"\ntransport = \"tls\"\nserver_name = \"a.test\"";
    let config = crate::config::parse(text, "dotd.toml").unwrap();
    let kept = history.memory_of("kept", address(1), "a.test");
    for port in 2..1000 {
        history.memory_of("gone", address(port), "a.test").note_failure("gone", TlsFault::Closed);
        history.serve(&config);
    }
    let rows = history.rows();
    assert_eq!((rows.len(), &*rows[0].name, rows[0].is_configured), (ENTRIES_MAX, "kept", true));
    assert!(history.memory_of("kept", address(1), "a.test") == kept);
}

fn config(window: &str, backends: impl Iterator<Item = (String, &'static str)>) -> Config {
    let backends = backends.map(|(address, keys)| {
        format!("[[backend]]\naddress = \"{address}\"\nallow_cleartext = true\n{keys}\n")
    });
    let text = format!("[balance]\ndowngrade_window = \"{window}\"\n{}", backends.collect::<String>());
    crate::config::parse(&text, "dotd.toml").unwrap()
}

/// Goal: a server of the config is never removed, however many there are, and not from the file either. Method:
/// more servers than the limit for others.
#[test]
fn the_servers_of_the_config_stay() {
    let scratch = tempfile::tempdir().unwrap();
    let history = TlsHistory::read(scratch.path());
    let ports = 1..=2 * u16::try_from(ENTRIES_MAX).unwrap();
    let keys = "transport = \"tls\"\nprofile = \"opportunistic\"";
    let config = config("7d", ports.clone().map(|port| (address(port).to_string(), keys)));
    let memories: Vec<_> = ports.clone().map(|port| history.memory_of("one", address(port), "")).collect();
    memories.iter().for_each(|memory| memory.note_success("one", (TlsVersion::V1_3, None)));
    history.serve(&config);
    history.save();
    let read = TlsHistory::read(scratch.path());
    for (port, memory) in ports.zip(&memories) {
        assert!(history.memory_of("one", address(port), "") == *memory, "{port}");
        assert!(read.memory_of("one", address(port), "").row().last_success > 0, "{port}");
    }
}

/// Goal: the window of the served config is in effect, and not one of a config that was refused; a backend that
/// is now asked over TCP is not listed as one over TLS. Method: a memory whose window is checked after each
/// config.
#[test]
fn the_served_config_counts() {
    let history = TlsHistory::default();
    let one = |keys| std::iter::once((address(853).to_string(), keys));
    let over_tls = "transport = \"tls\"\nprofile = \"opportunistic\"";
    history.memory_of("old", address(853), "").note_success("old", (TlsVersion::V1_3, None));
    history.serve(&config("7d", one(over_tls)));
    let refused = config("1min", one("transport = \"tls\"\nprofile = \"opportunistic\"\nname = \"new\""));
    let tls = super::super::dialer::all(&refused, &history).unwrap();
    let memory = tls[0].clone().unwrap().memory;
    memory.note_failure("old", TlsFault::Closed);
    assert!(!memory.may_speak_clear());
    assert_eq!((&*history.rows()[0].name, history.rows()[0].is_configured), ("192.0.2.1:853", true));
    history.serve(&config("7d", one("transport = \"tcp\"")));
    assert!(!history.rows()[0].is_configured);
    history.memory_of("never served", address(9), "");
    assert_eq!(history.rows().len(), 1, "it has neither a config nor a history");
}

/// Goal: an address that appears for a name of a backend that spoke TLS is not asked in clear, whatever failed there; so a
/// resolver that is lied to gives no way around the history. One word forgives all addresses; another name is not bound.
/// Method: a server that spoke and is gone, a new address of its name, one of another name.
#[tokio::test]
async fn a_new_address_has_the_history_of_its_name() {
    let history = TlsHistory::default();
    let keys = |name: &str, server_name: &str| {
        format!(
            "name = \"{name}\"\ntransport = \"tls\"\nprofile = \"opportunistic\"\nserver_name = \"{server_name}\"\n\
             on_tls_failure = \"cleartext\""
        )
    };
    let serve = |port: u16| {
        let mut config = config("7d", std::iter::once((address(port).to_string(), "transport = \"tcp\"")));
        let text = format!(
            "[[backend]]\naddress = \"{}\"\nallow_cleartext = true\n{}\n[[backend]]\naddress = \"{}\"\nallow_cleartext = true\n{}",
            address(port),
            keys("x", "ns.example"),
            address(99),
            keys("other", "other.example"),
        );
        config.backend = crate::config::parse(&text, "dotd.toml").unwrap().backend;
        // As `names` calls it.
        config.backend[0].name = format!("ns.example:853/{}", address(port).ip());
        let memories: Vec<_> = super::super::dialer::all(&config, &history).unwrap();
        history.serve(&config);
        memories.into_iter().map(|tls| tls.unwrap().memory).collect::<Vec<_>>()
    };
    let old = serve(1);
    old[0].note_success("one", (TlsVersion::V1_3, None));
    let new = serve(2);
    for memory in &new {
        memory.note_failure("one", TlsFault::Unconnected);
    }
    history.look(&[]);
    assert_eq!((new[0].may_speak_clear(), new[1].may_speak_clear()), (false, true));
    assert!(new[0].row().name_spoke > 0 && new[0].row().last_success == 0);
    let row = history.forgive(&ForgiveRequest { name: "ns.example:853".into() }).unwrap();
    assert_eq!(row.name, "ns.example:853/192.0.2.1");
    assert!(new[0].may_speak_clear());
    let nobody = ForgiveRequest { name: "ns.example:85".into() };
    assert!(history.forgive(&nobody).unwrap_err().contains("no backend over TLS is called"));
}

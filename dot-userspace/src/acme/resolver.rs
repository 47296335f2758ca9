//! The addresses of the authority's server: by /etc/hosts, then by the resolvers of /etc/resolv.conf.
//!
//! Before: the name in a URL. After: its addresses, IPv4 first where both are there.
//! Never: loads a module of the C library, which a confined process cannot; searches other domains; waits longer than
//! [`ANSWER_TIMEOUT`] for a server. What a resolver says is not believed: the certificate proves the server.
//!
//! Source: hosts(5), resolv.conf(5).

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use crate::{backend, dns::Family};

/// Time for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Servers that are asked, as the C library does.
const SERVERS_MAX: usize = 3;
/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;
/// The port of DNS.
const PORT: u16 = 53;

/// The files.
const HOSTS: &str = "/etc/hosts";
const RESOLVERS: &str = "/etc/resolv.conf";

/// Whether one of the files is there, and may not be read. Landlock permits files, not names: after a rename it hides the new file from a
/// process that was confined before.
pub(super) fn is_hidden() -> bool {
    [HOSTS, RESOLVERS].into_iter().any(|path| is_denied(Path::new(path)))
}

fn is_denied(path: &Path) -> bool {
    fs::File::open(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Every address of `host`.
///
/// # Errors
/// Why there is none.
pub(super) async fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let known = in_hosts(&fs::read_to_string(HOSTS).unwrap_or_default(), host);
    if !known.is_empty() {
        return Ok(known);
    }
    let servers = servers(&fs::read_to_string(RESOLVERS).unwrap_or_default());
    let (v4, v6) = tokio::join!(
        backend::lookup(&servers, host, Family::V4, ANSWER_TIMEOUT),
        backend::lookup(&servers, host, Family::V6, ANSWER_TIMEOUT)
    );
    let mut found = Vec::new();
    let mut why = None;
    for addresses in [v4, v6] {
        match addresses {
            Ok(those) => found.extend(those.addresses),
            Err(error) => why = Some(error),
        }
    }
    found.truncate(ADDRESSES_MAX);
    match why {
        Some(why) if found.is_empty() => Err(format!("{host} is not found: {why}")),
        _ if found.is_empty() => Err(format!("{host} has no address")),
        _ => Ok(found),
    }
}

/// The addresses of a name in the text of /etc/hosts.
fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let line = |line: &str| -> Option<IpAddr> {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    };
    text.lines().filter_map(line).take(ADDRESSES_MAX).collect()
}

/// The servers in the text of /etc/resolv.conf; without one, this machine.
fn servers(text: &str) -> Vec<SocketAddr> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        Some(SocketAddr::new(words.next()?.parse().ok()?, PORT))
    };
    let found: Vec<_> = text.lines().filter_map(line).take(SERVERS_MAX).collect();
    if found.is_empty() { vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT)] } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: both files are read as the C library reads them. Method: comments, several names of a line, several servers, none.
    #[test]
    fn the_two_files_are_read() {
        let hosts = "# 192.0.2.9 ca.example\n192.0.2.1 other CA.example # ca\n2001:db8::1\tca.example\nnonsense ca.example\n";
        let found = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(in_hosts(hosts, "ca.example"), found);
        assert_eq!(in_hosts(hosts, "example"), [] as [IpAddr; 0]);
        let text = "search example\nnameserver 192.0.2.53\noptions edns0\nnameserver 2001:db8::53\n";
        assert_eq!(servers(text), ["192.0.2.53:53", "[2001:db8::53]:53"].map(|text| text.parse().unwrap()));
        assert_eq!(servers(""), ["127.0.0.1:53".parse().unwrap()]);
    }
    /// Goal: a process that was confined notices that a file was replaced, which it may not read. Method: a thread that is confined as the
    /// ACME process is, on a kernel with Landlock; a file before and after another one has its name; one that is absent.
    #[test]
    fn a_file_that_was_replaced_is_noticed() {
        use std::sync::mpsc::channel;

        use crate::{config::Sandbox, confine};
        let folder = tempfile::tempdir().unwrap();
        let (path, next) = (folder.path().join("resolv.conf"), folder.path().join("next"));
        fs::write(&path, "nameserver 192.0.2.53\n").unwrap();
        assert!(!is_denied(&folder.path().join("absent")));
        let ((say, said), (go, gone)) = (channel(), channel::<()>());
        let file = path.clone();
        let thread = std::thread::spawn(move || {
            let (_, is_whole) = confine::confine("a test", Sandbox::Enforce, &[], &[file.to_str().unwrap()]);
            say.send((is_whole, is_denied(&file))).unwrap();
            gone.recv().unwrap();
            is_denied(&file)
        });
        let (is_whole, before) = said.recv().unwrap();
        assert!(!before);
        fs::write(&next, "nameserver 192.0.2.54\n").unwrap();
        fs::rename(&next, &path).unwrap();
        go.send(()).unwrap();
        assert_eq!(thread.join().unwrap(), is_whole);
    }
}

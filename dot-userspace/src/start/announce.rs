//! The announcement when everything runs: XDP, listeners, backends, pins, a client's command line to try, and an operator's.
//!
//! Before: the state of the process. After: lines on standard output, or log lines if a program reads them.
//! Never: mixes plain text into a log of JSON.

use std::{
    env,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use super::journal;
use crate::{config::LogFormat, control::Status, xdp::Report};

/// The beginning of a warning.
const WARNING: &str = "warning: ";

/// Announces the state. On standard output for people, with the verb that shows it by the config at `path`, ending in `ready`; as log
/// lines if the log is JSON, or standard output is the journal.
pub(super) fn announce(status: &Status, format: LogFormat, path: Option<&Path>) {
    let mut lines = announcement(status);
    if format == LogFormat::Json || journal::is_journal(io::stdout()) {
        for line in &lines {
            match line.strip_prefix(WARNING) {
                Some(warning) => tracing::warn!("{warning}"),
                None => tracing::info!("{line}"),
            }
        }
        return;
    }
    lines.push(format!("see: {}", status_verb(path)));
    // The reader may have closed the pipe (`dotd run | head -1`); that is no reason to stop.
    let _ = io::stdout().write_all((lines.join("\n") + "\nready\n").as_bytes());
}

fn announcement(status: &Status) -> Vec<String> {
    let mut lines = vec![format!("xdp: {}", describe_xdp(&status.xdp))];
    if status.xdp.state != "off" {
        lines.push(format!("steering: {}", status.xdp.steering));
    }
    let listeners =
        status.listeners.iter().map(|listener| format!("{} ({})", listener.address, listener.transport));
    lines.push(format!("listening: {}", listeners.collect::<Vec<_>>().join(", ")));
    let backends = status.backends.iter().map(|backend| backend.address.clone());
    lines.push(format!("backend: {}", backends.collect::<Vec<_>>().join(", ")));
    for certificate in &status.certificates {
        lines.push(format!("pin-sha256=\"{}\"", certificate.spki_pin));
        let warnings = certificate.warnings.iter();
        lines.extend(warnings.map(|warning| format!("{WARNING}{}: {warning}", certificate.name)));
    }
    let dot = status.listeners.iter().find(|listener| listener.transport == "dot");
    if let (Some(listener), Some(certificate)) = (dot, status.certificates.first()) {
        let host = reachable(listener.address.ip());
        let (port, pin) = (listener.address.port(), &certificate.spki_pin);
        let name = match status.backends.first() {
            Some(backend) if backend.address != "embedded" => "example.com",
            _ => "dotd.test",
        };
        lines.push(format!("try: kdig @{host} -p {port} +tls +tls-pin={pin} {name} A"));
    }
    lines
}

/// The command line that shows the state of this dotd.
fn status_verb(path: Option<&Path>) -> String {
    let program = env::args_os().next().unwrap_or_else(|| "dotd".into());
    let path = path.map(|path| format!(" -c {}", for_a_shell(&path.to_string_lossy())));
    format!("{} status{}", for_a_shell(&program.to_string_lossy()), path.unwrap_or_default())
}

/// A word as a shell reads it.
fn for_a_shell(word: &str) -> String {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&octet);
    match !word.is_empty() && word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// One state for the whole kernel half: `native on eth0; generic on lo`, or `off (why)`.
fn describe_xdp(report: &Report) -> String {
    let interfaces = report.interfaces.iter().map(|interface| match &interface.reason {
        Some(reason) => format!("{} on {} ({reason})", interface.mode, interface.name),
        None => format!("{} on {}", interface.mode, interface.name),
    });
    match (&report.reason, report.state.as_str()) {
        (Some(reason), "off") => format!("off ({reason})"),
        _ => interfaces.collect::<Vec<_>>().join("; "),
    }
}

/// An address that a client on this machine can use for a listener on `host`.
fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the line can be pasted into a shell whatever the path is. Method: plain, with a space and with a quote; no config. Covers: C-741
    #[test]
    fn the_verb_is_fit_for_a_shell() {
        let verb = |path: &str| status_verb(Some(Path::new(path)));
        assert!(verb("/etc/dotd/dotd.toml").ends_with(" status -c /etc/dotd/dotd.toml"));
        assert!(verb("/a b/c").ends_with(" status -c '/a b/c'"));
        assert!(verb("it's").ends_with(r" status -c 'it'\''s'"));
        assert!(status_verb(None).ends_with(" status"));
    }
}

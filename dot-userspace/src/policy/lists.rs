//! Reads plain block lists: lines of /etc/hosts, or a domain on each line.
//!
//! Before: an open file. After: each name has the rule NXDOMAIN; lines without a name are counted.
//! Never: accepts a list in which more than one line in ten has no name.
//!
//! Source: hosts(5); public lists as Pi-hole, AdGuard Home, dnsmasq and Unbound take them.

use std::{io::BufRead, net::IpAddr};

use super::{
    builder::{Builder, Says, Trigger},
    rules::NXDOMAIN,
    words::{Lines, shown},
};
use crate::{config::PolicyFormat, dns::Labels};

/// Names that block lists contain because they began as an ordinary /etc/hosts.
const OF_THE_HOST: [&str; 14] = [
    "localhost",
    "localhost.localdomain",
    "localhost4",
    "localhost6",
    "local",
    "broadcasthost",
    "ip6-localhost",
    "ip6-loopback",
    "ip6-localnet",
    "ip6-mcastprefix",
    "ip6-allnodes",
    "ip6-allrouters",
    "ip6-allhosts",
    "0.0.0.0",
];

/// Reads all lines.
///
/// # Errors
/// The line, and the mistake in it.
pub(super) fn read<R: BufRead>(
    lines: &mut Lines<R>,
    format: PolicyFormat,
    builder: &mut Builder,
) -> Result<(), (u32, String)> {
    let (mut line, mut lines_used) = (Vec::new(), 0_usize);
    loop {
        line.clear();
        match lines.next(&mut line) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return Err((lines.number, error.to_string())),
        }
        let text = std::str::from_utf8(&line).unwrap_or("\u{fffd}");
        // "!" begins a comment in lists for browsers.
        let text = if text.starts_with('!') { "" } else { text.split('#').next().unwrap_or_default() };
        let mut words = text.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        let outcome = match format {
            PolicyFormat::Hosts => match first.parse::<IpAddr>() {
                Ok(_) => words.try_for_each(|name| add(builder, name, lines.number, false)),
                Err(_) => Err(Unfit::Line(format!("{} is not an address", shown(first.as_bytes())))),
            },
            _ => match words.next() {
                None => add(builder, first, lines.number, true),
                Some(_) => Err(Unfit::Line("more than one word".to_owned())),
            },
        };
        match outcome {
            Ok(()) => lines_used += 1,
            Err(Unfit::Line(why)) => builder.leave_out(lines.number, &why),
            Err(Unfit::Zone(why)) => return Err((lines.number, why)),
        }
    }
    let left_out = builder.start.left_out as usize;
    if left_out * 10 > lines_used + left_out {
        let first = builder.start.first_left_out.clone().unwrap_or_default();
        let format = format.label();
        let why = format!("{left_out} lines do not have the format \"{format}\", the first: {first}");
        let line = first.strip_prefix("line ").and_then(|rest| rest.split(':').next()?.parse().ok());
        return Err((line.unwrap_or(lines.number), why));
    }
    Ok(())
}

/// Why a name gets no rule.
enum Unfit {
    /// Its line is skipped, for this reason.
    Line(String),
    /// The zone has no room for it.
    Zone(String),
}

/// Blocks `name`, and in a list of domains all names below it; `*.NAME` blocks only the names below.
fn add(builder: &mut Builder, name: &str, line: u32, with_below: bool) -> Result<(), Unfit> {
    let (plain, is_wildcard) = match name.strip_prefix("*.") {
        Some(plain) => (plain, true),
        None => (name, false),
    };
    if !with_below && (OF_THE_HOST.contains(&name) || name.parse::<IpAddr>().is_ok()) {
        return Ok(());
    }
    let is_sign = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    let no_name = || Unfit::Line(format!("{} is not a name", shown(name.as_bytes())));
    if is_wildcard && !with_below {
        return Err(no_name());
    }
    if !plain.bytes().all(is_sign) || plain.parse::<IpAddr>().is_ok() {
        return Err(no_name());
    }
    let labels = Labels::parse(plain.as_bytes(), None).map_err(|_| no_name())?;
    // A word without a dot would block a whole top-level domain: lists of domains do not do that on purpose.
    if labels.count() < 2 {
        return Err(Unfit::Line(format!("{} is a single label", shown(name.as_bytes()))));
    }
    let node = builder.names.insert(labels.last(labels.count()));
    let node = node.ok_or_else(|| Unfit::Zone("more names than can be counted".to_owned()))?;
    let mut block = |below| builder.add(Trigger::Name(node, below), line, &Says::Plain(NXDOMAIN));
    let name = if is_wildcard { Ok(()) } else { block(false) };
    let below = if with_below { block(true) } else { Ok(()) };
    name.and(below).map_err(Unfit::Zone)
}

//! Reads plain block lists: lines of /etc/hosts, or a domain a line.
//!
//! Before: an open file. After: each name has the rule NXDOMAIN; lines that hold no name are counted.
//! Never: takes a list for one where more than one line in ten holds no name.
//!
//! Source: hosts(5); public lists as Pi-hole, AdGuard Home, dnsmasq and Unbound take them.

use std::{io::BufRead, net::IpAddr};

use super::{
    builder::{Builder, Says, Trigger},
    rules::NXDOMAIN,
    words::Lines,
};
use crate::{config::PolicyFormat, dns::Labels};

/// Names that lists carry along from an ordinary /etc/hosts.
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
/// The line, and what is wrong there.
pub(super) fn read<R: BufRead>(
    lines: &mut Lines<R>,
    format: PolicyFormat,
    builder: &mut Builder,
) -> Result<(), (u32, String)> {
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.next(&mut line) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return Err((lines.number, error.to_string())),
        }
        let text = std::str::from_utf8(&line).unwrap_or("\u{fffd}");
        // "!" begins a remark in lists that were made for browsers.
        let text = if text.starts_with('!') { "" } else { text.split('#').next().unwrap_or_default() };
        let mut words = text.split_ascii_whitespace();
        let outcome = match (format, words.clone().next()) {
            (_, None) => Ok(()),
            (PolicyFormat::Hosts, Some(address)) => match address.parse::<IpAddr>() {
                Ok(_) => words.skip(1).try_for_each(|name| add(builder, name, lines.number, false)),
                Err(_) => Err(format!("{} is no address", address.escape_debug())),
            },
            (_, Some(name)) => match words.nth(1) {
                None => add(builder, name, lines.number, true),
                Some(_) => Err("more than one word".to_owned()),
            },
        };
        if let Err(why) = outcome {
            builder.leave_out(lines.number, &why);
        }
    }
    if builder.start.left_out as usize * 10 > builder.count() + builder.start.left_out as usize {
        let first = builder.start.first_left_out.clone().unwrap_or_default();
        let (bad, format) = (builder.start.left_out, format.label());
        let why = format!("{bad} lines are none of the format \"{format}\", the first: {first}");
        let line = first.strip_prefix("line ").and_then(|rest| rest.split(':').next()?.parse().ok());
        return Err((line.unwrap_or(lines.number), why));
    }
    Ok(())
}

/// Blocks `name`, and where the list is one of domains what is below it; `*.NAME` is what is below alone.
fn add(builder: &mut Builder, name: &str, line: u32, with_below: bool) -> Result<(), String> {
    let (plain, is_wildcard) = match name.strip_prefix("*.") {
        Some(plain) => (plain, true),
        None => (name, false),
    };
    if !with_below && (OF_THE_HOST.contains(&name) || name.parse::<IpAddr>().is_ok()) {
        return Ok(());
    }
    let is_sign = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    let no_name = || format!("{} is no name", name.escape_debug());
    if !plain.bytes().all(is_sign) || plain.parse::<IpAddr>().is_ok() {
        return Err(no_name());
    }
    let labels = Labels::parse(plain.as_bytes(), None).map_err(|_| no_name())?;
    // A word without a dot would block all of a top-level domain: lists of domains have none by intent.
    if labels.count() < 2 {
        return Err(format!("{} is a single label", name.escape_debug()));
    }
    let node = builder.names.insert(labels.last(labels.count())).ok_or("more names than can be counted")?;
    if !is_wildcard {
        builder.add(Trigger::Name(node, false), line, &Says::Plain(NXDOMAIN))?;
    }
    if with_below {
        builder.add(Trigger::Name(node, true), line, &Says::Plain(NXDOMAIN))?;
    }
    Ok(())
}

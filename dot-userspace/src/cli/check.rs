//! `dotd check`: what `dotd run` would do with this config on this machine, and every mistake that would prevent its
//! start.
//!
//! Before: a config file. After: a report that ends with `ok`, or a line for each mistake.
//! Never: opens a listener (a running dotd would lose connections to it), writes a file, or sends a packet, except to
//! backends when `--connect` asks for that.

mod acme;
mod closed;
mod hidden;

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    time::SystemTime,
};

use serde_json::json;

use super::{connect, error::CliError, pin, print, query, rights::Rights, show};
use crate::{
    config::{self, BackendAddress, Config, Placed, PolicyZone, SynCookies, Transport, Workers, XdpMode},
    control::CertificateStatus,
    policy::{Zone, key_of},
    start::{families, privileges},
    tls::{BackendTls, Tickets, certificate, client_verifier},
    xdp,
};

/// Prints the report, which ends with `ok`; with `connects`, after a line for each backend.
pub(super) fn run(path: Option<&Path>, connects: bool, is_json: bool) -> Result<(), CliError> {
    let (report, last) = check(path)?;
    if !connects {
        return print(&(report + &last));
    }
    let config = config::load(path)?;
    let tried = connect::all(&config).map_err(|line| CliError::Check(vec![line]))?;
    let failed = tried.iter().filter(|one| one.has_failed()).count();
    let text = if is_json {
        let whole = json!({ "backends": tried, "failed": failed });
        query::ascii(&format!("{whole:#}\n"))
    } else {
        let lines = tried.iter().map(connect::Tried::lines).collect::<String>();
        report + &lines + if failed == 0 { &last } else { "" }
    };
    print(&text)?;
    match failed {
        0 => Ok(()),
        _ => Err(CliError::Check(vec![format!(
            "{failed} of {} gave no answer",
            show::of(tried.len(), "backend")
        )])),
    }
}

/// The report, and its last line.
fn check(path: Option<&Path>) -> Result<(String, String), CliError> {
    let (placed, mistakes) = config::load_what_is_sound(path)?;
    let mut config = placed.config.clone();
    let left_out = families::leave_out(&mut config, families::is_here);
    let config = &config;
    let rights = Rights::of_this_process();
    let mistakes = mistakes.iter().map(ToString::to_string).collect();
    let mut report = Report { placed: &placed, text: String::new(), mistakes, unusable: 0 };
    report.source(path);
    for line in left_out {
        report.line(&format!("warning: {line}"));
    }
    report.user(&config.server.user, rights);
    report.listeners(config, rights);
    report.backends(config);
    report.certificates(config);
    acme::line(config).iter().for_each(|line| report.line(line));
    acme::unusable(&config.acme).iter().for_each(|(key, why)| report.mistake(key, why));
    acme::warnings(&config.acme).iter().for_each(|line| report.line(&format!("warning: {line}")));
    report.policies(config);
    // The file that the packaged unit names.
    if path.is_none_or(|path| path == Path::new(config::DEFAULT_PATH)) {
        let lines = [hidden::hidden(config), closed::closed(config)].concat();
        lines.iter().for_each(|line| report.line(&format!("warning: {line}")));
    }
    let has_own_port = config.listen.dot.iter().any(|address| address.port() == 853);
    report.xdp(&config.xdp, has_own_port, rights);
    for warning in unseen_by_xdp(config) {
        report.line(&format!("warning: {warning}"));
    }
    let last = match report.unusable {
        0 => "ok\n".to_owned(),
        count => format!("ok, but for {}: see the warnings\n", show::of(count, "certificate")),
    };
    if report.mistakes.is_empty() { Ok((report.text, last)) } else { Err(CliError::Check(report.mistakes)) }
}

struct Report<'a> {
    placed: &'a Placed,
    text: String,
    mistakes: Vec<String>,
    unusable: usize,
}

impl Report<'_> {
    fn line(&mut self, line: &str) {
        self.text += line;
        self.text.push('\n');
    }

    /// Notes a certificate that prevents no start, but on which clients cannot rely.
    fn unusable(&mut self, key: &str, message: &str) {
        self.unusable += 1;
        let line = format!("warning: {}{message}", self.placed.place(key));
        self.line(&line);
    }

    /// Notes a mistake that prevents a start, with the place of its key.
    fn mistake(&mut self, key: &str, message: &str) {
        self.mistakes.push(self.placed.place(key) + message);
    }

    fn source(&mut self, path: Option<&Path>) {
        let used = path.or_else(|| Some(Path::new(config::DEFAULT_PATH)).filter(|path| path.exists()));
        let name =
            used.map_or("none: the default of every key".to_owned(), |path| path.display().to_string());
        self.line(&format!("config: {name}"));
        if self.placed.is_empty_file() {
            self.line(&format!("warning: {}", self.placed.empty_warning()));
        }
    }

    /// A user that does not exist prevents a start. The config is not wrong if the present user lacks the right to
    /// become another one.
    fn user(&mut self, name: &str, rights: Rights) {
        match privileges::user(name) {
            Ok(_) => {}
            Err(error) if rights.may_become_another() => {
                self.mistake("server.user", &format!("{error:#}"));
            }
            Err(error) => self.line(&format!("warning: {error:#}")),
        }
    }

    fn listeners(&mut self, config: &Config, rights: Rights) {
        let workers = match config.server.workers {
            Workers::Auto => "one per core".to_owned(),
            Workers::Count(count) => count.to_string(),
        };
        self.line(&format!("workers: {workers}"));
        let dns = [("dot", &config.listen.dot), ("do53", &config.listen.do53)];
        let names = dns.iter().flat_map(|(key, all)| all.iter().map(move |at| format!("{at} ({key})")));
        let names: Vec<_> = names.collect();
        self.line(&format!("listening: {}", names.join(", ")));
        let each = |(key, all): (&str, &Vec<SocketAddr>)| {
            let indexed = all.iter().enumerate();
            indexed.map(|(index, at)| (format!("listen.{key}"), format!(".{index}"), *at)).collect::<Vec<_>>()
        };
        let http = config.control.http.map(|at| ("control.http".to_owned(), String::new(), at));
        for (key, index, address) in dns.into_iter().flat_map(each).chain(http) {
            // Binds UDP on another port of the same address, which no client uses.
            let mut any_port = address;
            any_port.set_port(0);
            if let Err(error) = UdpSocket::bind(any_port) {
                let message = format!("{key}: {address} is not an address of this machine ({error})");
                self.mistake(&format!("{key}{index}"), &message);
            }
            if !rights.may_open(address.port()) {
                self.line(&format!("warning: this user may not open {address}: run dotd as root"));
            }
        }
        if let Some(http) = config.control.http {
            self.line(&format!("metrics: http://{http}/metrics"));
        }
    }

    fn backends(&mut self, config: &Config) {
        if config.backend.is_empty() {
            self.line("backend: embedded");
        }
        for (index, backend) in config.backend.iter().enumerate() {
            let address = match &backend.address {
                BackendAddress::Socket(address) => Some(*address),
                BackendAddress::Named(_) => None,
                BackendAddress::Embedded => {
                    self.line("backend: embedded");
                    continue;
                }
            };
            let transport = match backend.transport {
                Transport::Udp => "udp",
                Transport::Tcp => "tcp",
                Transport::Tls => "tls",
            };
            match (&backend.address, address) {
                (BackendAddress::Named(host), _) => {
                    self.line(&format!(
                        "backend: {host} ({transport}), whose addresses balance.bootstrap knows"
                    ));
                }
                (_, Some(address)) => self.line(&format!("backend: {address} ({transport})")),
                _ => {}
            }
            if let Err(error) = BackendTls::of(backend) {
                self.mistake(&format!("backend.{index}"), &error);
            }
            if let Some(address) = address.filter(|address| !has_route(*address)) {
                self.line(&format!("warning: no route from here to backend {address}"));
            }
        }
    }

    fn certificates(&mut self, config: &Config) {
        let (state_dir, is_strict, now) = (&config.server.state_dir, config.tls.strict, SystemTime::now());
        let all = certificate::preview_all(&config.tls, state_dir);
        // `run` starts if one certificate can be served.
        let may_serve = !is_strict && all.iter().any(Result::is_ok);
        for (index, identity) in all.into_iter().enumerate() {
            let key = format!("tls.certificates.{index}");
            match identity {
                Ok(Some(identity)) => {
                    let seconds = CertificateStatus::from(&identity).expires_in_seconds(SystemTime::now());
                    let (ends, names) = (show::ends(seconds), show::names(&identity.dns_names));
                    let stapled = if identity.staple.is_some() { ", stapled" } else { "" };
                    self.line(&format!("certificate: {}: {ends}, {names}{stapled}", identity.name));
                    self.text += &pin::line(&identity.spki_pin);
                    for warning in &identity.warnings {
                        self.line(&format!("warning: {warning}"));
                    }
                    match identity.outside_validity(now) {
                        Some(error) if is_strict => self.mistake(&key, &error.to_string()),
                        Some(error) => self.unusable(&key, &format!("{error}; clients refuse it")),
                        None => {}
                    }
                }
                Ok(None) => {
                    let folder = state_dir.display();
                    self.line(&format!("certificate: self-signed; `dotd run` makes it in {folder}"));
                }
                Err(error) if may_serve => self.unusable(&key, &format!("{error}; it is not served")),
                Err(error) => self.mistake(&key, &error.to_string()),
            }
        }
        match Tickets::new(&config.tls.ticket_secret, config.tls.ticket_rotation) {
            Ok(Tickets { warning: Some(warning), .. }) => self.line(&format!("warning: {warning}")),
            Ok(_) => {}
            Err(error) => self.mistake("tls.ticket_secret", &error.to_string()),
        }
        let client_ca = &config.tls.client_ca;
        if client_ca.as_os_str().is_empty() {
            return;
        }
        match client_verifier(client_ca) {
            Ok(_) => self.line(&format!("clients: need a certificate of {}", client_ca.display())),
            Err(error) => self.mistake("tls.client_ca", &format!("tls.client_ca: {error}")),
        }
    }

    fn policies(&mut self, config: &Config) {
        for (index, zone) in config.policy.zone.iter().enumerate() {
            if zone.is_transferred() {
                self.primaries(index, zone);
                continue;
            }
            match Zone::load(zone) {
                Ok(read) => {
                    let (rules, took) = (read.rules(), read.loaded().milliseconds);
                    let (name, file, format) = (&zone.name, zone.file.display(), zone.format.label());
                    self.line(&format!(
                        "policy: {name}: {file} ({format}), {} rules, read in {took} ms",
                        rules.count()
                    ));
                    if let Some(first) = &rules.start().first_left_out {
                        let count = rules.start().left_out;
                        self.line(&format!(
                            "warning: policy zone {name}: {count} lines are left out; {file}, {first}"
                        ));
                    }
                }
                Err(error) => self.mistake(&format!("policy.zone.{index}.file"), &error.to_string()),
            }
        }
    }

    /// The primary servers of a transferred zone: reads keys and authorities, and sends nothing.
    fn primaries(&mut self, index: usize, zone: &PolicyZone) {
        for (number, primary) in zone.primary.iter().enumerate() {
            let at = |key: &str| format!("policy.zone.{index}.primary.{number}.{key}");
            let is_signed = !primary.tsig.as_os_str().is_empty();
            let (transport, key) = (primary.transport.label(), if is_signed { ", TSIG" } else { "" });
            self.line(&format!(
                "policy: {}: transferred from {} ({transport}{key})",
                zone.name, primary.address
            ));
            if let Err(error) = BackendTls::of_primary(primary) {
                self.mistake(&at("ca"), &error);
            }
            if let Some(error) = is_signed.then(|| key_of(&primary.tsig).err()).flatten() {
                self.mistake(&at("tsig"), &format!("policy.zone.primary.tsig: {error}"));
            }
            if !has_route(primary.address) {
                self.line(&format!("warning: no route from here to {}", primary.address));
            }
        }
    }

    fn xdp(&mut self, config: &config::Xdp, has_own_port: bool, rights: Rights) {
        let interfaces = config.interfaces.iter().filter(|_| config.mode != XdpMode::Off);
        for (index, name) in interfaces.enumerate() {
            if !Path::new("/sys/class/net").join(name).exists() {
                let message = format!("xdp.interfaces: no interface \"{name}\" here: `ip link` lists them");
                self.mistake(&format!("xdp.interfaces.{index}"), &message);
            }
        }
        let order = match config.mode {
            XdpMode::Off => return self.line("xdp: off (xdp.mode = \"off\")"),
            XdpMode::Auto => "native, then generic",
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
        };
        let lacking = rights.lacking_for_xdp().join(", ");
        let is_demanded = config.required || config.mode != XdpMode::Auto;
        if !lacking.is_empty() && is_demanded {
            let key = if config.required { "xdp.required" } else { "xdp.mode" };
            let way_out = "run as root or set xdp.mode = \"auto\" and xdp.required = false";
            let message = format!("xdp: the config demands it and this user lacks {lacking}: {way_out}");
            self.mistake(key, &message);
        } else if !lacking.is_empty() {
            self.line(&format!("xdp: off, because this user lacks {lacking}: run dotd as root"));
        } else {
            let interfaces = match config.interfaces.as_slice() {
                [] => "every interface through which a listen address can be reached".to_owned(),
                names => names.join(", "),
            };
            self.line(&format!("xdp: {order}, on {interfaces}"));
            if !has_own_port {
                let advice = "if nftables or iptables redirects port 853 to it, XDP sees port 853 and checks no packet";
                self.line(&format!("warning: listen.dot has no port 853: {advice}"));
            }
            if let Some(when) = cookies_when(config) {
                let kernel = xdp::syn_cookies(config).map(|why| format!("; {why}")).unwrap_or_default();
                self.line(&format!("syn cookies: {when}{kernel}"));
            }
        }
    }
}

/// When XDP asks the kernel for SYN cookies.
fn cookies_when(xdp: &config::Xdp) -> Option<String> {
    match xdp.syn_cookies {
        SynCookies::Off => None,
        SynCookies::Always => Some("for every SYN".into()),
        SynCookies::Auto | SynCookies::Proxy => {
            Some(format!("above {} SYN a second", xdp.limit.syn_flood_rate))
        }
    }
}

/// Listen addresses on which the limits and bans of XDP have no effect.
fn unseen_by_xdp(config: &Config) -> Vec<String> {
    let is_unseen = |address: &&SocketAddr| config.xdp.mode != XdpMode::Off && address.port() != 53;
    let advice = "XDP looks at DNS in cleartext on port 53 only, so neither xdp.limit nor bans hold there (xdp.deny and [access] do); \
                  use port 53, or the limits of [session]";
    config
        .listen
        .do53
        .iter()
        .filter(is_unseen)
        .map(|address| format!("listen.do53 {address}: {advice}"))
        .collect()
}

/// Whether the kernel has a route: `connect` on UDP looks it up and sends nothing.
fn has_route(address: SocketAddr) -> bool {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    UdpSocket::bind(any).is_ok_and(|socket| socket.connect(address).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an operator who relies on XDP's limits and bans learns where they have no effect. Method: addresses with
    /// port 53 and another, XDP on and off.
    #[test]
    fn ports_that_xdp_does_not_see_are_named() {
        let warnings = |mode: &str| {
            let text = format!(
                "[listen]\ndo53 = [\"127.0.0.1:53\", \"127.0.0.1:5353\"]\n[xdp]\nmode = \"{mode}\"\n"
            );
            unseen_by_xdp(&config::parse(&text, "dotd.toml").expect("it is sound"))
        };
        let [warning] = warnings("auto").try_into().expect("one address");
        assert!(warning.starts_with("listen.do53 127.0.0.1:5353: XDP looks"), "{warning}");
        assert_eq!(warnings("off"), Vec::<String>::new());
    }
}

//! Checks values that are valid alone and contradict each other, or would be unsafe.
//!
//! Before: types and ranges are checked. After: a start can use the config.
//! Never: asks the system: whether things exist is for `dotd check` and `start` to find.

use std::{collections::HashSet, net::SocketAddr};

use ipnet::{IpNet, Ipv4Net};

use super::check::Check;
use super::{
    Config, Gate, Mistake, Steering, XdpMode, consistency_access, consistency_acme, consistency_backend,
    consistency_misuse, consistency_policy, consistency_tenant, limit, reachable, source::Source,
};

/// Notes every contradiction between keys or with RFCs.
pub(super) fn check(config: &Config, source: &Source<'_>, mistakes: &mut Vec<Mistake>) {
    let mut check = Check { source, mistakes };
    check.folders(config);
    check.listeners(config);
    check.certificates(config);
    check.clients(config);
    consistency_access::check(&mut check, config);
    consistency_acme::check(&mut check, config);
    consistency_policy::check(&mut check, config);
    consistency_tenant::check(&mut check, config);
    consistency_misuse::check(config, check.source, check.mistakes);
    check.session(config);
    consistency_backend::check(&mut check, config);
    check.cache(config);
    check.query_rate(config);
    check.xdp(config);
    check.steering(config);
    check.log(config);
}

impl Check<'_, '_> {
    fn log(&mut self, config: &Config) {
        if config.log.connections && !config.log.level.shows_connections() {
            let level = config.log.level.name();
            self.note(
                "log.connections",
                format!("its lines have level info; log.level = \"{level}\" suppresses them"),
            );
        }
    }

    fn folders(&mut self, config: &Config) {
        let server = &config.server;
        for (path, folder) in [("server.state_dir", &server.state_dir), ("server.run_dir", &server.run_dir)] {
            if folder.as_os_str().is_empty() {
                self.note(path, "is empty; name a folder");
            }
        }
        let octets = server.run_dir.join(super::CONTROL_SOCKET).as_os_str().len();
        if octets > limit::SOCKET_PATH_OCTETS_MAX {
            let max = limit::SOCKET_PATH_OCTETS_MAX - super::CONTROL_SOCKET.len() - 1;
            self.note("server.run_dir", format!("too long for a socket's path; at most {max} octets"));
        }
    }

    fn clients(&mut self, config: &Config) {
        let tls = &config.tls;
        if !tls.require_ems && !tls.client_ca.as_os_str().is_empty() {
            self.note(
                "tls.require_ems",
                "false with tls.client_ca: without it an attacker on the path can impersonate a client (RFC 7627 §1); remove this key",
            );
        }
    }

    fn listeners(&mut self, config: &Config) {
        let listen = &config.listen;
        if listen.dot.is_empty() && listen.do53.is_empty() {
            self.note("listen.dot", "is empty; name at least one address, such as \"0.0.0.0:853\"");
        }
        let mut seen: Vec<SocketAddr> = Vec::new();
        for (key, addresses) in [("dot", &listen.dot), ("do53", &listen.do53)] {
            for (index, address) in addresses.iter().enumerate() {
                let path = format!("listen.{key}.{index}");
                if key == "dot" && address.port() == CLEARTEXT_PORT {
                    self.note(
                        &path,
                        format!("{address}: DNS over TLS must not use port 53 (RFC 7858 §3.1); use 853"),
                    );
                }
                if address.port() == 0 {
                    let usual = if key == "dot" { 853 } else { CLEARTEXT_PORT };
                    self.note(&path, format!("{address}: port 0 cannot be used; use {usual}"));
                }
                if let Some(message) = reachable::fault(*address) {
                    self.note(&path, message);
                }
                if seen.contains(address) {
                    self.note(&path, format!("{address} is listed twice; remove one"));
                } else if let Some(other) = seen.iter().find(|other| reachable::overlap(**other, *address)) {
                    self.note(
                        &path,
                        format!("{address} and {other} are the same port of one address; remove one"),
                    );
                }
                seen.push(*address);
            }
        }
        self.load_balancers(config);
        if let Some(http) = config.control.http {
            if let Some(message) = reachable::fault(http) {
                self.note("control.http", message);
            } else if seen.iter().any(|address| reachable::http_overlaps(http, *address)) {
                self.note("control.http", format!("{http} is a DNS listener's address; use another port"));
            }
        }
        for (index, host) in config.control.page_hosts.iter().enumerate() {
            let is_sign = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
            if host.is_empty() || !host.bytes().all(is_sign) {
                let message = "is not a host name; write one such as \"dns.example\", without a port";
                self.note(&format!("control.page_hosts.{index}"), message);
            }
        }
    }

    /// In generic mode Linux passes a packet that moves to another CPU to the stack at the wrong place, and the stack
    /// drops it.
    fn steering(&mut self, config: &Config) {
        if config.xdp.steering == Steering::Cpumap && config.xdp.mode != XdpMode::Native {
            let message = "\"cpumap\" needs xdp.mode = \"native\": in generic mode the kernel loses packets that move to another CPU";
            self.note("xdp.steering", message);
        }
    }

    fn load_balancers(&mut self, config: &Config) {
        let path = "listen.proxy_protocol_from";
        self.prefixes(path, &config.listen.proxy_protocol_from);
        let gate = config.xdp.cleartext_853;
        let is_gated = config.xdp.mode != XdpMode::Off && matches!(gate, Gate::Drop | Gate::Reset);
        if is_gated && !config.listen.proxy_protocol_from.is_empty() {
            let message = "xdp.cleartext_853 refuses a PROXY header, which is not TLS; set that key to \"pass\" or \"count\"";
            self.note(path, message);
        }
    }

    fn certificates(&mut self, config: &Config) {
        let mut seen = HashSet::new();
        for (index, entry) in config.tls.certificates.iter().enumerate() {
            for (key, file) in [("cert", &entry.cert), ("key", &entry.key)] {
                if file.as_os_str().is_empty() {
                    self.note(&format!("tls.certificates.{index}.{key}"), "is empty; name a PEM file");
                }
            }
            if !seen.insert(&entry.cert) {
                let message = format!("{} is listed twice; remove one", entry.cert.display());
                self.note(&format!("tls.certificates.{index}.cert"), message);
            }
        }
    }

    fn session(&mut self, config: &Config) {
        let session = &config.session;
        let (own, prefix) = (session.owed_octets_max, session.owed_octets_per_prefix_max);
        if prefix < own {
            let message = format!(
                "{prefix} is less than session.owed_octets_max, {own}; raise this key or lower the other"
            );
            self.note("session.owed_octets_per_prefix_max", message);
        }
        let worker = session.owed_octets_per_worker_max;
        if worker < prefix {
            let message = format!(
                "{worker} is less than session.owed_octets_per_prefix_max, {prefix}; raise this key or lower the other"
            );
            self.note("session.owed_octets_per_worker_max", message);
        }
    }

    fn query_rate(&mut self, config: &Config) {
        let session = &config.session;
        self.burst("session.queries_burst", session.queries_per_second, session.queries_burst);
    }

    /// Whether a rate permits a burst within the longest time of [`limit::QUERIES_BURST_TIME_MAX`].
    pub(super) fn burst(&mut self, path: &str, per_second: u32, burst: u32) {
        let seconds = burst.checked_div(per_second).unwrap_or_default();
        if u64::from(seconds) > limit::QUERIES_BURST_TIME_MAX.as_secs() {
            let message = format!(
                "{burst} messages are as many as queries_per_second permits in {seconds} s; use at most an hour's worth"
            );
            self.note(path, message);
        }
    }

    fn cache(&mut self, config: &Config) {
        if config.dns.cache_entries != 0 && config.backend.iter().any(|backend| backend.proxy_v2) {
            let message =
                "a backend with proxy_v2 may answer each client differently; set 0, or proxy_v2 = false";
            self.note("dns.cache_entries", message);
        }
        let dns = &config.dns;
        for (key, most) in
            [("cache_ttl_max", dns.cache_ttl_max), ("cache_negative_ttl_max", dns.cache_negative_ttl_max)]
        {
            if dns.cache_ttl_min > most {
                let (min, most) = (show(dns.cache_ttl_min), show(most));
                self.note(
                    "dns.cache_ttl_min",
                    format!("{min} is more than dns.{key}, {most}; lower this key or raise the other"),
                );
            }
        }
    }

    fn xdp(&mut self, config: &Config) {
        let xdp = &config.xdp;
        if xdp.mode == XdpMode::Off && xdp.required {
            self.note("xdp.required", "contradicts xdp.mode = \"off\"; change one");
        }
        if xdp.udp_853 == Gate::Reset {
            self.note("xdp.udp_853", "UDP has no connection to reset; use \"drop\", \"count\" or \"pass\"");
        }
        self.prefixes("xdp.allow", &xdp.allow);
        self.prefixes("xdp.deny", &xdp.deny);
        self.allowed_and_denied("xdp.allow", &xdp.allow, &xdp.deny);
        let mut seen = HashSet::new();
        for (index, name) in xdp.interfaces.iter().enumerate() {
            let path = format!("xdp.interfaces.{index}");
            if !is_interface_name(name) {
                let max = limit::INTERFACE_NAME_OCTETS_MAX;
                let message =
                    format!("\"{name}\" is not an interface name (1 to {max} octets); `ip link` lists them");
                self.note(&path, message);
            } else if !seen.insert(name) {
                self.note(&path, format!("\"{name}\" is listed twice; remove one"));
            }
        }
    }

    /// Notes an allowed prefix within a denied one: `deny` has precedence.
    pub(super) fn allowed_and_denied(&mut self, path: &str, allow: &[IpNet], deny: &[IpNet]) {
        for (index, prefix) in allow.iter().enumerate() {
            if let Some(denied) = deny.iter().find(|denied| denied.contains(prefix)) {
                let message = format!("{prefix} is denied by {denied}, which has precedence; remove one");
                self.note(&format!("{path}.{index}"), message);
            }
        }
    }

    /// Notes a list of prefixes that is too long, repeats one, or has one that no packet can have.
    pub(super) fn prefixes(&mut self, path: &str, prefixes: &[IpNet]) {
        if prefixes.len() > limit::LISTED_MAX {
            let message = format!(
                "{} prefixes are more than {}, the most permitted",
                prefixes.len(),
                limit::LISTED_MAX
            );
            return self.note(path, message);
        }
        let mut seen = HashSet::new();
        for (index, prefix) in prefixes.iter().enumerate() {
            let path = format!("{path}.{index}");
            if !seen.insert(prefix.trunc()) {
                self.note(&path, format!("{} is listed twice; remove one", prefix.trunc()));
            } else if let Some(v4) = ipv4_of(prefix) {
                self.note(&path, format!("{prefix} never occurs in a packet; write \"{v4}\""));
            }
        }
    }
}

fn show(duration: std::time::Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// The IPv4 prefix of an IPv4-mapped one.
fn ipv4_of(prefix: &IpNet) -> Option<IpNet> {
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(v6) = prefix else { return None };
    let v4 = v6.addr().to_ipv4_mapped()?;
    Ipv4Net::new(v4, v6.prefix_len().checked_sub(MAPPED_BITS)?).ok().map(IpNet::V4)
}

/// The rules of the kernel's `dev_valid_name`.
fn is_interface_name(name: &str) -> bool {
    let is_short = (1..=limit::INTERFACE_NAME_OCTETS_MAX).contains(&name.len());
    let is_clean =
        !name.chars().any(|sign| matches!(sign, '/' | ':') || sign.is_whitespace() || sign == '\0');
    is_short && is_clean && name != "." && name != ".."
}

/// RFC 7858 §3.1: "This port MUST NOT be port 53".
const CLEARTEXT_PORT: u16 = 53;

//! stunnel's config: `key = value` lines, global ones first, then one `[section]` for each service.
//!
//! Before: the text of a stunnel.conf. After: its DNS services are in the draft, and each other line is a remark.
//! Holds: what each option means to dotd. Never: follows `include`.
//!
//! Source: stunnel(8), "CONFIGURATION FILE".

use std::{net::Ipv4Addr, time::Duration};

use super::{
    draft::{Backend, Draft, Secure},
    place::{self, DNS, DOT},
};

/// One line.
#[derive(Debug, Clone)]
struct Entry {
    key: String,
    value: String,
    place: String,
}

/// The lines of one service.
#[derive(Debug, Default)]
struct Service {
    name: String,
    entries: Vec<Entry>,
}

/// Reads one file.
pub(super) fn read(name: &str, text: &str, draft: &mut Draft) {
    let mut services = vec![Service::default()];
    for (number, line) in text.lines().enumerate() {
        let place = format!("{name}:{}", number + 1);
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            services.push(Service { name: section.to_owned(), entries: Vec::new() });
        } else if let Some((key, value)) = line.split_once('=') {
            let entry = Entry { key: key.trim().to_ascii_lowercase(), value: value.trim().to_owned(), place };
            if let Some(service) = services.last_mut() {
                service.entries.push(entry);
            }
        } else {
            draft.remark(&place, format!("`{line}` is no `key = value`"));
        }
    }
    let global = services.remove(0);
    // Without a section stunnel serves its standard input, as inetd does; with them the global lines are defaults.
    global.entries.iter().for_each(|entry| process_option(entry, draft));
    // Servers first: what a client service means depends on whether there is one.
    let is_client = |service: &&Service| service.is_yes(&global, "client");
    services.iter().filter(|service| !is_client(service)).for_each(|service| service.add_to(&global, draft));
    services.iter().filter(is_client).for_each(|service| service.add_to(&global, draft));
}

/// Options of the process.
fn process_option(entry: &Entry, draft: &mut Draft) {
    match entry.key.as_str() {
        "setuid" => draft.once(|draft| &mut draft.user, entry.value.clone(), &entry.place, "server.user"),
        "setgid" => draft.remark(&entry.place, "`setgid`: dotd takes the primary group of server.user"),
        "chroot" => draft.remark(&entry.place, "`chroot`: the systemd unit confines dotd instead"),
        "pid" | "foreground" | "syslog" | "output" | "debug" | "log" => {
            draft.remark(
                &entry.place,
                format!("`{}`: dotd stays in the foreground and logs to standard error", entry.key),
            );
        }
        "include" => {
            draft.remark(&entry.place, format!("`include = {}`: import those files too", entry.value))
        }
        // Defaults of services: each service reads them.
        key if is_service_option(key) || is_judged(key) => {}
        key => draft.remark(&entry.place, format!("`{key}` has no counterpart")),
    }
}

/// Options that a service reads, wherever they stand.
fn is_service_option(key: &str) -> bool {
    matches!(
        key,
        "accept"
            | "connect"
            | "cert"
            | "key"
            | "client"
            | "cafile"
            | "verify"
            | "verifychain"
            | "verifypeer"
            | "checkhost"
            | "sslversion"
            | "sslversionmin"
            | "options"
            | "timeoutidle"
            | "timeoutbusy"
            | "protocol"
            | "failover"
    )
}

/// Options of services that have no counterpart, but a reason of their own.
fn is_judged(key: &str) -> bool {
    matches!(key, "ciphers" | "ciphersuites" | "curve" | "curves" | "psksecrets" | "pskidentity" | "capath")
}

impl Service {
    /// The last value of a key, in the service or as a global default.
    fn find<'a>(&'a self, global: &'a Self, key: &str) -> Option<&'a Entry> {
        let last = |service: &'a Self| service.entries.iter().rev().find(|entry| entry.key == key);
        last(self).or_else(|| last(global))
    }

    fn is_yes(&self, global: &Self, key: &str) -> bool {
        self.find(global, key).is_some_and(|entry| entry.value.eq_ignore_ascii_case("yes"))
    }

    fn add_to(&self, global: &Self, draft: &mut Draft) {
        let Some(accept) = self.find(global, "accept") else {
            return draft.remark(&self.place(), format!("service `{}` accepts on no port", self.name));
        };
        let Some(listen) = place::listen(&accept.value, Ipv4Addr::UNSPECIFIED.into()) else {
            let why = format!("`accept = {}`: dotd listens on addresses; write the number", accept.value);
            return draft.remark(&accept.place, why);
        };
        let connects: Vec<_> = self.entries.iter().filter(|entry| entry.key == "connect").collect();
        let servers: Vec<_> = connects.iter().map(|entry| place::server(&entry.value)).collect();
        let is_dns = |port: u16| port == DNS || port == DOT;
        if !is_dns(listen.port()) && !servers.iter().flatten().any(|server| is_dns(server.port())) {
            let why = format!("service `{}` ({listen}) is not DNS: keep stunnel for it", self.name);
            return draft.remark(&accept.place, why);
        }
        let is_client = self.is_yes(global, "client");
        if is_client && !draft.dot.is_empty() {
            let why = format!(
                "service `{}` encrypts queries, beside one that serves DNS over TLS: dotd has one set of backends, and queries \
                 could go in a circle. Keep stunnel for it, or make a dotd of its own from a file with this service alone",
                self.name
            );
            return draft.remark(&accept.place, why);
        }
        draft.begin_service(&accept.place);
        if is_client {
            draft.add_do53(listen, &accept.place);
            draft.remark(&accept.place, "a client service: dotd listens there for DNS in clear, by UDP too");
        } else {
            // stunnel's socket for `:::853` takes IPv4 too.
            draft.add_dot(listen, true, &accept.place);
            self.identity(global, draft);
            self.clients(global, draft);
        }
        for (entry, server) in connects.iter().zip(servers) {
            self.backend(global, entry, server, is_client, draft);
        }
        self.entries.iter().chain(&global.entries).for_each(|entry| self.session_option(entry, draft));
    }

    /// `cert` and `key`; without `key` the certificate's file holds both.
    fn identity(&self, global: &Self, draft: &mut Draft) {
        if let Some(cert) = self.find(global, "cert") {
            let key = &self.find(global, "key").unwrap_or(cert).value;
            draft.add_identity([&cert.value, key], None, &cert.place);
        }
    }

    /// The clients that may connect: `verify` of 2 and more, `verifyChain`, `verifyPeer`.
    fn clients(&self, global: &Self, draft: &mut Draft) {
        let level = self.find(global, "verify").and_then(|entry| entry.value.parse::<u8>().ok()).unwrap_or(0);
        let is_verified =
            level >= 2 || self.is_yes(global, "verifychain") || self.is_yes(global, "verifypeer");
        match self.find(global, "cafile") {
            Some(ca) if is_verified => {
                let file = draft.absolute(&ca.value, None);
                draft.want_certificates(file, &ca.place);
            }
            Some(ca) => draft.remark(&ca.place, "`CAfile` without `verify = 2`: clients need no certificate"),
            None if is_verified => {
                draft.remark(&self.place(), "clients are verified without `CAfile`: set tls.client_ca")
            }
            None => {}
        }
    }

    fn backend(
        &self,
        global: &Self,
        entry: &Entry,
        server: Option<std::net::SocketAddr>,
        is_client: bool,
        draft: &mut Draft,
    ) {
        let Some(address) = server else {
            let why = format!("`connect = {}`: a backend is an address; write the number", entry.value);
            return draft.remark(&entry.place, why);
        };
        let name = self.find(global, "checkhost").map(|entry| entry.value.clone());
        if is_client && name.is_none() {
            let why = format!(
                "`connect = {}` over TLS without `checkHost`: dotd sends no query to a server that it cannot verify. Add a \
                 [[backend]] with address, transport = \"tls\", and server_name or spki_pins",
                entry.value
            );
            return draft.remark(&entry.place, why);
        }
        let ca = self.find(global, "cafile").map(|entry| draft.absolute(&entry.value, None));
        let protocol = self.find(global, "protocol");
        let has_proxy_header = protocol.is_some_and(|entry| entry.value.eq_ignore_ascii_case("proxy"));
        let tls = is_client.then_some(Secure { name, ca });
        draft.add_backend(Backend { address, tls, has_proxy_header, weight: 1 }, &entry.place);
    }

    fn session_option(&self, entry: &Entry, draft: &mut Draft) {
        let seconds = || place::time(&entry.value, Duration::from_secs(1));
        let unclear = || format!("`{} = {}`: not understood", entry.key, entry.value);
        match entry.key.as_str() {
            "timeoutidle" => match seconds() {
                Some(time) => {
                    draft.once(|draft| &mut draft.idle_timeout, time, &entry.place, "session.idle_timeout")
                }
                None => draft.remark(&entry.place, unclear()),
            },
            "timeoutbusy" => match seconds() {
                Some(time) => {
                    draft.once(
                        |draft| &mut draft.handshake_timeout,
                        time,
                        &entry.place,
                        "session.handshake_timeout",
                    );
                }
                None => draft.remark(&entry.place, unclear()),
            },
            "sslversion" | "sslversionmin" => self.version(entry, draft),
            "options" if entry.value.eq_ignore_ascii_case("no_tlsv1.2") => {
                draft.once(|draft| &mut draft.min_version, "1.3", &entry.place, "tls.min_version");
            }
            "options" => draft
                .remark(&entry.place, format!("`options = {}`: rustls needs no workarounds", entry.value)),
            "failover" => {
                let policy = if entry.value.eq_ignore_ascii_case("prio") { "first" } else { "round-robin" };
                draft.once(|draft| &mut draft.policy, policy, &entry.place, "balance.policy");
            }
            "protocol" if !entry.value.eq_ignore_ascii_case("proxy") => {
                draft.remark(&entry.place, format!("`protocol = {}` is not DNS", entry.value));
            }
            "ciphers" | "ciphersuites" | "curve" | "curves" => {
                let why = format!(
                    "`{}`: rustls offers only suites and groups that are sound; there is nothing to set",
                    entry.key
                );
                draft.remark(&entry.place, why);
            }
            "capath" => {
                let why = "`CApath`: towards backends dotd takes the system's authorities; for others name a file in `ca`";
                draft.remark(&entry.place, why);
            }
            "psksecrets" | "pskidentity" => {
                draft.remark(&entry.place, "pre-shared keys: dotd has none; use tls.client_ca");
            }
            key if is_service_option(key) => {}
            // Global lines were judged once already.
            _ if !self.entries.iter().any(|own| own.place == entry.place) => {}
            key => draft.remark(&entry.place, format!("`{key}` has no counterpart")),
        }
    }

    fn version(&self, entry: &Entry, draft: &mut Draft) {
        match entry.value.to_ascii_lowercase().as_str() {
            "tlsv1.3" => draft.once(|draft| &mut draft.min_version, "1.3", &entry.place, "tls.min_version"),
            "tlsv1.2" | "all" => {}
            older => draft.remark(
                &entry.place,
                format!("`{older}`: TLS 1.2 is the oldest that dotd speaks (RFC 8996)"),
            ),
        }
    }

    /// Where the service begins, for remarks about what is not there.
    fn place(&self) -> String {
        self.entries.first().map_or_else(|| format!("[{}]", self.name), |entry| entry.place.clone())
    }
}

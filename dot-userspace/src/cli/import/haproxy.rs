//! HAProxy's config: sections, and in each a line of words.
//!
//! Before: the text of a haproxy.cfg. After: the front ends on port 853 and the servers they use are in the draft.
//! Holds: what each keyword means to dotd. Never: evaluates a rule (`use_backend … if …`).
//!
//! Source: HAProxy's configuration manual, sections 4 (proxies) and 5 (bind and server options).

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{
    draft::{Backend, Draft, Secure},
    place::{self, DOT},
};

/// A line's words and its place.
pub(super) type Line<'a> = (Vec<&'a str>, String);

/// A `frontend`, `listen`, `backend`, `defaults` or `global`.
#[derive(Debug, Default)]
struct Section<'a> {
    kind: &'a str,
    name: &'a str,
    lines: Vec<Line<'a>>,
}

/// The folders in which relative paths begin.
#[derive(Clone, Copy)]
struct Bases<'a> {
    crt: Option<&'a str>,
    ca: Option<&'a str>,
}

/// Reads one file.
pub(super) fn read(name: &str, text: &str, draft: &mut Draft) {
    let sections = sections(name, text);
    let of_process = || sections.iter().filter(|section| matches!(section.kind, "global" | "defaults"));
    let base = |key: &str| of_process().find_map(|section| section.value(key));
    let bases = Bases { crt: base("crt-base"), ca: base("ca-base") };
    let mut taken = Vec::new();
    for section in sections.iter().filter(|section| matches!(section.kind, "frontend" | "listen")) {
        if section.binds(bases, draft) {
            section.front_options(draft);
            super::haproxy_rules::take(&section.lines, draft);
            let used = section.used();
            for backend in
                sections.iter().filter(|backend| backend.kind == "backend" && used.contains(&backend.name))
            {
                backend.servers(bases, draft);
            }
            taken.extend(used);
            if section.kind == "listen" {
                section.servers(bases, draft);
            }
        }
    }
    if !taken.is_empty() || !draft.is_empty() {
        of_process().for_each(|section| section.process_options(draft));
    }
}

/// The file's sections; what stands behind `#` is a remark of its author.
fn sections<'a>(name: &str, text: &'a str) -> Vec<Section<'a>> {
    // Those that are not read end the one before all the same.
    const KINDS: [&str; 15] = [
        "global",
        "defaults",
        "frontend",
        "listen",
        "backend",
        "resolvers",
        "peers",
        "userlist",
        "mailers",
        "program",
        "cache",
        "ring",
        "http-errors",
        "log-forward",
        "fcgi-app",
    ];
    let mut sections: Vec<Section> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split(" #").next().unwrap_or_default();
        let words: Vec<_> = line.split_whitespace().collect();
        let Some(first) = words.first().filter(|first| !first.starts_with('#')) else { continue };
        if !line.starts_with([' ', '\t']) && KINDS.contains(first) {
            sections.push(Section {
                kind: first,
                name: words.get(1).copied().unwrap_or_default(),
                lines: Vec::new(),
            });
        } else if let Some(section) = sections.last_mut() {
            section.lines.push((words, format!("{name}:{}", number + 1)));
        }
    }
    sections
}

/// The word behind each `key` of a line.
fn values<'a>(words: &[&'a str], key: &str) -> Vec<&'a str> {
    words.windows(2).filter(|pair| pair[0] == key).map(|pair| pair[1]).collect()
}

impl Section<'_> {
    /// The value of the first line with this keyword.
    fn value(&self, key: &str) -> Option<&str> {
        self.lines.iter().find(|(words, _)| words[0] == key).and_then(|(words, _)| words.get(1).copied())
    }

    /// The back ends that a front end uses: the one of `default_backend`, or where there is none, those of its rules.
    fn used(&self) -> Vec<&str> {
        let of = |key: &str| -> Vec<&str> {
            let lines = self.lines.iter().filter(|(words, _)| words[0] == key);
            lines.filter_map(|(words, _)| words.get(1).copied()).collect()
        };
        let default = of("default_backend");
        if default.is_empty() { of("use_backend") } else { default }
    }

    /// Takes the `bind` lines with TLS, if one of them is for port 853; says whether there was one.
    fn binds(&self, bases: Bases<'_>, draft: &mut Draft) -> bool {
        let binds = || self.lines.iter().filter(|(words, _)| words[0] == "bind");
        let listens = |addresses: &str| -> Vec<Option<SocketAddr>> {
            addresses.split(',').map(|word| place::listen(word, Ipv4Addr::UNSPECIFIED.into())).collect()
        };
        let is_dot = |words: &[&str]| {
            let listens = listens(words.get(1).copied().unwrap_or_default());
            words.contains(&"ssl") && listens.iter().flatten().any(|listen| listen.port() == DOT)
        };
        let first = binds().find(|(words, _)| is_dot(words));
        if let Some((_, place)) = first {
            draft.begin_service(place);
        }
        let is_ours = first.is_some();
        for (words, place) in binds() {
            let addresses = words.get(1).copied().unwrap_or_default();
            if !is_ours || !words.contains(&"ssl") || addresses.contains("quic") {
                draft.remark(place, format!("`bind {addresses}` is not DNS over TLS: keep HAProxy for it"));
                continue;
            }
            for listen in listens(addresses) {
                match listen {
                    // Linux gives a wildcard of IPv6 the clients of IPv4 too.
                    Some(listen) => draft.add_dot(listen, !words.contains(&"v6only"), place),
                    None => draft.remark(
                        place,
                        format!("`bind {addresses}`: dotd listens on addresses; write the number"),
                    ),
                }
            }
            bind_options(words, bases, place, draft);
        }
        is_ours
    }

    fn front_options(&self, draft: &mut Draft) {
        for (words, place) in &self.lines {
            match (words[0], words.get(1).copied()) {
                ("maxconn", Some(number)) => connections(number, place, draft),
                ("timeout", Some(_)) => timeout(words, place, draft),
                ("use_backend", Some(name)) => {
                    let why =
                        format!("`use_backend {name}`: dotd has one set of backends, and evaluates no rule");
                    draft.remark(place, why);
                }
                // Read as rules.
                ("acl" | "tcp-request", _) => {}
                ("bind" | "default_backend" | "mode" | "server" | "default-server" | "balance", _) => {}
                (word, _) => no_counterpart(word, place, draft),
            }
        }
    }

    fn process_options(&self, draft: &mut Draft) {
        for (words, place) in &self.lines {
            match (words[0], words.get(1).copied()) {
                ("user", Some(user)) => {
                    draft.once(|draft| &mut draft.user, user.to_owned(), place, "server.user")
                }
                ("maxconn", Some(number)) => connections(number, place, draft),
                ("timeout", Some(_)) => timeout(words, place, draft),
                ("chroot", _) => draft.remark(place, "`chroot`: the systemd unit confines dotd instead"),
                ("group", _) => draft.remark(place, "`group`: dotd takes the primary group of server.user"),
                ("nbthread", Some(_)) => {
                    draft.remark(place, "`nbthread`: server.workers, by default one for each core")
                }
                (word, _) if word.starts_with("ssl-default-bind") => {
                    draft.remark(
                        place,
                        format!("`{word}`: rustls offers only what is sound; there is nothing to set"),
                    );
                }
                ("balance", Some(policy)) => balance(policy, place, draft),
                ("mode" | "crt-base" | "ca-base", _) => {}
                (word, _) => no_counterpart(word, place, draft),
            }
        }
    }

    fn servers(&self, bases: Bases<'_>, draft: &mut Draft) {
        let mut defaults = Vec::new();
        for (words, place) in &self.lines {
            match (words[0], words.get(1).copied()) {
                // Its own words come first, and so count before the defaults.
                ("server", Some(_)) => server(&[words.as_slice(), &defaults].concat(), bases, place, draft),
                ("default-server", _) => defaults.extend_from_slice(words.get(1..).unwrap_or_default()),
                ("balance", Some(policy)) => balance(policy, place, draft),
                ("server-template", _) => {
                    draft.remark(place, "`server-template`: a backend is an address; write the numbers");
                }
                // A `listen` section said what it has to say of these as a front end.
                _ if self.kind == "listen" => {}
                ("mode", _) => {}
                (word, _) => no_counterpart(word, place, draft),
            }
        }
    }
}

fn bind_options(words: &[&str], bases: Bases<'_>, place: &str, draft: &mut Draft) {
    for file in values(words, "crt") {
        draft.add_identity([file, file], bases.crt, place);
    }
    for file in values(words, "crt-list") {
        draft.remark(place, format!("`crt-list {file}`: name each of its files in tls.certificates"));
    }
    let is_verified = values(words, "verify").contains(&"required");
    for file in values(words, "ca-file").into_iter().filter(|_| is_verified) {
        if file.starts_with('@') {
            draft.remark(
                place,
                format!("`ca-file {file}`: name a file of the clients' authorities in tls.client_ca"),
            );
            continue;
        }
        let file = draft.absolute(file, bases.ca);
        draft.want_certificates(file, place);
    }
    if values(words, "ssl-min-ver").contains(&"TLSv1.3") {
        draft.once(|draft| &mut draft.min_version, "1.3", place, "tls.min_version");
    }
    if words.contains(&"accept-proxy") {
        let why = "`accept-proxy`: list the load balancers in listen.proxy_protocol_from, and set xdp.cleartext_853 = \"pass\"";
        draft.remark(place, why);
    }
}

fn server(words: &[&str], bases: Bases<'_>, place: &str, draft: &mut Draft) {
    let word = words.get(2).copied().unwrap_or_default();
    let Some(address) = place::server(word) else {
        return draft.remark(place, format!("`server … {word}`: a backend is an address; write the number"));
    };
    let first = |key| values(words, key).first().map(|value| (*value).to_owned());
    let sni = || first("sni").and_then(|sni| Some(sni.strip_prefix("str(")?.strip_suffix(')')?.to_owned()));
    // `@system-ca` means the system's authorities, as no `ca` does here.
    let ca =
        first("ca-file").filter(|file| !file.starts_with('@')).map(|file| draft.absolute(&file, bases.ca));
    let tls = words.contains(&"ssl").then(|| Secure { name: first("verifyhost").or_else(sni), ca });
    if tls.as_ref().is_some_and(|secure| secure.name.is_none()) {
        let why = format!(
            "`server … {word} ssl` without `verifyhost`: dotd sends no query to a server that it cannot verify. Add a \
             [[backend]] with server_name or spki_pins"
        );
        return draft.remark(place, why);
    }
    if words.contains(&"backup") {
        draft.spare(place);
    }
    let has_proxy_header = words.iter().any(|word| word.starts_with("send-proxy"));
    let weight = first("weight").and_then(|weight| weight.parse().ok()).unwrap_or(1);
    draft.add_backend(Backend { address, tls, has_proxy_header, weight }, place);
}

fn no_counterpart(word: &str, place: &str, draft: &mut Draft) {
    let why = match word {
        "log" | "option" | "daemon" | "pidfile" | "stats" => {
            format!(
                "`{word}`: dotd stays in the foreground and logs to standard error; `dotd stats` and /metrics have figures"
            )
        }
        _ => format!("`{word}` has no counterpart"),
    };
    draft.remark(place, why);
}

fn balance(policy: &str, place: &str, draft: &mut Draft) {
    let ours = match policy {
        "roundrobin" | "static-rr" => "round-robin",
        "leastconn" => "least-outstanding",
        "first" => "first",
        other => {
            return draft.remark(place, format!("`balance {other}`: see balance.policy for what there is"));
        }
    };
    draft.once(|draft| &mut draft.policy, ours, place, "balance.policy");
}

fn connections(number: &str, place: &str, draft: &mut Draft) {
    match number.parse() {
        Ok(number) => {
            draft.once(|draft| &mut draft.connections_max, number, place, "session.connections_max")
        }
        Err(_) => draft.remark(place, format!("`maxconn {number}`: no number")),
    }
}

fn timeout(words: &[&str], place: &str, draft: &mut Draft) {
    let (kind, word) = (words[1], words.get(2).copied().unwrap_or_default());
    let time = place::time(word, Duration::from_millis(1));
    match (kind, time) {
        ("client", Some(time)) => {
            draft.once(|draft| &mut draft.idle_timeout, time, place, "session.idle_timeout")
        }
        ("client-hs" | "client-handshake", Some(time)) => {
            draft.once(|draft| &mut draft.handshake_timeout, time, place, "session.handshake_timeout");
        }
        (kind, _) => draft.remark(place, format!("`timeout {kind}` has no counterpart")),
    }
}

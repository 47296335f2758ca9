//! nginx's config: directives that end with `;` and blocks in braces, as far as `stream` servers on port 853 go.
//!
//! Before: the text of an nginx.conf. After: its `stream` servers with TLS on port 853, and the servers they pass to, are in
//! the draft. Holds: what each directive means to dotd. Never: follows `include`.
//!
//! Source: nginx's documentation of ngx_stream_core_module, ngx_stream_ssl_module, ngx_stream_proxy_module and
//! ngx_stream_upstream_module.

use std::{net::Ipv4Addr, time::Duration};

use super::{
    draft::{Backend, Draft, Secure},
    lists::{self, Of, Rule},
    place::{self, DOT},
};

/// A directive with its words, and the directives in its braces.
#[derive(Debug)]
struct Directive {
    words: Vec<String>,
    place: String,
    inner: Vec<Directive>,
}

/// Braces within braces: nginx itself has four levels at most.
const DEPTH_MAX: usize = 16;

/// Reads one file. A file that `stream { include … }` names holds servers without `stream` around them.
pub(super) fn read(name: &str, text: &str, draft: &mut Draft) {
    let words = words(name, text);
    let top = directives(&mut words.into_iter(), 0);
    let streams: Vec<_> = top.iter().filter(|directive| directive.is("stream")).collect();
    if streams.is_empty() {
        return stream(&top, draft);
    }
    for found in streams {
        stream(&found.inner, draft);
    }
}

/// Words with their place; `;`, `{` and `}` are words of their own.
fn words(name: &str, text: &str) -> Vec<(String, String)> {
    let mut words = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut word = String::new();
        let mut quote = None;
        let mut end = |word: &mut String| {
            if !word.is_empty() {
                words.push((std::mem::take(word), format!("{name}:{}", number + 1)));
            }
        };
        for letter in line.chars() {
            match (letter, quote) {
                (letter, Some(mark)) if letter == mark => quote = None,
                ('"' | '\'', None) => quote = Some(letter),
                ('#', None) if word.is_empty() => break,
                (letter, None) if letter.is_whitespace() => end(&mut word),
                (';' | '{' | '}', None) => {
                    end(&mut word);
                    end(&mut letter.to_string());
                }
                (letter, _) => word.push(letter),
            }
        }
        end(&mut word);
    }
    words
}

/// Directives up to the brace that closes them. Deeper blocks than [`DEPTH_MAX`] are read flat.
fn directives(words: &mut dyn Iterator<Item = (String, String)>, depth: usize) -> Vec<Directive> {
    let mut found = Vec::new();
    let mut open: Option<Directive> = None;
    while let Some((word, place)) = words.next() {
        match word.as_str() {
            "}" => break,
            ";" => found.extend(open.take()),
            "{" if depth < DEPTH_MAX => {
                let mut block =
                    open.take().unwrap_or(Directive { words: Vec::new(), place, inner: Vec::new() });
                block.inner = directives(words, depth + 1);
                found.push(block);
            }
            _ => {
                open.get_or_insert(Directive { words: Vec::new(), place, inner: Vec::new() }).words.push(word)
            }
        }
    }
    found
}

impl Directive {
    fn is(&self, name: &str) -> bool {
        self.words.first().is_some_and(|word| word == name)
    }

    fn value(&self) -> &str {
        self.words.get(1).map_or("", String::as_str)
    }

    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|known| known == word)
    }
}

fn find<'a>(directives: &'a [Directive], name: &str) -> Option<&'a Directive> {
    directives.iter().find(|directive| directive.is(name))
}

/// The servers of one `stream`.
fn stream(directives: &[Directive], draft: &mut Draft) {
    for server in directives.iter().filter(|directive| directive.is("server") && !directive.inner.is_empty())
    {
        let listens: Vec<_> = server.inner.iter().filter(|directive| directive.is("listen")).collect();
        let is_dot = |listen: &&Directive| {
            let address = place::listen(listen.value(), Ipv4Addr::UNSPECIFIED.into());
            listen.has("ssl") && address.is_some_and(|address| address.port() == DOT)
        };
        if !listens.iter().any(is_dot) {
            draft.remark(&server.place, "a server that is not DNS over TLS: keep nginx for it");
            continue;
        }
        draft.begin_service(&server.place);
        for listen in listens {
            match place::listen(listen.value(), Ipv4Addr::UNSPECIFIED.into()) {
                Some(address) if listen.has("ssl") => {
                    draft.add_dot(address, listen.has("ipv6only=off"), &listen.place);
                }
                Some(address) => {
                    draft.add_do53(address, &listen.place);
                    draft.remark(
                        &listen.place,
                        "`listen` without `ssl`: dotd listens there for DNS in clear, by TCP and UDP",
                    );
                }
                None => draft.remark(&listen.place, format!("`listen {}`: write an address", listen.value())),
            }
            if listen.has("proxy_protocol") {
                let why = "`proxy_protocol`: list the load balancers in listen.proxy_protocol_from, and set \
                           xdp.cleartext_853 = \"pass\"";
                draft.remark(&listen.place, why);
            }
        }
        // A directive of the stream holds for each server that has none of that name.
        let scopes = [server.inner.as_slice(), directives];
        identities(scopes, draft);
        options(scopes, draft);
        clients(scopes, draft);
        pass(scopes, draft);
    }
}

/// The directives of a server, and those of the stream around it.
type Scopes<'a> = [&'a [Directive]; 2];

/// Those with this name that hold: the server's own, or the stream's.
fn all<'a>([server, stream]: Scopes<'a>, name: &str) -> Vec<&'a Directive> {
    let of =
        |scope: &'a [Directive]| -> Vec<_> { scope.iter().filter(|directive| directive.is(name)).collect() };
    let own = of(server);
    if own.is_empty() { of(stream) } else { own }
}

fn first<'a>(scopes: Scopes<'a>, name: &str) -> Option<&'a Directive> {
    all(scopes, name).first().copied()
}

/// The n-th `ssl_certificate` belongs to the n-th `ssl_certificate_key`.
fn identities(scopes: Scopes<'_>, draft: &mut Draft) {
    for (cert, key) in all(scopes, "ssl_certificate").into_iter().zip(all(scopes, "ssl_certificate_key")) {
        draft.add_identity([cert.value(), key.value()], None, &cert.place);
    }
}

fn options(scopes: Scopes<'_>, draft: &mut Draft) {
    let [server, stream] = scopes;
    let has_own =
        |directive: &&Directive| !server.iter().any(|own| own.words.first() == directive.words.first());
    let inherited = stream.iter().filter(|directive| directive.inner.is_empty()).filter(has_own);
    for directive in server.iter().chain(inherited) {
        let (place, value) = (directive.place.as_str(), directive.value());
        match directive.words.first().map_or("", String::as_str) {
            "ssl_client_certificate"
                if first(scopes, "ssl_verify_client").is_some_and(|verify| verify.value() == "on") =>
            {
                let file = draft.absolute(value, None);
                draft.want_certificates(file, place);
            }
            "ssl_protocols" if !directive.has("TLSv1.2") && directive.has("TLSv1.3") => {
                draft.once(|draft| &mut draft.min_version, "1.3", place, "tls.min_version");
            }
            "proxy_timeout" => match place::time(value, Duration::from_secs(1)) {
                Some(time) => {
                    draft.once(|draft| &mut draft.idle_timeout, time, place, "session.idle_timeout")
                }
                None => draft.remark(place, format!("`proxy_timeout {value}`: not understood")),
            },
            "ssl_handshake_timeout" => match place::time(value, Duration::from_secs(1)) {
                Some(time) => {
                    draft.once(|draft| &mut draft.handshake_timeout, time, place, "session.handshake_timeout")
                }
                None => draft.remark(place, format!("`ssl_handshake_timeout {value}`: not understood")),
            },
            "include" => draft.remark(place, format!("`include {value}`: import that file too")),
            "allow"
            | "deny"
            | "listen"
            | "ssl_certificate"
            | "ssl_certificate_key"
            | "ssl_protocols"
            | "ssl_verify_client"
            | "ssl_client_certificate"
            | "proxy_pass"
            | "proxy_protocol"
            | "proxy_ssl"
            | "proxy_ssl_name"
            | "proxy_ssl_trusted_certificate"
            | "proxy_ssl_verify" => {}
            name if name.starts_with("ssl_") => {
                draft.remark(
                    place,
                    format!("`{name}`: rustls offers only what is sound; there is nothing to set"),
                );
            }
            name => draft.remark(place, format!("`{name}` has no counterpart")),
        }
    }
}

/// `allow` and `deny`, of which the first that matches counts. Those of the stream are for servers that have none.
fn clients([server, stream]: Scopes<'_>, draft: &mut Draft) {
    let is_rule = |directive: &&Directive| directive.is("allow") || directive.is("deny");
    let own: Vec<_> = server.iter().filter(is_rule).collect();
    let found = if own.is_empty() { stream.iter().filter(is_rule).collect() } else { own };
    let mut rules = Vec::new();
    for directive in found {
        let of = match directive.value() {
            "all" => Some(Of::All),
            word => lists::prefix(word).map(Of::Prefix),
        };
        let (may, place) = (directive.is("allow"), directive.place.clone());
        match of {
            Some(of) => rules.push(Rule { may, of, place }),
            None => draft.remark(
                &place,
                format!("`{}`: list prefixes in access.allow or access.deny", directive.words.join(" ")),
            ),
        }
    }
    draft.take_rules(&rules);
}

/// `proxy_pass` to an address, or to an `upstream` of the same stream.
fn pass(scopes: Scopes<'_>, draft: &mut Draft) {
    let [server, stream] = scopes;
    let Some(pass) = find(server, "proxy_pass") else { return };
    let is_on = |name: &str| first(scopes, name).is_some_and(|directive| directive.value() == "on");
    let text = |name: &str| first(scopes, name).map(|directive| directive.value().to_owned());
    let ca = text("proxy_ssl_trusted_certificate").map(|file| draft.absolute(&file, None));
    let tls = is_on("proxy_ssl").then(|| Secure { name: text("proxy_ssl_name"), ca });
    if tls.as_ref().is_some_and(|secure| secure.name.is_none()) {
        let why = "`proxy_ssl on` without `proxy_ssl_name`: dotd sends no query to a server that it cannot verify. Add a \
                   [[backend]] with server_name or spki_pins";
        return draft.remark(&pass.place, why);
    }
    let upstream = stream.iter().find(|found| found.is("upstream") && found.value() == pass.value());
    let whole = [pass];
    let servers: Vec<&Directive> = match upstream {
        Some(upstream) => upstream.inner.iter().filter(|directive| directive.is("server")).collect(),
        None => whole.to_vec(),
    };
    for found in servers {
        let Some(address) = place::server(found.value()) else {
            draft.remark(
                &found.place,
                format!("`{}`: a backend is an address; write the number", found.value()),
            );
            continue;
        };
        let weight =
            found.words.iter().find_map(|word| word.strip_prefix("weight=")?.parse().ok()).unwrap_or(1);
        let has_proxy_header = is_on("proxy_protocol");
        draft.add_backend(Backend { address, tls: tls.clone(), has_proxy_header, weight }, &found.place);
        if found.has("backup") {
            draft.spare(&found.place);
        }
    }
    if upstream.is_some_and(|upstream| find(&upstream.inner, "least_conn").is_some()) {
        draft.once(|draft| &mut draft.policy, "least-outstanding", &pass.place, "balance.policy");
    }
}

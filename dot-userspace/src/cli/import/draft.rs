//! A `dotd.toml` under construction.
//!
//! Before: a reader found services in another program's config. After: TOML, each value with the place that it comes
//! from.
//! Holds: values that dotd has once and other programs have for each service: the first one counts, and a second,
//! different one becomes a comment. Never: invents a value; if a value must be changed to be valid here, a comment
//! says so.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{lists::Service, place::DNS};
use crate::config::limit;

/// A value, and the `file:line` it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct From<T> {
    pub(super) value: T,
    pub(super) place: String,
}

/// A server to forward to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    /// TLS towards it: the name and the file of authorities, as far as they were given.
    pub(super) tls: Option<Secure>,
    pub(super) has_proxy_header: bool,
    pub(super) weight: u32,
}

/// How a backend's certificate is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Secure {
    pub(super) name: Option<String>,
    pub(super) ca: Option<String>,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) user: Option<From<String>>,
    pub(super) dot: Vec<From<SocketAddr>>,
    pub(super) do53: Vec<From<SocketAddr>>,
    pub(super) certificates: Vec<From<(String, String)>>,
    pub(super) client_ca: Option<From<String>>,
    pub(super) min_version: Option<From<&'static str>>,
    pub(super) idle_timeout: Option<From<Duration>>,
    pub(super) handshake_timeout: Option<From<Duration>>,
    pub(super) connections_max: Option<From<u64>>,
    pub(super) policy: Option<From<&'static str>>,
    pub(super) backends: Vec<From<Backend>>,
    /// The folder of the file that is read: other programs' relative paths begin there.
    pub(super) folder: PathBuf,
    /// The backends of services before the one that is read.
    pub(super) before: usize,
    pub(super) services: Vec<Service>,
    /// Servers that are asked only when the others fail.
    pub(super) spares: Vec<String>,
    /// Lines without a counterpart, each with its reason.
    remarks: Vec<From<String>>,
}

impl Draft {
    /// No service was found.
    pub(super) fn is_empty(&self) -> bool {
        self.dot.is_empty() && self.do53.is_empty()
    }

    /// Notes that a line has no counterpart, and why; once, also if it is a default of several services.
    pub(super) fn remark(&mut self, place: &str, why: impl Into<String>) {
        let value = why.into();
        Self::add(&mut self.remarks, value, place);
    }

    /// Adds a server. The second service's servers answer for the first one too: that is said.
    pub(super) fn add_backend(&mut self, backend: Backend, place: &str) {
        if self.before > 0 && !self.backends.iter().any(|known| known.value == backend) {
            let why = format!("{}: dotd asks all backends for clients of every listener", backend.address);
            self.remark(place, why);
        }
        Self::add(&mut self.backends, backend, place);
    }

    /// Adds an address for DNS over TLS. `is_dual`: a wildcard of IPv6 takes clients of both families.
    pub(super) fn add_dot(&mut self, address: SocketAddr, is_dual: bool, place: &str) {
        if address.port() == DNS {
            return self.remark(place, "TLS on port 53: DNS over TLS must not use it (RFC 7858)");
        }
        Self::add(&mut self.dot, address, place);
        self.note_listener(address);
        if is_dual && address.ip() == Ipv6Addr::UNSPECIFIED {
            let other = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            Self::add(&mut self.dot, other, place);
            self.note_listener(other);
        }
    }

    /// Adds an address for DNS in clear.
    pub(super) fn add_do53(&mut self, address: SocketAddr, place: &str) {
        Self::add(&mut self.do53, address, place);
        self.note_listener(address);
    }

    /// The path of a file. A relative one begins at `base`, or where the file is that is read.
    pub(super) fn absolute(&self, path: &str, base: Option<&str>) -> String {
        base.map_or(self.folder.as_path(), Path::new).join(path).display().to_string()
    }

    /// Adds a certificate and its key.
    pub(super) fn add_identity(&mut self, pair: [&str; 2], base: Option<&str>, place: &str) {
        if let Some(folder) = pair.iter().find(|path| path.ends_with('/')) {
            return self.remark(
                place,
                format!("`{folder}` is a folder: name each of its files in tls.certificates"),
            );
        }
        let [cert, key] = pair.map(|path| self.absolute(path, base));
        Self::add(&mut self.certificates, (cert, key), place);
    }

    /// Sets a value that dotd has once. A second, different one becomes a remark.
    pub(super) fn once<T: PartialEq>(
        &mut self,
        slot: fn(&mut Self) -> &mut Option<From<T>>,
        value: T,
        place: &str,
        key: &str,
    ) {
        match slot(self) {
            None => *slot(self) = Some(From { value, place: place.to_owned() }),
            Some(first) if first.value == value => {}
            Some(first) => {
                let why = format!("dotd has one {key} for all services; the one of {} counts", first.place);
                self.remark(place, why);
            }
        }
    }

    /// Adds to a list what is not in it yet.
    pub(super) fn add<T: PartialEq>(list: &mut Vec<From<T>>, value: T, place: &str) {
        if !list.iter().any(|known| known.value == value) {
            list.push(From { value, place: place.to_owned() });
        }
    }

    /// The config. `dotd check` accepts it if the files that it names can be used.
    pub(super) fn to_toml(&self) -> String {
        let mut toml = Toml(
            "# Made by `dotd import`. Read the comments, run `dotd check`, then start dotd.\n".to_owned(),
        );
        if self.backends.is_empty() {
            toml.0 += NO_BACKEND;
        }
        toml.section(
            "server",
            [self.user.as_ref().map(|user| toml_line("user", &quoted(&user.value), &user.place))],
        );
        let addresses = |key: &str, list: &[From<SocketAddr>]| {
            let words: Vec<_> = list.iter().map(|from| quoted(&from.value.to_string())).collect();
            let places: Vec<_> = list.iter().map(|from| from.place.as_str()).collect();
            toml_line(key, &format!("[{}]", words.join(", ")), &places.join(", "))
        };
        let dot = Some(addresses("dot", &self.dot));
        let do53 = (!self.do53.is_empty()).then(|| addresses("do53", &self.do53));
        toml.section("listen", [dot, do53]);
        toml.section(
            "tls",
            [
                self.certificates_lines(),
                text_line("client_ca", self.client_ca.as_ref()),
                self.min_version
                    .as_ref()
                    .map(|from| toml_line("min_version", &quoted(from.value), &from.place)),
            ],
        );
        self.access(&mut toml);
        toml.section(
            "session",
            [
                time_line("handshake_timeout", self.handshake_timeout.as_ref(), &limit::HANDSHAKE_TIMEOUT),
                time_line("idle_timeout", self.idle_timeout.as_ref(), &limit::IDLE_TIMEOUT),
                self.connections_max
                    .as_ref()
                    .map(|from| toml_line("connections_max", &from.value.to_string(), &from.place)),
            ],
        );
        toml.section(
            "balance",
            [self.policy.as_ref().map(|from| toml_line("policy", &quoted(from.value), &from.place))],
        );
        for backend in &self.backends {
            toml.backend(backend);
        }
        let late = self.late_remarks();
        if !self.remarks.is_empty() || !late.is_empty() {
            toml.0 += "\n# Without a counterpart:\n";
            for remark in self.remarks.iter().chain(&late) {
                let _ = writeln!(toml.0, "#   {}: {}", remark.place, remark.value);
            }
        }
        toml.0
    }

    fn certificates_lines(&self) -> Option<String> {
        let pair = |from: &From<(String, String)>| {
            let (cert, key) = (quoted(&from.value.0), quoted(&from.value.1));
            format!("    {{ cert = {cert}, key = {key} }}, # {}\n", from.place)
        };
        let pairs: String = self.certificates.iter().map(pair).collect();
        (!pairs.is_empty()).then(|| format!("certificates = [\n{pairs}]\n"))
    }
}

/// The first remark of a draft that forwards to no server.
const NO_BACKEND: &str = "# NO BACKEND: no server was found that dotd may ask (the end of this file says why). Add a [[backend]]:\n\
                          # without one dotd answers for its test zone alone.\n";

/// The text so far.
pub(super) struct Toml(String);

impl Toml {
    /// A section with the lines that are there; none at all without lines.
    pub(super) fn section<const N: usize>(&mut self, name: &str, lines: [Option<String>; N]) {
        let lines: String = lines.into_iter().flatten().collect();
        if !lines.is_empty() {
            let _ = write!(self.0, "\n[{name}]\n{lines}");
        }
    }

    fn backend(&mut self, from: &From<Backend>) {
        let backend = &from.value;
        let mut lines = toml_line("address", &quoted(&backend.address.to_string()), &from.place);
        lines += &match backend.tls {
            Some(_) => toml_line("transport", &quoted("tls"), "as before"),
            None => {
                toml_line("transport", &quoted("tcp"), "as before; \"udp\" works too where the server has it")
            }
        };
        if let Some(secure) = &backend.tls {
            lines += &secure
                .name
                .as_ref()
                .map(|name| format!("server_name = {}\n", quoted(name)))
                .unwrap_or_default();
            lines += &secure.ca.as_ref().map(|ca| format!("ca = {}\n", quoted(ca))).unwrap_or_default();
        } else if !backend.address.ip().is_loopback() {
            lines +=
                &toml_line("allow_cleartext", "true", "as before: these queries leave this machine readable");
        }
        if backend.has_proxy_header {
            lines +=
                &toml_line("proxy_v2", "true", "version 2 of the PROXY protocol: the server must expect it");
        }
        if backend.weight != 1 {
            lines += &format!("weight = {}\n", backend.weight);
        }
        let _ = write!(self.0, "\n[[backend]]\n{lines}");
    }
}

/// `key = value  # place`.
pub(super) fn toml_line(key: &str, value: &str, place: &str) -> String {
    format!("{key} = {value} # {place}\n")
}

fn text_line(key: &str, from: Option<&From<String>>) -> Option<String> {
    from.map(|from| toml_line(key, &quoted(&from.value), &from.place))
}

/// A time within its limit; one that was changed says what it was.
fn time_line(key: &str, from: Option<&From<Duration>>, limit: &limit::Limit<Duration>) -> Option<String> {
    from.map(|from| {
        let value = from.value.clamp(limit.min, limit.max);
        let was = if value == from.value {
            String::new()
        } else {
            format!(", was {}", humantime::format_duration(from.value))
        };
        toml_line(
            key,
            &quoted(&humantime::format_duration(value).to_string()),
            &format!("{}{was}", from.place),
        )
    })
}

/// A TOML basic string (toml.io, "String").
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

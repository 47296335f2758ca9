//! The configs of NSD, BIND and Knot that all tests share: one zone, a TSIG key that may transfer it, nothing but loopback.
//!
//! Before: `servers` or `primaries` has a folder and a zone file. After: the text of a config file; what only one of them needs
//! comes as lines of theirs. Never: starts a server.

use std::path::PathBuf;

/// Name of the TSIG key.
pub const KEY_NAME: &str = "key.dotd.test";
/// Its secret, HMAC-SHA256.
pub const KEY_SECRET: &str = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlYyE=";

/// The address, the folder and the zone of a server.
pub(super) struct Site<'a> {
    pub(super) port: u16,
    pub(super) folder: String,
    /// The name of the zone.
    pub(super) zone: &'a str,
    pub(super) file: PathBuf,
}

impl Site<'_> {
    /// NSD; `server` and `zone` are more lines of these sections.
    pub(super) fn nsd(&self, server: &str, zone: &str) -> String {
        let Self { port, folder, zone: name, file } = self;
        format!(
            "server:\n ip-address: 127.0.0.1@{port}\n server-count: 1\n username: \"\"\n chroot: \"\"\n \
             database: \"\"\n zonesdir: \"{folder}\"\n pidfile: \"\"\n xfrdir: \"{folder}\"\n \
             xfrdfile: \"{folder}/xfrd.state\"\n zonelistfile: \"{folder}/zone.list\"\n rrl-ratelimit: 0\n{server}\
             remote-control:\n control-enable: no\n\
             key:\n name: {KEY_NAME}\n algorithm: hmac-sha256\n secret: \"{KEY_SECRET}\"\n\
             zone:\n name: {name}\n zonefile: \"{}\"\n{zone}",
            file.display()
        )
    }

    /// BIND; `options` and `zone` are more statements of these blocks.
    pub(super) fn bind(&self, options: &str, zone: &str) -> String {
        let Self { port, folder, zone: name, file } = self;
        format!(
            "options {{ directory \"{folder}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; \
             pid-file none; session-keyfile none; lock-file none; recursion no; dnssec-validation no; \
             allow-query {{ any; }}; allow-transfer {{ key {KEY_NAME}; }}; {options} }};\ncontrols {{ }};\n\
             key {KEY_NAME} {{ algorithm hmac-sha256; secret \"{KEY_SECRET}\"; }};\n\
             zone {name} {{ type primary; file \"{}\"; {zone} }};\n",
            file.display()
        )
    }

    /// Knot; `sections` are more sections, `zone` more lines of the zone.
    pub(super) fn knot(&self, sections: &str, zone: &str) -> String {
        let Self { port, folder, zone: name, file } = self;
        format!(
            "server:\n  rundir: \"{folder}\"\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\ncontrol:\n  listen: \"{folder}/knot.sock\"\ndatabase:\n  \
             storage: \"{folder}\"\nkey:\n  - id: {KEY_NAME}\n    algorithm: hmac-sha256\n    \
             secret: {KEY_SECRET}\n{sections}zone:\n  - domain: {name}\n    file: \"{}\"\n    acl: ours\n    \
             zonefile-sync: -1\n{zone}",
            file.display()
        )
    }
}

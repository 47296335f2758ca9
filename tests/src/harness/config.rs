//! Writes the `dotd.toml` of a test: defaults for namespaces, and the keys that the test sets.
//!
//! Before: a test names keys. After: `harness::server` writes the text into its scratch folder. Limits of the kernel
//! half are off, because all clients of a test have one address; tests of limits set them.
//! Never: checks anything; dotd has to find a wrong key.

use std::{collections::BTreeMap, fmt::Write, net::SocketAddr, path::Path};

use super::netns::SERVER_INTERFACE;

/// The keys of the file.
#[derive(Clone, Debug)]
pub struct Config {
    sections: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
    backends: Vec<String>,
    /// Tables of arrays, as they stand.
    tables: String,
    /// The text of the file, in place of all keys.
    packaged: Option<String>,
}

const PACKAGED: &str = include_str!("../../../packaging/dotd.toml");

impl Config {
    /// Port 853 on every address, two workers, the embedded zone, XDP in auto mode on the veth alone, also for port 53, no limits.
    #[must_use]
    pub fn new() -> Self {
        let config =
            Self { sections: BTreeMap::new(), backends: Vec::new(), tables: String::new(), packaged: None };
        config
            .set("server", "workers", "2")
            .set("listen", "dot", r#"["0.0.0.0:853", "[::]:853"]"#)
            .set("xdp", "interfaces", &format!(r#"["{SERVER_INTERFACE}"]"#))
            .set("xdp", "port_53", "\"on\"")
            .set("xdp.limit", "syn_per_second", "0")
            .set("xdp.limit", "udp53_per_second", "0")
            .set("xdp.limit", "handshake_cost_per_second", "0")
            .set("xdp.limit", "wide_connections_per_second", "0")
            .set("xdp.limit", "wide_cost_per_second", "0")
            .set("xdp.limit", "ban_seconds", "0")
    }

    /// The file that packages install, except for its user and certificate; its backend is 127.0.0.1:53.
    #[must_use]
    pub fn packaged() -> Self {
        let is_kept = |line: &&str| !line.starts_with("user = ") && !line.starts_with("certificates = ");
        let text = PACKAGED.lines().filter(is_kept).fold(String::new(), |text, line| text + line + "\n");
        Self { packaged: Some(text), ..Self::new() }
    }

    /// Sets `[section] key = value`, the value in TOML.
    #[must_use]
    pub fn set(mut self, section: &'static str, key: &'static str, value: &str) -> Self {
        self.sections.entry(section).or_default().insert(key, value.to_owned());
        self
    }

    /// Keys of `xdp.limit` with their values.
    #[must_use]
    pub fn limits(self, keys: &[(&'static str, &str)]) -> Self {
        keys.iter().fold(self, |config, (key, value)| config.set("xdp.limit", key, value))
    }

    /// `xdp.mode`.
    #[must_use]
    pub fn xdp(self, mode: &str) -> Self {
        self.set("xdp", "mode", &format!("\"{mode}\""))
    }

    /// Adds a backend over UDP.
    #[must_use]
    pub fn backend(self, address: SocketAddr) -> Self {
        self.backend_with(address, "")
    }

    /// Adds tables of arrays, such as `[[tenant]]`, as TOML.
    #[must_use]
    pub fn tables(mut self, tables: &str) -> Self {
        self.tables += tables;
        self
    }

    /// The only backend, over UDP.
    #[must_use]
    pub fn backend_only(mut self, address: SocketAddr) -> Self {
        self.backends.clear();
        self.backend(address)
    }

    /// Adds a backend with more keys, as TOML lines.
    #[must_use]
    pub fn backend_with(mut self, address: SocketAddr, keys: &str) -> Self {
        self.backends.push(format!("address = \"{address}\"\n{keys}\n"));
        self
    }

    /// One more backend by its name and port, with more keys, in TOML lines.
    #[must_use]
    pub fn backend_named(mut self, host: &str, keys: &str) -> Self {
        self.backends.push(format!("address = \"{host}\"\n{keys}\n"));
        self
    }

    /// A certificate and its key.
    #[must_use]
    pub fn certificate(self, cert: &Path, key: &Path) -> Self {
        let entry = format!(r#"[{{ cert = "{}", key = "{}" }}]"#, cert.display(), key.display());
        self.set("tls", "certificates", &entry)
    }

    /// The text of the file, with the two folders that the server has chosen.
    #[must_use]
    pub fn text(&self, state_dir: &Path, run_dir: &Path) -> String {
        if let Some(packaged) = &self.packaged {
            let folder = |path: &Path| format!("\"{}\"", path.display());
            return packaged
                .replace("\"/var/lib/dotd\"", &folder(state_dir))
                .replace("\"/run/dotd\"", &folder(run_dir));
        }
        let folders = self.clone().set("server", "state_dir", &format!("\"{}\"", state_dir.display())).set(
            "server",
            "run_dir",
            &format!("\"{}\"", run_dir.display()),
        );
        let mut text = String::new();
        for (section, keys) in &folders.sections {
            let _ = writeln!(text, "[{section}]");
            for (key, value) in keys {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        for backend in &folders.backends {
            let _ = write!(text, "[[backend]]\n{backend}");
        }
        text += &self.tables;
        text
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

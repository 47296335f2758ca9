//! Paths of a config file. A relative path is relative to the folder of the file that has it. A path that begins with
//! `$CREDENTIALS_DIRECTORY` is in the folder of the files that systemd loads for the unit.
//!
//! Before: the keys of a file. After: each path is absolute, or as relative as the file's own.
//! Holds: that folder, from the environment at the start, because the engine clears its environment.
//! Never: reads the disk; gives a meaning to an empty path, which means that there is none.
//!
//! Source: systemd.exec(5), LoadCredential=.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::Config;

/// Puts `folder`, that of the config file, before each relative path.
pub(super) fn resolve(config: &mut Config, folder: &Path) {
    // Also if no path needs it: a later reload may need it, when the environment is cleared.
    credentials();
    let (server, tls) = (&mut config.server, &mut config.tls);
    let certificates =
        tls.certificates.iter_mut().flat_map(|entry| [&mut entry.cert, &mut entry.key, &mut entry.ocsp]);
    let own = [
        &mut server.state_dir,
        &mut server.run_dir,
        &mut tls.client_ca,
        &mut tls.ticket_secret,
        &mut config.dnstap.unix,
        &mut config.acme.ca,
        &mut config.acme.update_tsig,
        &mut config.acme.eab_key,
    ];
    let of_backends = config.backend.iter_mut().map(|backend| &mut backend.ca);
    let of_zones = config.policy.zone.iter_mut().flat_map(|zone| {
        let of_primaries = zone.primary.iter_mut().flat_map(|primary| [&mut primary.ca, &mut primary.tsig]);
        of_primaries.chain([&mut zone.file])
    });
    own.into_iter()
        .chain(certificates)
        .chain(of_backends)
        .chain(of_zones)
        .for_each(|path| put_before(path, folder));
    tls.by_acme = config.acme.entry(&server.state_dir);
}

impl Config {
    /// Every file that this config names and that an engine opens again while it runs.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let tls = &self.tls;
        let certificates = tls.entries().flat_map(|entry| [&entry.cert, &entry.key, &entry.ocsp]);
        let of_backends = self.backend.iter().map(|backend| &backend.ca);
        let of_zones = self.policy.zone.iter().flat_map(|zone| {
            zone.primary.iter().flat_map(|primary| [&primary.ca, &primary.tsig]).chain([&zone.file])
        });
        let files =
            certificates.chain([&tls.client_ca, &tls.ticket_secret]).chain(of_backends).chain(of_zones);
        files.filter(|path| !path.as_os_str().is_empty())
    }

    /// Every file that it names for the ACME process. The keeper reads them, and opens none of them for an engine.
    pub fn acme_files(&self) -> impl Iterator<Item = &PathBuf> {
        let files = [&self.acme.ca, &self.acme.update_tsig, &self.acme.eab_key];
        files.into_iter().filter(|path| !path.as_os_str().is_empty())
    }
}

fn put_before(path: &mut PathBuf, folder: &Path) {
    if path.as_os_str().is_empty() {
        return;
    }
    *path = match path.strip_prefix(VARIABLE) {
        Ok(name) => credentials().join(name),
        Err(_) => folder.join(&*path),
    };
}

/// The folder with the files of LoadCredential=. A shell does not have the variable, so there it is the folder of the
/// packaged unit.
fn credentials() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| match std::env::var_os(&VARIABLE[1..]) {
        Some(folder) if !folder.is_empty() => folder.into(),
        _ => OF_THE_UNIT.into(),
    })
}

/// The variable, as a config writes it.
const VARIABLE: &str = "$CREDENTIALS_DIRECTORY";
/// The folder of the packaged unit.
const OF_THE_UNIT: &str = "/run/credentials/dotd.service";

#[cfg(test)]
mod tests {
    use super::super::parse;

    /// Goal: every path of a config is relative to its file, and an absolute one stays. Method: a file in a folder
    /// that sets each key that is a path; no relative path is left unchanged; the files that an engine may
    /// ask for are without those of the ACME process.
    #[test]
    fn paths_are_relative_to_the_file() {
        let text = "[server]\nstate_dir = \"p\"\nrun_dir = \"q/p\"\n[tls]\nclient_ca = \"p\"\nticket_secret = \"p\"\n\
                    certificates = [{ cert = \"p\", key = \"/abs/p\", ocsp = \"p\" }]\n\
                    [[backend]]\naddress = \"127.0.0.1:854\"\ntransport = \"tls\"\nserver_name = \"x\"\nca = \"p\"\n\
                    [[policy.zone]]\nname = \"rpz.test\"\nfile = \"p\"\n[[policy.zone]]\nname = \"rpz2.test\"\n\
                    primary = [{ address = \"127.0.0.1:853\", transport = \"tls\", server_name = \"x\", ca = \"p\", tsig = \"p\" }]\n[dnstap]\nunix = \"p\"\n\
                    [acme]\nca = \"p\"\nupdate_tsig = \"p\"\neab_key = \"p\"\n";
        let config = parse(text, "/etc/dotd/dotd.toml").unwrap();
        let (server, tls) = (&config.server, &config.tls);
        assert_eq!(server.run_dir.to_str(), Some("/etc/dotd/q/p"));
        assert_eq!(tls.certificates[0].key.to_str(), Some("/abs/p"));
        let entry = &tls.certificates[0];
        let others = [
            &server.state_dir,
            &tls.client_ca,
            &tls.ticket_secret,
            &entry.cert,
            &entry.ocsp,
            &config.backend[0].ca,
            &config.policy.zone[0].file,
            &config.dnstap.unix,
            &config.policy.zone[1].primary[0].ca,
            &config.policy.zone[1].primary[0].tsig,
            &config.acme.ca,
            &config.acme.update_tsig,
            &config.acme.eab_key,
        ];
        for path in others {
            assert_eq!(path.to_str(), Some("/etc/dotd/p"));
        }
        assert_eq!(config.files().count(), 9, "all but folders, sockets, and files for the ACME process");
        assert_eq!(config.acme_files().count(), 3);
        let nothing = parse("", "/etc/dotd/dotd.toml").unwrap();
        assert_eq!(nothing, super::Config::default());
    }
}

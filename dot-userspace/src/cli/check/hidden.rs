//! Files of a config that the packaged unit hides from dotd: a shell sees them, a service does not.
//!
//! Before: a config without mistakes. After: `check` warns of each such file. Never: reads the disk.
//!
//! Source: systemd.exec(5), ProtectHome= and PrivateTmp=.

use std::path::Path;

use crate::config::Config;

/// Folders that packaging/dotd.service hides, or replaces by others.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// A line for each hidden file.
pub(super) fn hidden(config: &Config) -> Vec<String> {
    let others = [&config.server.state_dir, &config.server.run_dir, &config.dnstap.unix];
    others
        .into_iter()
        .chain(config.files())
        .chain(config.acme_files())
        .filter_map(|path| line(path))
        .collect()
}

fn line(path: &Path) -> Option<String> {
    let folder = HIDDEN.iter().find(|folder| path.starts_with(folder))?;
    let path = path.display();
    Some(format!("{path}: the packaged unit hides {folder} from dotd; use another folder, such as /etc/dotd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: `check` reports every file that dotd would not find under systemd, and no other. Method: each key that
    /// is a path, in a hidden folder, and in one whose name begins like it.
    #[test]
    fn paths_that_the_unit_hides_are_named() {
        let text = |folder: &str| {
            format!(
                "[server]\nstate_dir = \"{folder}/1\"\nrun_dir = \"{folder}/2\"\n[tls]\nclient_ca = \"{folder}/3\"\n\
                 ticket_secret = \"{folder}/4\"\n\
                 certificates = [{{ cert = \"{folder}/5\", key = \"{folder}/6\", ocsp = \"{folder}/7\" }}]\n\
                 [[backend]]\naddress = \"127.0.0.1:854\"\ntransport = \"tls\"\nserver_name = \"x\"\nca = \"{folder}/8\"\n\
                 [[policy.zone]]\nname = \"rpz.test\"\nfile = \"{folder}/9\"\n\
                 [[policy.zone]]\nname = \"rpz2.test\"\nprimary = [{{ address = \"127.0.0.1:855\", transport = \"tls\", \
                 server_name = \"x\", ca = \"{folder}/10\", tsig = \"{folder}/11\" }}]\n\
                 [dnstap]\nunix = \"{folder}/12\"\n"
            )
        };
        let lines =
            |folder: &str| hidden(&crate::config::parse(&text(folder), "/etc/dotd/dotd.toml").unwrap());
        for folder in HIDDEN {
            let lines = lines(folder);
            assert_eq!(lines.len(), 12, "{lines:?}");
            assert!(
                lines.iter().all(|line| line.contains(&format!("hides {folder} from dotd"))),
                "{lines:?}"
            );
        }
        assert_eq!(lines("/homes"), [""; 0]);
        assert_eq!(lines("/var/lib"), [""; 0]);
    }
}

//! Files of a config that the packaged unit hides from dotd: a shell sees them, a service does not.
//!
//! Before: a config that is sound. After: `check` warns of each. Never: looks at the disk.
//!
//! Source: systemd.exec(5), ProtectHome= and PrivateTmp=.

use std::path::Path;

use crate::config::Config;

/// Folders that packaging/dotd.service hides, or replaces by others.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// A line for each such file.
pub(super) fn hidden(config: &Config) -> Vec<String> {
    let tls = &config.tls;
    let certificates = tls.certificates.iter().flat_map(|entry| [&entry.cert, &entry.key, &entry.ocsp]);
    let own = [&config.server.state_dir, &config.server.run_dir, &tls.client_ca, &tls.ticket_secret];
    let of_backends = config.backend.iter().map(|backend| &backend.ca);
    let of_zones = config.policy.zone.iter().map(|zone| &zone.file);
    let all = own.into_iter().chain(certificates).chain(of_backends).chain(of_zones);
    all.filter_map(|path| line(path)).collect()
}

fn line(path: &Path) -> Option<String> {
    let folder = HIDDEN.iter().find(|folder| path.starts_with(folder))?;
    let path = path.display();
    Some(format!("{path}: the packaged unit hides {folder} from dotd; use another folder, such as /etc/dotd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what a start by systemd would not find is known before, and nothing else is. Method: each key that is a path, in a
    /// folder that is hidden, and in one whose name begins alike.
    #[test]
    fn paths_that_the_unit_hides_are_named() {
        let text = |folder: &str| {
            format!(
                "[server]\nstate_dir = \"{folder}/1\"\nrun_dir = \"{folder}/2\"\n[tls]\nclient_ca = \"{folder}/3\"\n\
                 ticket_secret = \"{folder}/4\"\n\
                 certificates = [{{ cert = \"{folder}/5\", key = \"{folder}/6\", ocsp = \"{folder}/7\" }}]\n\
                 [[backend]]\naddress = \"127.0.0.1:854\"\ntransport = \"tls\"\nserver_name = \"x\"\nca = \"{folder}/8\"\n\
                 [[policy.zone]]\nname = \"rpz.test\"\nfile = \"{folder}/9\"\n"
            )
        };
        let lines =
            |folder: &str| hidden(&crate::config::parse(&text(folder), "/etc/dotd/dotd.toml").unwrap());
        for folder in HIDDEN {
            let lines = lines(folder);
            assert_eq!(lines.len(), 9, "{lines:?}");
            assert!(
                lines.iter().all(|line| line.contains(&format!("hides {folder} from dotd"))),
                "{lines:?}"
            );
        }
        assert_eq!(lines("/homes"), [""; 0]);
        assert_eq!(lines("/var/lib"), [""; 0]);
    }
}

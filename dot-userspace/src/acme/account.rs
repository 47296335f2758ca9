//! The account at the authority: opened once, bound to an account of the authority's site if the config says so, and kept in a file that
//! only root can open.
//!
//! Before: the keeper has opened the file, and given the descriptor. After: orders can be signed.
//! Never: opens a second account while one is kept; sends the key of an external account, or reads it when an account is there.
//!
//! Source: RFC 8555 §7.3, §7.3.2 and §7.3.4.

use std::{
    fs::File,
    io::{Read as _, Seek as _},
    os::unix::fs::FileExt as _,
};

use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};

use super::{
    errand::Errand,
    folder::{ACCOUNT, Folder, name_for},
    secret,
    web::Web,
    words::{Failure, clean, failure, failure_with},
};
use crate::tls::Zeroizing;

/// The longest account that is read; one has some 400.
const FILE_OCTETS: usize = 16 * 1024;

/// The name of the file with the account at a directory.
#[must_use]
pub fn account_file(directory: &str) -> String {
    name_for(ACCOUNT, directory)
}

/// The file of the account. It is written in place: this process can name no file of the folder that it is in.
pub(super) struct AccountFile(pub File);

impl AccountFile {
    /// The account, as the library wrote it.
    fn read(&self) -> Option<AccountCredentials> {
        // Large enough at once: a buffer that grows leaves copies of a key behind.
        let mut text = Zeroizing::new(Vec::with_capacity(FILE_OCTETS));
        let mut file = &self.0;
        file.rewind().ok()?;
        file.take(FILE_OCTETS as u64).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Keeps an account. A text that is cut off by a crash is no account, and the next order opens another one.
    fn keep(&self, credentials: &AccountCredentials) -> Result<(), Failure> {
        let text = serde_json::to_vec(credentials).map(Zeroizing::new).map_err(|error| error.to_string())?;
        let written = self.0.set_len(0).and_then(|()| self.0.write_all_at(&text, 0));
        written
            .and_then(|()| self.0.sync_all())
            .map_err(|error| Failure::new(format!("the account cannot be kept in server.state_dir: {error}")))
    }

    /// Forgets an account that the authority does not know any more.
    pub(super) fn forget(&self) {
        let _ = self.0.set_len(0);
    }
}

/// The account at the directory, and whether it was opened now.
pub(super) async fn account(
    (errand, folder, file): (&Errand, &Folder, &AccountFile),
    web: &Web,
) -> Result<(Account, bool), Failure> {
    let (acme, url) = (&errand.acme, errand.acme.directory_url());
    let builder = || Account::builder_with_http(Box::new(web.clone()));
    let contacts: Vec<_> = acme
        .contact
        .iter()
        .map(|contact| format!("mailto:{}", contact.strip_prefix("mailto:").unwrap_or(contact)))
        .collect();
    let said = contacts.join("\n");
    let contacts: Vec<_> = contacts.iter().map(String::as_str).collect();
    if let Some(kept) = file.read() {
        let account = builder().from_credentials(kept).await;
        let account = account.map_err(|error| failure("the directory cannot be read", &error))?;
        if folder.contact(url) != Some(said.clone()) {
            match account.update_contacts(&contacts).await {
                Ok(()) => folder.keep_contact(url, &said),
                // The certificate does not depend on it; the next order tries again.
                Err(error) => tracing::warn!("{}", failure("acme: acme.contact is refused", &error).text),
            }
        }
        return Ok((account, false));
    }
    let wish = NewAccount {
        contact: &contacts,
        terms_of_service_agreed: acme.accept_terms,
        only_return_existing: false,
    };
    let external = external(errand)?;
    let opened = builder().create(&wish, url.to_owned(), external.as_ref()).await;
    let (account, credentials) = opened.map_err(|error| match external {
        None => failure("no account is opened", &error),
        Some(_) => {
            let path = acme.eab_key.display();
            let remedy = format!("look at acme.eab_kid and at {path}: they belong together, and some authorities take them once");
            let remedies = ["unauthorized", "malformed", "externalAccountRequired"];
            let remedies = remedies.map(|kind| (kind, remedy.clone()));
            let step = format!("no account is opened with acme.eab_key = \"{path}\"");
            failure_with(&step, &error, &remedies)
        }
    })?;
    file.keep(&credentials)?;
    folder.keep_contact(url, &said);
    let bound = external.map(|_| format!(", bound to {}", acme.eab_kid)).unwrap_or_default();
    tracing::info!("acme: account {} was opened{bound}", clean(account.id()));
    Ok((account, true))
}

/// The key of the external account.
fn external(errand: &Errand) -> Result<Option<ExternalAccountKey>, Failure> {
    let Some(text) = &errand.eab_key else { return Ok(None) };
    let acme = &errand.acme;
    let key = text.as_ref().map_err(Clone::clone).and_then(|text| {
        let key = secret::mac_key(&acme.eab_key, text);
        key.map(Zeroizing::new).map_err(|error| format!("acme.eab_key: {error}"))
    });
    Ok(Some(ExternalAccountKey::new(acme.eab_kid.clone(), &key?)))
}

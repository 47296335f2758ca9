//! The config as it is written, and what makes of it one that can be served: addresses of backends' names, and the TLS servers that
//! backends in clear designate.
//!
//! Before: a start or a reload has a config. After: `asked` has the config that is served, and hears when it can be another one.
//! Never: changes what is served.

use super::{
    designated::{Discovered, Found},
    kept_addresses::Addresses,
    names::{self, Names},
    restart,
    tls_history::TlsHistory,
};
use crate::config::Config;

/// What is looked for.
pub(super) struct Sought {
    written: Config,
    names: Names,
    discovered: Discovered,
}

/// A look is over.
pub(super) enum News {
    Addresses(names::News),
    Verified(Found),
}

impl Sought {
    /// Of the config that runs; names have the `known` addresses until others are found.
    pub(super) fn of(config: &Config, known: Addresses) -> Self {
        let mut names = Names::default();
        names.remember(known);
        Self { written: config.clone(), names, discovered: Discovered::default() }
    }

    /// The addresses of names that are known now.
    pub(super) fn addresses(&self) -> Addresses {
        self.names.addresses()
    }

    /// The config that runs, as it is written.
    pub(super) fn written(&self) -> &Config {
        &self.written
    }

    /// Looks for what the config that runs names. Must run on a runtime.
    pub(super) async fn begin(&mut self) {
        self.names.follow(&self.written);
        // The engine before may have kept addresses of another config's names.
        self.names.forget_others();
        self.names.first().await;
    }

    /// `written` as it can be served now, once its names have been looked for.
    pub(super) async fn look(&mut self, written: &Config, history: &TlsHistory) -> Config {
        self.names.follow(written);
        self.names.first().await;
        self.serve(written, history)
    }

    /// The config that runs, as it can be served now.
    pub(super) fn served(&mut self, history: &TlsHistory) -> Config {
        let written = self.written.clone();
        let config = self.serve(&written, history);
        self.discovered.forget_others();
        config
    }

    /// `written` runs from now on.
    pub(super) fn adopt(&mut self, written: Config) {
        self.written = restart::as_it_runs(&self.written, written);
        self.names.forget_others();
        self.discovered.forget_others();
    }

    /// The config that was looked for is refused; the one that runs is looked for again.
    pub(super) fn stay(&mut self) {
        self.names.follow(&self.written);
    }

    /// The next look that is over.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn heard(&mut self) -> Option<News> {
        tokio::select! {
            Some(news) = self.names.heard() => Some(News::Addresses(news)),
            Some(found) = self.discovered.heard() => Some(News::Verified(found)),
            else => None,
        }
    }

    /// Takes it. `true`: the config can be served in another way.
    pub(super) fn take(&mut self, news: News) -> bool {
        match news {
            News::Addresses(news) => self.names.take(news),
            News::Verified(found) => self.discovered.take(found),
        }
    }

    fn serve(&mut self, written: &Config, history: &TlsHistory) -> Config {
        let config = self.names.expand(written);
        self.discovered.follow(&config, history);
        self.discovered.upgrade(&config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: names of an earlier config are not handed from engine to engine, with addresses that a newer config would ask without a look.
    /// Method: a start with kept addresses of its config's name and of another one.
    #[tokio::test]
    async fn a_start_forgets_names_of_another_config() {
        let text = "[balance]\nbootstrap = [\"127.0.0.1:9\"]\n[[backend]]\naddress = \"ns.example:53\"\nallow_cleartext = true\n";
        let config = crate::config::parse(text, "dotd.toml").unwrap();
        let kept = ["ns.example", "else.example"].map(|name| (name.to_owned(), vec![[192, 0, 2, 1].into()]));
        let mut sought = Sought::of(&config, Addresses::from(kept));
        sought.begin().await;
        assert_eq!(sought.addresses().keys().collect::<Vec<_>>(), ["ns.example"]);
    }
}

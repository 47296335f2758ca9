//! The services of an old config: what each has for itself, and dotd has once.
//!
//! Before: a reader begins a service. After: `[access]` for all of them or for each listener, and remarks about what would hold for others too.
//! Never: takes clients for one service that its rules refuse.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::{
    draft::{Draft, From, Toml, quoted, toml_line},
    lists::{self, Lists, Rule, Service},
};

impl Draft {
    /// Another service follows.
    pub(super) fn begin_service(&mut self, place: &str) {
        self.before = self.backends.len();
        self.services.push(Service { place: place.to_owned(), ..Service::default() });
    }

    /// The service that is read takes clients by these rules.
    pub(super) fn take_rules(&mut self, rules: &[Rule]) {
        let (lists, stricter) = lists::of(rules);
        if let Some(rule) = stricter {
            let why = "the first rule that matches a client counts there, and access.deny has priority here: an earlier rule \
                       takes clients that the lists refuse";
            self.remark(&rule.place, why);
        }
        if let (Some(service), Some(first)) = (self.services.last_mut(), rules.first()) {
            (service.lists, service.rules) = (lists, first.place.clone());
        }
    }

    /// The service that is read asks clients for a certificate of these authorities.
    pub(super) fn want_certificates(&mut self, file: String, place: &str) {
        if let Some(service) = self.services.last_mut() {
            service.wants_certificates = true;
        }
        self.once(|draft| &mut draft.client_ca, file, place, "tls.client_ca");
    }

    /// A server that is asked only when the others fail.
    pub(super) fn spare(&mut self, place: &str) {
        self.spares.push(place.to_owned());
        if self.policy.is_none() {
            self.policy = Some(From { value: "first", place: place.to_owned() });
        }
    }

    pub(super) fn note_listener(&mut self, address: SocketAddr) {
        if let Some(service) = self.services.last_mut() {
            service.listens.push(address);
        }
    }

    /// The clients that may ask: once, where all services have the same lists.
    pub(super) fn access(&self, toml: &mut Toml) {
        let Some(first) = self.services.iter().find(|service| service.lists != Lists::default()) else {
            return;
        };
        let lines = |service: &Service| {
            let line = |key: &str, nets: &[IpNet]| {
                let words: Vec<_> = nets.iter().map(|net| quoted(&net.to_string())).collect();
                (!nets.is_empty()).then(|| toml_line(key, &format!("[{}]", words.join(", ")), &service.rules))
            };
            [line("allow", &service.lists.allow), line("deny", &service.lists.deny)]
        };
        if self.services.iter().all(|service| service.lists == first.lists) {
            return toml.section("access", lines(first));
        }
        for service in self.services.iter().filter(|service| service.lists != Lists::default()) {
            for address in &service.listens {
                let [allow, deny] = lines(service);
                let address = Some(toml_line("address", &quoted(&address.to_string()), &service.place));
                toml.section("[access.listener]", [address, allow, deny]);
            }
        }
    }

    /// What can be said when every service is known.
    pub(super) fn late_remarks(&self) -> Vec<From<String>> {
        let mut found = Vec::new();
        if let Some(ca) =
            self.client_ca.as_ref().filter(|_| self.services.iter().any(|one| one.wants_certificates))
        {
            for service in self.services.iter().filter(|service| !service.wants_certificates) {
                let why = format!(
                    "asks for no certificate, and tls.client_ca of {} is for every listener: its clients are refused. Make a dotd of \
                     its own from this service alone",
                    ca.place
                );
                found.push(From { value: why, place: service.place.clone() });
            }
        }
        let other = self.policy.as_ref().filter(|policy| policy.value != "first");
        for (place, policy) in self.spares.iter().filter_map(|place| Some((place, other?))) {
            let why = format!(
                "`backup`: with balance.policy = \"{}\" of {} this server is asked as the others are; with \"first\" only when those \
                 before it fail",
                policy.value, policy.place
            );
            found.push(From { value: why, place: place.clone() });
        }
        found
    }
}

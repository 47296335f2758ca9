//! Keys of the contract that this version of dotd does not honour: one line each, to be deleted with the
//! work.
//!
//! Before: values are in range. After: nothing that an operator set is ignored.
//! Never: lets a value pass that no module reads.

use super::{Backend, Config, Mistake, OnTlsFailure, source::Source};

/// A key, what to write instead, and whether the config asks for what is missing.
type Line<T> = (&'static str, &'static str, fn(&T) -> bool);

/// Inside each `[[backend]]`.
const BACKEND: &[Line<Backend>] =
    &[("on_tls_failure", "\"next\"", |backend| backend.on_tls_failure == OnTlsFailure::Cleartext)];

/// Notes every value that this version does not honour.
pub(super) fn check(config: &Config, source: &Source<'_>, mistakes: &mut Vec<Mistake>) {
    let mut note = |path: &str, instead: &str| {
        let message = format!("not in this version of dotd; remove it or set {instead}");
        mistakes.push(source.at(path, &message));
    };
    for (index, backend) in config.backend.iter().enumerate() {
        for (key, instead, is_asked) in BACKEND {
            if is_asked(backend) {
                note(&format!("backend.{index}.{key}"), instead);
            }
        }
    }
}

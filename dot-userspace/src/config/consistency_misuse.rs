//! `[misuse]`: actions that a misuse cannot have, bans that nothing would enforce, and names that are no domain names.
//!
//! Before: types and ranges fit. After: `policy` can use it.
//! Never: asks whether XDP runs.

use std::collections::HashSet;

use super::{Config, Mistake, MisuseAction, XdpMode, limit, source::Source};

/// Notes what is wrong with `[misuse]`.
pub(super) fn check(config: &Config, source: &Source<'_>, mistakes: &mut Vec<Mistake>) {
    let mut note = |key: &str, message: &str| mistakes.push(source.at(key, message));
    let misuse = &config.misuse;
    if matches!(misuse.random_names, MisuseAction::Delay | MisuseAction::Close | MisuseAction::Ban) {
        let message = format!(
            "\"{}\" is about a client, and such a flood comes from many, among others who ask for the domain; write \
             \"count\", \"truncate\" or \"refuse\"",
            misuse.random_names.label()
        );
        note("misuse.random_names", &message);
    }
    for (key, action) in misuse.actions() {
        if action != MisuseAction::Ban {
            continue;
        }
        if config.xdp.mode == XdpMode::Off {
            note(&format!("misuse.{key}"), "\"ban\" needs XDP, and xdp.mode is \"off\"; write \"close\"");
        } else if config.xdp.limit.ban_seconds == 0 {
            let message = "\"ban\" lasts xdp.limit.ban_seconds, which is 0; set that, or write \"close\"";
            note(&format!("misuse.{key}"), message);
        }
    }
    if misuse.ignore.len() > limit::MISUSE_IGNORE_MAX {
        let (count, max) = (misuse.ignore.len(), limit::MISUSE_IGNORE_MAX);
        note("misuse.ignore", &format!("{count} domains are more than {max}, the most permitted"));
    }
    let mut seen = HashSet::new();
    for (index, name) in misuse.ignore.iter().enumerate() {
        let path = format!("misuse.ignore.{index}");
        if !super::consistency_policy::is_domain_name(name) {
            note(&path, &format!("\"{}\" is not a domain name", name.escape_debug()));
        } else if !seen.insert(name.trim_end_matches('.').to_ascii_lowercase()) {
            note(&path, &format!("\"{name}\" is listed twice; remove one"));
        }
    }
}

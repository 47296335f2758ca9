//! One target under libFuzzer: the engine makes octets that reach new code, and the target checks them.
//!
//! Before: `cargo xtask fuzz` built this with instrumentation and named a target in `DOTD_FUZZ_TARGET`. After: an
//! end by time, or a file with the octets that broke the target.
//! Never: is built without the feature `engine`, so that a machine without a C++ compiler builds the rest.

#![no_main]

use std::{env, sync::OnceLock};

use dot_fuzz::{TARGETS, Target, target};
use libfuzzer_sys::fuzz_target;

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fuzz_target!(
    init: {
        let name = env::var("DOTD_FUZZ_TARGET").unwrap_or_default();
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        let found = target(&name);
        let chosen = found.unwrap_or_else(|| panic!("DOTD_FUZZ_TARGET={name:?}; targets: {}", names.join(", ")));
        let _ = CHOSEN.set(chosen);
    },
    |octets: &[u8]| {
        if let Some(chosen) = CHOSEN.get() {
            (chosen.run)(octets);
        }
    }
);

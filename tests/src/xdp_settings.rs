//! Ports and settings of a kernel half that a test loads by itself.
//!
//! Before: a gate. After: `xdp_lab` loads the programs, or the judge runs in the test itself. Never: sets a limit.

use dot_common::{
    rate::Rate,
    settings::{Gate, Over, Ports, SCHEMA, Settings},
};

/// DNS over TLS on 853 and 8853, cleartext DNS on 53: constants of the programs that a lab loads.
pub const PORTS: Ports = Ports { dot: [853, 8853, 0, 0], do53: 53 };

/// All gates as given, no limits, every destination local.
#[must_use]
pub fn settings(gate: Gate) -> Settings {
    let gate = gate as u8;
    Settings {
        schema: SCHEMA,
        cleartext_on_dot: gate,
        tls_on_do53: gate,
        udp_on_dot: gate,
        deny: 0,
        allow: 0,
        bans: 0,
        spent: 0,
        do53_is_limited: 1,
        local: 0,
        has_cookies: 0,
        spent_wide: 0,
        traced: 0,
        dot_is_off: 0,
        takes_cookies: 0,
        generation: 0,
        own_interface: 0,
        over: Over::Drop as u8,
        do53_query_over: Over::Truncate as u8,
        prefix_v4: 32,
        prefix_v6: 56,
        wide_v4: 24,
        wide_v6: 48,
        syn: Rate::default(),
        do53_query: Rate::default(),
    }
}

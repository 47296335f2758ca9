//! Every lawful arrangement of headers around a whole segment.
//!
//! Before: a test has a segment. After: it has one frame for each arrangement. Never: falsifies a header.

use super::{Build, Fragment};

/// Arranges the headers around a segment in some way.
pub type Shape = fn(Build) -> Build;

/// Every lawful arrangement of headers around a whole segment: its name, and the function that makes it.
#[must_use]
pub fn shapes() -> Vec<(&'static str, Shape)> {
    vec![
        ("v4", |build| build),
        ("v4_padded_to_sixty_octets", |build| build.padding(6)),
        ("v4_four_octets_of_options", |build| build.ip_options(4)),
        ("v4_forty_octets_of_options", |build| build.ip_options(40)),
        ("v4_forty_octets_of_tcp_options", |build| build.tcp_options(40)),
        ("vlan_then_v4", |build| build.tag(0x8100)),
        ("two_vlan_tags_then_v4", |build| build.tag(0x88a8).tag(0x8100)),
        ("vlan_then_v4_options", |build| build.tag(0x8100).ip_options(12)),
        ("v6", Build::v6),
        ("vlan_then_v6", |build| build.v6().tag(0x8100)),
        ("v6_hop_by_hop_then_tcp", |build| build.v6().extension(0, 8)),
        ("v6_routing_then_tcp", |build| build.v6().extension(43, 24)),
        ("v6_authentication_then_tcp", |build| build.v6().extension(51, 28)),
        ("v6_longest_destination_options", |build| build.v6().extension(60, 2048)),
        ("v6_three_extension_headers", |build| {
            build.v6().extension(0, 8).extension(60, 24).extension(43, 16)
        }),
        ("v6_four_extension_headers", |build| {
            build.v6().extension(0, 8).extension(60, 8).extension(43, 8).extension(60, 8)
        }),
        ("v6_eight_extension_headers", |build| {
            let build = build.v6().extension(0, 8).extension(43, 8).extension(51, 12);
            (0..5).fold(build, |build, _| build.extension(60, 8))
        }),
        ("eight_priority_tags_then_v4", |build| (0..8).fold(build, |build, _| build.tag(0x8100))),
        ("tag_v6_five_headers", |build| (0..5).fold(build.v6().tag(0x88a8), |it, _| it.extension(60, 8))),
        ("v6_atomic_fragment", |build| build.v6().fragment(Fragment::Atomic)),
        ("two_vlan_tags_v6_options_atomic", |build| {
            build.v6().tag(0x88a8).tag(0x8100).extension(0, 16).fragment(Fragment::Atomic)
        }),
    ]
}

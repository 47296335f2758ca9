//! The compiled kernel half, as build.rs left it: one ELF object with all programs and maps.
//!
//! After: [`super::start`] loads it. Tests load it too, to look at it or to run it without an interface.
//! Never: is built or changed at runtime.

/// The object, without debug sections.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dot-ebpf.o"));

//! Room `xdp`: being built.

//! stub
pub mod frames;
pub mod xdp_lab;

//! stub
pub mod frames;
pub mod xdp_field;
pub mod xdp_lab;

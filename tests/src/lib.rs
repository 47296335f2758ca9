//! stub
pub mod frames;

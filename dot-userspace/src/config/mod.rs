//! Room `config`: the text of `dotd.toml` becomes a checked [`Config`], or a line that says what to change.
//!
//! Before: a file, or none. After: `start` gives each room its own part.
//! Never: opens a socket, keeps state, or lets an unknown key pass.

mod defaults;
mod duration;
mod model;
mod model_xdp;
mod parse;

pub use model::*;
pub use model_xdp::*;

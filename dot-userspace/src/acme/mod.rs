//! Module `acme`: gets a certificate from an authority (RFC 8555), renews it, and reports about that. It runs in a process of its
//! own, the ACME process, which `keeper` starts.
//!
//! Before: `keeper` gives an [`Errand`]. After: the folder `acme` in `server.state_dir` has a certificate, which the engine finds
//! there, and a [`Standing`], which `control` shows.
//! Holds: `client` (when to do what), `account` (the account and its file), `order` (one order), `pace` (times), `folder` (its other files), `secret` (keys in files), `web` and `resolver` (requests to
//! the authority), `http01` and `dns01` (proofs, by the choice of `proof`), `words` (errors).
//! Never: replaces a certificate before the next one has been checked; asks again sooner than `pace` says; runs in the engine.
//!
//! Source: RFC 8555, RFC 8738 (addresses), RFC 9773 (ARI).

mod account;
mod client;
mod dns01;
mod errand;
mod folder;
mod http01;
mod order;
mod pace;
mod proof;
mod resolver;
pub mod secret;
mod standing;
mod wanted;
mod web;
mod words;

pub use account::account_file;
pub use client::run;
pub use errand::Errand;
pub use folder::{shown_file, shown_in, standing_in};
pub use standing::Standing;

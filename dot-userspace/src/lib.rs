//! dotd's engine: DNS over TLS in front of a DNS server. A query comes in over TLS, goes to a backend in a batch, and its
//! response goes back.
//!
//! This is a library so that tests, benchmarks and fuzz targets reach the modules. Operators use the binary `dotd`; its
//! interface is the config, the verbs and the metrics, and not this API, which changes without notice.
//!
//! # The path of a query
//!
//! The kernel half (crate `dot-ebpf`, loaded by [`xdp`]) judges packets: steps 1 to 3. The other steps are here:
//!
//! | step | module | in → out |
//! |---|---|---|
//! | 4 | [`worker`] | a listener → a connection with a place under every cap |
//! | 5 | [`tls`] | a connection → keys, or an alert |
//! | 6 | [`dns::framing`] | octets → one DNS message |
//! | 7 | [`dns::Query`], [`dns::triage()`] | a message → forward, respond, drop or close |
//! | 8 | [`session`] with [`policy`], [`cache`], [`backend`] | a query → its response |
//! | 9 | [`dns::respond()`], [`session`] | ID restored, EDNS of this hop → TLS records |
//!
//! [`session`] walks steps 6 to 9. Steps 6 and 7 are pure functions: they need no socket, no clock and no state, so they run in
//! a test, a fuzz target or an example as they do in the daemon:
//!
//! ```
//! use dot_userspace::dns::{self, Allowed, Disposition, framing::cut_message};
//!
//! # fn main() -> Result<(), dns::framing::FramingError> {
//! // What a client sends within TLS: a length prefix of 17, then the query `. NS IN` with ID 7.
//! let stream = [0, 17, 0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
//! let cut = cut_message(&stream)?.expect("the message is whole");
//! assert_eq!(cut.octets, stream.len());
//!
//! // Step 7 forwards it. By default a zone transfer, say, is answered REFUSED: Disposition::Respond.
//! let Disposition::Forward(query) = dns::triage(cut.message, Allowed::default()) else { panic!() };
//! assert_eq!((query.id, query.qtype), (7, 2));
//!
//! // A backend gets the same octets under an ID of dotd's own.
//! let mut octets = Vec::new();
//! dns::forward(cut.message, &query, 0x1234, true, &mut octets);
//! assert_eq!(octets[..2], [0x12, 0x34]);
//! assert_eq!(octets[2..], cut.message[2..]);
//! # Ok(())
//! # }
//! ```
//!
//! # Around it
//!
//! - [`config`] reads `dotd.toml`: no config with a mistake leaves it. [`cli`] has the verbs.
//! - [`start`] runs the engine: order of start, reload, drain. [`keeper`] is the process that keeps rights for it, and
//!   [`confine`] takes the engine's rights away.
//! - [`control`] serves the control socket and HTTP, [`ledger`] counts, [`events`] tells operators what was refused.
//! - [`proxy`] has the PROXY protocol, [`disk`] opens files safely, [`moment`] is a clock of one number,
//!   [`octets`] reads what another process wrote, [`effective`] lets root act as `server.user` for a moment.
//!
//! ARCHITECTURE.md has the map, with an invariant for each module; docs/internals says how the parts work.

pub mod acme;
pub mod backend;
pub mod cache;
pub mod cli;
pub mod config;
pub mod confine;
pub mod control;
pub mod disk;
pub mod dns;
pub mod effective;
pub mod events;
pub mod keeper;
pub mod ledger;
pub mod moment;
pub mod octets;
pub mod policy;
pub mod proxy;
pub mod session;
pub mod start;
mod supervise;
pub mod tls;
pub mod worker;
pub mod xdp;

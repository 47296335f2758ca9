//! Module `dns`: parses messages, decides about them, and edits them.
//!
//! Before: octets of a stream, which [`framing`] cuts into messages. After: `backend` forwards it, or `session::writer` answers.
//! The path: [`Query::parse`] → [`triage()`] → [`forward()`] … backend … [`respond()`] or [`synthesize()`].
//! Never: opens a socket, waits, or re-encodes octets that only pass through.

mod answers;
mod bare;
pub mod carry;
mod codes;
mod designated;
mod designation;
mod edns;
mod forward;
pub mod framing;
mod labels;
mod lifetime;
mod lookup;
mod made;
mod name;
mod pointers_past_opt;
mod proofs;
mod query;
mod records;
mod resolver_arpa;
mod respond;
mod subnet;
mod synthesize;
mod transfer;
mod triage;
mod truncate;
mod tsig;
mod ttl;
mod update;
mod zone_record;

pub use answers::{Answer, TYPE_A, TYPE_AAAA, TYPE_CNAME, answers, is_signed};
pub use bare::{is_bare_error, with_question};
pub use codes::{Ede, Rcode, rcode_of};
pub use designated::{Designated, designation_query, designations_in};
pub use designation::{Designation, TYPE_SVCB, parameters};
pub use edns::{KEEPALIVE_OPTION, PADDING_BLOCK_OCTETS, PADDING_OPTION, SUBNET_OPTION, options};
pub use forward::{BACKEND_PAYLOAD_OCTETS, QUERY_BLOCK_OCTETS, add_option, forward, pad_query};
pub use hickory_proto::op::ResponseCode;
pub use labels::{Labels, text_of};
pub use lifetime::{Bounds, Lifetime, TTLS_MAX, lifetime};
pub use lookup::{Addresses, Family, address_query, addresses_in, text_query, texts_in};
pub use made::{Made, qtype_of, query_for};
pub use name::{
    NAME_OCTETS_MAX, asked_name, is_below, is_rdata, name_in_words, rdata_of, record_text, record_type,
    wire_name,
};
pub use proofs::{Proofs, proof_name};
pub use query::{Opt, Query, QueryError, Screening, has_opt};
pub use records::{HEADER_OCTETS, has_no_question, is_truncated, question_matches};
pub use respond::{Asked, Edit, Hop, ResponseError, refuses_edns, respond};
pub use subnet::{
    Scope, SubnetOption, Told, add_subnet, family_of, may_be_for_all, take_opt_off, tell_subnet,
    without_subnet,
};
pub use synthesize::synthesize;
pub use transfer::{Part, Progress, Transfer};
pub use triage::{Allowed, Disposition, DropReason, Reply, triage};
pub use truncate::{datagram_octets_max, truncate};
pub use tsig::{TsigError, TsigKey, TsigStream};
pub use ttl::{STALE_TTL_SECONDS, count_down, make_stale};
pub use update::{Change, is_updated, update};
pub use zone_record::{Soa, ZoneRecord, is_response_to, soa_query, transfer_query};

#[cfg(test)]
mod tests;

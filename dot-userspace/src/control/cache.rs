//! `/cache` on the control socket: forgets cached answers.
//!
//! Before: `router` has the request. After: the [`Source`] has told every worker.
//! Never: takes a body beyond [`BODY_OCTETS_MAX`], or waits until the workers are done.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, State as Shared},
    response::Response,
    routing::delete,
};
use serde::{Deserialize, Serialize};

use super::{Body, Source, answer};
use crate::{cache::Forget, dns};

/// What `dotd cache flush` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushRequest {
    /// The name whose answers are removed; absent: all names.
    #[serde(default)]
    pub name: Option<String>,
    /// Also the answers for every name below it.
    #[serde(default)]
    pub suffix: bool,
    /// Only those of this type: "AAAA", or "TYPE65".
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub qtype: Option<String>,
}

impl FlushRequest {
    /// The selection for a cache. `None`: everything.
    ///
    /// # Errors
    /// What is wrong with the name or the type, in a line.
    pub fn meant(&self) -> Result<Option<Forget>, String> {
        if self.suffix && self.name.is_none() {
            return Err("a suffix needs a name; without a name, every answer is removed".to_owned());
        }
        if self.name.is_none() && self.qtype.is_none() {
            return Ok(None);
        }
        let name = dns::wire_name(self.name.as_deref().unwrap_or("."))?;
        let qtype = self.qtype.as_deref().map(dns::record_type).transpose()?;
        Ok(Some(Forget { name, is_suffix: self.suffix || self.name.is_none(), qtype }))
    }
}

/// The answer: what is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// The request.
    #[serde(flatten)]
    pub asked: FlushRequest,
    /// Number of workers that were told.
    pub workers: usize,
}

type AnySource = Arc<dyn Source>;

/// The route.
pub(super) fn route() -> Router<AnySource> {
    Router::new().route(PATH, delete(flush)).layer(DefaultBodyLimit::max(BODY_OCTETS_MAX))
}

async fn flush(Shared(source): Shared<AnySource>, request: Body<FlushRequest>) -> Response {
    answer(request, |request| source.flush_cache(&request))
}

/// The path.
pub(super) const PATH: &str = "/cache";
/// A name with every octet escaped needs half of it.
const BODY_OCTETS_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each form of a request means what it says; a type alone applies to every name, and a suffix without a name
    /// is refused.
    #[test]
    fn a_request_means_what_it_says() {
        let ask = |name: Option<&str>, suffix, qtype: Option<&str>| {
            let request = FlushRequest { name: name.map(Into::into), suffix, qtype: qtype.map(Into::into) };
            request.meant()
        };
        let forget = |name: &[u8], is_suffix, qtype| Ok(Some(Forget { name: name.into(), is_suffix, qtype }));
        assert_eq!(ask(None, false, None), Ok(None));
        assert_eq!(ask(Some("Example"), false, None), forget(b"\x07example\x00", false, None));
        assert_eq!(ask(Some("example"), true, Some("mx")), forget(b"\x07example\x00", true, Some(15)));
        assert_eq!(ask(None, false, Some("TYPE65")), forget(b"\x00", true, Some(65)));
        assert!(ask(None, true, None).is_err() && ask(None, false, Some("nothing")).is_err());
        let read: FlushRequest = serde_json::from_str(r#"{"name":"example"}"#).unwrap();
        assert_eq!(read.meant(), forget(b"\x07example\x00", false, None), "as clients of before ask");
    }
}

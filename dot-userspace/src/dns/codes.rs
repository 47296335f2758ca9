//! Response codes and extended errors by name. Only this file has their numbers and labels.
//!
//! Before: `triage` or a backend's failure chose one. After: `synthesize` writes it, the ledger counts it.
//! Never: decides which one is right.
//!
//! Source: RFC 1035 §4.1.1, RFC 6891 §9, RFC 8914 §4; names by hickory-proto, as IANA has them.

use hickory_proto::op::ResponseCode;

/// A response code that dotd itself gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rcode(ResponseCode);

#[expect(missing_docs, reason = "the names are the field's")]
impl Rcode {
    pub const NO_ERROR: Self = Self(ResponseCode::NoError);
    pub const FORM_ERR: Self = Self(ResponseCode::FormErr);
    pub const SERV_FAIL: Self = Self(ResponseCode::ServFail);
    pub const NOT_IMP: Self = Self(ResponseCode::NotImp);
    pub const REFUSED: Self = Self(ResponseCode::Refused);
    pub const BAD_VERS: Self = Self(ResponseCode::BADVERS);
}

impl Rcode {
    /// The four bits of the header.
    #[must_use]
    pub fn low(self) -> u8 {
        self.0.low()
    }

    /// The eight bits in an OPT record (RFC 6891 §6.1.3).
    #[must_use]
    pub fn high(self) -> u8 {
        self.0.high()
    }
}

/// The response code in a whole message's header, extended bits left out.
#[must_use]
pub fn rcode_of(message: &[u8]) -> ResponseCode {
    ResponseCode::from_low(message.get(3).copied().unwrap_or_default() & 0x0f)
}

/// An extended DNS error: a reason for people and programs (RFC 8914).
///
/// The text is short constant UTF-8: never an address, never a name from the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ede {
    /// INFO-CODE.
    pub code: u16,
    /// EXTRA-TEXT.
    pub text: &'static str,
}

#[expect(missing_docs, reason = "the names are RFC 8914's")]
impl Ede {
    // FORMERR has no code of its own: 0 is for reasons that only a text can give (RFC 8914 §4.1).
    pub const OTHER_QUESTION_COUNT: Self = Self { code: 0, text: "not one question" };
    pub const OTHER_OPT_PLACE: Self =
        Self { code: 0, text: "one OPT record, of the root, in the last section" };
    pub const OTHER_OPTION_LENGTH: Self = Self { code: 0, text: "an option reaches past its OPT record" };
    pub const OTHER_ENTANGLED: Self =
        Self { code: 0, text: "records behind the OPT record point to each other" };
    pub const OTHER_HARMFUL: Self =
        Self { code: 0, text: "the backend closes its connections upon this query" };
    pub const STALE: Self = Self { code: 3, text: "no backend answered in time" };
    pub const STALE_NXDOMAIN: Self = Self { code: 19, text: "no backend answered in time" };
    pub const BLOCKED_OPCODE: Self = Self { code: 18, text: "NOTIFY and UPDATE are not accepted here" };
    pub const NOT_SERVED: Self = Self { code: 18, text: "this client is not served here" };
    pub const OVER_RATE: Self = Self { code: 18, text: "more queries than this client's rate" };
    pub const OVER_TENANTS_RATE: Self =
        Self { code: 18, text: "more queries than the rate of this client's group" };
    pub const MISUSE: Self = Self { code: 18, text: "queries of this kind are not served here" };
    pub const NOT_SUPPORTED_TRANSFER: Self = Self { code: 21, text: "zone transfer is not relayed" };
    pub const NOT_SUPPORTED_VERSION: Self = Self { code: 21, text: "only EDNS version 0 is known" };
    pub const BACKEND_SILENT: Self = Self { code: 22, text: "no answer from the backend" };
    pub const BACKEND_UNREACHABLE: Self = Self { code: 23, text: "backend unreachable" };
    pub const BACKEND_NOT_SECURE: Self = Self { code: 23, text: "no TLS with the backend" };
    pub const BACKEND_BUSY: Self = Self { code: 23, text: "too many queries in flight" };
}

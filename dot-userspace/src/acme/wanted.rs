//! A proof as the authority wants to see it, in each of its forms.
//!
//! Before: `order` has a challenge. After: `http01` or `dns01` shows it. Never: holds a key.

/// One proof that the authority wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The name or address.
    pub name: String,
    /// The authority's token.
    pub token: String,
    /// The token with the print of the account's key.
    pub text: String,
    /// What a record has.
    pub record: String,
}

//! The hash of a name, label by label from the last one: that of a name continues that of the name above it.
//!
//! Before: a label, with its length octet. After: `names` and `index` have a position in a table for it.
//! Never: takes two equal hashes for equal names: labels are compared octet by octet.

/// The step of wyhash, a product of 128 bits folded, over eight octets at a time. The key is random: a client cannot
/// find names that are adjacent in a table.
pub(super) fn hash(key: u64, parent: u64, label: &[u8]) -> u64 {
    let mut hash = parent;
    let (whole, rest) = label.as_chunks::<8>();
    for chunk in whole {
        hash = fold(hash ^ u64::from_le_bytes(*chunk), key | 1);
    }
    if !rest.is_empty() {
        hash = fold(hash ^ few(rest), key | 1);
    }
    fold(hash, MULTIPLIER)
}

/// Whether two labels of one length are equal, without a call: they are short.
pub(super) fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let (whole, rest) = one.as_chunks::<8>();
    let (whole_other, rest_other) = other.as_chunks::<8>();
    let mut pairs = whole.iter().zip(whole_other);
    pairs.all(|(one, other)| u64::from_le_bytes(*one) == u64::from_le_bytes(*other))
        && few(rest) == few(rest_other)
}

/// None to seven octets as a number, in two reads that may overlap. Two labels of one length have different numbers, and the first octet
/// of a label is its length.
fn few(octets: &[u8]) -> u64 {
    if let (Some(front), Some(back)) = (octets.first_chunk::<4>(), octets.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*front)) | u64::from(u32::from_le_bytes(*back)) << 32;
    }
    octets.iter().fold(0, |number, octet| number << 8 | u64::from(*octet))
}

fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    (product >> 64) as u64 ^ product as u64
}

/// wyhash's first secret number.
const MULTIPLIER: u64 = 0xa076_1d64_78bd_642f;

//! Decodes numbers and runs of octets that another process wrote.
//!
//! Before: a process of another build, or an attacker in it, wrote octets. After: each number and run of them, or
//! `None`.
//! Holds: the octets that are not decoded yet.
//! Never: allocates by a length from the octets; reads past the end.

/// Octets that are decoded from their front. Numbers are big-endian.
#[derive(Clone, Copy, Debug)]
pub struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    /// All of these octets.
    #[must_use]
    pub fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    fn array<const COUNT: usize>(&mut self) -> Option<[u8; COUNT]> {
        let (array, rest) = self.0.split_first_chunk::<COUNT>()?;
        self.0 = rest;
        Some(*array)
    }

    /// One octet.
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[octet]| octet)
    }

    /// Two octets.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four octets.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight octets.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// This many octets.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A run as [`put_run`] writes it, of at most `octets_max` octets.
    pub fn run(&mut self, octets_max: usize) -> Option<&'a [u8]> {
        let count = usize::try_from(self.u32()?).ok().filter(|count| *count <= octets_max)?;
        self.take(count)
    }

    /// Whether all octets were decoded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Appends a run with its length in front.
pub fn put_run(out: &mut Vec<u8>, octets: &[u8]) {
    // No caller has 4 GiB; a reader would reject the result.
    out.extend_from_slice(&u32::try_from(octets.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(octets);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: written values are decoded again, and nothing is read past the end or beyond a limit. Method: one value
    /// of each kind, and every shorter prefix of their encoding.
    ///
    #[test]
    fn nothing_is_read_past_the_end() {
        let mut whole = vec![1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4];
        put_run(&mut whole, b"run");
        let read = |octets: &[u8], octets_max| {
            let mut octets = Octets::new(octets);
            let numbers = (octets.u8()?, octets.u16()?, octets.u32()?, octets.u64()?);
            Some((numbers, octets.run(octets_max)?.to_vec(), octets.is_empty()))
        };
        assert_eq!(read(&whole, 3), Some(((1, 2, 3, 4), b"run".to_vec(), true)));
        assert_eq!(read(&whole, 2), None);
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length], 3), None, "{length}");
        }
    }
}

//! Datagrams with a PROXY header in front: a batch of them, back to back in one buffer.
//!
//! Before: `send` has a batch for a backend that learns its clients. After: `mmsg` sends it.
//! Never: allocates once warm, or is used for other backends.

use crate::{backend::flights::Flight, proxy::header};

/// A batch.
#[derive(Default)]
pub struct ProxyBatch {
    octets: Vec<u8>,
    /// Where each datagram ends.
    ends: Vec<usize>,
}

impl ProxyBatch {
    /// Replaces the batch by these queries, each behind the header of its client.
    pub fn fill<'a>(&mut self, flights: impl Iterator<Item = &'a Flight>) {
        self.octets.clear();
        self.ends.clear();
        for flight in flights {
            header::write(flight.client().as_ref(), &mut self.octets);
            self.octets.extend_from_slice(&flight.query);
            self.ends.push(self.octets.len());
        }
    }

    /// The datagrams, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).filter_map(|(start, end)| self.octets.get(*start..*end))
    }
}

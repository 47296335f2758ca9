//! The places of one control listener, and the choice of the connection that gives way when all are taken.
//!
//! Before: a connection was accepted. After: it has a place at once. If necessary a connection that has asked nothing
//! yet, or nothing for the longest time, lost its place.
//! Holds: the limit of half of the places for one address, so that the connections of a greedy host replace each other.
//! Never: makes a connection wait until another one ends by itself.

use std::{
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The places of a listener.
pub(super) struct Places {
    taken: Mutex<Taken>,
    /// Connections that lost their places still exist for a moment.
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Taken {
    /// Counts events, by which places are compared.
    now: u64,
    holders: Vec<Holder>,
}

struct Holder {
    number: u64,
    peer: Option<IpAddr>,
    /// Whether the connection ever got an answer, and the time of that or of its beginning.
    is_answered: bool,
    since: u64,
    lost: oneshot::Sender<()>,
}

/// One place, until this is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    lost: oneshot::Receiver<()>,
    is_lost: bool,
    _room: Option<OwnedSemaphorePermit>,
}

impl Default for Places {
    fn default() -> Self {
        Self { taken: Mutex::default(), room: Arc::new(Semaphore::new(CONNECTIONS_MAX + LEAVING_MAX)) }
    }
}

impl Places {
    /// A place for a connection from `peer`.
    pub(super) async fn take(places: &Arc<Self>, peer: Option<IpAddr>) -> Place {
        let (lose, lost) = oneshot::channel();
        let number = {
            let mut taken = places.lock();
            taken.make_room(peer);
            taken.now += 1;
            let now = taken.now;
            taken.holders.push(Holder { number: now, peer, is_answered: false, since: now, lost: lose });
            now
        };
        // The semaphore is never closed, so there is always a permit.
        let room = places.room.clone().acquire_owned().await.ok();
        Place { places: Arc::clone(places), number, lost, is_lost: false, _room: room }
    }

    /// Places are consistent at any moment, also after a panic.
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// If all places are taken, makes one connection give way: one of the same peer, if that has its share.
    fn make_room(&mut self, peer: Option<IpAddr>) {
        let is_of_peer = |holder: &Holder| peer.is_some() && holder.peer == peer;
        let has_its_share = self.holders.iter().filter(|holder| is_of_peer(holder)).count() >= PEER_MAX;
        if self.holders.len() < CONNECTIONS_MAX && !has_its_share {
            return;
        }
        let candidates =
            self.holders.iter().enumerate().filter(|(_, holder)| !has_its_share || is_of_peer(holder));
        let first =
            candidates.min_by_key(|(_, holder)| (holder.is_answered, holder.since)).map(|(index, _)| index);
        if let Some(index) = first {
            // The task that dropped the other end is ending already.
            let _ = self.holders.swap_remove(index).lost.send(());
        }
    }
}

impl Place {
    /// The connection got an answer.
    pub(super) fn answered(&self) {
        let mut taken = self.places.lock();
        taken.now += 1;
        let now = taken.now;
        if let Some(holder) = taken.holders.iter_mut().find(|holder| holder.number == self.number) {
            (holder.is_answered, holder.since) = (true, now);
        }
    }

    /// Ready when another connection has taken this place.
    pub(super) fn poll_lost(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.is_lost = self.is_lost || Pin::new(&mut self.lost).poll(context).is_ready();
        if self.is_lost { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().holders.retain(|holder| holder.number != self.number);
    }
}

/// 64: one operator and a few monitors need less; each costs a file descriptor and about 20 KiB.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// The number of places for one address.
pub(super) const PEER_MAX: usize = CONNECTIONS_MAX / 2;
/// Connections that have lost their places and have not closed yet.
const LEAVING_MAX: usize = 8;

//! Gives the kernel the pages that became free when sessions freed the memory of their keys.
//!
//! Before: idle sessions have rested. After: the kernel has the pages of the C library's heap in which nothing is left.
//! Holds: the number of rests since the last time.
//! Never: costs a session more than an addition; does anything for a few sessions, or more than once in [`PAUSE`].
//!
//! aws-lc allocates with the C library's `malloc`, which gives back by itself only what is free at the end of a heap. Rust's
//! allocations are mimalloc's, which does this itself.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::{sync::Notify, time::sleep};

use super::WorkerShared;

/// So many rests free some 80 KiB: fewer are not worth the look.
const RESTS_MIN: u32 = 64;
/// Sessions that rest at about the same time are one look, which takes a millisecond or two for ten thousand of them.
const PAUSE: Duration = Duration::from_secs(2);

/// What sessions have freed.
#[derive(Default)]
pub(super) struct Freed {
    rests: Cell<u32>,
    bell: Notify,
}

impl Freed {
    /// A session rests.
    pub(super) fn note(&self) {
        let rests = self.rests.get().saturating_add(1);
        self.rests.set(rests);
        if rests == RESTS_MIN {
            self.bell.notify_one();
        }
    }

    /// Waits until enough sessions have rested, and for those that rest a little later.
    async fn enough(&self) {
        self.bell.notified().await;
        sleep(PAUSE).await;
        self.rests.set(0);
    }
}

impl WorkerShared {
    /// Gives free memory back whenever many sessions have rested. Runs until aborted.
    pub async fn give_back(self: Rc<Self>) {
        loop {
            self.freed.enough().await;
            trim();
        }
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: it takes the heap's own locks and changes no allocation; 0 is the space that may stay free at its end.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other C libraries have no such call; musl gives back by itself.
#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    /// Goal: a few rests cause no look, and many cause one, which begins the count anew. Method: polled by hand; whether the
    /// pause has begun, because a second poll of the bell finds nothing.
    #[test]
    fn many_rests_are_one_look() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let freed = Freed::default();
            (1..RESTS_MIN).for_each(|_| freed.note());
            let mut context = Context::from_waker(Waker::noop());
            assert!(pin!(freed.bell.notified()).poll(&mut context).is_pending(), "a few");
            (0..3 * RESTS_MIN).for_each(|_| freed.note());
            freed.enough().await;
            assert_eq!(freed.rests.get(), 0);
            assert!(pin!(freed.bell.notified()).poll(&mut context).is_pending(), "one look for all");
        });
    }

    /// Goal: memory that is in use stays what it is. Method: a trim while allocations are held.
    #[test]
    fn a_trim_changes_no_allocation() {
        let held: Vec<Vec<u8>> = (0..64_u8).map(|octet| vec![octet; 600]).collect();
        trim();
        assert!(held.iter().zip(0..).all(|(held, octet)| held.iter().all(|held| *held == octet)));
    }
}

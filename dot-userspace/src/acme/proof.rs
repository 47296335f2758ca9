//! The proof that a name is ours, in one of the ways of `acme.challenge`.
//!
//! Before: `order` knows what the authority wants to see. After: it can be seen; and then no more.
//! Never: outlives its order.

use super::{
    dns01::Shown,
    errand::Errand,
    folder::Folder,
    http01::{Door, Open},
    wanted::Wanted,
    words::Failure,
};
use crate::config::AcmeChallenge;

/// How an order's names are proved.
pub(super) enum Proof<'d> {
    /// By a port that listens.
    Http(Open<'d>),
    /// By records.
    Dns(Shown),
}

impl<'d> Proof<'d> {
    /// Begins.
    pub(super) fn begin(errand: &Errand, folder: &Folder, door: &'d Door) -> Result<Self, Failure> {
        match errand.acme.challenge {
            AcmeChallenge::Http => Ok(Self::Http(door.open()?)),
            AcmeChallenge::Dns => Ok(Self::Dns(Shown::by(errand, folder)?)),
        }
    }

    /// Returns when the authority can see them all.
    pub(super) async fn present(&mut self, wanted: &[Wanted]) -> Result<(), Failure> {
        match self {
            Self::Http(open) => {
                wanted.iter().for_each(|one| open.answer(&one.token, &one.text));
                Ok(())
            }
            Self::Dns(shown) => shown.present(wanted).await,
        }
    }

    /// Takes them away.
    pub(super) async fn withdraw(&mut self) {
        match self {
            // The port closes when this is dropped.
            Self::Http(_) => {}
            Self::Dns(shown) => shown.withdraw().await,
        }
    }
}

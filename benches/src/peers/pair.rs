//! Two namespaces: in one NSD and one front end at a time, in the other one their clients.
//!
//! Before: a measurement has the cores. After: it has each front end in turn, which runs in the server's namespace.
//! Holds: the namespaces, and the stage between two front ends.
//! Never: lets two front ends run at once; the namespaces go with their threads, in any case.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use dot_tests::harness::netns::{Network, SERVER_V4};

use super::{
    catalog::{Backend, Entry},
    machine::Cores,
    process::Keeper,
    stage::{Peer, Programs, Stage},
};

/// The namespaces with the stage.
pub(crate) struct Pair {
    /// Lent to the server's thread and given back by it: programs live in the namespace of the thread that starts them.
    stage: Option<Stage>,
    folder: PathBuf,
    network: Network,
}

impl Pair {
    /// Makes both, and starts NSD in the server's, at a port of its own or at `nsd_port`.
    ///
    /// # Errors
    /// No namespaces, or no backend.
    pub(crate) fn build(
        programs: &Programs,
        nsd_port: Option<u16>,
        cores: Cores,
        keeper: &Keeper,
    ) -> Result<Self> {
        let network = Network::new();
        let IpAddr::V4(address) = SERVER_V4 else { bail!("the pair has no IPv4 address") };
        let (programs, keeper) = (programs.clone(), keeper.clone());
        let stage = network.server.run(move || match nsd_port {
            None => Stage::build(&programs, &[Backend::Nsd], address, cores, &keeper),
            Some(port) => {
                let mut stage = Stage::build(&programs, &[], address, cores, &keeper)?;
                stage.add_backend(Backend::Nsd, port)?;
                Ok(stage)
            }
        })?;
        Ok(Self { folder: stage.folder().to_path_buf(), stage: Some(stage), network })
    }

    /// The namespaces.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// The folder of all that is written.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a front end, measures it, and ends it.
    ///
    /// # Errors
    /// It does not start, or those of `measure`.
    pub(crate) fn with<T>(
        &mut self,
        entry: &'static Entry,
        measure: impl FnOnce(&Network, &Stage, &Peer) -> Result<T>,
    ) -> Result<T> {
        let lent = self.stage.take().context("the stage is lent to one at a time")?;
        let (lent, peer) = self.network.server.run(move || {
            let peer = lent.start(entry, Backend::Nsd, &[lent.cores().front], &[]);
            (lent, peer)
        });
        let measured = peer.and_then(|peer| measure(&self.network, &lent, &peer));
        self.stage = Some(lent);
        measured
    }
}

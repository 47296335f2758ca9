//! Makes every worker end the sessions of a client that an operator banned.
//!
//! Before: XDP drops the client's packets. After: `control` waits for the workers' numbers.
//! Never: waits; ends a session of a client on `xdp.allow`, to which no ban applies.

use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::mpsc;

use super::process::Process;
use crate::{control::Banning, xdp::BanRow};

impl Process {
    /// Asks the workers to end the sessions of the client.
    pub(super) fn end_sessions(&self, ban: BanRow) -> Banning {
        let lines = self.engine().map(|engine| engine.workers.as_slice()).unwrap_or_default();
        let (tell, ended) = mpsc::channel(lines.len().max(1));
        // Always a prefix, because the row was made from one.
        let Ok(banned) = ban.prefix.parse::<IpNet>() else { return Banning { ban, ended, workers: 0 } };
        let allowed: Arc<[IpNet]> = self.config().xdp.allow.as_slice().into();
        for line in lines {
            let (tell, allowed) = (tell.clone(), Arc::clone(&allowed));
            line.look(Box::new(move |shared| {
                // The operator may have closed the connection.
                let _ = tell.try_send(shared.ban(banned, &allowed));
            }));
        }
        Banning { ban, ended, workers: lines.len() }
    }
}

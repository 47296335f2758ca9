//! Acts on single clients: bans them, lifts bans, charges them for their costs.
//!
//! Before: an operator or a worker names the client. After: `bans` and `costs` wrote their maps, and SETTINGS says that
//! there are entries, or that DNS over TLS is switched off.
//! Never: decides which costs are too high; leaves SETTINGS out of date.

use std::time::Duration;

use super::{BanRow, Charges, Loaded, Xdp, XdpError, kernel::Kernel};
use crate::config;

impl Xdp {
    /// Sets whether XDP drops each SYN for DNS over TLS, because DNS over TLS is switched off.
    ///
    /// # Errors
    /// [`XdpError::Settings`]
    pub fn set_dot_off(&mut self, is_off: bool) -> Result<(), XdpError> {
        self.kernel.as_mut().map_or(Ok(()), |loaded| loaded.kernel.settings.set_dot_off(is_off))
    }

    /// Makes bans again that applied before a restart, each for its time that is left; returns how many.
    ///
    /// # Errors
    /// XDP is off and could not enforce them, or SETTINGS cannot be written.
    pub fn restore_bans(&mut self, bans: &[BanRow]) -> Result<usize, XdpError> {
        let kernel = self.loaded()?;
        let made = bans.iter().filter(|ban| kernel.bans.restore(ban)).count();
        kernel.tell_of_clients()?;
        Ok(made)
    }

    /// Every ban, sorted by its end.
    #[must_use]
    pub fn bans(&self) -> Vec<BanRow> {
        self.kernel.as_ref().map(|loaded| loaded.kernel.bans.rows()).unwrap_or_default()
    }

    /// Bans a client that an operator names by an address, or by a prefix of the length that limits use.
    ///
    /// # Errors
    /// [`XdpError::Ban`]: the request is wrong, or XDP is off and could not enforce the ban.
    pub fn ban(&mut self, client: &str, length: Duration, reason: &str) -> Result<BanRow, XdpError> {
        let kernel = self.loaded()?;
        let row = kernel.bans.add(client, length, reason)?;
        kernel.tell_of_clients()?;
        Ok(row)
    }

    /// Lifts a ban, whether the engine or an operator made it.
    ///
    /// # Errors
    /// [`XdpError::Ban`]: there is no such ban.
    pub fn unban(&mut self, client: &str) -> Result<BanRow, XdpError> {
        let kernel = self.loaded()?;
        let row = kernel.bans.remove(client)?;
        kernel.tell_of_clients()?;
        Ok(row)
    }

    /// Removes expired entries; must be called from time to time.
    pub fn sweep(&mut self) {
        let Some(Loaded { kernel, .. }) = &mut self.kernel else { return };
        kernel.bans.sweep();
        kernel.costs.sweep();
        if let Err(error) = kernel.tell_of_clients() {
            tracing::error!("{error}");
        }
    }

    /// Charges clients for the costs that workers report: a client whose budget is spent is refused, and one with
    /// repeated offences is banned.
    pub fn charge(&mut self, charges: &Charges) {
        let prefixes = self.prefixes;
        let Some(Loaded { kernel, .. }) = &mut self.kernel else { return };
        for (host, charge) in charges {
            let levels = prefixes.levels(host.address());
            if let Some(offence) = kernel.costs.charge(levels, charge)
                && !kernel.lists.allow(host.address())
            {
                kernel.bans.add_for(offence.network, offence.length, offence.cause);
            }
        }
        if let Err(error) = kernel.tell_of_clients() {
            tracing::error!("{error}");
        }
    }

    /// Whether [`Xdp::charge`] would have any effect.
    #[must_use]
    pub fn wants_charges(&self, config: &config::Xdp) -> bool {
        let limit = &config.limit;
        self.kernel.is_some()
            && [
                limit.handshake_cost_per_second,
                limit.ban_seconds,
                limit.syn_per_second,
                limit.wide_connections_per_second,
                limit.wide_cost_per_second,
            ]
            .iter()
            .any(|key| *key != 0)
    }

    fn loaded(&mut self) -> Result<&mut Kernel, XdpError> {
        let reason = self.report.reason.as_deref().unwrap_or("no reason given");
        let reason = format!("XDP is off ({reason}): nothing would hold a ban");
        self.kernel.as_mut().map(|loaded| &mut loaded.kernel).ok_or(XdpError::Ban { reason })
    }
}

impl Kernel {
    /// Tells the kernel half which IP versions have bans and spent budgets.
    pub(super) fn tell_of_clients(&mut self) -> Result<(), XdpError> {
        let has_changed = self.bans.has_changed || self.lists.has_changed;
        self.settings.set_clients(self.bans.versions(), self.costs.versions(), has_changed)?;
        (self.bans.has_changed, self.lists.has_changed) = (false, false);
        Ok(())
    }
}

//! Ends the sessions of a client that an operator bans.
//!
//! Before: XDP drops the client's packets. After: its sessions on this worker end with a reset, because no answer
//! could reach the client any more; the operator learns how many sessions ended.
//! Holds: nothing. Never: decides which clients are banned.

use ipnet::IpNet;

use super::WorkerShared;

impl WorkerShared {
    /// Ends the sessions of clients in `banned`, except those in `allowed`. Returns their number.
    #[must_use]
    pub fn ban(&self, banned: IpNet, allowed: &[IpNet]) -> usize {
        let sessions = self.sessions.borrow();
        let is_meant = |client| banned.contains(&client) && !allowed.iter().any(|net| net.contains(&client));
        let of_client = sessions.values().filter(|inbox| is_meant(inbox.client.source.ip().to_canonical()));
        of_client.filter(|inbox| inbox.standing.ban()).inspect(|inbox| inbox.wake()).count()
    }
}

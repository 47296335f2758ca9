//! The state of the kernel half, in words for `status`, `xdp show` and `/metrics`.
//!
//! Before: `attach` and `steering` know their results. After: JSON, text and labels. Never: holds a count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Look, XdpError};

/// State of the kernel half.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// "native", "generic", "mixed" (both), "tc" (neither, but tc ingress), or "off".
    pub state: String,
    /// The reason why it is off.
    pub reason: Option<String>,
    /// Differences from the config, for each interface; empty while all is well.
    #[serde(default)]
    pub degraded: Option<String>,
    /// Whether the config requires XDP: then `/health` fails while it is degraded.
    #[serde(default)]
    pub required: bool,
    /// The number of restored attachments.
    #[serde(default)]
    pub repairs: u64,
    /// Each interface.
    pub interfaces: Vec<InterfaceReport>,
    /// The interfaces through which packets to a listen address come, by the way they are judged.
    #[serde(default)]
    pub paths: Paths,
    /// "reuseport-ebpf", "reuseport-cbpf", "incoming-cpu", or "kernel-hash"; with "cpumap, " in front where packets
    /// move too.
    pub steering: String,
    /// The reason why it is not the first of these.
    pub steering_reason: Option<String>,
    /// Each loaded program.
    pub programs: Vec<ProgramReport>,
    /// The numbers of bans now and so far.
    pub bans: BanCounts,
    /// Spent handshake budgets.
    pub costs: CostCounts,
    /// SYN cookies from XDP: "off", "auto" or "always"; "proxy": at tc ingress.
    #[serde(default)]
    pub syn_cookies: String,
    /// The reason why they are off, or the condition under which they are made.
    #[serde(default)]
    pub syn_cookies_reason: Option<String>,
    /// The treatment of SYNs above their client's rate: "cookie" or "drop".
    #[serde(default)]
    pub syn_over: String,
    /// The reason why that differs from the config.
    #[serde(default)]
    pub syn_over_reason: Option<String>,
    /// Notices of refused clients.
    #[serde(default)]
    pub notices: NoticeCounts,
    /// SYNs that the proxy answered at tc ingress.
    #[serde(default)]
    pub proxied: ProxyCounts,
    /// Each worker, as the kernel half sees it.
    #[serde(default)]
    pub workers: Vec<WorkerReport>,
}

/// A worker's report to the kernel half.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Connections open.
    pub open: u32,
    /// Its share of the connections; beyond it, new ones go to the worker with the fewest.
    pub share: u32,
    /// Handshakes that wait for their turn.
    pub backlog: u32,
    /// Whether it takes connections.
    pub accepting: bool,
}

/// The numbers of interfaces through which a listen address can be reached, by what judges there; without loopback
/// unless the config names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// Judged by XDP.
    pub xdp: usize,
    /// Judged by the same code at tc ingress.
    pub tc: usize,
    /// Not judged.
    pub not_covered: usize,
}

/// XDP on one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// The interface.
    pub name: String,
    /// "native", "generic", "tc" (judged at tc ingress), or "off".
    pub mode: String,
    /// The reason why it is not native, or empty.
    pub reason: Option<String>,
    /// How the learner sees dotd's own SYN-ACKs: "tcx", "clsact", or "off" (the gates then let all streams pass).
    pub learner: String,
    /// Whether this is less than the config asks for.
    #[serde(default)]
    pub degraded: bool,
}

/// One loaded program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramReport {
    /// Its name in the object.
    pub name: String,
    /// The kernel's number for it.
    pub id: u32,
    /// The number of instructions that the verifier checked.
    pub verified_instructions: u32,
    /// Size after translation.
    pub translated_octets: u32,
}

/// The numbers of bans since this process started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanCounts {
    /// Bans now.
    pub current: usize,
    /// Bans made so far, by cause.
    pub made: BTreeMap<String, u64>,
    /// Bans that were lifted early because the map was full.
    pub displaced: u64,
}

/// The numbers of handshake budgets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostCounts {
    /// Clients that are refused now.
    pub spent: usize,
    /// How often a client's budget was spent, since this process started.
    pub spent_total: u64,
}

/// Notices of refused clients since this process started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeCounts {
    /// Sent by the kernel half: one for each client, reason and minute.
    pub sent: u64,
    /// Not sent, because there were too many for one reason.
    pub held_back: u64,
    /// Not sent, because the ring was full.
    pub lost: u64,
}

/// The SYN proxy at tc ingress, since this process started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyCounts {
    /// SYNs answered with a cookie.
    pub answered: u64,
    /// Connections that began with the answer to one.
    pub completed: u64,
    /// Such answers that were dropped, because their client may begin no connection now.
    #[serde(default)]
    pub refused: u64,
}

/// One ban.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanRow {
    /// The client prefix with its length.
    pub prefix: String,
    /// "operator", or the offence for which the engine made it.
    pub cause: String,
    /// The operator's reason.
    pub reason: String,
    /// The number of packets that met it.
    pub hits: u64,
    /// The seconds until it ends, rounded up.
    pub seconds_left: u64,
}

impl Report {
    /// Adds to the steering whether packets move between CPUs too, or why not.
    pub(super) fn spread(&mut self, state: Option<Result<(), String>>) {
        match state {
            Some(Ok(())) => self.steering = format!("cpumap, {}", self.steering),
            Some(Err(why)) => {
                let others = self.steering_reason.iter().map(|reason| format!("; {reason}"));
                self.steering_reason = Some(format!("cpumap: {why}{}", others.collect::<String>()));
            }
            None => {}
        }
    }

    /// Sets state, reason and the degraded parts from the interfaces; `unserved` are listen addresses that no interface
    /// carries.
    pub(super) fn summarize(&mut self, Look { interfaces, unserved, repairs }: Look, unknown: Option<&str>) {
        self.interfaces = interfaces;
        self.repairs += repairs;
        let has = |mode: &str| self.interfaces.iter().any(|interface| interface.mode == mode);
        self.state = match (has("native"), has("generic")) {
            (true, true) => "mixed",
            (true, false) => "native",
            (false, true) => "generic",
            (false, false) if has("tc") => "tc",
            (false, false) => "off",
        }
        .into();
        self.paths = Paths::of(&self.interfaces);
        let degraded = self.interfaces.iter().filter(|row| row.degraded).map(because);
        let unserved = unserved.iter().map(|address| format!("no interface carries {address}"));
        let degraded: Vec<_> = degraded.chain(unserved).chain(unknown.map(str::to_owned)).collect();
        self.degraded = (!degraded.is_empty()).then(|| degraded.join("; "));
        self.reason = (self.state == "off")
            .then(|| XdpError::Nowhere { reasons: reasons(&self.interfaces) }.to_string());
    }
}

impl Paths {
    fn of(rows: &[InterfaceReport]) -> Self {
        let count = |modes: &[&str]| rows.iter().filter(|row| modes.contains(&row.mode.as_str())).count();
        let not_covered = rows.iter().filter(|row| row.mode == "off" && (row.degraded || row.name != "lo"));
        Self { xdp: count(&["native", "generic"]), tc: count(&["tc"]), not_covered: not_covered.count() }
    }

    /// The report in one line.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { xdp, tc, not_covered } = self;
        format!("{xdp} covered by XDP, {tc} by tc ingress, {not_covered} not covered")
    }
}

/// The reason why XDP is on none of these.
pub(super) fn reasons(rows: &[InterfaceReport]) -> String {
    let rows: Vec<_> = rows.iter().map(because).collect();
    if rows.is_empty() { "none carries a listen address".into() } else { rows.join("; ") }
}

fn because(row: &InterfaceReport) -> String {
    format!("{}: {}", row.name, row.reason.as_deref().unwrap_or("no reason given"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the steering says that packets move, or why they do not, and still how connections find workers.
    #[test]
    fn steering_says_whether_packets_move() {
        let report = || Report {
            steering: "kernel-hash".into(),
            steering_reason: Some("one worker".into()),
            ..Report::default()
        };
        let spread = |state| {
            let mut report = report();
            report.spread(state);
            (report.steering, report.steering_reason.unwrap_or_default())
        };
        let same = ("kernel-hash".to_owned(), "one worker".to_owned());
        assert_eq!(spread(None), same);
        assert_eq!(spread(Some(Ok(()))), ("cpumap, kernel-hash".to_owned(), same.1.clone()));
        let declined = spread(Some(Err("no queue".to_owned())));
        assert_eq!(declined, (same.0, "cpumap: no queue; one worker".to_owned()));
    }
}

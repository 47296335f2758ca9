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
    /// Why it is off.
    pub reason: Option<String>,
    /// Differences from the config, for each interface; empty while all is well.
    #[serde(default)]
    pub degraded: Option<String>,
    /// The config demands XDP: `/health` fails while it is degraded.
    #[serde(default)]
    pub required: bool,
    /// How often a lost attachment was restored.
    #[serde(default)]
    pub repairs: u64,
    /// Each interface.
    pub interfaces: Vec<InterfaceReport>,
    /// By which way a packet that comes to a listen address is judged, in interfaces.
    #[serde(default)]
    pub paths: Paths,
    /// "reuseport-ebpf", "reuseport-cbpf", "incoming-cpu", or "kernel-hash"; behind "cpumap, " where packets move too.
    pub steering: String,
    /// Why not the first of these.
    pub steering_reason: Option<String>,
    /// Each loaded program.
    pub programs: Vec<ProgramReport>,
    /// How many bans there are, and how many there were.
    pub bans: BanCounts,
    /// Handshake budgets that are spent.
    pub costs: CostCounts,
    /// SYN cookies from XDP: "off", "auto" or "always".
    #[serde(default)]
    pub syn_cookies: String,
    /// Why they are off, or when they are made.
    #[serde(default)]
    pub syn_cookies_reason: Option<String>,
    /// SYNs over their client's rate: "cookie" or "drop".
    #[serde(default)]
    pub syn_over: String,
    /// Why that differs from the config.
    #[serde(default)]
    pub syn_over_reason: Option<String>,
    /// Notices of refused clients.
    #[serde(default)]
    pub notices: NoticeCounts,
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

/// Interfaces through which a listen address can be reached, but for loopback where nobody asked for it: by what judges there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// XDP.
    pub xdp: usize,
    /// The same judge at tc ingress.
    pub tc: usize,
    /// Nothing.
    pub not_covered: usize,
}

/// XDP on one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// The interface.
    pub name: String,
    /// "native", "generic", "tc" (judged at tc ingress), or "off".
    pub mode: String,
    /// Why not native, or nothing.
    pub reason: Option<String>,
    /// How our own SYN-ACKs are seen: "tcx", "clsact", or "off" (the gates then let all streams pass).
    pub learner: String,
    /// Less than the config wants.
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
    /// Instructions that the verifier looked at.
    pub verified_instructions: u32,
    /// Size after translation.
    pub translated_octets: u32,
}

/// Bans in numbers, since this process began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanCounts {
    /// Now.
    pub current: usize,
    /// Made, by cause.
    pub made: BTreeMap<String, u64>,
    /// Lifted before their time because all room was taken.
    pub displaced: u64,
}

/// Handshake budgets in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostCounts {
    /// Clients that are refused now.
    pub spent: usize,
    /// How often a client began to be, since this process began.
    pub spent_total: u64,
}

/// Notices of refused clients, since this process began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeCounts {
    /// Sent by the kernel half: one a client, reason and minute.
    pub sent: u64,
    /// Not sent, because there were too many of one reason.
    pub held_back: u64,
    /// Not sent, because the ring was full.
    pub lost: u64,
}

/// One ban.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanRow {
    /// The client prefix with its length.
    pub prefix: String,
    /// "operator", or what the engine caught it at.
    pub cause: String,
    /// An operator's words.
    pub reason: String,
    /// Packets that met it.
    pub hits: u64,
    /// Until it ends, rounded up.
    pub seconds_left: u64,
}

impl Report {
    /// Says of the steering whether packets move between CPUs too, or why not.
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

    /// Sets state, reason and what is degraded from the interfaces; `unserved` are listen addresses that no
    /// interface carries.
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

    /// In a line.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { xdp, tc, not_covered } = self;
        format!("{xdp} covered by XDP, {tc} by tc ingress, {not_covered} not covered")
    }
}

/// Why XDP is on none of these.
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

    /// Goal: the steering says that packets move, or why they do not, beside what it said of connections.
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

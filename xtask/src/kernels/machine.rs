//! The machine: QEMU boots a kernel with an archive, and the guest's output is read.
//!
//! Before: an image and an archive. After: every test's end, and the verifier's cost of each program.
//! Never: waits longer than [`TIME_MAX`]; leaves a machine behind.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::cards;
use crate::setup;

/// A boot takes 8 s and the tests some minutes, without virtualisation and on an idle machine; all tests took 760 s beside other work.
const TIME_MAX: Duration = Duration::from_secs(2_400);

/// How a test begins a line about a card.
const DRIVERS: &[&str] = &["virtio_net:", "e1000e:", "vmxnet3:"];

/// The guest's results.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The kernel's own version string.
    kernel: String,
    /// `dotd_xdp: 34087 verified instructions, …`
    pub(super) programs: Vec<String>,
    /// Test programs that ended, with their exit status.
    ended: Vec<(String, String)>,
    passed: u32,
    /// What tests say of cards.
    pub(super) cards: Vec<String>,
    /// Tests that failed, modules that are missing, panics.
    complaints: Vec<String>,
    /// The test that began last.
    test: String,
    is_done: bool,
}

/// Boots, with cards or without a network, and reads the output until the machine is off.
pub(super) fn boot(image: &Path, initramfs: &Path, has_cards: bool, is_verbose: bool) -> Result<Said> {
    let mut qemu = if has_cards { cards::qemu(setup::is_root()) } else { Command::new("qemu-system-x86_64") };
    // No hardware virtualisation: it works everywhere. Two CPUs: some tests race two of them.
    qemu.args(["-accel", "tcg", "-machine", "q35", "-cpu", "max", "-smp", "2", "-m", "1024"]);
    qemu.args(["-nographic", "-no-reboot"]);
    // The kernel hands a word with "=" that it does not know to its first process, as a variable.
    let cards = if has_cards { " DOTD_CARDS=1" } else { "" };
    qemu.arg("-append").arg(format!("console=ttyS0 panic=-1 quiet{cards}"));
    if has_cards {
        qemu.args(cards::arguments());
    } else {
        qemu.args(["-net", "none"]);
    }
    qemu.arg("-kernel").arg(image).arg("-initrd").arg(initramfs);
    let mut said = Said::default();
    let last = listen(qemu, TIME_MAX, is_verbose, |line| said.hear(line))?;
    if !said.is_done || !said.complaints.is_empty() {
        println!("{last}");
    }
    Ok(said)
}

/// Starts a machine, passes on every line of its output, and returns the last ones when it is off.
///
/// # Errors
/// QEMU did not start, or there was no end within `time_max`.
pub(crate) fn listen(
    mut qemu: Command,
    time_max: Duration,
    is_verbose: bool,
    mut hear: impl FnMut(&str),
) -> Result<String> {
    qemu.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut machine = Machine(qemu.spawn().context("cannot start qemu-system-x86_64")?);
    let output = machine.0.stdout.take().context("its output was asked for")?;
    let (tell, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(std::io::Result::ok) {
            if tell.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    let until = Instant::now() + time_max;
    let mut last = Vec::new();
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if is_verbose {
                    println!("  | {line}");
                }
                hear(&line);
                last.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(tail(&last)),
            Err(RecvTimeoutError::Timeout) => {
                bail!("no end after {time_max:?}; its last words:\n{}", tail(&last))
            }
        }
    }
}

fn tail(lines: &[String]) -> String {
    lines.iter().skip(lines.len().saturating_sub(60)).map(|line| format!("  | {line}\n")).collect()
}

/// A running QEMU, which is ended with this value.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Said {
    fn hear(&mut self, line: &str) {
        // The kernel's messages may precede the tests' in the same line.
        let from = line.find("DOTD ").unwrap_or(0);
        let words: Vec<&str> = line[from..].split_whitespace().collect();
        match words.as_slice() {
            ["DOTD", "kernel", release] => (*release).clone_into(&mut self.kernel),
            ["DOTD", "ended", test, status] => self.ended.push(((*test).to_owned(), (*status).to_owned())),
            ["DOTD", "done"] => self.is_done = true,
            ["DOTD", "no-module", module] => self.complaints.push(format!("no module {module}")),
            ["test", name, "...", .., "FAILED"] => self.complaints.push(format!("{name} failed")),
            // Without capture a test's own lines come between its name and its end.
            ["FAILED"] => self.complaints.push(format!("{} failed", self.test)),
            [.., "ok"] if words.len() == 1 || words[0] == "test" => self.passed += 1,
            ["test", name, "...", ..] => (*name).clone_into(&mut self.test),
            ["SKIPPED", test, ..] if test.starts_with("xdp_cards") => {
                self.complaints.push(format!("{test} was skipped"));
            }
            [driver, ..] if DRIVERS.contains(driver) && !self.cards.iter().any(|known| known == line) => {
                self.cards.push(line.to_owned());
            }
            _ if line.contains("Kernel panic") => self.complaints.push(line.to_owned()),
            _ if line.contains(" verified instructions, ") => {
                let from = words.iter().rposition(|word| word.ends_with(':')).unwrap_or(0);
                self.programs.push(words[from..].join(" "));
            }
            _ => {}
        }
    }

    /// The results in one line.
    pub(super) fn summary(&self) -> String {
        format!("Linux {}, {} tests passed, {} complaints", self.kernel, self.passed, self.complaints.len())
    }

    /// The failures; `tests` are the programs that must have succeeded.
    pub(super) fn failures(&self, tests: &[&str]) -> Vec<String> {
        let ended_well =
            |test: &&&str| self.ended.iter().any(|(name, status)| name == **test && status == "0");
        let mut failures = self.complaints.clone();
        failures
            .extend(tests.iter().filter(|test| !ended_well(test)).map(|test| format!("{test} did not pass")));
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::Said;

    /// Goal: a guest that died, a test that failed and one that never ran are failures. Method: the output of a guest.
    #[test]
    fn a_guest_is_understood() {
        let mut said = Said::default();
        for line in [
            "[    3.1] veth: loading",
            "[    3.2] random: DOTD kernel 6.1.0-56-cloud-amd64",
            "test programs_load_within_budget ... object: 97000 octets",
            "dotd_xdp: 34087 verified instructions, 25752 octets",
            "ok",
            "test object_holds_the_maps ... ok",
            "e1000e: generic, learner tcx, native: not supported",
            "DOTD ended xdp_object 0",
        ] {
            said.hear(line);
        }
        assert_eq!((said.kernel.as_str(), said.passed, said.programs.len()), ("6.1.0-56-cloud-amd64", 2, 1));
        assert_eq!(said.programs[0], "dotd_xdp: 34087 verified instructions, 25752 octets");
        assert_eq!(said.cards, ["e1000e: generic, learner tcx, native: not supported"]);
        assert!(said.failures(&["xdp_object"]).is_empty());
        assert_eq!(said.failures(&["xdp_object", "xdp_attach"]), ["xdp_attach did not pass"]);
        said.hear("test jumbo ... FAILED");
        said.hear("test loud ... open: No such file or directory");
        said.hear("FAILED");
        said.hear("DOTD ended xdp_attach 101");
        let failures = ["jumbo failed", "loud failed", "xdp_attach did not pass"];
        assert_eq!(said.failures(&["xdp_attach"]), failures);
    }
}

//! Counts what a test runner prints: passed, failed, skipped with their reasons.
//!
//! Before: lines of `cargo test -- --show-output`. After: the closing lines of `cargo xtask test`.
//! Never: counts a skipped test as passed.

use std::{collections::BTreeSet, fmt::Write};

/// The results so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    passed: usize,
    failed: usize,
    ignored: usize,
    skipped: BTreeSet<String>,
    failures: BTreeSet<String>,
    is_inside_successes: bool,
    /// Tests that runners started, by their own count.
    begun: usize,
    /// How long each test took, in milliseconds.
    times: Vec<(u64, String)>,
}

/// The number of slowest tests in the summary.
const SLOWEST: usize = 10;

impl Tally {
    /// Takes a line; false when it is only the output of a test that passed.
    pub(super) fn line(&mut self, line: &str) -> bool {
        self.skipped_line(line);
        let text = line.trim_end();
        if let Some(counts) = text.strip_prefix("test result: ") {
            self.is_inside_successes = false;
            self.counts(counts);
            return true;
        }
        if let Some(begun) = text.strip_prefix("running ").and_then(|rest| rest.split_once(" test")) {
            self.begun += begun.0.parse().unwrap_or(0);
        }
        match text {
            "successes:" => self.is_inside_successes = true,
            "failures:" => self.is_inside_successes = false,
            _ => {}
        }
        self.named_end(text);
        !self.is_inside_successes
    }

    /// Notes `SKIPPED <name>: <why>`, wherever in the line it stands; the same line twice counts once.
    pub(super) fn skipped_line(&mut self, line: &str) {
        const MARK: &str = "SKIPPED ";
        let Some(at) = line.find(MARK) else { return };
        let told = line[at + MARK.len()..].trim();
        let is_name = told.split_once(": ").is_some_and(|(name, _)| !name.is_empty() && !name.contains(' '));
        if is_name {
            self.skipped.insert(told.to_owned());
        }
    }

    /// `test a::b ... FAILED` and `test a::b ... ignored, why`.
    fn named_end(&mut self, line: &str) {
        let Some((name, end)) = line.strip_prefix("test ").and_then(|test| test.split_once(" ... ")) else {
            return;
        };
        let (end, milliseconds) = timed(end);
        if let Some(milliseconds) = milliseconds {
            self.times.push((milliseconds, name.to_owned()));
        }
        if end.ends_with("FAILED") {
            self.failures.insert(name.to_owned());
        } else if let Some(why) = end.strip_prefix("ignored") {
            let why = why.trim_start_matches(", ");
            self.skipped.insert(format!("{name}: {}", if why.is_empty() { "marked #[ignore]" } else { why }));
        }
    }

    /// `ok. 9 passed; 0 failed; 1 ignored; 0 measured; …`.
    fn counts(&mut self, counts: &str) {
        for part in counts.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) =
                (words.next().and_then(|word| word.parse::<usize>().ok()), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// Tests that runners started.
    pub(super) fn begun(&self) -> usize {
        self.begun
    }

    /// Tests that failed.
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    /// No test was executed: skipped ones and ignored ones do not count.
    pub(super) fn is_empty(&self) -> bool {
        self.really_passed() + self.failed == 0
    }

    /// A test that skips itself returns, and the runner counts it as passed; it counts ignored tests separately.
    fn really_passed(&self) -> usize {
        (self.passed + self.ignored).saturating_sub(self.skipped.len())
    }

    /// The closing lines: skipped, failed, and the numbers.
    pub(super) fn summary(&self) -> String {
        let mut text = String::from("\n");
        // Writing to a String cannot fail.
        for skipped in &self.skipped {
            let _ = writeln!(text, "SKIPPED {skipped}");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "FAILED {failure}");
        }
        if self.times.len() > 1 {
            let mut times = self.times.clone();
            times.sort_unstable_by(|one, other| other.cmp(one));
            for (milliseconds, name) in times.iter().take(SLOWEST) {
                let _ = writeln!(text, "{:>8} ms  {name}", milliseconds);
            }
        }
        let (passed, skipped) = (self.really_passed(), self.skipped.len());
        let _ = writeln!(text, "{passed} passed, {} failed, {skipped} skipped", self.failed);
        text
    }
}

/// `ok <1.234s>`: the result of a test, and its milliseconds.
fn timed(end: &str) -> (&str, Option<u64>) {
    let parts = end.rsplit_once(" <").and_then(|(end, time)| Some((end, time.strip_suffix("s>")?)));
    let Some((before, (seconds, thousandths))) =
        parts.and_then(|(end, time)| Some((end, time.split_once('.')?)))
    else {
        return (end, None);
    };
    match (seconds.parse::<u64>(), thousandths.parse::<u64>()) {
        (Ok(seconds), Ok(thousandths)) => (before, Some(seconds * 1000 + thousandths)),
        _ => (end, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 5 tests
test a::passes ... ok
test a::skips ... SKIPPED a::skips: needs root
ok
test a::waits ... ignored, takes an hour
test a::breaks ... FAILED
test a::also ... ok

successes:

---- a::passes stdout ----
chatter
SKIPPED a::also: no kdig

successes:
    a::passes

failures:

---- a::breaks stdout ----
thread panicked

test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    fn tally(output: &str) -> (Tally, String) {
        let mut tally = Tally::default();
        let shown = output.lines().filter(|line| tally.line(line)).collect::<Vec<_>>().join("\n");
        (tally, shown)
    }

    /// Goal: skipped tests do not count as passed, in either form of report. Method: a runner's output with both ways,
    /// and the file's line again, which must not count twice.
    #[test]
    fn counts_skipped_apart() {
        let (mut tally, _) = tally(OUTPUT);
        tally.skipped_line("SKIPPED a::skips: needs root");
        let summary = tally.summary();
        assert!(summary.ends_with("\n1 passed, 1 failed, 3 skipped\n"), "{summary}");
        for line in ["SKIPPED a::waits: takes an hour", "SKIPPED a::also: no kdig", "FAILED a::breaks"] {
            assert!(summary.contains(line), "{summary}");
        }
        assert!(!tally.is_empty());
    }

    /// Goal: output of tests that passed is hidden, that of failures is not.
    #[test]
    fn hides_output_of_passed_tests() {
        let (_, shown) = tally(OUTPUT);
        assert!(!shown.contains("chatter") && shown.contains("thread panicked"), "{shown}");
        assert!(shown.contains("test result:"), "{shown}");
    }

    /// Goal: a run in which every test skipped itself is no success. Method: one test, skipped.
    #[test]
    fn nothing_but_skipped_is_empty() {
        let (only_skipped, _) = tally("SKIPPED a: no root\ntest result: ok. 1 passed; 0 failed; 0 ignored\n");
        assert!(only_skipped.is_empty());
        assert!(tally("").0.is_empty());
    }

    /// Goal: times are read, and do not disturb counts and failures. Method: the runner's form with times.
    #[test]
    fn names_the_slowest() {
        let output = "running 3 tests\ntest a::slow ... ok <12.034s>\ntest a::fast ... ok <0.001s>\n\
            test a::breaks ... FAILED <1.500s>\ntest result: FAILED. 2 passed; 1 failed; 0 ignored\n";
        let (tally, _) = tally(output);
        let summary = tally.summary();
        let lines: Vec<&str> = summary.lines().filter(|line| line.contains(" ms  ")).map(str::trim).collect();
        assert_eq!(lines, ["12034 ms  a::slow", "1500 ms  a::breaks", "1 ms  a::fast"]);
        assert!(
            summary.contains("FAILED a::breaks\n") && summary.ends_with("2 passed, 1 failed, 0 skipped\n")
        );
        assert_eq!(tally.begun(), 3);
    }
}

//! libFuzzer's figures of a run, in one line.
//!
//! Before: its log. After: inputs run, edges reached, size of the corpus. Never: invents a number: a missing one is
//! `?`.

use std::fmt;

/// The figures of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Figures {
    inputs: Option<u64>,
    per_second: Option<u64>,
    edges: Option<u64>,
    features: Option<u64>,
    corpus: Option<u64>,
}

impl Figures {
    /// Reads a log: the last status line, and the final statistics.
    pub(super) fn of(log: &str) -> Self {
        let status = log.lines().rev().find(|line| line.starts_with('#') && line.contains(" cov: "));
        let status = status.unwrap_or_default();
        Self {
            inputs: number(log, "stat::number_of_executed_units:"),
            per_second: number(log, "stat::average_exec_per_sec:"),
            edges: number(status, "cov:"),
            features: number(status, "ft:"),
            corpus: number(status, "corp:"),
        }
    }
}

/// The number behind `label`.
fn number(text: &str, label: &str) -> Option<u64> {
    let (_, rest) = text.split_once(label)?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |number: Option<u64>| number.map_or("?".to_owned(), |number| number.to_string());
        write!(
            f,
            "{} inputs, {}/s, {} edges, {} features, corpus of {}",
            word(self.inputs),
            word(self.per_second),
            word(self.edges),
            word(self.features),
            word(self.corpus)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Figures;

    /// Goal: the figures are those of the end of the run. Method: a log as libFuzzer writes it, and an empty one.
    #[test]
    fn the_last_status_counts() {
        let log = "#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 30Mb\n\
                   #900\tNEW    cov: 57 ft: 90 corp: 12/3Kb lim: 4 exec/s: 450 rss: 31Mb L: 3/4 MS: 1 CopyPart-\n\
                   Done 1000 runs in 2 second(s)\n\
                   stat::number_of_executed_units: 1000\nstat::average_exec_per_sec:     500\n";
        let said = Figures::of(log).to_string();
        assert_eq!(said, "1000 inputs, 500/s, 57 edges, 90 features, corpus of 12");
        assert_eq!(Figures::of("").to_string(), "? inputs, ?/s, ? edges, ? features, corpus of ?");
    }
}

//! Exemplars: beside a bucket of a histogram of queries, the trace of a query that fell into it.
//!
//! Before: OpenMetrics text is encoded, and clients are traced for a collector. After: lines of buckets name a trace.
//! Never: names a client or a name that was asked for; changes a count.
//!
//! Source: OpenMetrics 1.0, "Exemplars". prometheus-client makes exemplars of its own histograms alone, so they are appended here.

use super::histograms::BOUNDS_LOG2;

/// A query in a bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Label `transport` of its histogram.
    pub transport: String,
    /// Label `disposition`.
    pub disposition: String,
    /// The upper bound of its bucket in seconds, as a power of two.
    pub bound_log2: i32,
    /// Its trace, in hexadecimal.
    pub trace: String,
    /// How long it took.
    pub seconds: f64,
    /// When it was over, since 1970.
    pub at_seconds: f64,
}

impl Exemplar {
    /// The bucket for so many microseconds. `None`: longer than the last one that has a bound.
    #[must_use]
    pub fn bound_log2(took_us: u64) -> Option<i32> {
        let seconds = took_us as f64 / 1e6;
        BOUNDS_LOG2.into_iter().find(|log2| seconds <= f64::from(*log2).exp2())
    }

    /// How the line of its bucket begins.
    fn line(&self) -> String {
        let bound = f64::from(self.bound_log2).exp2();
        format!(
            "dotd_query_duration_seconds_bucket{{le=\"{bound:?}\",transport=\"{}\",disposition=\"{}\"}} ",
            self.transport, self.disposition
        )
    }
}

/// Appends each exemplar to the line of its bucket.
pub(super) fn append(text: String, exemplars: &[Exemplar]) -> String {
    if exemplars.is_empty() {
        return text;
    }
    let named: Vec<_> = exemplars.iter().map(|exemplar| (exemplar.line(), exemplar)).collect();
    let mut appended = String::with_capacity(text.len() + 128 * exemplars.len());
    for line in text.lines() {
        appended.push_str(line);
        if line.starts_with("dotd_query_duration_seconds_bucket")
            && let Some((_, exemplar)) = named.iter().find(|(begin, _)| line.starts_with(begin.as_str()))
        {
            let Exemplar { trace, seconds, at_seconds, .. } = exemplar;
            appended.push_str(&format!(" # {{trace_id=\"{trace}\"}} {seconds} {at_seconds:.6}"));
        }
        appended.push('\n');
    }
    appended
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an exemplar stands beside the bucket that its query fell into, and beside no other. Method: two buckets of two
    /// histograms; durations at a bound and beyond all. Covers: C-704
    #[test]
    fn an_exemplar_is_beside_its_bucket() {
        assert_eq!(Exemplar::bound_log2(500), Some(-10));
        assert_eq!((Exemplar::bound_log2(8_000_000), Exemplar::bound_log2(8_000_001)), (Some(3), None));
        let exemplar = Exemplar {
            transport: "dot".into(),
            disposition: "cached".into(),
            bound_log2: -10,
            trace: "0af7".into(),
            seconds: 0.0005,
            at_seconds: 1.5,
        };
        let row = |le: &str, disposition: &str| {
            format!(
                "dotd_query_duration_seconds_bucket{{le=\"{le}\",transport=\"dot\",disposition=\"{disposition}\"}} 7\n"
            )
        };
        let [one, other] = ["0.0009765625", "0.001953125"].map(|le| row(le, "cached"));
        let elsewhere = row("0.0009765625", "forwarded");
        let expected =
            format!("{} # {{trace_id=\"0af7\"}} 0.0005 1.500000\n{other}{elsewhere}", one.trim_end());
        assert_eq!(append(format!("{one}{other}{elsewhere}"), &[exemplar]), expected);
    }
}

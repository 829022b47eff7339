//! The Prometheus text format: families, samples, escapes.

use std::fmt::Write;

use super::histogram::Snapshot;
use super::names::{Family, Kind};

/// A page while it is written.
#[derive(Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    /// The head of a family, then its samples, written by `samples`; nothing where it writes none.
    pub(super) fn family(&mut self, family: &'static Family, samples: impl FnOnce(&mut Samples<'_>)) {
        let before = self.text.len();
        let Family { name, help, kind, .. } = family;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
        let head = self.text.len();
        samples(&mut Samples {
            family,
            text: &mut self.text,
        });
        if self.text.len() == head {
            self.text.truncate(before);
        }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// The samples of one family. Writing to a `String` cannot fail, so results are dropped.
pub(super) struct Samples<'a> {
    family: &'static Family,
    text: &'a mut String,
}

impl Samples<'_> {
    /// A counter or gauge, recorded as an integer.
    pub(super) fn value(&mut self, labels: &[&str], recorded: u64) {
        let divisor = self.family.unit.divisor();
        self.line("", labels, None);
        let _ = if divisor > 1.0 {
            writeln!(self.text, "{}", recorded as f64 / divisor)
        } else {
            writeln!(self.text, "{recorded}")
        };
    }

    /// A gauge that is already in its unit.
    pub(super) fn gauge(&mut self, labels: &[&str], value: f64) {
        debug_assert_eq!(self.family.kind, Kind::Gauge);
        self.line("", labels, None);
        let _ = writeln!(self.text, "{value}");
    }

    /// A histogram: its buckets, sum and count.
    pub(super) fn histogram(&mut self, labels: &[&str], snapshot: &Snapshot) {
        debug_assert_eq!(self.family.kind, Kind::Histogram);
        let divisor = self.family.unit.divisor();
        for (bound, count) in snapshot.cumulative() {
            self.line(
                "_bucket",
                labels,
                Some(("le", &(bound as f64 / divisor).to_string())),
            );
            let _ = writeln!(self.text, "{count}");
        }
        // The last bucket and the count are one number, whatever is recorded meanwhile.
        let count = snapshot.count();
        self.line("_bucket", labels, Some(("le", "+Inf")));
        let _ = writeln!(self.text, "{count}");
        self.sum_and_count(labels, snapshot);
    }

    /// A summary: the quantiles of the last minute, where it saw any, and the sum and count of all values.
    pub(super) fn summary<'q>(
        &mut self,
        labels: &[&str],
        quantiles: impl Iterator<Item = (&'q str, f64)>,
        all: &Snapshot,
    ) {
        debug_assert_eq!(self.family.kind, Kind::Summary);
        for (quantile, value) in quantiles {
            self.line("", labels, Some(("quantile", quantile)));
            let _ = writeln!(self.text, "{value}");
        }
        self.sum_and_count(labels, all);
    }

    fn sum_and_count(&mut self, labels: &[&str], snapshot: &Snapshot) {
        self.line("_sum", labels, None);
        let _ = writeln!(self.text, "{}", snapshot.sum as f64 / self.family.unit.divisor());
        self.line("_count", labels, None);
        let _ = writeln!(self.text, "{}", snapshot.count());
    }

    fn line(&mut self, suffix: &str, values: &[&str], own: Option<(&str, &str)>) {
        debug_assert_eq!(self.family.labels.len(), values.len(), "{}", self.family.name);
        let _ = write!(self.text, "{}{suffix}", self.family.name);
        let labels = self
            .family
            .labels
            .iter()
            .copied()
            .zip(values.iter().copied())
            .chain(own);
        let mut open = '{';
        for (name, value) in labels {
            let _ = write!(self.text, "{open}{name}=\"");
            escape(value, self.text);
            self.text.push('"');
            open = ',';
        }
        self.text.push_str(if open == ',' { "} " } else { " " });
    }
}

fn escape(value: &str, into: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => into.push_str("\\\\"),
            '"' => into.push_str("\\\""),
            '\n' => into.push_str("\\n"),
            c => into.push(c),
        }
    }
}

//! The recorder behind the handles: one `metrics-exporter-prometheus` for each `Metrics`, so that two engines
//! in one process do not mix.

#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::names::{FAMILIES, Family, Kind, QUANTILES};

/// Longest time until a recorded value reaches its bucket.
///
/// A histogram's handle appends value and time, 16 bytes, to an unbounded list that `run_upkeep` drains. This
/// interval therefore bounds memory: six values a request and four a batch are at most 400 KiB at 10,000
/// requests a second.
///
/// It also bounds the loss of the live quantiles. The list is drained newest block of 64 first, and an empty
/// window opens at the first value it is given. Older blocks of the first drain are then missing from the
/// quantiles, but not from the histogram, `_sum` and `_count`. The loss is at most the first quarter second
/// after a minute's silence.
const UPKEEP: Duration = Duration::from_millis(250);

/// Window of the live quantiles: six slots of ten seconds; a new slot replaces the oldest.
const SLOT: Duration = Duration::from_secs(10);
const SLOTS: NonZeroU32 = NonZeroU32::new(6).unwrap();

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// Makes handles and renders what they recorded.
pub(super) struct Series {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// Ends the upkeep thread when dropped.
    _upkeep: Sender<()>,
}

impl Series {
    /// A recorder without series, and the thread that bounds its memory. A thread rather than a task, so that
    /// `score`, benches and tests have it too.
    #[expect(clippy::expect_used, reason = "the quantiles and bounds are constants")]
    pub(super) fn start() -> Series {
        let recorder = recorder().expect("quantiles and bounds are not empty");
        for family in FAMILIES {
            let (name, unit, help) = (family.name.into(), Some(family.unit), family.help.into());
            match family.kind {
                Kind::Counter => recorder.describe_counter(name, unit, help),
                Kind::Gauge => recorder.describe_gauge(name, unit, help),
                Kind::Histogram(_) | Kind::Summary => recorder.describe_histogram(name, unit, help),
            }
        }
        let (upkeep, dropped) = bounded(0);
        let handle = recorder.handle();
        let kept = handle.clone();
        let keep = move || {
            while dropped.recv_timeout(UPKEEP) == Err(RecvTimeoutError::Timeout) {
                kept.run_upkeep();
            }
        };
        // A process that cannot start this thread cannot start tokenizer threads either; that error is
        // reported.
        drop(thread::Builder::new().name("metrics".to_owned()).spawn(keep));
        Series {
            recorder,
            handle,
            _upkeep: upkeep,
        }
    }

    pub(super) fn counter(&self, family: &Family, values: &[&str]) -> Counter {
        debug_assert!(matches!(family.kind, Kind::Counter), "{}", family.name);
        self.recorder.register_counter(&key(family, values), &METADATA)
    }

    pub(super) fn gauge(&self, family: &Family, values: &[&str]) -> Gauge {
        debug_assert!(matches!(family.kind, Kind::Gauge), "{}", family.name);
        self.recorder.register_gauge(&key(family, values), &METADATA)
    }

    /// Handle of a histogram or a summary; the name decides which.
    pub(super) fn histogram(&self, family: &Family, values: &[&str]) -> Histogram {
        debug_assert!(
            matches!(family.kind, Kind::Histogram(_) | Kind::Summary),
            "{}",
            family.name
        );
        self.recorder.register_histogram(&key(family, values), &METADATA)
    }

    pub(super) fn render(&self) -> String {
        self.handle.render()
    }
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new()
        .set_quantiles(&QUANTILES)?
        .set_bucket_duration(SLOT)?
        .set_bucket_count(SLOTS);
    for family in FAMILIES {
        if let Kind::Histogram(bounds) = family.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(family.name.to_owned()), &bounds())?;
        }
    }
    Ok(builder.build_recorder())
}

fn key(family: &Family, values: &[&str]) -> Key {
    debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
    let labels = family.labels.iter().zip(values);
    let labels: Vec<Label> = labels
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    Key::from_parts(family.name, labels)
}

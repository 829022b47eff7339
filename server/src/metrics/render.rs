//! What stands on the page: every family of `names`, in its order. The versions of a model share the
//! `penstock_` series, since `version` is no label of theirs; Triton's have it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use penstock_core::Class;

use super::histogram::Histogram;
use super::labels::{OutcomeLabel, Source};
use super::model::{ModelMetrics, Requests, Statistics};
use super::names::{self, Family, QUANTILES, STAGES, UNKNOWN_MODEL};
use super::page::Page;
use super::{BusyMeter, Metrics, window};
use crate::clock::Clock;

/// One model with the handles of all its versions.
struct Model<'a> {
    name: &'a str,
    versions: Vec<&'a ModelMetrics>,
}

impl Model<'_> {
    /// The versions' counts of one thing, added up.
    fn sum(&self, of: impl Fn(&ModelMetrics) -> &AtomicU64) -> u64 {
        self.versions.iter().map(|v| of(v).load(Ordering::Relaxed)).sum()
    }

    fn histogram(&self, of: impl Fn(&ModelMetrics) -> &Histogram) -> Option<super::histogram::Snapshot> {
        self.versions
            .iter()
            .map(|v| of(v).snapshot())
            .reduce(|a, b| a.add(&b))
    }

    /// What the versions have seen of a source and class; empty where none has.
    fn requests(&self, source: Source, class: Class) -> Vec<&Requests> {
        self.versions
            .iter()
            .filter_map(|v| v.requests.seen(source, class))
            .collect()
    }
}

pub(super) fn render(metrics: &Metrics) -> String {
    let handles: Vec<Arc<ModelMetrics>> = metrics.models.lock().values().cloned().collect();
    let mut by_name: BTreeMap<&str, Model<'_>> = BTreeMap::new();
    for version in &handles {
        let name = version.name.as_str();
        by_name
            .entry(name)
            .or_insert(Model {
                name,
                versions: Vec::new(),
            })
            .versions
            .push(version);
    }
    let models: Vec<Model<'_>> = by_name.into_values().collect();
    let devices: Vec<(String, BusyMeter)> = metrics
        .devices
        .lock()
        .iter()
        .map(|(name, meter)| (name.clone(), meter.clone()))
        .collect();

    let mut page = Page::default();
    page.family(&names::BUILD_INFO, |s| {
        s.value(&[env!("CARGO_PKG_VERSION"), "cpu"], 1);
    });
    requests(&mut page, metrics, &models);
    latencies(&mut page, &models, metrics.clock);
    queues(&mut page, &models);
    batches(&mut page, &models);
    page.family(&names::DEVICE_BUSY, |s| {
        for (name, meter) in &devices {
            s.gauge(&[name], meter.ratio());
        }
    });
    triton(&mut page, &handles);
    page.into_text()
}

/// Every source and class, with their label values.
fn origins() -> impl Iterator<Item = (Source, Class)> {
    Source::ALL
        .into_iter()
        .flat_map(|source| Class::ALL.into_iter().map(move |class| (source, class)))
}

fn requests(page: &mut Page, metrics: &Metrics, models: &[Model<'_>]) {
    page.family(&names::REQUESTS, |s| {
        for (source, class) in origins() {
            let labels = |model, outcome: OutcomeLabel| [model, source.name(), class.name(), outcome.name()];
            for model in models {
                let seen = model.requests(source, class);
                // All outcomes of an origin appear at once, zeros included: `rate` needs the zero
                // before the first error.
                for outcome in OutcomeLabel::ALL.into_iter().filter(|_| !seen.is_empty()) {
                    let count = seen.iter().map(|r| r.outcomes.get(outcome)).sum();
                    s.value(&labels(model.name, outcome), count);
                }
            }
            if let Some(outcomes) = metrics.unknown.seen(source, class) {
                for outcome in OutcomeLabel::ALL {
                    s.value(&labels(UNKNOWN_MODEL, outcome), outcomes.get(outcome));
                }
            }
        }
    });
}

fn latencies(page: &mut Page, models: &[Model<'_>], clock: Clock) {
    let seen: Vec<_> = models
        .iter()
        .flat_map(|model| origins().map(move |(source, class)| (model, source, class)))
        .filter_map(|(model, source, class)| {
            let requests = model.requests(source, class);
            let all = requests
                .iter()
                .map(|r| r.durations.snapshot())
                .reduce(|a, b| a.add(&b))?;
            Some(([model.name, source.name(), class.name()], requests, all))
        })
        .collect();
    page.family(&names::REQUEST_DURATION, |s| {
        for (labels, _, all) in &seen {
            s.histogram(labels, all);
        }
    });
    page.family(&names::REQUEST_LATENCY, |s| {
        for (labels, requests, all) in &seen {
            let windows = requests.iter().map(|r| &r.latency);
            let read = window::read_all(windows, clock.now(), QUANTILES.map(|(q, _)| q));
            let quantiles = read.into_iter().flatten().zip(QUANTILES);
            s.summary(
                labels,
                quantiles.map(|(value, (_, name))| (name, value.as_secs_f64())),
                all,
            );
        }
    });
    page.family(&names::STAGE_DURATION, |s| {
        for model in models {
            for (stage, name) in STAGES.into_iter().enumerate() {
                if let Some(snapshot) = model.histogram(|v| &v.stages[stage]) {
                    s.histogram(&[model.name, name], &snapshot);
                }
            }
        }
    });
}

fn queues(page: &mut Page, models: &[Model<'_>]) {
    let mut family = |family, of: fn(&ModelMetrics, Class) -> &AtomicU64| {
        page.family(family, |s| {
            for model in models {
                for class in Class::ALL {
                    s.value(&[model.name, class.name()], model.sum(|v| of(v, class)));
                }
            }
        });
    };
    family(&names::QUEUE_DEPTH, |v, class| &v.queues[class as usize].depth);
    family(&names::QUEUE_TOKENS, |v, class| &v.queues[class as usize].tokens);
}

fn batches(page: &mut Page, models: &[Model<'_>]) {
    let mut family = |family, of: fn(&ModelMetrics) -> &Histogram| {
        page.family(family, |s| {
            for model in models {
                if let Some(snapshot) = model.histogram(of) {
                    s.histogram(&[model.name], &snapshot);
                }
            }
        });
    };
    family(&names::BATCH_TEXTS, |v| &v.batches.texts);
    family(&names::BATCH_TOKENS, |v| &v.batches.tokens);
    family(&names::BATCH_DURATION, |v| &v.batches.durations);
    family(&names::BATCH_FILL, |v| &v.batches.fill);
    // Batches are packed: there is nothing to count, and dashboards that compare servers want the zero.
    page.family(&names::PADDING_TOKENS, |s| {
        for model in models {
            s.value(&[model.name], 0);
        }
    });
}

fn triton(page: &mut Page, versions: &[Arc<ModelMetrics>]) {
    let statistics: Vec<Statistics> = versions.iter().map(|v| v.statistics()).collect();
    let mut family = |family: &'static Family, of: fn(&Statistics) -> u64| {
        page.family(family, |s| {
            for (version, statistics) in versions.iter().zip(&statistics) {
                s.value(&[&version.name, &version.version], of(statistics));
            }
        });
    };
    family(&names::NV_SUCCESS, |s| s.success.count);
    family(&names::NV_FAILURE, |s| s.fail.count);
    family(&names::NV_COUNT, |s| s.inference_count);
    family(&names::NV_EXEC_COUNT, |s| s.execution_count);
    family(&names::NV_REQUEST_DURATION, |s| s.success.ns);
    family(&names::NV_QUEUE_DURATION, |s| s.queue.ns);
    family(&names::NV_INPUT_DURATION, |s| s.compute_input.ns);
    family(&names::NV_INFER_DURATION, |s| s.compute_infer.ns);
    family(&names::NV_OUTPUT_DURATION, |s| s.compute_output.ns);
    page.family(&names::NV_PENDING, |s| {
        for version in versions {
            let pending = version
                .queues
                .iter()
                .map(|queue| queue.depth.load(Ordering::Relaxed))
                .sum();
            s.value(&[&version.name, &version.version], pending);
        }
    });
}

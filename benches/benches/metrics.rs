//! Cost of the metrics for each request, each batch and each scrape.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench has nobody to answer to"
)]

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use penstock_benches::scheduler::{record_batch, record_request};
use penstock_telemetry::clock::Clock;
use penstock_telemetry::metrics::Metrics;

fn metrics(c: &mut Criterion) {
    let metrics = Metrics::new(Clock::start());
    let (model, busy) = (metrics.model("minilm", "1"), metrics.device_busy("cpu"));
    let mut group = c.benchmark_group("metrics");
    let took = Duration::from_micros(2300);
    group.bench_function("one request", |b| b.iter(|| record_request(&model, took)));
    group.bench_function("one batch", |b| b.iter(|| record_batch(&model, &busy, took)));
    // Includes the later work of the upkeep thread: sorting the values into their buckets.
    group.bench_function("a thousand requests and a scrape", |b| {
        b.iter(|| {
            (0..1000).for_each(|_| record_request(&model, took));
            metrics.render().len()
        });
    });
    group.bench_function("one scrape", |b| b.iter(|| metrics.render().len()));
    group.finish();
}

criterion_group!(benches, metrics);
criterion_main!(benches);

//! `core::Batcher`: cost of its decisions for each text, from offer to packed batch.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench has nobody to answer to"
)]

use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use penstock_benches::workload;
use penstock_core::{
    Admission, AdmissionBounds, BatchPolicy, Batcher, Class, CostModel, Nanos, Outcome, Poll, Request,
    RequestContext, Responder, Sink, Source, Stages, TokenIds,
};
use rand::SeedableRng;
use rand::rngs::StdRng;

const TEXTS: usize = 4096;
const WINDOW: usize = 256;

/// A responder without a receiver.
struct Nobody;

impl Sink for Nobody {
    fn answer(&self, _row: u32, _outcome: Outcome, _stages: Stages) {}

    fn is_cancelled(&self) -> bool {
        false
    }
}

fn requests(admission: &Arc<Admission>, deadlines: bool) -> Vec<Request> {
    let sink: Arc<dyn Sink> = Arc::new(Nobody);
    let lengths = workload::lengths(TEXTS, &mut StdRng::seed_from_u64(3));
    lengths
        .into_iter()
        .enumerate()
        .map(|(row, tokens)| Request {
            tokens: TokenIds::new(vec![7; tokens]).expect("not empty"),
            context: RequestContext {
                class: if row % 4 == 0 {
                    Class::Interactive
                } else {
                    Class::Bulk
                },
                ..RequestContext::new(Source::Grpc, Nanos(row as u64))
            }
            .due(deadlines.then_some(Nanos(u64::MAX))),
            tokenized: Nanos(row as u64),
            permit: admission.admit(Class::Interactive, tokens, 0).expect("room"),
            responder: Responder::new(Arc::clone(&sink), row as u32),
        })
        .collect()
}

/// Offers everything, then takes batches until none is left, and drops them.
fn drain(mut batcher: Batcher, requests: Vec<Request>) -> usize {
    for request in requests {
        batcher.offer(request);
    }
    let mut texts = 0;
    while let Poll::Run(batch) = batcher.poll(Nanos(1_000_000)) {
        texts += batch.len();
        drop(batch);
    }
    texts
}

fn batcher(c: &mut Criterion) {
    let bounds = AdmissionBounds {
        tokens_max: 1 << 24,
        bytes_max: 1 << 30,
        texts_max: 1 << 20,
    };
    let admission = Admission::new(bounds).expect("bounds");
    let mut group = c.benchmark_group("batcher");
    group.throughput(Throughput::Elements(TEXTS as u64));
    for (name, tokens_max) in [("1024", 1024), ("8192", 8192)] {
        for deadlines in [false, true] {
            let policy = BatchPolicy::new(
                tokens_max,
                4096,
                Duration::from_secs(1),
                WINDOW,
                Duration::ZERO,
                None,
            )
            .expect("a policy");
            let with = if deadlines { ", with deadlines" } else { "" };
            group.bench_function(format!("4096 texts into batches of {name} tokens{with}"), |b| {
                b.iter_batched(
                    || {
                        (
                            Batcher::new(policy.clone(), CostModel::default(), 1),
                            requests(&admission, deadlines),
                        )
                    },
                    |(batcher, requests)| assert_eq!(drain(batcher, requests), TEXTS),
                    BatchSize::LargeInput,
                );
            });
        }
    }
    group.finish();
}

fn admission(c: &mut Criterion) {
    let bounds = AdmissionBounds {
        tokens_max: 1 << 24,
        bytes_max: 1 << 30,
        texts_max: 1 << 20,
    };
    let admission = Admission::new(bounds).expect("bounds");
    let mut group = c.benchmark_group("admission");
    group.throughput(Throughput::Elements(1));
    group.bench_function("admit, settle, release", |b| {
        b.iter(|| {
            let mut permit = admission.admit(Class::Interactive, 200, 800).expect("room");
            permit.settle(43);
        });
    });
    group.finish();
}

criterion_group!(benches, batcher, admission);
criterion_main!(benches);

//! Text to token ids, one thread.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench has nobody to answer to"
)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock_benches::{model, workload};

fn tokenizer(c: &mut Criterion) {
    let Some(loaded) = model::minilm(1) else { return };
    let texts = workload::texts(None).expect("generated");
    let tokenizer = loaded.tokenizer;
    let tokens: usize = texts
        .iter()
        .map(|t| tokenizer.encode(t, true).expect("encodes").len())
        .sum();
    let mut group = c.benchmark_group("tokenizer");
    group.throughput(Throughput::Elements(tokens as u64));
    group.bench_function("workload of 2000 texts, tokens", |b| {
        b.iter(|| {
            texts
                .iter()
                .map(|t| tokenizer.encode(t, true).expect("encodes").len())
                .sum::<usize>()
        });
    });
    let short = "the gate opens .";
    group.throughput(Throughput::Elements(1));
    group.bench_function("one short text", |b| b.iter(|| tokenizer.encode(short, true)));
    // Only as much of a huge text may be read as the model's maximum needs.
    let huge = "the old mill wheel turns above the cold river . ".repeat(10_000_000 / 48);
    group.bench_function("one text of 10 MB", |b| b.iter(|| tokenizer.encode(&huge, true)));
    group.finish();
}

criterion_group!(benches, tokenizer);
criterion_main!(benches);

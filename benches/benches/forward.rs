//! The whole forward of all-MiniLM-L6-v2 in f32 on two threads.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench has nobody to answer to"
)]

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock_benches::forward::{Arrangement, Order, arrange};
use penstock_benches::{model, workload};
use penstock_core::PackedTokens;

fn forward(c: &mut Criterion) {
    let Some(mut loaded) = model::minilm(2) else {
        return;
    };
    let texts = workload::texts(None).expect("generated");
    let ids: Vec<Vec<u32>> = texts
        .iter()
        .map(|t| {
            loaded
                .tokenizer
                .encode(t, true)
                .expect("encodes")
                .as_slice()
                .to_vec()
        })
        .collect();
    let mut group = c.benchmark_group("forward");
    group
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
        .sample_size(10);
    for (texts, length) in [
        (1, 8),
        (1, 32),
        (1, 128),
        (8, 64),
        (32, 16),
        (32, 64),
        (32, 128),
        (8, 256),
    ] {
        let row = vec![2000; length];
        let packed = PackedTokens::from_texts((0..texts).map(|_| row.as_slice()));
        group.throughput(Throughput::Elements(packed.tokens() as u64));
        group.bench_function(format!("{texts}x{length}"), |b| {
            b.iter(|| loaded.model.forward(&packed).expect("runs"));
        });
    }
    for tokens in [512, 2048, 8192] {
        let arrangement = Arrangement {
            order: Order::Arrival,
            tokens: Some(tokens),
            texts: None,
            length: None,
            tokenize: false,
        };
        let batches = arrange(&arrangement, &ids);
        // Batches of about 8,192 tokens together: the whole workload would take seconds a sample.
        let batches: Vec<_> = batches
            .into_iter()
            .take(8192 / tokens)
            .map(|(_, packed)| packed)
            .collect();
        let total: usize = batches.iter().map(PackedTokens::tokens).sum();
        group.throughput(Throughput::Elements(total as u64));
        group.bench_function(format!("workload, batches of {tokens} tokens"), |b| {
            b.iter(|| {
                batches
                    .iter()
                    .map(|p| loaded.model.forward(p).expect("runs").len())
                    .sum::<usize>()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);

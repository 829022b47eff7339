//! The bounded queues of the data path: cost of a hand-over between threads.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench has nobody to answer to"
)]

use std::thread;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_channel::bounded;

/// Hand-overs in one measurement.
const ITEMS: u64 = 100_000;
/// The default bound of a served model's queue, in texts.
const BOUND: usize = 16_384;
/// About the size of a tokenized request.
type Item = [u64; 16];

fn queue(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue");
    group.throughput(Throughput::Elements(1));
    let (sender, receiver) = bounded::<Item>(BOUND);
    group.bench_function("send and receive on one thread", |b| {
        b.iter(|| {
            sender.try_send([1; 16]).expect("room");
            receiver.try_recv().expect("an item")
        });
    });
    group.throughput(Throughput::Elements(ITEMS));
    for producers in [1, 2] {
        group.bench_function(
            format!("{producers} senders to one receiver, 100000 items"),
            |b| {
                b.iter(|| across(producers));
            },
        );
    }
    group.finish();
}

fn across(producers: u64) -> u64 {
    let (sender, receiver) = bounded::<Item>(BOUND);
    thread::scope(|scope| {
        for _ in 0..producers {
            let sender = sender.clone();
            scope.spawn(move || {
                for i in 0..ITEMS / producers {
                    sender.send([i; 16]).expect("a receiver");
                }
            });
        }
        drop(sender);
        receiver.iter().map(|item| item[0]).sum()
    })
}

criterion_group!(benches, queue);
criterion_main!(benches);

//! Each packed operation at the shapes of MiniLM-L6 (hidden 384, 12 heads, 1536 between), on two threads.
//!
//! The batches: texts of the workload's lengths, equal lengths, and one short text.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench has nobody to answer to"
)]

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock_benches::workload;
use penstock_kernels::cpu::Cpu;
use penstock_kernels::{Activation, Embedding, Norm, Ops, Pooling, Priority, Tokens};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const HIDDEN: usize = 384;
const BETWEEN: usize = 1536;
const HEADS: usize = 12;
const VOCABULARY: usize = 30_522;
const THREADS: usize = 2;

/// A batch's name and the lengths of its texts.
fn batches() -> Vec<(&'static str, Vec<usize>)> {
    let mut rng = StdRng::seed_from_u64(5);
    vec![
        ("1x16", vec![16]),
        ("32x64", vec![64; 32]),
        ("16x128", vec![128; 16]),
        ("47 texts of the workload", workload::lengths(47, &mut rng)),
    ]
}

fn noise(count: usize) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(count as u64);
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn norm(cpu: &Cpu) -> Norm<<Cpu as Ops>::Table> {
    let table = || cpu.table(&noise(HIDDEN), 1, HIDDEN).expect("a table");
    Norm {
        gamma: table(),
        beta: table(),
        eps: 1e-12,
    }
}

fn filled(cpu: &mut Cpu, rows: usize, cols: usize) -> <Cpu as Ops>::Buffer {
    let mut buffer = cpu.buffer();
    cpu.write(&noise(rows * cols), rows, cols, &mut buffer)
        .expect("writes");
    buffer
}

fn matrix(cpu: &Cpu, out: usize, inp: usize) -> <Cpu as Ops>::Matrix {
    cpu.matrix(&noise(out * inp), Some(&noise(out)), out, inp)
        .expect("packs")
}

fn cu_seqlens(lengths: &[usize]) -> Vec<u32> {
    let ends = lengths.iter().scan(0, |end, len| {
        *end += *len as u32;
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

fn kernels(c: &mut Criterion) {
    let mut cpu = Cpu::new(THREADS).expect("threads");
    for (name, lengths) in batches() {
        let rows: usize = lengths.iter().sum();
        let mut group = c.benchmark_group(format!("kernels, {name}"));
        group
            .throughput(Throughput::Elements(rows as u64))
            .warm_up_time(Duration::from_millis(500));
        group.measurement_time(Duration::from_secs(2)).sample_size(20);
        linear(&mut group, &mut cpu, rows);
        along_texts(&mut group, &mut cpu, &lengths);
        embed(&mut group, &mut cpu, &lengths);
        group.finish();
    }
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn linear(group: &mut Group<'_>, cpu: &mut Cpu, rows: usize) {
    let (x, wide) = (filled(cpu, rows, HIDDEN), filled(cpu, rows, BETWEEN));
    let mut out = cpu.buffer();
    let up = matrix(cpu, BETWEEN, HIDDEN);
    for (name, activation) in [
        ("none", Activation::None),
        ("gelu", Activation::Gelu),
        ("gelu tanh", Activation::GeluTanh),
    ] {
        group.bench_function(format!("linear 384 to 1536, {name}"), |b| {
            b.iter(|| {
                cpu.forward(&[], Priority::Urgent, |cpu| {
                    cpu.linear(&x, &up, activation, &mut out)
                })
                .expect("runs");
            });
        });
    }
    let (down, norm) = (matrix(cpu, HIDDEN, BETWEEN), norm(cpu));
    let mut residual = filled(cpu, rows, HIDDEN);
    group.bench_function("linear 1536 to 384, residual and layer norm", |b| {
        b.iter(|| {
            cpu.forward(&[], Priority::Urgent, |cpu| {
                cpu.linear_add_norm(&wide, &down, &norm, &mut residual)
            })
            .expect("runs");
        });
    });
}

fn along_texts(group: &mut Group<'_>, cpu: &mut Cpu, lengths: &[usize]) {
    let rows = lengths.iter().sum();
    let (qkv, x) = (filled(cpu, rows, 3 * HIDDEN), filled(cpu, rows, HIDDEN));
    let (cu, mut out) = (cu_seqlens(lengths), cpu.buffer());
    group.bench_function("attention", |b| {
        b.iter(|| {
            cpu.forward(&[], Priority::Urgent, |cpu| {
                cpu.attention(&qkv, &cu, HEADS, None, &mut out)
            })
            .expect("runs");
        });
    });
    for (name, pooling) in [("pool mean", Pooling::Mean), ("pool cls", Pooling::Cls)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                cpu.forward(&[], Priority::Urgent, |cpu| cpu.pool(&x, &cu, pooling, &mut out))
                    .expect("runs");
            });
        });
    }
}

fn embed(group: &mut Group<'_>, cpu: &mut Cpu, lengths: &[usize]) {
    let rows: usize = lengths.iter().sum();
    let table = |rows: usize| cpu.table(&noise(rows * HIDDEN), rows, HIDDEN).expect("a table");
    let tables = Embedding {
        word: cpu
            .words(&noise(VOCABULARY * HIDDEN), VOCABULARY, HIDDEN)
            .expect("a word table"),
        position: Some(table(512)),
        kind: Some(table(2)),
        norm: norm(cpu),
    };
    let mut rng = StdRng::seed_from_u64(9);
    let ids: Vec<u32> = (0..rows)
        .map(|_| rng.random_range(0..VOCABULARY as u32))
        .collect();
    let positions: Vec<u32> = lengths.iter().flat_map(|&len| 0..len as u32).collect();
    let mut out = cpu.buffer();
    group.bench_function("embedding sum and layer norm", |b| {
        b.iter(|| {
            let tokens = Tokens {
                ids: &ids,
                positions: &positions,
                kinds: &[],
            };
            cpu.forward(&[], Priority::Urgent, |cpu| cpu.embed(tokens, &tables, &mut out))
                .expect("runs");
        });
    });
}

criterion_group!(benches, kernels);
criterion_main!(benches);

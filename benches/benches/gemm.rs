//! The matrix products of MiniLM-L6 in f32, bf16 and int8 against other crates' and against the core's peak, in
//! GFLOP/s, with the memory's bandwidth.
//!
//! `RAYON_NUM_THREADS` sets the threads of all of them. Criterion's "Gelem/s" are GFLOP/s here. A sample's
//! time is its fastest call times the number of calls: on a shared machine that call was not
//! interrupted, so shares of the peak hold where means would not.

#![allow(missing_docs, clippy::expect_used, reason = "a bench has nobody to answer to")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{Array2, linalg::general_mat_mul};
use penstock_kernels::{Activation, Cpu, Ops, Path, Precision, Priority, Threads, cpu::peak};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Inputs and outputs of the layer's four products: query-key-value, attention output, up, down.
const SHAPES: [(usize, usize); 4] = [(384, 1152), (384, 384), (384, 1536), (1536, 384)];
const ROWS: [usize; 4] = [16, 64, 512, 1024];

fn noise(count: usize) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(count as u64);
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Time of `turns` calls at the rate of the fastest.
fn fastest(turns: u64, mut work: impl FnMut()) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..turns {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed());
    }
    best * turns as u32
}

fn products(c: &mut Criterion) {
    let threads = candle_core::utils::get_num_threads();
    let mut group = c.benchmark_group(format!("gemm/{threads} threads"));
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400));
    for (inp, out) in SHAPES {
        for rows in ROWS {
            let shape = format!("{rows}x{inp}->{out}");
            let (x, weight) = (noise(rows * inp), noise(out * inp));
            group.throughput(Throughput::Elements((2 * rows * inp * out) as u64));

            for precision in precisions() {
                let team = Threads::new(threads).expect("threads start");
                let mut cpu = Cpu::on(team, Path::best(), precision);
                let matrix = cpu.matrix(&weight, None, out, inp).expect("the weights fit");
                let (mut input, mut output) = (cpu.buffer(), cpu.buffer());
                cpu.write(&x, rows, inp, &mut input).expect("the input fits");
                let name = format!("penstock {}", precision.name());
                group.bench_function(BenchmarkId::new(name, &shape), |bencher| {
                    bencher.iter_custom(|turns| {
                        let mut product =
                            |cpu: &mut Cpu| cpu.linear(&input, &matrix, Activation::None, &mut output);
                        let mut time = Duration::ZERO;
                        let all = cpu.forward(&[], Priority::Urgent, |cpu| {
                            time = fastest(turns, || product(cpu).expect("shapes fit"));
                            Ok(())
                        });
                        all.expect("products fail by themselves");
                        time
                    });
                });
            }

            let device = &Device::Cpu;
            let left = Tensor::from_slice(&x, (rows, inp), device).expect("the input fits");
            let right = Tensor::from_slice(&weight, (out, inp), device).expect("the weights fit");
            let right = right.t().expect("a matrix");
            group.bench_function(BenchmarkId::new("candle (crate gemm)", &shape), |bencher| {
                let mut product = || drop(black_box(left.matmul(&right).expect("shapes fit")));
                bencher.iter_custom(|turns| fastest(turns, &mut product));
            });

            // ndarray hands the product to crate matrixmultiply, which has one thread here.
            if threads == 1 {
                let left = Array2::from_shape_vec((rows, inp), x).expect("the input fits");
                let right = Array2::from_shape_vec((out, inp), weight).expect("the weights fit");
                let mut product = Array2::zeros((rows, out));
                group.bench_function(
                    BenchmarkId::new("ndarray (crate matrixmultiply)", &shape),
                    |bencher| {
                        let mut multiply = || general_mat_mul(1.0, &left, &right.t(), 0.0, &mut product);
                        bencher.iter_custom(|turns| fastest(turns, &mut multiply));
                    },
                );
            }
        }
    }
}

/// f32, bf16 where the processor has it, and int8 by the fastest way.
fn precisions() -> Vec<Precision> {
    [
        Some(Precision::F32),
        Precision::bf16().ok(),
        Some(Precision::int8()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Multiply-adds on registers alone, on one core.
fn limit(c: &mut Criterion) {
    const ROUNDS: usize = 200_000;
    let mut group = c.benchmark_group("peak of one core");
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400));
    // The portable path has no fused instruction to measure.
    let vectors = Path::supported()
        .into_iter()
        .filter(|path| path.name() != "portable");
    let mut bursts: Vec<(Path, Precision, String)> = vectors
        .map(|path| (path, Precision::F32, format!("f32 by {}", path.name())))
        .collect();
    let bf16 = Precision::bf16_supported().into_iter();
    let others = bf16.chain(Precision::int8_supported().into_iter().filter(|precision| {
        let name = precision.name();
        name.ends_with("vnni") || name.ends_with("amx")
    }));
    bursts.extend(others.map(|precision| (Path::best(), precision, precision.name())));
    for (path, precision, name) in bursts {
        let (operations, _) = peak::multiply_adds(path, precision, ROUNDS);
        group.throughput(Throughput::Elements(operations as u64));
        group.bench_function(BenchmarkId::new(name, "registers"), |bencher| {
            bencher.iter_custom(|turns| {
                fastest(turns, || {
                    black_box(peak::multiply_adds(path, precision, ROUNDS));
                })
            });
        });
    }
}

/// Reading more than any cache holds, each thread its own part.
fn bandwidth(c: &mut Criterion) {
    const BYTES: usize = 512 << 20;
    let threads = candle_core::utils::get_num_threads();
    let mut group = c.benchmark_group(format!("memory/{threads} threads"));
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_secs(1));
    let values = vec![1.0f32; BYTES / 4];
    group.throughput(Throughput::Bytes(BYTES as u64));
    group.bench_function("read", |bencher| {
        bencher.iter_custom(|turns| {
            fastest(turns, || {
                std::thread::scope(|scope| {
                    for part in values.chunks(values.len().div_ceil(threads)) {
                        scope.spawn(|| black_box(peak::read(Path::best(), part)));
                    }
                });
            })
        });
    });
}

criterion_group!(benches, limit, bandwidth, products);
criterion_main!(benches);

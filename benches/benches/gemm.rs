//! The matrix products of MiniLM-L6 against other crates' and against the core's peak, in GFLOP/s.
//!
//! `RAYON_NUM_THREADS` sets the threads of all of them. Criterion's "Gelem/s" are GFLOP/s here. A sample's
//! time is its fastest call times the number of calls: on a shared machine that is the call nobody
//! interrupted, so shares of the peak hold where means would not.

#![allow(missing_docs, clippy::expect_used, reason = "a bench has nobody to answer to")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{Array2, linalg::general_mat_mul};
use penstock_kernels::{Activation, Cpu, Ops, Path, cpu::peak};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Inputs and outputs of the layer's four products: query-key-value, attention output, up, down.
const SHAPES: [(usize, usize); 4] = [(384, 1152), (384, 384), (384, 1536), (1536, 384)];
const ROWS: [usize; 4] = [16, 64, 512, 1024];

fn noise(count: usize) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(count as u64);
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// The time of `turns` calls as fast as the fastest.
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

            let mut cpu = Cpu::new(threads).expect("threads start");
            let matrix = cpu.matrix(&weight, None, out, inp).expect("the weights fit");
            let (mut input, mut output) = (cpu.buffer(), cpu.buffer());
            cpu.write(&x, rows, inp, &mut input).expect("the input fits");
            group.bench_function(BenchmarkId::new("penstock", &shape), |bencher| {
                bencher.iter_custom(|turns| {
                    let mut product =
                        |cpu: &mut Cpu| cpu.linear(&input, &matrix, Activation::None, &mut output);
                    cpu.enter(|cpu| fastest(turns, || product(cpu).expect("shapes fit")))
                });
            });

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

/// Multiply-adds on registers alone, on one core.
fn limit(c: &mut Criterion) {
    const ROUNDS: usize = 200_000;
    let mut group = c.benchmark_group("peak of one core");
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400));
    // The portable path has no fused instruction to measure.
    for path in Path::supported()
        .into_iter()
        .filter(|path| path.name() != "portable")
    {
        let (operations, _) = peak::multiply_adds(path, ROUNDS);
        group.throughput(Throughput::Elements(operations as u64));
        group.bench_function(BenchmarkId::new(path.name(), "registers"), |bencher| {
            bencher.iter_custom(|turns| {
                fastest(turns, || {
                    black_box(peak::multiply_adds(path, ROUNDS));
                })
            });
        });
    }
}

criterion_group!(benches, limit, products);
criterion_main!(benches);

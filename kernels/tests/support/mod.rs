//! Shared parts of the operation tests: random operands, every path, and one comparison.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::io::Write;

use penstock_kernels::cpu::{Buffer, Table};
use penstock_kernels::{Cpu, Norm, Ops, Path, Precision, Threads};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// `count` values in ±`size`.
pub fn random(seed: u64, count: usize, size: f32) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(-size..size)).collect()
}

/// A processor for every path of this machine, with one and with two threads.
pub fn devices() -> Vec<Cpu> {
    Path::supported()
        .into_iter()
        .flat_map(|path| [1, 2].map(|threads| Cpu::with_path(threads, path).expect("threads start")))
        .collect()
}

/// A processor for every way of this machine to multiply bytes, with one and with two threads.
pub fn int8_devices() -> Vec<Cpu> {
    Precision::int8_supported()
        .into_iter()
        .flat_map(in_precision)
        .collect()
}

/// The same for bfloat16; none, and a line that says so, where the processor has no instructions for it.
pub fn bf16_devices() -> Vec<Cpu> {
    if let Err(error) = Precision::bf16() {
        // Written past the capture of a passing test's output: a skip is said aloud.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {error}");
    }
    let ways = Precision::bf16_supported().into_iter();
    ways.flat_map(in_precision).collect()
}

fn in_precision(precision: Precision) -> impl Iterator<Item = Cpu> {
    [1, 2].into_iter().map(move |threads| {
        let threads = Threads::new(threads).expect("threads start");
        Cpu::on(threads, Path::best(), precision)
    })
}

pub fn filled(cpu: &mut Cpu, values: &[f32], rows: usize) -> Buffer {
    let mut buffer = cpu.buffer();
    cpu.write(values, rows, values.len() / rows, &mut buffer)
        .expect("values fill the rows");
    buffer
}

pub fn norm(cpu: &Cpu, gamma: &[f32], beta: &[f32]) -> Norm<Table> {
    Norm {
        gamma: cpu.table(gamma, 1, gamma.len()).expect("gamma"),
        beta: cpu.table(beta, 1, beta.len()).expect("beta"),
        eps: 1e-12,
    }
}

/// Running sums of `lens`, from 0.
pub fn cu_seqlens(lens: &[usize]) -> Vec<u32> {
    let mut sum = 0;
    let mut sums = vec![0];
    for len in lens {
        sum += *len as u32;
        sums.push(sum);
    }
    sums
}

/// Every value within `tolerance` of the expected one, and NaN exactly where NaN is expected.
#[track_caller]
pub fn check(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}: number of values");
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        let near = (got - expected).abs() <= tolerance || (got.is_nan() && expected.is_nan());
        assert!(near, "{what}: value {at} is {got}, expected {expected}");
    }
}

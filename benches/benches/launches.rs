//! Host cost of a small batch on a GPU, without the driver's calls, which an idle device leaves out. The
//! encoder's list of launches of all-MiniLM-L6-v2 is compared with the recorded one.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench has nobody to answer to"
)]

use std::fmt::Display;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use penstock_benches::model;
use penstock_core::PackedTokens;
use penstock_kernels::KernelError;
use penstock_kernels::cuda::driver::{Driver, Launch, MatrixProduct, Work};
use penstock_kernels::cuda::{Cuda, Dtype};
use penstock_models::{LoadOptions, load_on};

/// Memory that consists of an address only.
#[derive(Default)]
struct Idle;

impl Driver for Idle {
    type Memory = u64;
    type Inbox = ();
    type Outbox = Vec<u8>;
    type Graph = ();

    fn allocate(&self, bytes: usize) -> Result<u64, KernelError> {
        Ok(bytes as u64)
    }

    fn address(&self, memory: &u64) -> u64 {
        *memory
    }

    fn store(&self, _: &u64, _: &[u8]) -> Result<(), KernelError> {
        Ok(())
    }

    fn inbox(&self, _: usize) -> Result<(), KernelError> {
        Ok(())
    }

    fn post(&mut self, (): &mut (), bytes: &[u8]) -> Result<u64, KernelError> {
        black_box(bytes);
        Ok(0)
    }

    fn release(&mut self, (): &mut ()) -> Result<(), KernelError> {
        Ok(())
    }

    fn post_in_turn(&mut self, (): &mut (), bytes: &[u8]) -> Result<u64, KernelError> {
        black_box(bytes);
        Ok(0)
    }

    fn inbox_address(&self, (): &()) -> u64 {
        0
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), KernelError> {
        black_box(launch);
        Ok(())
    }

    fn multiply(&mut self, product: &MatrixProduct) -> Result<(), KernelError> {
        black_box(product);
        Ok(())
    }

    fn record(&mut self, _: &[Work]) -> Result<(), KernelError> {
        Ok(())
    }

    fn replay(&mut self, (): &(), _: &dyn Display) -> Result<(), KernelError> {
        Ok(())
    }

    fn outbox(&self, bytes: usize) -> Result<Vec<u8>, KernelError> {
        Ok(vec![0; bytes])
    }

    fn fetch(&mut self, _: &u64, bytes: usize, outbox: &mut Vec<u8>) -> Result<(), KernelError> {
        outbox.resize(bytes, 0);
        Ok(())
    }

    fn has_arrived(&self, _: &Vec<u8>) -> bool {
        true
    }

    fn wait<'a>(&mut self, outbox: &'a mut Vec<u8>) -> Result<&'a [u8], KernelError> {
        Ok(outbox)
    }
}

fn launches(c: &mut Criterion) {
    let folder = model::folder();
    let options = LoadOptions {
        check_parity: false,
        ..LoadOptions::default()
    };
    let mut group = c.benchmark_group("launches");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for (way, recording) in [("listed and compared", true), ("one by one", false)] {
        let opened = load_on(&folder, &options, || {
            let cuda = Cuda::new(Idle, Dtype::F16);
            Ok(if recording { cuda.recording() } else { cuda })
        });
        let Ok(mut loaded) = opened else {
            return;
        };
        for (texts, length) in [(1, 128), (32, 16)] {
            let text = vec![1000_u32; length];
            let batch = PackedTokens::from_texts((0..texts).map(|_| text.as_slice()));
            group.bench_function(format!("{texts}x{length} {way}"), |b| {
                b.iter(|| loaded.model.forward(&batch).expect("a forward"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, launches);
criterion_main!(benches);

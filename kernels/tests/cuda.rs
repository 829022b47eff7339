//! The operations on a real GPU, for machines that have one; elsewhere it says why it did not run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed, and one that does not run says so"
)]

#[path = "support/cases.rs"]
mod cases;
mod support;

use cases::HEAD_DIMS;
use penstock_kernels::KernelError;
use penstock_kernels::cuda::driver::{Driver, Epilogue, Launch, MatrixProduct, Work};
use penstock_kernels::cuda::{Cuda, Dtype, Nvidia, nvidia};
pub(crate) use support::{check, cu_seqlens, random};

fn open(dtype: Dtype) -> Cuda<Nvidia> {
    Cuda::new(Nvidia::open(0, dtype).expect("the GPU opens"), dtype)
}

/// Runs `cases` where there is a GPU. With `PENSTOCK_NEEDS_GPU` set there has to be one.
fn with_gpu(cases: impl FnOnce()) {
    match nvidia::probe(&[0]) {
        Ok(_) => cases(),
        Err(reason) => {
            assert!(
                std::env::var_os("PENSTOCK_NEEDS_GPU").is_none(),
                "no GPU to test on: {reason}"
            );
            eprintln!("SKIPPED, this test needs a GPU: {reason}");
        }
    }
}

#[test]
fn gpu_embedding_is_the_formula() {
    with_gpu(|| cases::embedding(&open));
}

#[test]
fn gpu_linear_is_the_formula() {
    with_gpu(|| cases::linear(&open));
}

#[test]
fn gpu_linear_add_norm_is_the_formula() {
    with_gpu(|| cases::linear_add_norm(&open));
}

#[test]
fn gpu_attention_is_the_formula_for_every_head_size() {
    with_gpu(|| {
        cases::attention(
            &open,
            &[1, 17, 16, 5, 33, 64, 70, 128, 500],
            12,
            &HEAD_DIMS,
            &[false, true],
        );
    });
}

#[test]
fn gpu_attention_reaches_over_texts_of_8192_tokens() {
    with_gpu(|| cases::attention(&open, &[8192, 3], 1, &[64], &[false]));
}

#[test]
fn gpu_attention_takes_many_short_texts() {
    with_gpu(|| cases::attention(&open, &[7; 2000], 2, &[32], &[false]));
}

#[test]
fn gpu_pool_is_the_formula() {
    with_gpu(|| cases::pool(&open));
}

/// The library chooses another algorithm for another number of rows, so sums are taken in another order.
#[test]
fn gpu_layer_is_the_processors_and_a_text_hardly_depends_on_its_batch() {
    with_gpu(|| {
        cases::layer(&open, |dtype| match dtype {
            Dtype::F32 => 1e-5,
            Dtype::F16 => 4e-3,
            Dtype::Bf16 => 3e-2,
        });
    });
}

#[test]
fn gpu_executors_side_by_side_compute_the_rows_of_one() {
    with_gpu(|| cases::executors(&open, &open));
}

/// Bit by bit against the same launches one by one; without graphs products have fewer rows, and so perhaps another
/// algorithm.
#[test]
fn gpu_small_batches_are_the_same_through_a_graph() {
    with_gpu(|| {
        cases::graphs(&open, |dtype| match dtype {
            Dtype::F32 => 1e-5,
            Dtype::F16 => 4e-3,
            Dtype::Bf16 => 3e-2,
        });
    });
}

#[test]
fn gpu_refuses_unsupported_operands_by_name() {
    with_gpu(|| cases::refusals(&open));
}

/// `relu` over `count` values of f32.
fn relu(address: u64, count: usize) -> Launch {
    Launch {
        kernel: "relu_f32".to_owned(),
        grid: (count.div_ceil(1024) as u32, 1),
        threads: 256,
        shared: 0,
        args: [address, count as u64].map(u64::to_ne_bytes).concat(),
        shape: (1, count),
    }
}

fn stored(gpu: &Nvidia, values: &[f32]) -> <Nvidia as Driver>::Memory {
    let mut bytes = Vec::new();
    Dtype::F32.encode(values, &mut bytes);
    let memory = gpu.allocate(bytes.len()).expect("memory");
    gpu.store(&memory, &bytes).expect("values are copied");
    memory
}

/// Checks recording itself: in a served batch a device that refuses to record is only logged.
#[test]
fn gpu_records_a_product_and_a_kernel() {
    with_gpu(|| {
        let mut gpu = Nvidia::open(0, Dtype::F32).expect("the GPU opens");
        let signs: Vec<f32> = (0..16 * 8)
            .map(|i| if i / 8 % 2 == 0 { 1.0 } else { -1.0 })
            .collect();
        let (x, weight, bias) = (
            stored(&gpu, &signs),
            stored(&gpu, &[1.0; 64]),
            stored(&gpu, &[0.5; 8]),
        );
        let out = stored(&gpu, &[0.0; 16 * 8]);
        let product = MatrixProduct {
            x: gpu.address(&x),
            weight: gpu.address(&weight),
            bias: gpu.address(&bias),
            out: gpu.address(&out),
            rows: 16,
            inp: 8,
            out_cols: 8,
            epilogue: Epilogue::Bias,
        };
        let kernel = relu(gpu.address(&out), 16 * 8);
        gpu.multiply(&product).expect("a product");
        gpu.launch(&kernel).expect("a kernel");
        let mut outbox = gpu.outbox(4 * 16 * 8).expect("an outbox");
        let mut rows = |gpu: &mut Nvidia| {
            gpu.fetch(&out, 4 * 16 * 8, &mut outbox).expect("rows are copied");
            let mut rows = Vec::new();
            Dtype::F32.decode(gpu.wait(&mut outbox).expect("rows arrive"), &mut rows);
            rows
        };
        let expected: Vec<f32> = signs.iter().map(|&x| if x > 0.0 { 8.5 } else { 0.0 }).collect();
        assert_eq!(rows(&mut gpu), expected, "one by one");
        let work = [Work::Product(product), Work::Launch(kernel)];
        let graph = gpu.record(&work).expect("the driver records");
        for turn in 0..3 {
            gpu.store(&out, &[7; 4 * 16 * 8]).expect("other values");
            gpu.replay(&graph, &"a product and a kernel")
                .expect("the graph starts");
            assert_eq!(rows(&mut gpu), expected, "turn {turn}");
        }
    });
}

/// More threads than a block may have, and more shared memory than there is: the driver refuses either, and goes on.
#[test]
fn gpu_names_a_launch_that_is_refused_and_its_shape() {
    with_gpu(|| {
        let mut gpu = Nvidia::open(0, Dtype::F32).expect("the GPU opens");
        let memory = stored(&gpu, &[-1.0; 64]);
        let good = relu(gpu.address(&memory), 64);
        let wide = Launch {
            threads: 2048,
            ..good.clone()
        };
        let greedy = Launch {
            shared: 1 << 20,
            ..good.clone()
        };
        for (launch, named) in [
            (wide, "kernel relu_f32 over 1 x 64 (1 x 1 blocks) failed: "),
            (greedy, "kernel relu_f32 1048576 bytes of shared memory failed: "),
        ] {
            let refused = gpu.launch(&launch).expect_err("more than there is");
            assert!(matches!(refused, KernelError::Device { .. }), "{refused:?}");
            let said = refused.to_string();
            assert!(said.starts_with("cuda:0 (") && said.contains(named), "{said}");
        }
        gpu.launch(&good).expect("the next one runs");
        let mut outbox = gpu.outbox(256).expect("an outbox");
        gpu.fetch(&memory, 256, &mut outbox).expect("values are copied");
        let mut values = Vec::new();
        Dtype::F32.decode(gpu.wait(&mut outbox).expect("values arrive"), &mut values);
        assert_eq!(values, [0.0; 64]);
    });
}

#[test]
fn gpu_without_memory_says_so_and_goes_on() {
    with_gpu(|| {
        let gpu = Nvidia::open(0, Dtype::F32).expect("the GPU opens");
        let bytes = 1 << 45;
        match gpu.allocate(bytes).map(drop) {
            Err(KernelError::OutOfMemory { bytes: wanted, .. }) => assert_eq!(wanted, bytes),
            other => panic!("32 TiB of memory: {other:?}"),
        }
        stored(&gpu, &[1.0; 64]);
    });
}

/// Set in the process that is to lose its device.
const LOSE: &str = "PENSTOCK_LOSES_GPU";

/// Reads an unallocated address in a process of its own, because that ends all work of a process on the device.
#[test]
fn gpu_that_is_lost_is_said_to_be_lost() {
    with_gpu(|| {
        if std::env::var_os(LOSE).is_none() {
            let itself = std::env::current_exe().expect("a program");
            let done = std::process::Command::new(itself)
                .args(["--exact", "gpu_that_is_lost_is_said_to_be_lost"])
                .env(LOSE, "1")
                .output()
                .expect("it starts");
            let said = String::from_utf8_lossy(&done.stdout);
            assert!(done.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let mut gpu = Nvidia::open(0, Dtype::F32).expect("the GPU opens");
        let memory = stored(&gpu, &[1.0; 64]);
        let mut outbox = gpu.outbox(256).expect("an outbox");
        let mut lose = || {
            gpu.launch(&relu(4096, 64))?;
            gpu.fetch(&memory, 256, &mut outbox)?;
            gpu.wait(&mut outbox).map(drop)
        };
        for turn in 0..2 {
            let lost = lose();
            assert!(
                matches!(lost, Err(KernelError::DeviceLost { .. })),
                "turn {turn}: {lost:?}"
            );
        }
        let more = gpu.allocate(16).map(drop);
        assert!(matches!(more, Err(KernelError::DeviceLost { .. })), "{more:?}");
    });
}

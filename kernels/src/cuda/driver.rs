//! The least that a device must do for the operations: memory, copies, launches, products.
//!
//! Two implement it: the CUDA driver ([`super::nvidia`]), and in the tests a device that runs the same kernels
//! on the processor.

use std::fmt::{self, Display};

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::ops::KernelError;

/// Number format of activations and weights. Sums are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32 bits, for checking.
    F32,
    /// 16 bits, 11 of them precision.
    F16,
    /// 16 bits with the range of f32, 8 of them precision.
    Bf16,
}

impl Dtype {
    /// The name in kernels and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        }
    }

    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }

    /// `values` as the device keeps them, appended to `out`.
    pub fn encode(self, values: &[f32], out: &mut Vec<u8>) {
        match self {
            Dtype::F32 => out.extend(values.iter().flat_map(|v| v.to_ne_bytes())),
            Dtype::F16 => out.extend(values.iter().flat_map(|&v| half::f16::from_f32(v).to_ne_bytes())),
            Dtype::Bf16 => out.extend(values.iter().flat_map(|&v| half::bf16::from_f32(v).to_ne_bytes())),
        }
    }

    /// Values that the device kept in `bytes`, appended to `out`.
    pub fn decode(self, bytes: &[u8], out: &mut Vec<f32>) {
        match self {
            Dtype::F32 => out.extend(bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_ne_bytes(b))),
            Dtype::F16 => {
                // Many at once: a single conversion first checks the processor's features, which takes most of the
                // time, and a batch of short texts has as many values as a layer has weights.
                const MANY: usize = 64;
                let (mut halves, mut values) = ([f16::ZERO; MANY], [0.0; MANY]);
                for bytes in bytes.chunks(2 * MANY) {
                    let count = bytes.len() / 2;
                    for (half, &pair) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
                        *half = f16::from_ne_bytes(pair);
                    }
                    halves[..count].convert_to_f32_slice(&mut values[..count]);
                    out.extend_from_slice(&values[..count]);
                }
            }
            // The upper half of an f32.
            Dtype::Bf16 => {
                let pairs = bytes
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|&pair| u16::from_ne_bytes(pair));
                out.extend(pairs.map(|bits| f32::from_bits(u32::from(bits) << 16)));
            }
        }
    }
}

/// One kernel over a grid of blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Name in kernels/cu.
    pub kernel: String,
    /// Blocks along x and y.
    pub grid: (u32, u32),
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// The only operand, the bytes of a struct that mirrors the kernel's.
    pub args: Vec<u8>,
    /// Rows and columns, for errors.
    pub shape: (usize, usize),
}

/// Name and shape, for errors.
impl Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Launch { kernel, grid, .. }, (rows, cols)) = (self, self.shape);
        let (blocks_x, blocks_y) = grid;
        write!(
            f,
            "kernel {kernel} over {rows} x {cols} ({blocks_x} x {blocks_y} blocks)"
        )
    }
}

/// Arithmetic on a product before it is rounded and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Epilogue {
    /// Plus the bias.
    Bias,
    /// Plus the bias, negative ones to 0.
    BiasRelu,
    /// Plus the bias, then GELU in its tanh form.
    BiasGeluTanh,
}

/// `out = epilogue(x · wᵀ + bias)`, addresses on the device, all rows dense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixProduct {
    /// `[rows, inp]`.
    pub x: u64,
    /// `[out_cols, inp]`.
    pub weight: u64,
    /// `[out_cols]`.
    pub bias: u64,
    /// `[rows, out_cols]`.
    pub out: u64,
    /// Rows; the memory of `x` and `out` reaches to the next multiple of [`ROWS_STEP`].
    pub rows: usize,
    /// Inputs, a multiple of 8.
    pub inp: usize,
    /// Outputs, a multiple of 8.
    pub out_cols: usize,
    /// Arithmetic that follows the sum.
    pub epilogue: Epilogue,
}

/// Shapes, for errors.
impl Display for MatrixProduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MatrixProduct {
            rows,
            inp,
            out_cols,
            epilogue,
            ..
        } = self;
        write!(
            f,
            "product of {rows} x {inp} with {inp} x {out_cols}, {epilogue:?}"
        )
    }
}

/// A piece of work for a device, complete with addresses: equal pieces do the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// A kernel of ours.
    Launch(Launch),
    /// A product of the library.
    Product(MatrixProduct),
}

/// Activations have room for this many rows more than the last full step, so that products may be
/// computed over whole steps: shapes repeat, and the rows behind the last are never read.
pub const ROWS_STEP: usize = 16;

/// A device. Everything but [`Driver::store`] and [`Driver::wait`] only starts its work, in order.
pub trait Driver: Send {
    /// Memory on the device, aligned to 256 bytes and given back when dropped.
    type Memory: Send + Sync;
    /// A place on the device that the host fills anew for each batch.
    type Inbox: Send;
    /// Values on their way back to the host.
    type Outbox: Send;
    /// Recorded work, to be started by one call. Dropping it waits for runs that are under way.
    type Graph: Send;

    /// New memory with unspecified contents.
    fn allocate(&self, bytes: usize) -> Result<Self::Memory, KernelError>;

    /// Address of the first byte of `memory`.
    fn address(&self, memory: &Self::Memory) -> u64;

    /// Fills the beginning of `memory` and waits until it is there.
    fn store(&self, memory: &Self::Memory, bytes: &[u8]) -> Result<(), KernelError>;

    /// An inbox that can take `bytes`.
    fn inbox(&self, bytes: usize) -> Result<Self::Inbox, KernelError>;

    /// Puts `bytes` into `inbox` for the launches that follow, and returns their address. Launches before the
    /// last [`Driver::release`] of the inbox still see the earlier contents.
    fn post(&mut self, inbox: &mut Self::Inbox, bytes: &[u8]) -> Result<u64, KernelError>;

    /// No launch that follows reads `inbox` before something new is posted.
    fn release(&mut self, inbox: &mut Self::Inbox) -> Result<(), KernelError>;

    /// Posts as [`Driver::post`] does, and always at the same address: launches so far still see the earlier
    /// contents, because the copy runs behind them in the stream.
    fn post_in_turn(&mut self, inbox: &mut Self::Inbox, bytes: &[u8]) -> Result<u64, KernelError>;

    /// Address at which [`Driver::post_in_turn`] puts its bytes.
    fn inbox_address(&self, inbox: &Self::Inbox) -> u64;

    /// Runs a kernel.
    fn launch(&mut self, launch: &Launch) -> Result<(), KernelError>;

    /// Multiplies matrices in the device's dtype.
    fn multiply(&mut self, product: &MatrixProduct) -> Result<(), KernelError>;

    /// Records `work`, every piece of which this device has run before, without running it.
    fn record(&mut self, work: &[Work]) -> Result<Self::Graph, KernelError>;

    /// Runs all recorded work with one call. `name` is for errors.
    fn replay(&mut self, graph: &Self::Graph, name: &dyn Display) -> Result<(), KernelError>;

    /// An outbox that can take `bytes`.
    fn outbox(&self, bytes: usize) -> Result<Self::Outbox, KernelError>;

    /// Brings the first `bytes` of `memory`, as all work so far leaves them, into `outbox`.
    fn fetch(
        &mut self,
        memory: &Self::Memory,
        bytes: usize,
        outbox: &mut Self::Outbox,
    ) -> Result<(), KernelError>;

    /// True where [`Driver::wait`] would return at once, be it with an error.
    fn has_arrived(&self, outbox: &Self::Outbox) -> bool;

    /// Waits for the bytes fetched into `outbox` and returns them.
    fn wait<'a>(&mut self, outbox: &'a mut Self::Outbox) -> Result<&'a [u8], KernelError>;
}

#[cfg(test)]
mod tests {
    use super::{Dtype, Epilogue, Launch, MatrixProduct};

    #[test]
    fn errors_name_the_work_and_its_shape() {
        let launch = Launch {
            kernel: "pool_f16".to_owned(),
            grid: (3, 7),
            threads: 256,
            shared: 0,
            args: Vec::new(),
            shape: (7, 768),
        };
        assert_eq!(launch.to_string(), "kernel pool_f16 over 7 x 768 (3 x 7 blocks)");
        let product = MatrixProduct {
            x: 0,
            weight: 0,
            bias: 0,
            out: 0,
            rows: 64,
            inp: 768,
            out_cols: 3072,
            epilogue: Epilogue::Bias,
        };
        assert_eq!(product.to_string(), "product of 64 x 768 with 768 x 3072, Bias");
    }

    /// Compares every pattern of 16 bits with a conversion one by one.
    #[test]
    fn decoding_many_values_equals_decoding_each() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_ne_bytes).collect();
        for count in [0, 1, 63, 64, 65, 1 << 16] {
            for dtype in [Dtype::F16, Dtype::Bf16] {
                let mut out = vec![7.0];
                dtype.decode(&bytes[..2 * count], &mut out);
                let expected = (0..count).map(|bits| match dtype {
                    Dtype::F16 => half::f16::from_bits(bits as u16).to_f32(),
                    _ => half::bf16::from_bits(bits as u16).to_f32(),
                });
                let same = |a: &f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
                assert_eq!(out.len(), 1 + count);
                assert!(
                    out[1..].iter().zip(expected).all(|(a, b)| same(a, b)),
                    "{count} of {dtype:?}"
                );
            }
        }
    }
}

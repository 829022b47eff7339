//! Requirements on every CUDA device: each operation against the slow reference, in every format.

use penstock_kernels::cuda::driver::Driver;
use penstock_kernels::cuda::{Cuda, DeviceBuffer, DeviceTable, Dtype};
use penstock_kernels::{
    Activation, Cpu, Embedding, KernelError, Norm, Ops, Pooling, Priority, Tokens, reference,
};

use crate::{check, cu_seqlens, random};

pub const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];
pub const HEAD_DIMS: [usize; 5] = [32, 64, 80, 96, 128];

/// One device for each format.
pub type Open<'a, D> = &'a dyn Fn(Dtype) -> Cuda<D>;

/// Half a step of the format at 1, about, times what a result of several roundings may be off.
fn tolerance(dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F32 => 2e-5,
        Dtype::F16 => 3e-3,
        Dtype::Bf16 => 2.4e-2,
    }
}

/// `values` as the format keeps them, so that only the computing differs.
fn rounded(dtype: Dtype, values: &[f32]) -> Vec<f32> {
    let (mut bytes, mut out) = (Vec::new(), Vec::new());
    dtype.encode(values, &mut bytes);
    dtype.decode(&bytes, &mut out);
    out
}

fn filled<D: Driver>(cuda: &mut Cuda<D>, values: &[f32], rows: usize) -> DeviceBuffer<D> {
    let mut buffer = cuda.buffer();
    cuda.write(values, rows, values.len() / rows, &mut buffer)
        .expect("values fill the rows");
    buffer
}

fn read<D: Driver>(cuda: &mut Cuda<D>, x: &DeviceBuffer<D>) -> Vec<f32> {
    let mut values = Vec::new();
    cuda.send(x).expect("values are sent");
    cuda.receive(&mut values).expect("values arrive");
    values
}

fn norm<O: Ops>(ops: &O, seed: u64, cols: usize) -> (Vec<f32>, Vec<f32>, Norm<O::Table>) {
    let (gamma, beta) = (random(seed, cols, 1.0), random(seed + 1, cols, 1.0));
    let table = |values: &[f32]| ops.table(values, 1, cols).expect("a row of values");
    let norm = Norm {
        gamma: table(&gamma),
        beta: table(&beta),
        eps: 1e-12,
    };
    (gamma, beta, norm)
}

pub fn embedding<D: Driver>(open: Open<'_, D>) {
    let shapes = [(1, 8), (3, 384), (9, 768), (70, 1024), (5, 40), (130, 64)];
    for dtype in DTYPES {
        let mut cuda = open(dtype);
        for ((rows, cols), seed) in shapes.into_iter().zip((0..).step_by(10)) {
            for options in 0..6_usize {
                let (with_position, kinds) = (options % 2 == 0, options / 2);
                let (words, places, types) = (50, 40, 2);
                let [word, position, kind] =
                    [(words, 0), (places, 1), (types, 2)].map(|(n, s)| random(seed + s, n * cols, 1.0));
                let pick = |seed: u64, bound: usize| -> Vec<u32> {
                    let values = random(seed, rows, 1.0);
                    values.iter().map(|v| (v.abs() * bound as f32) as u32).collect()
                };
                let (ids, positions) = (pick(seed + 3, words), pick(seed + 4, places));
                let types_given = if kinds == 2 {
                    pick(seed + 5, types)
                } else {
                    Vec::new()
                };
                let (gamma, beta, norm) = norm(&cuda, seed + 6, cols);
                let mut expected = reference::embed(
                    (&ids, &word),
                    (&positions, if with_position { &position } else { &[] }),
                    (&types_given, if kinds > 0 { &kind } else { &[] }),
                    cols,
                );
                reference::layer_norm(&mut expected, &gamma, &beta, 1e-12);
                let table = |values: &[f32], rows| cuda.table(values, rows, cols).expect("a table");
                let tables = Embedding {
                    word: table(&word, words),
                    position: with_position.then(|| table(&position, places)),
                    kind: (kinds > 0).then(|| table(&kind, types)),
                    norm,
                };
                let tokens = Tokens {
                    ids: &ids,
                    positions: &positions,
                    kinds: &types_given,
                };
                let mut out = cuda.buffer();
                cuda.embed(tokens, &tables, &mut out)
                    .expect("tokens are embedded");
                let what = format!("embedding {rows} x {cols} {}", dtype.name());
                check(&what, &read(&mut cuda, &out), &expected, tolerance(dtype));
            }
        }
    }
}

pub fn linear<D: Driver>(open: Open<'_, D>) {
    use Activation::{Gelu, GeluTanh, None, Relu, Tanh};
    let shapes = [(1, 8, 2), (3, 16, 1), (17, 64, 40), (33, 96, 96), (70, 24, 200)];
    for dtype in DTYPES {
        let mut cuda = open(dtype);
        for ((rows, inp, out), seed) in shapes.into_iter().zip((0..).step_by(10)) {
            for activation in [None, Gelu, GeluTanh, Relu, Tanh] {
                let x = rounded(dtype, &random(seed, rows * inp, 1.0));
                let weight = rounded(dtype, &random(seed + 1, out * inp, 2.0 / (inp as f32).sqrt()));
                let bias = rounded(dtype, &random(seed + 2, out, 1.0));
                let expected = reference::linear(&x, &weight, Some(&bias), inp, activation);
                let matrix = cuda.matrix(&weight, Some(&bias), out, inp).expect("a matrix");
                let x = filled(&mut cuda, &x, rows);
                let mut y = cuda.buffer();
                cuda.linear(&x, &matrix, activation, &mut y).expect("a product");
                assert_eq!(cuda.shape(&y), (rows, out));
                let what = format!("linear {rows} x {inp} -> {out} {activation:?} {}", dtype.name());
                check(&what, &read(&mut cuda, &y), &expected, tolerance(dtype));
            }
        }
        let matrix = cuda
            .matrix(&[1.0; 80], Option::None, 10, 8)
            .expect("no bias is a bias of zeros");
        let x = filled(&mut cuda, &[0.5; 8], 1);
        let mut y = cuda.buffer();
        cuda.linear(&x, &matrix, Activation::None, &mut y)
            .expect("a product");
        assert_eq!(read(&mut cuda, &y), [4.0; 10]);
    }
}

pub fn linear_add_norm<D: Driver>(open: Open<'_, D>) {
    for dtype in DTYPES {
        let mut cuda = open(dtype);
        for ((rows, inp, out), seed) in [(1, 32, 384), (9, 16, 768), (66, 64, 40), (5, 8, 1024)]
            .into_iter()
            .zip((0..).step_by(10))
        {
            let x = rounded(dtype, &random(seed, rows * inp, 1.0));
            let weight = rounded(dtype, &random(seed + 1, out * inp, 1.0 / (inp as f32).sqrt()));
            let bias = rounded(dtype, &random(seed + 2, out, 1.0));
            let residual = rounded(dtype, &random(seed + 3, rows * out, 2.0));
            let (gamma, beta, norm) = norm(&cuda, seed + 4, out);
            let mut expected = reference::linear(&x, &weight, Some(&bias), inp, Activation::None);
            for (sum, value) in expected.iter_mut().zip(&residual) {
                *sum += value;
            }
            reference::layer_norm(&mut expected, &gamma, &beta, 1e-12);
            let matrix = cuda.matrix(&weight, Some(&bias), out, inp).expect("a matrix");
            let x = filled(&mut cuda, &x, rows);
            let mut sum = filled(&mut cuda, &residual, rows);
            cuda.linear_add_norm(&x, &matrix, &norm, &mut sum).expect("a sum");
            let what = format!("linear_add_norm {rows} x {inp} -> {out} {}", dtype.name());
            check(&what, &read(&mut cuda, &sum), &expected, tolerance(dtype));
        }
    }
}

/// `lens` in every format, without and with a relative bias.
pub fn attention<D: Driver>(
    open: Open<'_, D>,
    lens: &[usize],
    heads: usize,
    head_dims: &[usize],
    biases: &[bool],
) {
    for dtype in DTYPES {
        let mut cuda = open(dtype);
        for &head_dim in head_dims {
            for &with_bias in biases {
                let rows: usize = lens.iter().sum();
                let qkv = rounded(dtype, &random(head_dim as u64, rows * 3 * heads * head_dim, 2.0));
                let cu_seqlens = cu_seqlens(lens);
                let reach = lens.iter().max().expect("there are texts") + 3;
                let bias = with_bias.then(|| random(7, heads * (2 * reach - 1), 3.0));
                let expected = reference::attention(&qkv, &cu_seqlens, heads, head_dim, bias.as_deref());
                let x = filled(&mut cuda, &qkv, rows);
                let table = bias
                    .as_ref()
                    .map(|bias| cuda.table(bias, heads, 2 * reach - 1).expect("a table"));
                let mut y = cuda.buffer();
                cuda.attention(&x, &cu_seqlens, heads, table.as_ref(), &mut y)
                    .expect("texts are attended to");
                let what = format!(
                    "attention {lens:?} {heads} x {head_dim} bias {with_bias} {}",
                    dtype.name()
                );
                check(&what, &read(&mut cuda, &y), &expected, tolerance(dtype));
            }
        }
    }
}

pub fn pool<D: Driver>(open: Open<'_, D>) {
    for dtype in DTYPES {
        let mut cuda = open(dtype);
        for (cols, lens) in [
            (8, &[1, 2, 3][..]),
            (384, &[7, 1, 100]),
            (768, &[40]),
            (1024, &[9, 8, 3]),
        ] {
            let rows = lens.iter().sum::<usize>();
            let x = rounded(dtype, &random(cols as u64, rows * cols, 1.0));
            let cu_seqlens = cu_seqlens(lens);
            for pooling in [Pooling::Mean, Pooling::Cls] {
                let expected = reference::pool(&x, &cu_seqlens, cols, pooling);
                let x = filled(&mut cuda, &x, rows);
                let mut y = cuda.buffer();
                cuda.pool(&x, &cu_seqlens, pooling, &mut y)
                    .expect("texts are pooled");
                let what = format!("pool {lens:?} x {cols} {pooling:?} {}", dtype.name());
                check(&what, &read(&mut cuda, &y), &expected, tolerance(dtype));
            }
        }
    }
}

const HEADS: usize = 2;
const HIDDEN: usize = 64;

/// One encoder layer over made-up activations, on any device.
pub struct Layer<O: Ops> {
    qkv: O::Matrix,
    attended: O::Matrix,
    up: O::Matrix,
    down: O::Matrix,
    norm: Norm<O::Table>,
}

impl<O: Ops> Layer<O> {
    pub fn new(ops: &O) -> Self {
        let matrix = |seed: u64, out: usize, inp: usize| {
            let weight = random(seed, out * inp, 1.5 / (inp as f32).sqrt());
            ops.matrix(&weight, Some(&random(seed + 50, out, 0.5)), out, inp)
                .expect("a matrix")
        };
        Self {
            qkv: matrix(1, 3 * HIDDEN, HIDDEN),
            attended: matrix(2, HIDDEN, HIDDEN),
            up: matrix(3, 4 * HIDDEN, HIDDEN),
            down: matrix(4, HIDDEN, 4 * HIDDEN),
            norm: norm(ops, 5, HIDDEN).2,
        }
    }

    /// Starts the forward of `texts` packed into one batch; one mean row for each comes back.
    pub fn submit(&self, ops: &mut O, texts: &[Vec<f32>]) -> Result<(), KernelError> {
        let lens: Vec<usize> = texts.iter().map(|text| text.len() / HIDDEN).collect();
        let (cu_seqlens, packed) = (cu_seqlens(&lens), texts.concat());
        let mut buffers = [(); 5].map(|()| ops.buffer());
        let [hidden, qkv, mixed, wide, pooled] = &mut buffers;
        ops.write(&packed, packed.len() / HIDDEN, HIDDEN, hidden)?;
        ops.linear(hidden, &self.qkv, Activation::None, qkv)?;
        ops.attention(qkv, &cu_seqlens, HEADS, None, mixed)?;
        ops.linear_add_norm(mixed, &self.attended, &self.norm, hidden)?;
        ops.linear(hidden, &self.up, Activation::Gelu, wide)?;
        ops.linear_add_norm(wide, &self.down, &self.norm, hidden)?;
        ops.pool(hidden, &cu_seqlens, Pooling::Mean, pooled)?;
        ops.send(pooled)
    }

    pub fn forward(&self, ops: &mut O, texts: &[Vec<f32>]) -> Vec<f32> {
        let mut rows = Vec::new();
        self.submit(ops, texts).expect("a layer");
        ops.receive(&mut rows).expect("its rows");
        rows
    }
}

fn texts(dtype: Dtype, lens: &[usize]) -> Vec<Vec<f32>> {
    let text = |(len, seed): (&usize, u64)| rounded(dtype, &random(seed, len * HIDDEN, 1.0));
    lens.iter().zip(0..).map(text).collect()
}

/// A layer equals the processor's, alone as in a batch; two batches on the way come back in order; a text
/// that holds NaN spoils itself alone.
pub fn layer<D: Driver>(open: Open<'_, D>, alone_within: impl Fn(Dtype) -> f32) {
    for dtype in DTYPES {
        let mut cpu = Cpu::new(1).expect("the processor");
        let mut cuda = open(dtype);
        let (on_cpu, on_cuda) = (Layer::new(&cpu), Layer::new(&cuda));
        let mut texts = texts(dtype, &[1, 40, 16, 17, 130, 3, 64, 33]);
        let what = format!("layer {}", dtype.name());
        let together = on_cuda.forward(&mut cuda, &texts);
        check(
            &what,
            &together,
            &on_cpu.forward(&mut cpu, &texts),
            3.0 * tolerance(dtype),
        );
        for (text, row) in texts.iter().zip(together.chunks_exact(HIDDEN)) {
            let alone = on_cuda.forward(&mut cuda, std::slice::from_ref(text));
            check(&format!("{what} alone"), &alone, row, alone_within(dtype));
        }
        on_cuda.submit(&mut cuda, &texts[..3]).expect("the first batch");
        on_cuda.submit(&mut cuda, &texts[3..]).expect("the second batch");
        let (mut first, mut second) = (Vec::new(), Vec::new());
        cuda.receive(&mut first).expect("the first rows");
        cuda.receive(&mut second).expect("the second rows");
        let both = [first, second].concat();
        check(
            &format!("{what} in two batches"),
            &both,
            &together,
            alone_within(dtype),
        );
        texts[4][5 * HIDDEN + 7] = f32::NAN;
        let spoiled = on_cuda.forward(&mut cuda, &texts);
        for (text, (row, clean)) in spoiled
            .chunks_exact(HIDDEN)
            .zip(together.chunks_exact(HIDDEN))
            .enumerate()
        {
            if text == 4 {
                assert!(
                    row.iter().all(|v| v.is_nan()),
                    "{what}: a key that is NaN reaches every query"
                );
            } else {
                check(&format!("{what} beside NaN"), row, clean, alone_within(dtype));
            }
        }
    }
}

/// Executors that share a layer's weights compute the same side by side and each by itself, bit by bit.
pub fn executors<D: Driver>(open: Open<'_, D>, beside: Open<'_, D>) {
    for dtype in DTYPES {
        let mut first = open(dtype);
        let mut second = beside(dtype);
        let layer = Layer::new(&first);
        let batches = [&[1, 40, 16][..], &[130, 3], &[64; 5]].map(|lens| texts(dtype, lens));
        let expected = batches.each_ref().map(|batch| layer.forward(&mut first, batch));
        let bits = |rows: &[f32]| rows.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        std::thread::scope(|scope| {
            for (executor, cuda) in [&mut first, &mut second].into_iter().enumerate() {
                let (layer, batches, expected) = (&layer, &batches, &expected);
                scope.spawn(move || {
                    // Each begins with another batch, so that they are of different sizes at most times.
                    for turn in executor..executor + 4 * batches.len() {
                        let at = turn % batches.len();
                        let rows = layer.forward(cuda, &batches[at]);
                        assert_eq!(bits(&rows), bits(&expected[at]), "{dtype:?}, executor {executor}");
                    }
                });
            }
        });
    }
}

/// Small batches: their rows launch by launch and through a graph are equal bit by bit, after any earlier batch of the
/// bucket. They equal the rows without graphs within `within`. Both devices know the same layer.
pub fn graphs<D: Driver>(open: Open<'_, D>, within: impl Fn(Dtype) -> f32) {
    const WORDS: usize = 50;
    // Two that share a bucket, one of a single text, and one with a text less than the bucket of the first two.
    let batches: [&[usize]; 4] = [&[40, 3, 30, 9], &[33, 1, 35, 20], &[64], &[5, 17, 64]];
    for dtype in DTYPES {
        let (mut plain, mut cuda) = (open(dtype), open(dtype).recording());
        let (mut small, mut expected) = (Small::new(&cuda), Small::new(&plain));
        for pooling in [Pooling::Mean, Pooling::Cls] {
            for (batch, lens) in batches.into_iter().enumerate() {
                let what = format!("graph of {lens:?} {pooling:?} {}", dtype.name());
                let rows = lens.iter().sum::<usize>();
                let ids = random(batch as u64, rows, 1.0);
                let ids: Vec<u32> = ids.iter().map(|v| (v.abs() * WORDS as f32) as u32).collect();
                let others: Vec<u32> = ids.iter().map(|id| WORDS as u32 - 1 - id).collect();
                let first = small.forward(&mut cuda, &ids, lens, pooling);
                check(
                    &what,
                    &first,
                    &expected.forward(&mut plain, &ids, lens, pooling),
                    within(dtype),
                );
                let graphs = cuda.graphs();
                for turn in 0..6 {
                    let bits = |row: &[f32]| row.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    let again = small.forward(&mut cuda, &ids, lens, pooling);
                    assert_eq!(bits(&again), bits(&first), "{what}, turn {turn}");
                    small.forward(&mut cuda, &others, lens, pooling);
                }
                let made = cuda.graphs() - graphs;
                assert!(made <= 1, "{what}: {made} graphs");
            }
            assert_eq!(cuda.graphs(), 2, "one for each bucket, of the pooling at hand");
        }
        assert_eq!(plain.graphs(), 0);
    }
}

/// An embedding and a layer whose buffers stay from batch to batch, as a model's do.
struct Small<O: Ops> {
    layer: Layer<O>,
    tables: Embedding<O::Words, O::Table>,
    buffers: [O::Buffer; 5],
}

impl<O: Ops> Small<O> {
    fn new(ops: &O) -> Self {
        let words = random(9, 50 * HIDDEN, 1.0);
        let places = random(10, 64 * HIDDEN, 0.5);
        Self {
            layer: Layer::new(ops),
            tables: Embedding {
                word: ops.words(&words, 50, HIDDEN).expect("words"),
                position: Some(ops.table(&places, 64, HIDDEN).expect("places")),
                kind: None,
                norm: norm(ops, 11, HIDDEN).2,
            },
            buffers: [(); 5].map(|()| ops.buffer()),
        }
    }

    fn forward(&mut self, ops: &mut O, ids: &[u32], lens: &[usize], pooling: Pooling) -> Vec<f32> {
        let cu_seqlens = cu_seqlens(lens);
        let positions: Vec<u32> = lens.iter().flat_map(|&len| 0..len as u32).collect();
        let tokens = Tokens {
            ids,
            positions: &positions,
            kinds: &[],
        };
        let [hidden, qkv, mixed, wide, pooled] = &mut self.buffers;
        let (layer, tables) = (&self.layer, &self.tables);
        ops.forward(&cu_seqlens, Priority::Urgent, |ops| {
            ops.embed(tokens, tables, hidden)?;
            ops.linear(hidden, &layer.qkv, Activation::None, qkv)?;
            ops.attention(qkv, &cu_seqlens, HEADS, None, mixed)?;
            ops.linear_add_norm(mixed, &layer.attended, &layer.norm, hidden)?;
            ops.linear(hidden, &layer.up, Activation::Gelu, wide)?;
            ops.linear_add_norm(wide, &layer.down, &layer.norm, hidden)?;
            ops.pool(hidden, &cu_seqlens, pooling, pooled)?;
            ops.send(pooled)
        })
        .expect("a forward");
        let mut rows = Vec::new();
        ops.receive(&mut rows).expect("its rows");
        rows
    }
}

#[track_caller]
fn refused(result: Result<(), KernelError>, message: &str) {
    assert_eq!(result.expect_err("must be refused").to_string(), message);
}

pub fn refusals<D: Driver>(open: Open<'_, D>) {
    let mut cuda = open(Dtype::F16);
    let mut out = cuda.buffer();
    let empty = cuda.buffer();
    let x = filled(&mut cuda, &random(1, 4 * 24, 1.0), 4);
    let matrix = cuda.matrix(&[0.5; 192], None, 8, 24).expect("a matrix");
    refused(
        cuda.linear(&empty, &matrix, Activation::None, &mut out),
        "linear: x is empty",
    );
    refused(cuda.send(&empty), "send: x is empty");
    refused(
        cuda.attention(&x, &[0, 4], 1, None, &mut out),
        "attention: head size is 8; supported: 32, 64, 80, 96, 128",
    );
    refused(
        cuda.pool(&x, &[0, 3], Pooling::Mean, &mut out),
        "pool: cu_seqlens must rise from 0 to 4 rows, but entry 1 is 3",
    );
    let narrow = cuda.matrix(&[0.5; 20], None, 2, 10).map(|_| ());
    refused(narrow, "matrix: inputs is 10; supported: multiples of 8");
    let tables = |cols: usize| Embedding {
        word: cuda.table(&vec![0.0; 5 * cols], 5, cols).expect("a table"),
        position: None,
        kind: None,
        norm: norm(&cuda, 1, cols).2,
    };
    let (wide, narrow): (Embedding<DeviceTable<D>, DeviceTable<D>>, _) = (tables(1032), tables(8));
    let tokens = |ids| Tokens {
        ids,
        positions: &[],
        kinds: &[],
    };
    refused(
        cuda.embed(tokens(&[1]), &wide, &mut out),
        "embed: hidden size is 1032; supported: multiples of 8 up to 1024",
    );
    refused(
        cuda.embed(tokens(&[5]), &narrow, &mut out),
        "embed: token id 5 lies outside its table of 5 rows",
    );
}

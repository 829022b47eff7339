//! Every packed operation on every path against the same step in plain Candle, on random shapes.
//!
//! Candle sees one text at a time and none of our code, so it does not share a misreading of the formula
//! with the reference.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod support;

use candle_core::{D, Device, Result, Tensor};
use candle_nn::ops::{layer_norm, softmax};
use penstock_kernels::{Activation, Embedding, Ops, Pooling, Tokens};
use proptest::prelude::*;
use support::{check, devices, filled, norm, random};

const ROWS_MAX: u32 = 80;

/// The shape of a packed batch, and the seed of its values.
#[derive(Debug, Clone)]
struct Batch {
    cu_seqlens: Vec<u32>,
    heads: usize,
    head_dim: usize,
    seed: u64,
}

impl Batch {
    fn rows(&self) -> usize {
        self.cu_seqlens[self.cu_seqlens.len() - 1] as usize
    }

    fn hidden(&self) -> usize {
        self.heads * self.head_dim
    }

    /// First row and number of rows of each text.
    fn texts(&self) -> impl Iterator<Item = (usize, usize)> {
        let bounds = self.cu_seqlens.windows(2);
        bounds.map(|text| (text[0] as usize, (text[1] - text[0]) as usize))
    }

    /// `count` values in ±`size`, other ones for each `operand`.
    fn values(&self, operand: u64, count: usize, size: f32) -> Vec<f32> {
        random(self.seed + operand, count, size)
    }

    /// One number below `bound` for each row.
    fn picks(&self, operand: u64, bound: usize) -> Vec<u32> {
        let values = self.values(operand, self.rows(), 1.0);
        values
            .iter()
            .map(|value| (value.abs() * bound as f32) as u32)
            .collect()
    }
}

/// 1 to `ROWS_MAX` rows, cut at random into one to seven texts.
fn batches() -> impl Strategy<Value = Batch> {
    (
        1..=ROWS_MAX,
        prop::collection::btree_set(1..ROWS_MAX, 0..7),
        1usize..5,
        prop::sample::select(vec![8usize, 16, 32, 64]),
        0u64..1 << 40,
    )
        .prop_map(|(rows, cuts, heads, head_dim, seed)| {
            let inner = cuts.into_iter().filter(|cut| *cut < rows);
            Batch {
                cu_seqlens: [0].into_iter().chain(inner).chain([rows]).collect(),
                heads,
                head_dim,
                seed,
            }
        })
}

fn matrix(values: &[f32], cols: usize) -> Result<Tensor> {
    Tensor::from_slice(values, (values.len() / cols, cols), &Device::Cpu)
}

fn vector<T: candle_core::WithDType>(values: &[T]) -> Result<Tensor> {
    Tensor::from_slice(values, values.len(), &Device::Cpu)
}

fn flat(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}

fn product(x: &[f32], weight: &[f32], bias: &[f32], inp: usize) -> Result<Tensor> {
    let product = matrix(x, inp)?.matmul(&matrix(weight, inp)?.t()?)?;
    product.broadcast_add(&vector(bias)?)
}

fn check_linear(batch: &Batch, activation: Activation) -> Result<()> {
    let (rows, inp, out) = (batch.rows(), batch.hidden(), 3 * batch.hidden());
    let x = batch.values(0, rows * inp, 1.0);
    let weight = batch.values(1, out * inp, 2.0 / (inp as f32).sqrt());
    let bias = batch.values(2, out, 1.0);
    let product = product(&x, &weight, &bias, inp)?;
    let expected = flat(&match activation {
        Activation::None => product,
        Activation::Gelu => product.gelu_erf()?,
        Activation::GeluTanh => product.gelu()?,
        Activation::Relu => product.relu()?,
        Activation::Tanh => product.tanh()?,
    })?;
    for mut cpu in devices() {
        let matrix = cpu.matrix(&weight, Some(&bias), out, inp).unwrap();
        let x = filled(&mut cpu, &x, rows);
        let mut y = cpu.buffer();
        cpu.linear(&x, &matrix, activation, &mut y).unwrap();
        let what = format!("linear {activation:?} on {}", cpu.path().name());
        check(&what, y.values(), &expected, 1e-5);
    }
    Ok(())
}

fn check_linear_add_norm(batch: &Batch) -> Result<()> {
    let (rows, inp, out) = (batch.rows(), 2 * batch.hidden(), batch.hidden());
    let x = batch.values(0, rows * inp, 1.0);
    let weight = batch.values(1, out * inp, 2.0 / (inp as f32).sqrt());
    let bias = batch.values(2, out, 1.0);
    let residual = batch.values(3, rows * out, 2.0);
    let (gamma, beta) = (batch.values(4, out, 1.0), batch.values(5, out, 1.0));
    let sum = (product(&x, &weight, &bias, inp)? + matrix(&residual, out)?)?;
    let expected = flat(&layer_norm(&sum, &vector(&gamma)?, &vector(&beta)?, 1e-12)?)?;
    for mut cpu in devices() {
        let matrix = cpu.matrix(&weight, Some(&bias), out, inp).unwrap();
        let norm = norm(&cpu, &gamma, &beta);
        let x = filled(&mut cpu, &x, rows);
        let mut sum = filled(&mut cpu, &residual, rows);
        cpu.linear_add_norm(&x, &matrix, &norm, &mut sum).unwrap();
        let what = format!("linear_add_norm on {}", cpu.path().name());
        check(&what, sum.values(), &expected, 2e-5);
    }
    Ok(())
}

/// The bias of each pair of query and key in a text of `len` tokens, `[heads, len, len]`.
fn spread(bias: &Tensor, len: usize) -> Result<Tensor> {
    let (heads, cols) = bias.dims2()?;
    let zero = cols / 2;
    let pairs = (0..len).flat_map(|query| (0..len).map(move |key| (zero + key - query) as u32));
    let columns = vector(&pairs.collect::<Vec<_>>())?;
    bias.index_select(&columns, 1)?.reshape((heads, len, len))
}

/// Attention of one text, `[len, 3 · hidden]`, over itself.
fn attention(batch: &Batch, text: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (len, hidden) = (text.dim(0)?, batch.hidden());
    let part = |index: usize| {
        text.narrow(1, index * hidden, hidden)?
            .reshape((len, batch.heads, batch.head_dim))?
            .transpose(0, 1)?
            .contiguous()
    };
    let mut scores = (part(0)?.matmul(&part(1)?.t()?)? / (batch.head_dim as f64).sqrt())?;
    if let Some(bias) = bias {
        scores = (scores + spread(bias, len)?)?;
    }
    let mixed = softmax(&scores, D::Minus1)?.matmul(&part(2)?)?;
    mixed.transpose(0, 1)?.reshape((len, hidden))
}

fn check_attention(batch: &Batch, with_bias: bool) -> Result<()> {
    let (rows, cols) = (batch.rows(), 3 * batch.hidden());
    let qkv = batch.values(0, rows * cols, 2.0);
    let reach = 2 * ROWS_MAX as usize - 1;
    let bias = with_bias.then(|| batch.values(1, batch.heads * reach, 3.0));
    let plain_bias = bias.as_deref().map(|bias| matrix(bias, reach)).transpose()?;
    let packed = matrix(&qkv, cols)?;
    let texts = batch
        .texts()
        .map(|(start, len)| attention(batch, &packed.narrow(0, start, len)?, plain_bias.as_ref()));
    let expected = flat(&Tensor::cat(&texts.collect::<Result<Vec<_>>>()?, 0)?)?;
    for mut cpu in devices() {
        let x = filled(&mut cpu, &qkv, rows);
        let bias = bias
            .as_ref()
            .map(|bias| cpu.table(bias, batch.heads, reach).unwrap());
        let mut y = cpu.buffer();
        cpu.attention(&x, &batch.cu_seqlens, batch.heads, bias.as_ref(), &mut y)
            .unwrap();
        let what = format!("attention on {}", cpu.path().name());
        check(&what, y.values(), &expected, 1e-5);
    }
    Ok(())
}

fn check_embed(batch: &Batch) -> Result<()> {
    let (words, kinds_max, cols) = (50, 2, batch.hidden());
    let word = batch.values(0, words * cols, 1.0);
    let position = batch.values(1, ROWS_MAX as usize * cols, 1.0);
    let kind = batch.values(2, kinds_max * cols, 1.0);
    let (gamma, beta) = (batch.values(3, cols, 1.0), batch.values(4, cols, 1.0));
    let (ids, kinds) = (batch.picks(5, words), batch.picks(6, kinds_max));
    let positions: Vec<u32> = batch.texts().flat_map(|(_, len)| 0..len as u32).collect();
    let rows_of = |table: &[f32], rows: &[u32]| matrix(table, cols)?.index_select(&vector(rows)?, 0);
    let sum = ((rows_of(&word, &ids)? + rows_of(&position, &positions)?)? + rows_of(&kind, &kinds)?)?;
    let expected = flat(&layer_norm(&sum, &vector(&gamma)?, &vector(&beta)?, 1e-12)?)?;
    for mut cpu in devices() {
        let tables = Embedding {
            word: cpu.words(&word, words, cols).unwrap(),
            position: Some(cpu.table(&position, ROWS_MAX as usize, cols).unwrap()),
            kind: Some(cpu.table(&kind, kinds_max, cols).unwrap()),
            norm: norm(&cpu, &gamma, &beta),
        };
        let tokens = Tokens {
            ids: &ids,
            positions: &positions,
            kinds: &kinds,
        };
        let mut out = cpu.buffer();
        cpu.embed(tokens, &tables, &mut out).unwrap();
        let what = format!("embed on {}", cpu.path().name());
        check(&what, out.values(), &expected, 2e-5);
    }
    Ok(())
}

fn check_pool(batch: &Batch, pooling: Pooling) -> Result<()> {
    let x = batch.values(0, batch.rows() * batch.hidden(), 1.0);
    let packed = matrix(&x, batch.hidden())?;
    let texts = batch.texts().map(|(start, len)| match pooling {
        Pooling::Cls => packed.get(start),
        Pooling::Mean => packed.narrow(0, start, len)?.mean(0),
    });
    let expected = flat(&Tensor::stack(&texts.collect::<Result<Vec<_>>>()?, 0)?)?;
    for mut cpu in devices() {
        let x = filled(&mut cpu, &x, batch.rows());
        let mut y = cpu.buffer();
        cpu.pool(&x, &batch.cu_seqlens, pooling, &mut y).unwrap();
        let what = format!("pool {pooling:?} on {}", cpu.path().name());
        check(&what, y.values(), &expected, 1e-6);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn linear_with_gelu_equals_candle(batch in batches()) {
        check_linear(&batch, Activation::Gelu).unwrap();
    }

    #[test]
    fn linear_with_another_activation_equals_candle(
        batch in batches(),
        activation in prop::sample::select(vec![
            Activation::None, Activation::GeluTanh, Activation::Relu, Activation::Tanh,
        ]),
    ) {
        check_linear(&batch, activation).unwrap();
    }

    #[test]
    fn linear_add_norm_equals_candle(batch in batches()) {
        check_linear_add_norm(&batch).unwrap();
    }

    #[test]
    fn attention_equals_candle_text_by_text(batch in batches(), with_bias: bool) {
        check_attention(&batch, with_bias).unwrap();
    }

    #[test]
    fn embed_equals_candle(batch in batches()) {
        check_embed(&batch).unwrap();
    }

    #[test]
    fn pool_equals_candle(batch in batches()) {
        for pooling in [Pooling::Cls, Pooling::Mean] {
            check_pool(&batch, pooling).unwrap();
        }
    }
}

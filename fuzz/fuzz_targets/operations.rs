//! The packed operations on operands of any shape, right or wrong, on every path and in every precision of this
//! processor: refused, or computed within their own memory, alike on every f32 path.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use penstock_kernels::cpu::Buffer;
use penstock_kernels::{
    Activation, Cpu, Embedding, KernelError, Norm, Ops, Path, Pooling, Precision, Priority, Threads, Tokens,
};

#[derive(Arbitrary, Debug)]
struct Input {
    rows: u8,
    inp: u8,
    out: u8,
    heads: u8,
    cuts: Vec<u8>,
    ids: Vec<u8>,
    values: Vec<i8>,
    /// How far the operands' true shape is from the one that fits.
    off: u8,
    activation: u8,
    pooling: bool,
}

static THREADS: LazyLock<Threads> = LazyLock::new(|| Threads::new(2).expect("two threads can be had"));

fn devices() -> Vec<Cpu> {
    let exact = Path::supported().into_iter().map(|path| (path, Precision::F32));
    let others = Precision::int8_supported()
        .into_iter()
        .chain(Precision::bf16_supported())
        .map(|precision| (Path::best(), precision));
    exact
        .chain(others)
        .map(|(path, precision)| Cpu::on(THREADS.clone(), path, precision))
        .collect()
}

/// Output of each operation, or the reason why it refused.
fn run(cpu: &mut Cpu, input: &Input) -> Vec<Result<Vec<f32>, KernelError>> {
    let (rows, inp, out) = (input.rows.into(), input.inp.into(), input.out.into());
    let value = |i: usize| match input.values.get(i % input.values.len().max(1)) {
        Some(&value) => f32::from(value) / 16.0,
        None => 0.5,
    };
    let values = |count: usize| -> Vec<f32> { (0..count).map(value).collect() };
    let cu_seqlens: Vec<u32> = input.cuts.iter().map(|&cut| cut.into()).collect();
    let activations = [
        Activation::None,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::Tanh,
    ];
    let activation = activations[usize::from(input.activation) % activations.len()];
    let pooling = if input.pooling {
        Pooling::Mean
    } else {
        Pooling::Cls
    };
    let off = usize::from(input.off % 4);
    let filled = |cpu: &mut Cpu, cols: usize| -> Result<Buffer, KernelError> {
        let mut x = cpu.buffer();
        cpu.write(&values(rows * cols), rows, cols, &mut x)?;
        Ok(x)
    };
    let norm = |cpu: &Cpu, cols: usize| -> Result<Norm<_>, KernelError> {
        let table = |values: &[f32]| cpu.table(values, 1, cols);
        Ok(Norm {
            gamma: table(&values(cols))?,
            beta: table(&values(cols))?,
            eps: 1e-5,
        })
    };
    let linear = |cpu: &mut Cpu| {
        let w = cpu.matrix(&values(out * inp), Some(&values(out)), out, inp)?;
        let (x, mut y) = (filled(cpu, inp + off)?, cpu.buffer());
        cpu.linear(&x, &w, activation, &mut y)?;
        Ok(y.values().to_vec())
    };
    let linear_add_norm = |cpu: &mut Cpu| {
        let w = cpu.matrix(&values(out * inp), None, out, inp)?;
        let norm = norm(cpu, out)?;
        let (x, mut sum) = (filled(cpu, inp)?, filled(cpu, out + off)?);
        cpu.linear_add_norm(&x, &w, &norm, &mut sum)?;
        Ok(sum.values().to_vec())
    };
    let attention = |cpu: &mut Cpu| {
        let heads = usize::from(input.heads);
        let (qkv, mut y) = (filled(cpu, 3 * heads * (inp % 40) + off)?, cpu.buffer());
        cpu.attention(&qkv, &cu_seqlens, heads, None, &mut y)?;
        Ok(y.values().to_vec())
    };
    let embed = |cpu: &mut Cpu| {
        let ids: Vec<u32> = input.ids.iter().map(|&id| id.into()).collect();
        let tables = Embedding {
            word: cpu.words(&values(rows * out), rows, out)?,
            position: Some(cpu.table(&values(inp * out), inp, out)?),
            kind: None,
            norm: norm(cpu, out + off)?,
        };
        let tokens = Tokens {
            ids: &ids,
            positions: &ids[off.min(ids.len())..],
            kinds: &[],
        };
        let mut y = cpu.buffer();
        cpu.embed(tokens, &tables, &mut y)?;
        Ok(y.values().to_vec())
    };
    let pool = |cpu: &mut Cpu| {
        let (x, mut y) = (filled(cpu, inp)?, cpu.buffer());
        cpu.pool(&x, &cu_seqlens, pooling, &mut y)?;
        Ok(y.values().to_vec())
    };
    let mut outcomes = Vec::new();
    let all = cpu.forward(&cu_seqlens, Priority::Urgent, |cpu| {
        outcomes.extend([
            linear(cpu),
            linear_add_norm(cpu),
            attention(cpu),
            embed(cpu),
            pool(cpu),
        ]);
        Ok(())
    });
    assert_eq!(all, Ok(()), "operations are refused one by one");
    outcomes
}

/// The outcomes whose values are compared: a norm of equal values divides rounding by rounding.
const COMPARED: [bool; 5] = [true, false, true, false, true];

fn alike(one: &[f32], other: &[f32]) -> bool {
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-3 * (1.0 + a.abs().max(b.abs()));
    one.len() == other.len() && one.iter().zip(other).all(close)
}

fuzz_target!(|input: Input| {
    let mut first: Option<Vec<Result<Vec<f32>, KernelError>>> = None;
    for mut cpu in devices() {
        let exact = cpu.precision() == Precision::F32;
        let outcome = run(&mut cpu, &input);
        let first = first.get_or_insert_with(|| outcome.clone());
        for ((one, other), compared) in first.iter().zip(&outcome).zip(COMPARED) {
            match (one, other) {
                (Err(one), Err(other)) => assert_eq!(one, other),
                (Ok(one), Ok(other)) => {
                    let path = cpu.path().name();
                    assert!(
                        !(exact && compared) || alike(one, other),
                        "{path}: {one:?} {other:?}"
                    );
                }
                _ => panic!("one refuses what the other computes: {one:?} {other:?}"),
            }
        }
    }
});

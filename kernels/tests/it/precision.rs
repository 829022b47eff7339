//! Linear layers in bytes and in bfloat16: the same integers on every path, and as near to f32 as the form allows.

use crate::support::{bf16_devices, check, cu_seqlens, filled, int8_devices, norm, random};
use penstock_kernels::{
    Activation, Cpu, Embedding, KernelError, Ops, Path, Precision, Threads, Tokens, reference,
};
use proptest::prelude::*;

/// Operands of a linear layer.
struct Operands {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    inp: usize,
}

impl Operands {
    fn random(rows: usize, inp: usize, out: usize, with_bias: bool, seed: u64) -> Self {
        // Rows of very different sizes, so that a scale that is another row's shows.
        let mut x = random(seed, rows * inp, 1.0);
        for (row, size) in x.chunks_exact_mut(inp).zip([1.0, 1e-3, 40.0, 1e4].iter().cycle()) {
            for value in row {
                *value *= size;
            }
        }
        Self {
            x,
            weight: random(seed + 1, out * inp, 2.0 / (inp as f32).sqrt()),
            bias: with_bias.then(|| random(seed + 2, out, 1.0)),
            inp,
        }
    }

    fn rows(&self) -> usize {
        self.x.len() / self.inp
    }

    fn out(&self) -> usize {
        self.weight.len() / self.inp
    }

    fn linear(&self, cpu: &mut Cpu, activation: Activation) -> Vec<f32> {
        let matrix = cpu
            .matrix(&self.weight, self.bias.as_deref(), self.out(), self.inp)
            .unwrap();
        let x = filled(cpu, &self.x, self.rows());
        let mut y = cpu.buffer();
        cpu.linear(&x, &matrix, activation, &mut y).unwrap();
        assert_eq!(cpu.shape(&y), (self.rows(), self.out()));
        y.values().to_vec()
    }

    fn reference(&self) -> Vec<f32> {
        let Self { x, weight, bias, inp } = self;
        reference::linear(x, weight, bias.as_deref(), *inp, Activation::None)
    }

    fn check_int8(&self) {
        let expected = reference::linear_int8(&self.x, &self.weight, self.bias.as_deref(), self.inp);
        for mut cpu in int8_devices() {
            let name = cpu.precision().name();
            assert_eq!(self.linear(&mut cpu, Activation::None), expected, "{name}");
        }
    }

    /// Half a step of each operand is all that rounding may take: n · (|x|·w/2 + |w|·x/2 + x·w/4), with the steps
    /// x and w of row and output.
    fn check_int8_is_near(&self) {
        let top = |row: &[f32]| row.iter().fold(0f32, |top, value| top.max(value.abs()));
        let exact = self.reference();
        let mut cpu = int8_devices().remove(0);
        let found = self.linear(&mut cpu, Activation::None);
        for (at, (found, exact)) in found.iter().zip(&exact).enumerate() {
            let (row, column) = (at / self.out(), at % self.out());
            let x = top(&self.x[row * self.inp..(row + 1) * self.inp]);
            let w = top(&self.weight[column * self.inp..(column + 1) * self.inp]);
            let bound = self.inp as f32 * x * w * (1.0 / 127.0 + 0.25 / (127.0 * 127.0)) * 1.001 + 1e-6;
            assert!(
                (found - exact).abs() <= bound,
                "{at}: {found}, exact {exact}, bound {bound}"
            );
        }
    }

    /// Compared with the exact sum of the rounded operands: the difference is the rounding of f32 sums.
    fn check_bf16(&self) {
        let rounded = |values: &[f32]| -> Vec<f32> {
            let round = |value: &f32| half::bf16::from_f32(*value).to_f32();
            values.iter().map(round).collect()
        };
        let (x, weight) = (rounded(&self.x), rounded(&self.weight));
        let expected = reference::linear(&x, &weight, self.bias.as_deref(), self.inp, Activation::None);
        for mut cpu in bf16_devices() {
            let found = self.linear(&mut cpu, Activation::None);
            let rows = found
                .chunks_exact(self.out())
                .zip(expected.chunks_exact(self.out()));
            for ((found, expected), x) in rows.zip(x.chunks_exact(self.inp)) {
                let size = x.iter().fold(1f32, |top, value| top.max(value.abs()));
                check("bf16", found, expected, 1e-5 * size);
            }
        }
    }
}

/// Attention on tiles of a batch, on one thread and on three, and of each text alone.
fn check_attention(lens: &[usize], heads: usize, head_dim: usize, with_bias: bool, seed: u64) {
    let (rows, cols) = (lens.iter().sum::<usize>(), heads * head_dim);
    let reach = lens.iter().max().unwrap();
    let qkv = random(seed, rows * 3 * cols, 2.0);
    let bias = with_bias.then(|| random(seed + 1, heads * (2 * reach - 1), 3.0));
    let all = cu_seqlens(lens);
    let expected = reference::attention(&qkv, &all, heads, head_dim, bias.as_deref());
    let run = |cpu: &mut Cpu, qkv: &[f32], cu_seqlens: &[u32]| {
        let table = |bias: &Vec<f32>| cpu.table(bias, heads, bias.len() / heads).unwrap();
        let table = bias.as_ref().map(table);
        let x = filled(cpu, qkv, qkv.len() / (3 * cols));
        let mut out = cpu.buffer();
        cpu.attention(&x, cu_seqlens, heads, table.as_ref(), &mut out)
            .unwrap();
        out.values().to_vec()
    };
    let tiled = Precision::int8_supported()
        .into_iter()
        .chain(Precision::bf16_supported());
    for precision in tiled.filter(|precision| precision.instructions() == "amx") {
        let [mut one, mut three] =
            [1, 3].map(|threads| Cpu::on(Threads::new(threads).unwrap(), Path::best(), precision));
        let found = run(&mut one, &qkv, &all);
        // Operands of at most 2 have 8 bits: scores are off by some hundredths, weights by as much of themselves.
        check("attention on tiles", &found, &expected, 0.06);
        assert_eq!(run(&mut three, &qkv, &all), found, "three threads");
        for (text, len) in all.windows(2).zip(lens) {
            let [begin, end] = [text[0], text[1]].map(|row| row as usize);
            let alone = run(
                &mut one,
                &qkv[begin * 3 * cols..end * 3 * cols],
                &[0, *len as u32],
            );
            assert_eq!(alone, found[begin * cols..end * cols], "a text of {len} alone");
        }
    }
}

/// Lengths at the edges of tiles, panels and blocks of keys.
#[test]
fn attention_on_tiles_is_near_the_formula_at_every_edge() {
    for lens in [
        &[1, 15, 16, 17][..],
        &[31, 32, 33, 2],
        &[64, 65],
        &[255, 256, 257],
        &[513],
    ] {
        for (heads, head_dim) in [(2, 32), (1, 64), (3, 5), (1, 33)] {
            for with_bias in [false, true] {
                check_attention(lens, heads, head_dim, with_bias, 7);
            }
        }
    }
}

#[test]
fn a_nan_stays_in_its_text_on_tiles() {
    let (heads, head_dim, lens) = (2, 32, [5, 40, 3]);
    let cols = heads * head_dim;
    let mut qkv = random(3, 48 * 3 * cols, 1.0);
    // The first key of the second text, in the first head.
    qkv[5 * 3 * cols + cols] = f32::NAN;
    for mut cpu in bf16_devices().into_iter().chain(int8_devices()) {
        let (x, mut out) = (filled(&mut cpu, &qkv, 48), cpu.buffer());
        cpu.attention(&x, &cu_seqlens(&lens), heads, None, &mut out)
            .unwrap();
        for (token, row) in out.values().chunks_exact(cols).enumerate() {
            let broken = (5..45).contains(&token);
            assert_eq!(
                row[..head_dim].iter().any(|x| x.is_nan()),
                broken,
                "token {token}"
            );
            assert!(row[head_dim..].iter().all(|x| x.is_finite()), "token {token}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn attention_on_tiles_is_near_the_formula(
        lens in prop::collection::vec(1usize..90, 1..5), heads in 1usize..4, head_dim in 1usize..70, with_bias: bool,
        seed in 0u64..1 << 40,
    ) {
        check_attention(&lens, heads, head_dim, with_bias, seed);
    }

    #[test]
    fn int8_is_the_formula_on_every_path_bit_by_bit(
        rows in 1usize..70, inp in 1usize..150, out in 1usize..110, with_bias: bool, seed in 0u64..1 << 40,
    ) {
        let operands = Operands::random(rows, inp, out, with_bias, seed);
        operands.check_int8();
        operands.check_int8_is_near();
    }

    #[test]
    fn bf16_is_the_formula(
        rows in 1usize..70, inp in 1usize..150, out in 1usize..110, with_bias: bool, seed in 0u64..1 << 40,
    ) {
        Operands::random(rows, inp, out, with_bias, seed).check_bf16();
    }
}

#[test]
fn the_shapes_of_real_models() {
    for (rows, inp, out) in [(1, 384, 1152), (11, 384, 384), (70, 1536, 384), (150, 384, 1536)] {
        let operands = Operands::random(rows, inp, out, true, 7);
        operands.check_int8();
        operands.check_bf16();
    }
}

/// Around a tile's 16 rows, a pair's 32, a block's 64, and a step's 64 bytes.
#[test]
fn shapes_around_the_edges_of_tiles_and_blocks() {
    for (rows, inp, out) in [
        (15, 63, 31),
        (16, 64, 32),
        (17, 65, 33),
        (31, 31, 15),
        (33, 127, 16),
        (48, 128, 17),
        (64, 1, 1),
        (65, 33, 65),
        (127, 32, 48),
        (129, 96, 96),
        (300, 130, 40),
    ] {
        let operands = Operands::random(rows, inp, out, true, 11);
        operands.check_int8();
        operands.check_bf16();
    }
}

#[test]
fn sums_of_the_largest_integers_do_not_saturate() {
    for (x, weight) in [(3.0, 0.5), (-3.0, 0.5), (3.0, -0.5), (-3.0, -0.5)] {
        let inp = 5000;
        let operands = Operands {
            x: vec![x; 13 * inp],
            weight: vec![weight; 33 * inp],
            bias: None,
            inp,
        };
        operands.check_int8();
        let exact = x * weight * inp as f32;
        let found = operands.linear(&mut int8_devices().remove(0), Activation::None);
        assert!(
            found.iter().all(|value| (value / exact - 1.0).abs() < 1e-6),
            "{exact}: {found:?}"
        );
    }
}

#[test]
fn rows_of_zeros_and_of_next_to_nothing_are_zero() {
    let mut operands = Operands::random(3, 40, 35, false, 3);
    operands.x[..40].fill(0.0);
    operands.x[40..80].fill(1e-40);
    operands.weight[..40].fill(-0.0);
    for mut cpu in int8_devices().into_iter().chain(bf16_devices()) {
        let found = operands.linear(&mut cpu, Activation::None);
        assert!(found[..70].iter().all(|&value| value == 0.0), "{found:?}");
        assert!(
            found[70] == 0.0 && found[71..].iter().all(|&value| value != 0.0),
            "{found:?}"
        );
    }
}

#[test]
fn a_value_that_is_not_finite_spoils_its_row_or_output_and_nothing_else() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut operands = Operands::random(20, 50, 40, true, 4);
        operands.x[7 * 50 + 49] = bad;
        operands.weight[3 * 50 + 1] = bad;
        for mut cpu in int8_devices().into_iter().chain(bf16_devices()) {
            let name = cpu.precision().name();
            for (at, value) in operands.linear(&mut cpu, Activation::Gelu).iter().enumerate() {
                let spoiled = at / 40 == 7 || at % 40 == 3;
                // An infinite bfloat16 stays infinite, and a GELU of minus infinity would be 0 or NaN.
                if !name.starts_with("bf16") || bad.is_nan() {
                    assert_eq!(value.is_nan(), spoiled, "{name}, {bad}: {at}");
                } else if !spoiled {
                    assert!(value.is_finite(), "{name}, {bad}: {at}");
                }
            }
        }
    }
}

#[test]
fn activation_residual_and_norm_follow_as_in_f32() {
    let operands = Operands::random(50, 96, 64, true, 5);
    let plain = reference::linear_int8(&operands.x, &operands.weight, operands.bias.as_deref(), 96);
    let gelu: Vec<f32> = plain
        .iter()
        .map(|&x| reference::activation(Activation::Gelu, f64::from(x)) as f32)
        .collect();
    let (residual, gamma, beta) = (random(6, 50 * 64, 2.0), random(7, 64, 1.0), random(8, 64, 1.0));
    let mut normed: Vec<f32> = plain.iter().zip(&residual).map(|(a, b)| a + b).collect();
    reference::layer_norm(&mut normed, &gamma, &beta, 1e-12);
    for mut cpu in int8_devices() {
        let size = plain.iter().fold(1f32, |top, value| top.max(value.abs()));
        check(
            "gelu",
            &operands.linear(&mut cpu, Activation::Gelu),
            &gelu,
            1e-6 * size,
        );
        let matrix = cpu
            .matrix(&operands.weight, operands.bias.as_deref(), 64, 96)
            .unwrap();
        let norm = norm(&cpu, &gamma, &beta);
        let x = filled(&mut cpu, &operands.x, 50);
        let mut sum = filled(&mut cpu, &residual, 50);
        cpu.linear_add_norm(&x, &matrix, &norm, &mut sum).unwrap();
        check("norm", sum.values(), &normed, 2e-5);
    }
}

#[test]
fn word_rows_are_bf16_and_what_is_added_to_them_f32() {
    let (words, rows, cols) = (9, 4, 50);
    let (word, position) = (random(9, words * cols, 1.0), random(10, rows * cols, 1.0));
    let (gamma, beta) = (random(11, cols, 1.0), random(12, cols, 1.0));
    let (ids, positions) = ([8, 0, 3, 3], [0, 1, 2, 3]);
    let rounded: Vec<f32> = word.iter().map(|&w| half::bf16::from_f32(w).to_f32()).collect();
    let mut expected = reference::embed((&ids, &rounded), (&positions, &position), (&[], &[]), cols);
    reference::layer_norm(&mut expected, &gamma, &beta, 1e-12);
    for mut cpu in int8_devices().into_iter().chain(bf16_devices()) {
        let tables = Embedding {
            word: cpu.words(&word, words, cols).unwrap(),
            position: Some(cpu.table(&position, rows, cols).unwrap()),
            kind: None,
            norm: norm(&cpu, &gamma, &beta),
        };
        let tokens = Tokens {
            ids: &ids,
            positions: &positions,
            kinds: &[],
        };
        let mut out = cpu.buffer();
        cpu.embed(tokens, &tables, &mut out).unwrap();
        check("embed", out.values(), &expected, 1e-5);
    }
}

#[test]
fn limits_of_int8_and_bf16_are_refused_by_name() {
    let cpu = int8_devices().remove(0);
    let error = cpu
        .matrix(&vec![0.0; 65_537], None, 1, 65_537)
        .err()
        .expect("must be refused");
    assert_eq!(
        error.to_string(),
        "matrix: inputs in int8 is 65537; supported: 1 to 65536"
    );
    let missing = KernelError::Instructions {
        dtype: "bf16",
        missing: "avx512_bf16",
    };
    assert_eq!(
        missing.to_string(),
        "bf16 needs the instructions avx512_bf16, which this processor does not have"
    );
}

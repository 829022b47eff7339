//! Every operation on every path against the slow truth, on random shapes.

use crate::support::{check, cu_seqlens, devices, filled, norm, random};
use penstock_kernels::{Activation, Embedding, Ops, Pooling, Tokens, reference, relative_bias};
use proptest::prelude::*;

const ACTIVATIONS: [Activation; 5] = [
    Activation::None,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::Tanh,
];

fn check_linear(rows: usize, inp: usize, out: usize, activation: Activation, with_bias: bool, seed: u64) {
    let x = random(seed, rows * inp, 1.0);
    let weight = random(seed + 1, out * inp, 2.0 / (inp as f32).sqrt());
    let bias = with_bias.then(|| random(seed + 2, out, 1.0));
    let expected = reference::linear(&x, &weight, bias.as_deref(), inp, activation);
    for mut cpu in devices() {
        let matrix = cpu.matrix(&weight, bias.as_deref(), out, inp).unwrap();
        let x = filled(&mut cpu, &x, rows);
        let mut y = cpu.buffer();
        cpu.linear(&x, &matrix, activation, &mut y).unwrap();
        assert_eq!(cpu.shape(&y), (rows, out));
        check(
            &format!("linear {activation:?} on {}", cpu.path().name()),
            y.values(),
            &expected,
            1e-5,
        );
    }
}

fn check_linear_add_norm(rows: usize, inp: usize, out: usize, seed: u64) {
    let x = random(seed, rows * inp, 1.0);
    let weight = random(seed + 1, out * inp, 1.0 / (inp as f32).sqrt());
    let (bias, residual) = (random(seed + 2, out, 1.0), random(seed + 3, rows * out, 2.0));
    let (gamma, beta) = (random(seed + 4, out, 1.0), random(seed + 5, out, 1.0));
    let mut expected = reference::linear(&x, &weight, Some(&bias), inp, Activation::None);
    for (sum, value) in expected.iter_mut().zip(&residual) {
        *sum += value;
    }
    reference::layer_norm(&mut expected, &gamma, &beta, 1e-12);
    for mut cpu in devices() {
        let matrix = cpu.matrix(&weight, Some(&bias), out, inp).unwrap();
        let norm = norm(&cpu, &gamma, &beta);
        let x = filled(&mut cpu, &x, rows);
        let mut sum = filled(&mut cpu, &residual, rows);
        cpu.linear_add_norm(&x, &matrix, &norm, &mut sum).unwrap();
        check(
            &format!("linear_add_norm on {}", cpu.path().name()),
            sum.values(),
            &expected,
            2e-5,
        );
    }
}

fn check_attention(lens: &[usize], heads: usize, head_dim: usize, with_bias: bool, seed: u64) {
    let rows: usize = lens.iter().sum();
    let qkv = random(seed, rows * 3 * heads * head_dim, 2.0);
    let cu_seqlens = cu_seqlens(lens);
    let len_max = lens.iter().max().unwrap() + 3;
    let bias = with_bias.then(|| random(seed + 1, heads * (2 * len_max - 1), 3.0));
    let expected = reference::attention(&qkv, &cu_seqlens, heads, head_dim, bias.as_deref());
    for mut cpu in devices() {
        let x = filled(&mut cpu, &qkv, rows);
        let bias = bias
            .as_ref()
            .map(|bias| cpu.table(bias, heads, 2 * len_max - 1).unwrap());
        let mut y = cpu.buffer();
        cpu.attention(&x, &cu_seqlens, heads, bias.as_ref(), &mut y)
            .unwrap();
        let what = format!("attention {lens:?} {heads}x{head_dim} on {}", cpu.path().name());
        check(&what, y.values(), &expected, 1e-5);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn linear_is_the_formula(
        rows in 1usize..70, inp in 1usize..90, out in 1usize..110,
        activation in prop::sample::select(&ACTIVATIONS[..]), with_bias: bool, seed in 0u64..1 << 40,
    ) {
        check_linear(rows, inp, out, activation, with_bias, seed);
    }

    #[test]
    fn linear_add_norm_is_the_formula(
        rows in 1usize..70, inp in 1usize..90, out in 2usize..110, seed in 0u64..1 << 40,
    ) {
        // Two columns of almost the same value have a variance near zero, where any rounding is large.
        prop_assume!(out > 8);
        check_linear_add_norm(rows, inp, out, seed);
    }

    #[test]
    fn attention_is_the_formula(
        lens in prop::collection::vec(1usize..70, 1..6), heads in 1usize..4,
        head_dim in prop::sample::select(vec![1usize, 7, 8, 24, 32, 33, 64, 80, 96, 128]),
        with_bias: bool, seed in 0u64..1 << 40,
    ) {
        check_attention(&lens, heads, head_dim, with_bias, seed);
    }

    #[test]
    fn embed_is_the_formula(
        cols in 9usize..100, count in 1usize..200, with_position: bool, with_kind: bool,
        kinds_given: bool, seed in 0u64..1 << 40,
    ) {
        let (words, rows, types) = (50, 40, 2);
        let tables = [random(seed, words * cols, 1.0), random(seed + 1, rows * cols, 1.0), random(seed + 2, types * cols, 1.0)];
        let pick = |seed: u64, bound: usize| -> Vec<u32> {
            random(seed, count, 1.0).iter().map(|v| (v.abs() * bound as f32) as u32).collect()
        };
        let (ids, positions) = (pick(seed + 3, words), pick(seed + 4, rows));
        let kinds = if kinds_given { pick(seed + 5, types) } else { Vec::new() };
        let (gamma, beta) = (random(seed + 6, cols, 1.0), random(seed + 7, cols, 1.0));
        let mut expected = reference::embed(
            (&ids, &tables[0]),
            (&positions, if with_position { &tables[1] } else { &[] }),
            (&kinds, if with_kind { &tables[2] } else { &[] }),
            cols,
        );
        reference::layer_norm(&mut expected, &gamma, &beta, 1e-12);
        for mut cpu in devices() {
            let tables = Embedding {
                word: cpu.words(&tables[0], words, cols).unwrap(),
                position: with_position.then(|| cpu.table(&tables[1], rows, cols).unwrap()),
                kind: with_kind.then(|| cpu.table(&tables[2], types, cols).unwrap()),
                norm: norm(&cpu, &gamma, &beta),
            };
            let mut out = cpu.buffer();
            cpu.embed(Tokens { ids: &ids, positions: &positions, kinds: &kinds }, &tables, &mut out).unwrap();
            check(&format!("embed on {}", cpu.path().name()), out.values(), &expected, 1e-5);
        }
    }

    #[test]
    fn pool_is_the_formula(
        lens in prop::collection::vec(1usize..40, 1..20), cols in 1usize..70,
        pooling in prop::sample::select(vec![Pooling::Cls, Pooling::Mean]), seed in 0u64..1 << 40,
    ) {
        let rows = lens.iter().sum();
        let x = random(seed, rows * cols, 1.0);
        let cu_seqlens = cu_seqlens(&lens);
        let expected = reference::pool(&x, &cu_seqlens, cols, pooling);
        for mut cpu in devices() {
            let x = filled(&mut cpu, &x, rows);
            let mut y = cpu.buffer();
            cpu.pool(&x, &cu_seqlens, pooling, &mut y).unwrap();
            assert_eq!(cpu.shape(&y), (lens.len(), cols));
            check("pool", y.values(), &expected, 1e-6);
        }
    }
}

#[test]
fn the_shapes_of_real_models() {
    for rows in [1, 2, 11, 13, 300] {
        check_linear(rows, 384, 1152, Activation::None, true, 1);
    }
    check_linear(25, 1536, 384, Activation::Gelu, true, 2);
    check_linear_add_norm(200, 1536, 384, 3);
    check_linear(1200, 96, 3, Activation::Tanh, true, 4);
}

#[test]
fn long_texts_pass_through_several_blocks_of_keys() {
    check_attention(&[1], 2, 32, false, 1);
    check_attention(&[512, 513, 1], 1, 32, false, 2);
    check_attention(&[1100], 2, 64, true, 3);
    check_attention(&[1; 300], 2, 32, false, 4);
}

#[test]
fn activations_are_exact_to_a_millionth_and_flat_far_out() {
    let mut x: Vec<f32> = (-80_000..80_000).map(|step| step as f32 * 1e-4).collect();
    x.extend([-1e30, -1000.0, -20.0, 20.0, 1000.0, 1e30, 0.0, -0.0, f32::NAN]);
    for activation in ACTIVATIONS {
        let expected: Vec<f32> = x
            .iter()
            .map(|&x| reference::activation(activation, f64::from(x)) as f32)
            .collect();
        for mut cpu in devices() {
            // The identity matrix of one cell puts each value through the store of the product.
            let matrix = cpu.matrix(&[1.0], None, 1, 1).unwrap();
            let column = filled(&mut cpu, &x, x.len());
            let mut y = cpu.buffer();
            cpu.linear(&column, &matrix, activation, &mut y).unwrap();
            check(
                &format!("{activation:?} on {}", cpu.path().name()),
                y.values(),
                &expected,
                1.2e-6,
            );
        }
    }
}

#[test]
fn relative_bias_reaches_from_the_last_key_before_to_the_last_behind() {
    let spread = relative_bias(&[0.0, 10.0, 1.0, 11.0, 2.0, 12.0], 2, 3, |offset| match offset {
        ..0 => 0,
        0 => 1,
        _ => 2,
    })
    .unwrap();
    assert_eq!(spread, [0.0, 0.0, 1.0, 2.0, 2.0, 10.0, 10.0, 11.0, 12.0, 12.0]);
}

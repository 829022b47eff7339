//! Every access of memory at its edges, on shapes so small that an interpreter gets through them (`tools/sanitize`).
//!
//! Operands end where their memory ends, and shapes lie just below, at and above a register, a tile and a panel.

use crate::support::{check, cu_seqlens, devices, filled, norm, random};
use penstock_kernels::{
    Activation, Cpu, Embedding, Ops, Path, Pooling, Precision, Threads, Tokens, reference,
};

/// Rows, inputs and outputs of products.
const SHAPES: [(usize, usize, usize); 7] = [
    (1, 1, 1),
    (2, 3, 31),
    (11, 4, 32),
    (12, 5, 33),
    (13, 2, 64),
    (1, 17, 5),
    (65, 2, 2),
];

fn check_products(mut cpu: Cpu) {
    for (rows, inp, out) in SHAPES {
        let (x, weight, bias) = (
            random(1, rows * inp, 1.0),
            random(2, out * inp, 1.0),
            random(3, out, 1.0),
        );
        let (expected, tolerance) = if cpu.precision() == Precision::F32 {
            let expected = reference::linear(&x, &weight, Some(&bias), inp, Activation::None);
            (expected, 1e-5)
        } else {
            (reference::linear_int8(&x, &weight, Some(&bias), inp), 0.0)
        };
        let matrix = cpu.matrix(&weight, Some(&bias), out, inp).unwrap();
        let x = filled(&mut cpu, &x, rows);
        let mut y = cpu.buffer();
        cpu.linear(&x, &matrix, Activation::None, &mut y).unwrap();
        let what = format!(
            "{rows} x {inp} -> {out} on {}, {}",
            cpu.path().name(),
            cpu.precision().name()
        );
        check(&what, y.values(), &expected, tolerance);
    }
}

#[test]
fn products_of_singles_end_where_their_operands_end() {
    devices().into_iter().for_each(check_products);
}

/// Everything but the products of bytes runs on the portable path, because an interpreter knows byte products of
/// more processors than the rest.
#[test]
fn products_of_bytes_end_where_their_operands_end() {
    let portable = *Path::supported().last().expect("the portable path");
    for precision in Precision::int8_supported() {
        for threads in [1, 2] {
            check_products(Cpu::on(Threads::new(threads).unwrap(), portable, precision));
        }
    }
}

#[test]
fn activations_end_where_the_rows_of_their_product_end() {
    let (rows, inp) = (13, 9);
    for mut cpu in devices() {
        for out in [9, 33] {
            let (x, weight) = (random(1, rows * inp, 1.0), random(2, out * inp, 1.0));
            let matrix = cpu.matrix(&weight, None, out, inp).unwrap();
            let x_rows = filled(&mut cpu, &x, rows);
            for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Tanh] {
                let expected = reference::linear(&x, &weight, None, inp, activation);
                let mut y = cpu.buffer();
                cpu.linear(&x_rows, &matrix, activation, &mut y).unwrap();
                check(&format!("{activation:?} of {out}"), y.values(), &expected, 1e-5);
            }
            let (residual, gamma, beta) = (
                random(3, rows * out, 2.0),
                random(4, out, 1.0),
                random(5, out, 1.0),
            );
            let mut expected = reference::linear(&x, &weight, None, inp, Activation::None);
            for (sum, value) in expected.iter_mut().zip(&residual) {
                *sum += value;
            }
            reference::layer_norm(&mut expected, &gamma, &beta, 1e-12);
            let norm = norm(&cpu, &gamma, &beta);
            let mut sum = filled(&mut cpu, &residual, rows);
            cpu.linear_add_norm(&x_rows, &matrix, &norm, &mut sum).unwrap();
            check(&format!("norm of {out}"), sum.values(), &expected, 2e-5);
        }
    }
}

#[test]
fn rows_of_bytes_are_quantised_to_their_last_value() {
    for inp in [1, 8, 33, 70] {
        let (x, weight) = (random(1, 3 * inp, 1.0), random(2, 5 * inp, 1.0));
        let expected = reference::linear_int8(&x, &weight, None, inp);
        // Tiles quantise with their own instructions on every path, so each path takes the other ways too.
        let ways = Precision::int8_supported();
        for (path, precision) in Path::supported()
            .into_iter()
            .flat_map(|path| ways.iter().map(move |&way| (path, way)))
        {
            let mut cpu = Cpu::on(Threads::new(1).unwrap(), path, precision);
            let matrix = cpu.matrix(&weight, None, 5, inp).unwrap();
            let x = filled(&mut cpu, &x, 3);
            let mut y = cpu.buffer();
            cpu.linear(&x, &matrix, Activation::None, &mut y).unwrap();
            let what = format!("{inp} on {}, {}", path.name(), precision.name());
            check(&what, y.values(), &expected, 0.0);
        }
    }
}

#[test]
fn texts_end_where_their_rows_end() {
    // A text longer than a panel, and heads wider than one; the second with a relative bias that just reaches.
    for (lens, heads, head_dim, reach) in [(&[1, 33][..], 2, 3, None), (&[2, 5], 1, 33, Some(5))] {
        let (rows, cu_seqlens, cols) = (lens.iter().sum(), cu_seqlens(lens), heads * head_dim);
        let qkv = random(1, rows * 3 * cols, 2.0);
        let bias = reach.map(|reach| random(2, heads * (2 * reach - 1), 3.0));
        let expected = reference::attention(&qkv, &cu_seqlens, heads, head_dim, bias.as_deref());
        for mut cpu in devices() {
            let table = |bias: &Vec<f32>| cpu.table(bias, heads, bias.len() / heads).unwrap();
            let table = bias.as_ref().map(table);
            let (x, mut mixed, mut pooled) = (filled(&mut cpu, &qkv, rows), cpu.buffer(), cpu.buffer());
            cpu.attention(&x, &cu_seqlens, heads, table.as_ref(), &mut mixed)
                .unwrap();
            check(
                &format!("attention of {head_dim}"),
                mixed.values(),
                &expected,
                1e-5,
            );
            let expected = reference::pool(mixed.values(), &cu_seqlens, cols, Pooling::Mean);
            cpu.pool(&mixed, &cu_seqlens, Pooling::Mean, &mut pooled).unwrap();
            check("mean", pooled.values(), &expected, 1e-6);
        }
    }
}

#[test]
fn tokens_end_where_their_tables_end() {
    let (words, places, cols, count) = (3, 70, 9, 66);
    let (word, place) = (random(1, words * cols, 1.0), random(2, places * cols, 1.0));
    let (gamma, beta) = (random(3, cols, 1.0), random(4, cols, 1.0));
    let ids: Vec<u32> = (0..count).map(|token| token % words as u32).collect();
    let positions: Vec<u32> = (0..count).map(|token| places as u32 - 1 - token).collect();
    let mut expected = reference::embed((&ids, &word), (&positions, &place), (&[], &[]), cols);
    reference::layer_norm(&mut expected, &gamma, &beta, 1e-12);
    for mut cpu in devices() {
        let tables = Embedding {
            word: cpu.words(&word, words, cols).unwrap(),
            position: Some(cpu.table(&place, places, cols).unwrap()),
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
fn parts_that_run_side_by_side_keep_to_their_own() {
    let weight = random(1, 40 * 9, 1.0);
    let mut cpu = Cpu::new(3).unwrap();
    let matrix = cpu.matrix(&weight, None, 40, 9).unwrap();
    let mut parts: Vec<_> = (1..5)
        .map(|rows| (random(rows as u64, 9 * rows, 1.0), Vec::new()))
        .collect();
    cpu.side_by_side(&mut parts, |cpu, (x, out)| {
        let x = filled(cpu, x, x.len() / 9);
        let mut y = cpu.buffer();
        cpu.linear(&x, &matrix, Activation::Relu, &mut y)?;
        out.extend_from_slice(y.values());
        Ok(())
    })
    .unwrap();
    for (x, out) in &parts {
        check(
            "a part",
            out,
            &reference::linear(x, &weight, None, 9, Activation::Relu),
            1e-5,
        );
    }
}

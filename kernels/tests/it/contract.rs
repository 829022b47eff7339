//! The promises beside the formulas: independence of the batch, NaN stays, and wrong operands are refused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::{bf16_devices, check, cu_seqlens, devices, filled, int8_devices, norm, random};
use penstock_kernels::cpu::{Buffer, Matrix, Table};
use penstock_kernels::{
    Activation, Cpu, Embedding, KernelError, Norm, Ops, Path, Pooling, Precision, Priority, Threads, Tokens,
};

const HEADS: usize = 3;
const HIDDEN: usize = 96;

/// One encoder layer over made-up activations.
struct Layer {
    qkv: Matrix,
    attended: Matrix,
    up: Matrix,
    down: Matrix,
    norm: Norm<Table>,
}

impl Layer {
    fn new(cpu: &Cpu) -> Self {
        let matrix = |seed: u64, out: usize, inp: usize| {
            let weight = random(seed, out * inp, 1.5 / (inp as f32).sqrt());
            cpu.matrix(&weight, Some(&random(seed + 50, out, 0.5)), out, inp)
                .unwrap()
        };
        Self {
            qkv: matrix(1, 3 * HIDDEN, HIDDEN),
            attended: matrix(2, HIDDEN, HIDDEN),
            up: matrix(3, 4 * HIDDEN, HIDDEN),
            down: matrix(4, HIDDEN, 4 * HIDDEN),
            norm: norm(cpu, &random(5, HIDDEN, 1.0), &random(6, HIDDEN, 1.0)),
        }
    }

    /// The rows of `texts`, packed into one batch, each `[len, HIDDEN]`.
    fn forward(&self, cpu: &mut Cpu, texts: &[Vec<f32>]) -> Vec<Vec<f32>> {
        self.forward_as(Priority::Urgent, cpu, texts)
    }

    fn forward_as(&self, priority: Priority, cpu: &mut Cpu, texts: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let cu_seqlens = cu_seqlens(&texts.iter().map(|text| text.len() / HIDDEN).collect::<Vec<_>>());
        let packed = texts.concat();
        let mut hidden = filled(cpu, &packed, packed.len() / HIDDEN);
        let (mut qkv, mut mixed, mut wide) = (cpu.buffer(), cpu.buffer(), cpu.buffer());
        cpu.forward(&cu_seqlens, priority, |cpu| {
            cpu.linear(&hidden, &self.qkv, Activation::None, &mut qkv)?;
            cpu.attention(&qkv, &cu_seqlens, HEADS, None, &mut mixed)?;
            cpu.linear_add_norm(&mixed, &self.attended, &self.norm, &mut hidden)?;
            cpu.linear(&hidden, &self.up, Activation::Gelu, &mut wide)?;
            cpu.linear_add_norm(&wide, &self.down, &self.norm, &mut hidden)
        })
        .unwrap();
        let rows = hidden.values();
        let bounds = cu_seqlens.windows(2);
        bounds
            .map(|text| rows[text[0] as usize * HIDDEN..text[1] as usize * HIDDEN].to_vec())
            .collect()
    }
}

#[test]
fn a_text_alone_equals_bit_by_bit_the_text_in_any_batch_with_any_threads() {
    let lens = [1, 2, 40, 7, 130, 600, 33, 64, 12, 1, 95];
    let texts: Vec<Vec<f32>> = lens
        .iter()
        .zip(0..)
        .map(|(len, seed)| random(seed, len * HIDDEN, 1.0))
        .collect();
    let mut all = devices();
    all.extend(int8_devices());
    all.extend(bf16_devices());
    for cpus in all.chunks_exact_mut(2) {
        let layer = Layer::new(&cpus[0]);
        let alone: Vec<Vec<f32>> = texts
            .iter()
            .map(|text| layer.forward(&mut cpus[0], std::slice::from_ref(text)).remove(0))
            .collect();
        for cpu in cpus {
            assert_eq!(layer.forward(cpu, &texts), alone);
            let mut turned = texts.clone();
            turned.rotate_left(4);
            turned.reverse();
            let mut expected = alone.clone();
            expected.rotate_left(4);
            expected.reverse();
            assert_eq!(layer.forward(cpu, &turned), expected);
        }
    }
}

/// A large batch and a small one at once on one team, of which the large one lets the small one in.
#[test]
fn a_batch_inside_of_another_changes_neither() {
    for threads in 1..4 {
        let team = Threads::new(threads).unwrap();
        let on = |team: &Threads| Cpu::on(team.clone(), Path::best(), Precision::F32);
        let layer = Layer::new(&on(&team));
        let text = |seed, len: usize| random(seed, len * HIDDEN, 1.0);
        let large: Vec<Vec<f32>> = (0..8).map(|seed| text(seed, 90)).collect();
        let small = vec![text(9, 30), text(10, 5)];
        let expected = [&large, &small].map(|texts| layer.forward(&mut on(&team), texts));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut cpu = on(&team);
                while !done.load(Ordering::Relaxed) {
                    let rows = layer.forward_as(Priority::Preemptible, &mut cpu, &large);
                    assert_eq!(rows, expected[0]);
                }
            });
            let mut cpu = on(&team);
            let mut inside = 0;
            while inside < 20 {
                assert_eq!(layer.forward(&mut cpu, &small), expected[1]);
                inside += usize::from(cpu.sharing().inside);
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn paths_agree() {
    let texts: Vec<Vec<f32>> = (1..9)
        .map(|seed| random(seed, 17 * seed as usize * HIDDEN, 1.0))
        .collect();
    let mut results = devices()
        .into_iter()
        .map(|mut cpu| Layer::new(&cpu).forward(&mut cpu, &texts).concat());
    let first = results.next().unwrap();
    for other in results {
        check("paths", &other, &first, 1e-5);
    }
}

#[test]
fn nan_stays_nan_and_stays_in_its_row_and_text() {
    let lens = [5, 9, 3];
    let all = devices().into_iter().chain(int8_devices()).chain(bf16_devices());
    for mut cpu in all {
        let layer = Layer::new(&cpu);
        let mut texts: Vec<Vec<f32>> = lens.iter().map(|len| random(9, len * HIDDEN, 1.0)).collect();
        let clean = layer.forward(&mut cpu, &texts);
        texts[1][4 * HIDDEN + 11] = f32::NAN;
        let spoiled = layer.forward(&mut cpu, &texts);
        assert!(
            spoiled[1].iter().all(|value| value.is_nan()),
            "a key that is NaN reaches every query"
        );
        assert_eq!(
            (&spoiled[0], &spoiled[2]),
            (&clean[0], &clean[2]),
            "the neighbours are untouched"
        );

        for activation in [
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::Relu,
            Activation::Tanh,
            Activation::None,
        ] {
            let mut rows = random(3, 20 * HIDDEN, 1.0);
            rows[7 * HIDDEN] = f32::NAN;
            let x = filled(&mut cpu, &rows, 20);
            let mut y = cpu.buffer();
            cpu.linear(&x, &layer.up, activation, &mut y).unwrap();
            for (row, values) in y.values().chunks_exact(4 * HIDDEN).enumerate() {
                assert!(
                    values.iter().all(|value| value.is_nan() == (row == 7)),
                    "{activation:?} row {row}"
                );
            }
        }
        let mut out = cpu.buffer();
        let rows = filled(&mut cpu, &[1.0, f32::NAN, 2.0, 3.0], 2);
        cpu.pool(&rows, &[0, 2], Pooling::Mean, &mut out).unwrap();
        check("mean", out.values(), &[1.5, f32::NAN], 0.0);
    }
}

#[track_caller]
fn refused(result: Result<(), KernelError>, message: &str) {
    assert_eq!(result.expect_err("must be refused").to_string(), message);
}

#[test]
fn wrong_operands_are_refused_by_name() {
    let mut cpu = Cpu::new(1).unwrap();
    let mut out = Buffer::default();
    let empty = cpu.buffer();
    let x = filled(&mut cpu, &random(1, 4 * 12, 1.0), 4);
    let matrix = cpu.matrix(&[0.5; 60], None, 5, 12).unwrap();
    let wide = cpu.matrix(&[0.5; 65], None, 5, 13).unwrap();
    refused(
        cpu.linear(&empty, &matrix, Activation::None, &mut out),
        "linear: x is empty",
    );
    refused(
        cpu.linear(&x, &wide, Activation::None, &mut out),
        "linear: x is 4 x 12, must be 4 x 13",
    );
    let five = norm(&cpu, &[1.0; 5], &[0.0; 5]);
    let six = norm(&cpu, &[1.0; 6], &[0.0; 6]);
    let mut residual = filled(&mut cpu, &[0.0; 20], 4);
    let mut short = filled(&mut cpu, &[0.0; 15], 3);
    refused(
        cpu.linear_add_norm(&x, &matrix, &five, &mut short),
        "linear_add_norm: residual is 3 x 5, must be 4 x 5",
    );
    refused(
        cpu.linear_add_norm(&x, &matrix, &six, &mut residual),
        "linear_add_norm: gamma is 1 x 6, must be 1 x 5",
    );
    for (cu_seqlens, entry, value) in [
        (&[][..], 0, 0),
        (&[0], 0, 0),
        (&[1, 4], 0, 1),
        (&[0, 2, 2, 4], 2, 2),
        (&[0, 3], 1, 3),
        (&[0, 9], 1, 9),
    ] {
        let message = format!("cu_seqlens must rise from 0 to 4 rows, but entry {entry} is {value}");
        refused(
            cpu.attention(&x, cu_seqlens, 2, None, &mut out),
            &format!("attention: {message}"),
        );
        refused(
            cpu.pool(&x, cu_seqlens, Pooling::Mean, &mut out),
            &format!("pool: {message}"),
        );
    }
    for heads in [0, 3, 5] {
        let message = format!("attention: 12 columns are not three times {heads} heads of one size");
        refused(cpu.attention(&x, &[0, 4], heads, None, &mut out), &message);
    }
    let bias = cpu.table(&[0.0; 10], 2, 5).unwrap();
    refused(
        cpu.attention(&x, &[0, 4], 2, Some(&bias), &mut out),
        "attention: relative bias reaches 3 tokens, the longest text has 4",
    );
    refused(
        cpu.attention(&x, &[0, 4], 1, Some(&bias), &mut out),
        "attention: relative bias is 2 x 5, must be 1 x 5",
    );
    assert!(cpu.matrix(&[0.0; 5], None, 2, 3).is_err());
    assert!(cpu.matrix(&[0.0; 6], Some(&[0.0]), 2, 3).is_err());
    assert!(cpu.matrix(&[], None, 0, 3).is_err());
    assert!(cpu.table(&[0.0; 5], usize::MAX, 3).is_err());
    assert!(Cpu::new(0).is_err());
}

#[test]
fn wrong_tokens_are_refused_by_name() {
    let mut cpu = Cpu::new(1).unwrap();
    let mut out = cpu.buffer();
    let tables = Embedding {
        word: cpu.words(&[0.0; 20], 5, 4).unwrap(),
        position: Some(cpu.table(&[0.0; 12], 3, 4).unwrap()),
        kind: Some(cpu.table(&[0.0; 8], 2, 4).unwrap()),
        norm: norm(&cpu, &[1.0; 4], &[0.0; 4]),
    };
    let mut embed = |ids: &[u32], positions: &[u32], kinds: &[u32]| {
        cpu.embed(
            Tokens {
                ids,
                positions,
                kinds,
            },
            &tables,
            &mut out,
        )
    };
    assert_eq!(embed(&[4, 0], &[0, 2], &[1, 0]), Ok(()));
    refused(embed(&[], &[], &[]), "embed: ids is empty");
    refused(
        embed(&[5], &[0], &[]),
        "embed: token id 5 lies outside its table of 5 rows",
    );
    refused(
        embed(&[1], &[3], &[]),
        "embed: position 3 lies outside its table of 3 rows",
    );
    refused(
        embed(&[1], &[0], &[2]),
        "embed: token type 2 lies outside its table of 2 rows",
    );
    refused(
        embed(&[1, 1], &[0], &[]),
        "embed: positions has 1 values, must have 2",
    );
    refused(
        embed(&[1, 1], &[0, 1], &[0]),
        "embed: token types has 1 values, must have 2",
    );
}

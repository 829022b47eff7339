//! Whole models through the CUDA operations, with kernels that run on the processor. A C++ compiler is needed, a
//! GPU is not.

use std::path::Path;

use crate::emulated::Emulated;
use crate::support::broken::Copy;
use crate::support::{cosine, difference};
use penstock_core::{PackedTokens, Reply};
use penstock_kernels::cuda::{Cuda, Dtype};
use penstock_models::{LoadOptions, Loaded, Model, load, load_on};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A copy of a family folder with heads twice as wide, because the kernels support none of sixteen columns.
fn folder(family: &str) -> Copy {
    let copy = Copy::of(family);
    let key = if family == "distilbert" {
        "n_heads"
    } else {
        "num_attention_heads"
    };
    copy.json("config.json", &format!(r#"{{"{key}": 2}}"#));
    copy
}

fn options(executors: usize) -> LoadOptions {
    LoadOptions {
        check_parity: false,
        allow_pickle: true,
        executors,
        ..LoadOptions::default()
    }
}

/// The model of `folder` on an emulated GPU, for `executors` executors.
fn on_gpu(folder: &Path, dtype: Dtype, executors: usize) -> Loaded {
    let device = Emulated::new(dtype);
    load_on(folder, &options(executors), || {
        Ok(Cuda::new(device.beside(), dtype))
    })
    .unwrap()
}

/// Texts of these lengths with random tokens.
fn batch(seed: u64, vocabulary: usize, lengths: &[usize]) -> PackedTokens {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut id = || rng.random_range(0..vocabulary as u32);
    let texts: Vec<Vec<u32>> = lengths
        .iter()
        .map(|&length| (0..length).map(|_| id()).collect())
        .collect();
    PackedTokens::from_texts(texts.iter().map(Vec::as_slice))
}

fn values(reply: &Reply) -> &[f32] {
    match reply {
        Reply::Embedding(values) => values,
        Reply::Classes { logits, .. } => logits,
    }
}

/// Compares values in f32 within a tolerance, and the direction where activations are rounded.
#[track_caller]
fn check_same(what: &str, dtype: Dtype, found: &[Reply], expected: &[Reply]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let pairs = || found.iter().map(values).zip(expected.iter().map(values));
    for (text, (found, expected)) in pairs().enumerate() {
        let far = difference(found, expected);
        assert!(
            dtype != Dtype::F32 || far <= 1e-5,
            "{what}: text {text} is off by {far:e}"
        );
    }
    let mean = pairs().map(|(f, e)| cosine(f, e)).sum::<f64>() / found.len() as f64;
    assert!(mean >= 0.999, "{what}: the mean cosine is {mean}");
}

#[test]
fn models_on_a_gpu_equal_those_on_the_processor() {
    for family in ["bert", "bert-embedding-mean", "distilbert", "roberta"] {
        let folder = folder(family);
        let mut cpu = load(folder.path(), &options(1)).unwrap();
        let packed = batch(1, cpu.spec.vocabulary, &[1, 9, 40, 3, 17, 64, 2]);
        let expected = cpu.model.forward(&packed).unwrap();
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let mut gpu = on_gpu(folder.path(), dtype, 1);
            let found = gpu.model.forward(&packed).unwrap();
            check_same(&format!("{family} in {}", dtype.name()), dtype, &found, &expected);
        }
    }
}

#[test]
fn batches_in_flight_return_in_order() {
    let folder = folder("bert-embedding-mean");
    let mut cpu = load(folder.path(), &options(1)).unwrap();
    assert!(cpu.model.pipelined().is_none(), "the caller's thread computes");
    let mut gpu = on_gpu(folder.path(), Dtype::F32, 1);
    // Batches of varying size, so that buffers grow while one is in flight.
    let batches: Vec<PackedTokens> = [[5, 3], [30, 40], [1, 1], [60, 9], [9, 60]]
        .iter()
        .enumerate()
        .map(|(seed, lengths)| batch(seed as u64, cpu.spec.vocabulary, lengths))
        .collect();
    let pipeline = gpu.model.pipelined().expect("the device computes");
    let depth = pipeline.in_flight_max();
    assert!(depth > 1);
    let mut found = Vec::new();
    for (at, packed) in batches.iter().enumerate() {
        if at >= depth {
            found.push(pipeline.receive().unwrap());
        }
        pipeline.submit(packed).unwrap();
    }
    found.extend((0..depth).map(|_| pipeline.receive().unwrap()));
    assert!(pipeline.receive().is_err(), "no batch is in flight");
    for (packed, found) in batches.iter().zip(&found) {
        let expected = cpu.model.forward(packed).unwrap();
        check_same("in order", Dtype::F32, found, &expected);
    }
}

#[test]
fn a_refused_batch_leaves_the_one_before_it_alone() {
    let folder = folder("bert-embedding-mean");
    let mut gpu = on_gpu(folder.path(), Dtype::F32, 1);
    let vocabulary = gpu.spec.vocabulary;
    let (good, wrong) = (batch(1, vocabulary, &[7, 3]), batch(2, vocabulary, &[100_000]));
    let alone = gpu.model.forward(&good).unwrap();
    let pipeline = gpu.model.pipelined().unwrap();
    pipeline.submit(&good).unwrap();
    assert!(pipeline.submit(&wrong).is_err());
    check_same(
        "after a wrong batch",
        Dtype::F32,
        &pipeline.receive().unwrap(),
        &alone,
    );
    pipeline.submit(&good).unwrap();
    assert!(gpu.model.forward(&good).is_err(), "a batch is still in flight");
}

#[test]
fn replicas_share_weights_and_nothing_else() {
    for family in ["bert", "bert-embedding-mean"] {
        let folder = folder(family);
        let Loaded {
            spec,
            mut model,
            replicas,
            ..
        } = on_gpu(folder.path(), Dtype::F32, 3);
        assert_eq!(replicas.len(), 2);
        let batches: Vec<PackedTokens> = (0..3)
            .map(|seed| batch(seed, spec.vocabulary, &[4, 30, 11]))
            .collect();
        let alone: Vec<_> = batches
            .iter()
            .map(|packed| model.forward(packed).unwrap())
            .collect();
        let mut all: Vec<Box<dyn Model>> = std::iter::once(model).chain(replicas).collect();
        for (model, packed) in all.iter_mut().zip(&batches) {
            model.pipelined().unwrap().submit(packed).unwrap();
        }
        // The weights stay as long as any replica uses them.
        for (mut model, alone) in all.into_iter().zip(&alone) {
            let found = model.pipelined().unwrap().receive().unwrap();
            check_same(family, Dtype::F32, &found, alone);
        }
    }
}

/// The exact bits of all rows.
fn bits(replies: &[Reply]) -> Vec<Vec<u32>> {
    let row = |reply| values(reply).iter().map(|v| v.to_bits()).collect();
    replies.iter().map(row).collect()
}

/// Small batches, two in flight at once and large ones between them, give the same bits as on a device without
/// graphs.
#[test]
fn small_batches_give_the_same_bits_through_graphs() {
    for family in ["bert", "bert-embedding-mean"] {
        let folder = folder(family);
        let dtype = Dtype::F16;
        let mut plain = on_gpu(folder.path(), dtype, 1);
        let device = Emulated::new(dtype);
        let tally = device.tally();
        let mut recording = load_on(folder.path(), &options(1), || {
            Ok(Cuda::new(device.beside(), dtype).recording())
        })
        .unwrap();
        let vocabulary = plain.spec.vocabulary;
        let lengths: [&[usize]; 4] = [&[5, 60, 20], &[3; 40], &[64], &[9, 41, 32]];
        let batches: Vec<PackedTokens> = (0..40_usize)
            .map(|turn| batch(turn as u64, vocabulary, lengths[turn % 4]))
            .collect();
        let pipeline = recording.model.pipelined().unwrap();
        let mut found = Vec::new();
        for (at, packed) in batches.iter().enumerate() {
            if at >= pipeline.in_flight_max() {
                found.push(pipeline.receive().unwrap());
            }
            pipeline.submit(packed).unwrap();
        }
        found.extend((0..pipeline.in_flight_max()).map(|_| pipeline.receive().unwrap()));
        for (packed, found) in batches.iter().zip(&found) {
            let expected = plain.model.forward(packed).unwrap();
            assert_eq!(bits(found), bits(&expected), "{family}, {:?}", packed.cu_seqlens);
        }
        let tally = *tally.lock().unwrap();
        // Two buckets: one of three texts of all lengths, one of a single text.
        assert_eq!(tally.recorded, 2, "{family}: {tally:?}");
        assert!(tally.replayed >= 10, "{family}: {tally:?}");
    }
}

#[test]
fn a_device_that_cannot_record_serves_launch_by_launch() {
    let folder = folder("bert-embedding-mean");
    let dtype = Dtype::F32;
    let device = Emulated::new(dtype).refusing();
    let tally = device.tally();
    let mut gpu = load_on(folder.path(), &options(1), || {
        Ok(Cuda::new(device.beside(), dtype).recording())
    })
    .unwrap();
    let packed = batch(1, gpu.spec.vocabulary, &[7, 3]);
    let first = gpu.model.forward(&packed).unwrap();
    for _ in 0..20 {
        assert_eq!(bits(&gpu.model.forward(&packed).unwrap()), bits(&first));
    }
    let tally = *tally.lock().unwrap();
    assert_eq!(
        (tally.recorded, tally.replayed),
        (1, 0),
        "recording is tried once"
    );
}

#[test]
fn executors_have_graphs_of_their_own() {
    let folder = folder("bert-embedding-mean");
    let dtype = Dtype::F32;
    let device = Emulated::new(dtype);
    let tally = device.tally();
    let Loaded {
        spec,
        mut model,
        mut replicas,
        ..
    } = load_on(folder.path(), &options(2), || {
        Ok(Cuda::new(device.beside(), dtype).recording())
    })
    .unwrap();
    for turn in 0..20 {
        let packed = batch(turn, spec.vocabulary, &[7, 3]);
        let (one, other) = (
            model.forward(&packed).unwrap(),
            replicas[0].forward(&packed).unwrap(),
        );
        assert_eq!(bits(&one), bits(&other));
    }
    assert_eq!(tally.lock().unwrap().recorded, 2);
}

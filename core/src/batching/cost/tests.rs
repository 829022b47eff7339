//! The cost model fits a noisy device, survives broken clocks and follows lasting changes.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

/// A device that needs 300 µs a batch, 70 µs a token, 20 ns a squared token, times `speed`.
fn true_nanos(shape: BatchShape, speed: f64) -> f64 {
    (300e3 + 70e3 * shape.tokens as f64 + 20.0 * shape.sum_len_sq as f64) * speed
}

fn shape(rng: &mut SmallRng) -> BatchShape {
    let texts = rng.random_range(1..64);
    (0..texts).fold(BatchShape::default(), |shape, _| {
        shape.with(rng.random_range(4..256))
    })
}

fn train(model: &mut CostModel, rng: &mut SmallRng, batches: usize, speed: f64) {
    for _ in 0..batches {
        let shape = shape(rng);
        let noise = rng.random_range(0.9..1.1);
        model.observe(shape, duration(true_nanos(shape, speed) * noise));
    }
}

/// The 90th percentile of the relative error over fresh shapes.
fn error(model: &CostModel, rng: &mut SmallRng, speed: f64) -> f64 {
    let mut errors: Vec<f64> = (0..200)
        .map(|_| {
            let shape = shape(rng);
            let predicted = model.predict(shape).unwrap().as_nanos() as f64;
            (predicted / true_nanos(shape, speed) - 1.0).abs()
        })
        .collect();
    errors.sort_by(f64::total_cmp);
    errors[180]
}

#[track_caller]
fn check(model: &CostModel, rng: &mut SmallRng, speed: f64, tolerance: f64) {
    let error = error(model, rng, speed);
    assert!(error < tolerance, "relative error {error}");
}

#[test]
fn there_is_no_forecast_before_enough_batches() {
    let (mut model, mut rng) = (CostModel::new(), SmallRng::seed_from_u64(1));
    train(&mut model, &mut rng, FORECAST_AFTER as usize - 1, 1.0);
    assert_eq!(model.predict(shape(&mut rng)), None);
    assert_eq!(model.tokens_within(Duration::from_millis(1), 40), usize::MAX);
    assert_eq!(model.capacity_tokens_per_second(4096), None);
    train(&mut model, &mut rng, 1, 1.0);
    assert!(model.predict(shape(&mut rng)).is_some());
}

#[test]
fn noise_is_averaged_out() {
    for seed in 0..20 {
        let (mut model, mut rng) = (CostModel::new(), SmallRng::seed_from_u64(seed));
        train(&mut model, &mut rng, 200, 1.0);
        check(&model, &mut rng, 1.0, 0.15);
    }
}

#[test]
fn late_clocks_and_stopped_clocks_move_the_model_little() {
    let (mut model, mut rng) = (CostModel::new(), SmallRng::seed_from_u64(2));
    train(&mut model, &mut rng, 200, 1.0);
    for _ in 0..3 {
        let odd = shape(&mut rng);
        model.observe(odd, Duration::from_hours(1));
        model.observe(odd, Duration::ZERO);
        model.observe(odd, Duration::from_nanos(1));
        train(&mut model, &mut rng, 30, 1.0);
    }
    check(&model, &mut rng, 1.0, 0.3);
}

#[test]
fn a_slow_first_batch_is_forgotten() {
    let (mut model, mut rng) = (CostModel::new(), SmallRng::seed_from_u64(3));
    model.observe(BatchShape::default().with(16), Duration::from_secs(20));
    train(&mut model, &mut rng, 20, 1.0);
    check(&model, &mut rng, 1.0, 0.3);
}

#[test]
fn a_device_that_slows_down_and_recovers_is_followed() {
    let (mut model, mut rng) = (CostModel::new(), SmallRng::seed_from_u64(4));
    for speed in [1.0, 3.0, 1.0, 20.0, 0.5] {
        train(&mut model, &mut rng, 600, speed);
        check(&model, &mut rng, speed, 0.2);
    }
}

#[test]
fn batches_that_all_look_alike_stay_solvable() {
    let (mut model, mut rng) = (CostModel::new(), SmallRng::seed_from_u64(5));
    let same = (0..32).fold(BatchShape::default(), |shape, _| shape.with(16));
    for _ in 0..100_000 {
        model.observe(same, duration(true_nanos(same, 1.0)));
    }
    let predicted = model.predict(same).unwrap().as_nanos() as f64;
    assert!((predicted / true_nanos(same, 1.0) - 1.0).abs() < 0.01);
    train(&mut model, &mut rng, 200, 1.0);
    check(&model, &mut rng, 1.0, 0.15);
}

#[test]
fn more_work_never_takes_less_time() {
    for seed in 0..50 {
        let (mut model, mut rng) = (CostModel::new(), SmallRng::seed_from_u64(seed));
        for _ in 0..100 {
            model.observe(
                shape(&mut rng),
                Duration::from_nanos(rng.random_range(1..1_000_000_000)),
            );
            let (one, len) = (shape(&mut rng), rng.random_range(1..512));
            assert!(model.predict(one.with(len)) >= model.predict(one), "seed {seed}");
        }
    }
}

#[test]
fn a_token_budget_keeps_its_target() {
    let (mut model, mut rng) = (CostModel::new(), SmallRng::seed_from_u64(6));
    train(&mut model, &mut rng, 300, 1.0);
    let target = Duration::from_millis(50);
    let tokens = model.tokens_within(target, 40);
    let texts = tokens / 40;
    let shape = (0..texts).fold(BatchShape::default(), |shape, _| shape.with(40));
    let took = true_nanos(shape, 1.0) / target.as_nanos() as f64;
    assert!(
        (0.85..1.1).contains(&took),
        "{tokens} tokens take {took} of the target"
    );
    assert_eq!(model.tokens_within(Duration::ZERO, 40), 0);
}

#[test]
fn capacity_is_that_of_full_batches() {
    let (mut model, mut rng) = (CostModel::new(), SmallRng::seed_from_u64(7));
    let text = |len| (0..4096 / len).fold(BatchShape::default(), |shape, _| shape.with(len));
    for _ in 0..300 {
        let shape = if rng.random() {
            text(64)
        } else {
            BatchShape::default().with(64)
        };
        model.observe(shape, duration(true_nanos(shape, 1.0)));
    }
    let capacity = model.capacity_tokens_per_second(4096).unwrap();
    let real = 4096.0 * 1e9 / true_nanos(text(64), 1.0);
    assert!(
        (capacity / real - 1.0).abs() < 0.05,
        "{capacity} tokens/s against {real}"
    );
}

//! Simulation of all decisions from a seed: admission, batcher and executors, under faults.
//!
//! Safety: every admitted text is answered exactly once and with its own row, no dead request runs, no bound is
//! passed and no class starves. Progress: in the end every text is answered and all room has returned.
//! A failure prints its seed; `SIMULATION_SEED=<seed> cargo test -p penstock-core --test simulation`
//! replays that run.

#![allow(
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test that fails stops and prints its seed"
)]

mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use world::{Faults, Load, Tally, World};

/// Runs `runs` worlds and returns the sum of their tallies, so that a test can check that its case occurred
/// at all.
fn check(runs: u64, load: Load, faults: Faults) -> Tally {
    let given = std::env::var("SIMULATION_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = given.map_or(0..runs, |seed: u64| seed..seed + 1);
    let mut total = Tally::default();
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| World::new(seed, load, faults).run())) {
            Ok(tally) => total.add(&tally),
            Err(panic) => {
                eprintln!("failed with SIMULATION_SEED={seed}, {load:?}, {faults:?}");
                resume_unwind(panic);
            }
        }
    }
    total
}

#[test]
fn light_load_without_faults() {
    let tally = check(500, Load::Light, Faults::None);
    assert_eq!(tally.lost, 0, "no request is lost without a fault");
    assert!(tally.answered > 10_000, "{tally:?}");
}

#[test]
fn heavy_load_without_faults() {
    let tally = check(1000, Load::Heavy, Faults::None);
    assert_eq!(tally.lost, 0, "no request is lost without a fault");
    assert!(
        tally.overloaded > 1000 && tally.late > 1000 && tally.cancelled > 100,
        "{tally:?}"
    );
    assert!(
        tally.waited > 1000,
        "bulk work waits for room and is admitted: {tally:?}"
    );
}

#[test]
fn heavy_load_with_all_faults() {
    let tally = check(2000, Load::Heavy, Faults::All);
    assert!(tally.lost > 1000 && tally.answered > 10_000, "{tally:?}");
    assert!(
        tally.split > 100 && tally.unavailable > 100 && tally.miscounted > 100 && tally.shed > 100,
        "{tally:?}"
    );
}

#[test]
fn bulk_work_progresses_under_constant_interactive_load() {
    let tally = check(300, Load::InteractiveFlood, Faults::None);
    assert!(tally.bulk_ran > 1000, "{tally:?}");
}

#[test]
fn interactive_work_progresses_under_constant_bulk_load() {
    let tally = check(300, Load::BulkFlood, Faults::None);
    assert!(tally.interactive_ran > 1000, "{tally:?}");
}

//! The whole line of decisions from a seed: admission, batcher, executors, under faults.
//!
//! Safety: every admitted text is answered exactly once and with its own row, nothing dead runs, no bound
//! is passed, no class starves. Progress: in the end everything is answered and all room came back.
//! A failure prints its seed; `SIMULATION_SEED=<seed> cargo test -p penstock-core --test simulation`
//! replays that one run.

#![allow(
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test that finds something stops, and says with which seed"
)]

mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use world::{Faults, Load, Tally, World};

/// Runs `runs` worlds and returns what happened in all of them together, so that a test can see that
/// what it is about took place at all.
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
fn calm_weather() {
    let tally = check(500, Load::Light, Faults::None);
    assert_eq!(tally.lost, 0, "nothing is lost where nothing breaks");
    assert!(tally.answered > 10_000, "{tally:?}");
}

#[test]
fn overload_without_faults() {
    let tally = check(1000, Load::Heavy, Faults::None);
    assert_eq!(tally.lost, 0, "nothing is lost where nothing breaks");
    assert!(
        tally.overloaded > 1000 && tally.late > 1000 && tally.cancelled > 100,
        "{tally:?}"
    );
    assert!(
        tally.waited > 1000,
        "bulk work waits for room and comes in: {tally:?}"
    );
}

#[test]
fn everything_breaks_at_once() {
    let tally = check(2000, Load::Heavy, Faults::All);
    assert!(tally.lost > 1000 && tally.answered > 10_000, "{tally:?}");
    assert!(
        tally.split > 100 && tally.unavailable > 100 && tally.miscounted > 100 && tally.shed > 100,
        "{tally:?}"
    );
}

#[test]
fn bulk_moves_on_under_constant_interactive_load() {
    let tally = check(300, Load::InteractiveFlood, Faults::None);
    assert!(tally.bulk_ran > 1000, "{tally:?}");
}

#[test]
fn interactive_moves_on_under_constant_bulk_load() {
    let tally = check(300, Load::BulkFlood, Faults::None);
    assert!(tally.interactive_ran > 1000, "{tally:?}");
}

//! Simulation of the pump from a seed, with a source and a sink in memory: members come, go, die and are
//! excluded; commits fail, or succeed without an answer; records are refused, held and lost.
//!
//! Safety: every commit answers the next records of each partition, each once and in order, and no position
//! passes a record without an answer. Progress: in the end every record is committed. A failure prints its
//! seed; `SIMULATION_SEED=<seed> cargo test --release -p penstock -p penstock-runtime --test simulation`
//! replays it.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test that fails stops and prints its seed"
)]

mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_core::{Class, InFlightBounds};
use penstock_engine::engine::Engine;
use penstock_engine::placement;
use penstock_engine::placement::choice::{DeviceChoice, DtypeChoice};
use penstock_engine::service::InferenceService;
use penstock_engine::settings::{EngineSettings, Limits};
use penstock_runtime::progress::Progress;
use penstock_runtime::pump::{Pump, Surroundings};
use penstock_runtime::record_codec::RecordCodec;
use penstock_runtime::route::{Honour, Route};
use penstock_runtime::stop::Stop;
use penstock_runtime::time::Time;
use rand::Rng;
use world::pair::{MemorySink, MemorySource};
use world::scorer::RandomScorer;
use world::{DEAD, OUTPUT, Shared, Tally, Virtual};

/// Steps with faults, and steps within which everything must be committed after the last fault.
const STEPS: usize = 600;
const STEPS_LEFT: usize = 20_000;

/// Most members at once.
const MEMBERS_MAX: usize = 3;

type MemoryPump = Pump<MemorySource, MemorySink, RandomScorer>;

/// One process of the group.
struct Process {
    pump: MemoryPump,
    stop: Arc<Stop>,
}

struct Run {
    world: Shared,
    time: Arc<dyn Time>,
    service: Arc<InferenceService>,
    route: Arc<Route>,
    members: BTreeMap<usize, Process>,
    next: usize,
}

fn route() -> Route {
    Route {
        name: "r".into(),
        model: "m".into(),
        version: String::new(),
        class: Class::Bulk,
        truncate: true,
        field: None,
        honour: Honour::default(),
        output: OUTPUT.into(),
        dead_letter: DEAD.into(),
        record_bytes_max: 1000,
        written_bytes_max: 10_000,
        bounds: InFlightBounds {
            records_max: 64,
            bytes_max: 1 << 20,
            partition_records_max: 24,
            partition_bytes_max: 1 << 20,
            stall_max: Duration::from_millis(50),
        },
        commit_interval: Duration::from_millis(20),
        commit_interval_max: Duration::from_millis(100),
        commit_records_max: 32,
        revoke_timeout: Duration::from_millis(60),
        topics_max: None,
    }
}

impl Run {
    fn new(seed: u64, atomic: bool, service: &Arc<InferenceService>) -> Run {
        Run {
            world: Shared::new(seed, atomic),
            time: Arc::new(Virtual::new()),
            service: Arc::clone(service),
            route: Arc::new(route()),
            members: BTreeMap::new(),
            next: 0,
        }
    }

    fn start(&mut self) {
        let member = self.next;
        self.next += 1;
        let stop = Arc::new(Stop::default());
        let surroundings = Surroundings {
            service: Arc::clone(&self.service),
            progress: Arc::new(Progress::new(Instant::now())),
            stop: Arc::clone(&stop),
            time: Arc::clone(&self.time),
        };
        let pump = Pump::new(
            Arc::clone(&self.route),
            (
                MemorySource::join(&self.world, &self.time, member),
                MemorySink::new(&self.world, &self.time, member),
            ),
            (
                Arc::new(RecordCodec::new(Arc::clone(&self.route))),
                RandomScorer::new(&self.world, &self.time),
            ),
            surroundings,
        );
        let pump = pump.expect("bounds that hold a record");
        self.members.insert(member, Process { pump, stop });
    }

    /// One step of a random member. A pump that cannot recover is replaced.
    fn step(&mut self) {
        let at = self.world.lock().rng.random_range(0..self.members.len());
        let (member, process) = self.members.iter_mut().nth(at).expect("a member");
        let member = *member;
        if process.pump.step().is_err() {
            self.world.lock().tally.restarts += 1;
            process.pump.close();
            self.remove(member);
            self.start();
        }
    }

    fn remove(&mut self, member: usize) {
        self.members.remove(&member);
        self.world.lock().leave(member);
    }

    fn any(&self) -> usize {
        let at = self.world.lock().rng.random_range(0..self.members.len());
        *self.members.keys().nth(at).expect("a member")
    }

    /// A fault or a change of the group.
    fn disturb(&mut self) {
        let member = self.any();
        let kind = self.world.lock().rng.random_range(0..4);
        match kind {
            0 if self.members.len() < MEMBERS_MAX => self.start(),
            // It leaves as it should.
            1 if self.members.len() > 1 => {
                let process = self.members.get_mut(&member).expect("a member");
                process.stop.say(self.time.now() + Duration::from_millis(30));
                let _ = process.pump.run();
                self.remove(member);
            }
            // It dies.
            2 => {
                self.remove(member);
                self.start();
            }
            3 => self.world.lock().exclude(member),
            _ => {}
        }
    }

    fn run(mut self) -> Tally {
        self.start();
        for _ in 0..STEPS {
            let (appends, disturbs) = {
                let mut world = self.world.lock();
                (world.rng.random_bool(0.2), world.rng.random_bool(0.02))
            };
            if appends {
                self.world.lock().append(2);
            }
            if disturbs {
                self.disturb();
            }
            self.step();
        }
        self.world.lock().faults = false;
        for _ in 0..STEPS_LEFT {
            if self.world.lock().is_done() {
                return self.world.lock().tally;
            }
            self.step();
        }
        panic!("not all records are committed {STEPS_LEFT} steps after the last fault");
    }
}

fn engine() -> Engine {
    let settings = EngineSettings {
        threads: 1,
        pin_threads: false,
        tokenizer_threads: 1,
        cuda_graphs: false,
        limits: Limits::default(),
        models: Vec::new(),
    };
    let placement =
        placement::place(&DeviceChoice::Cpu, DtypeChoice::Auto, penstock_models::probe).expect("a cpu");
    Engine::prepare(&settings, &placement, None).expect("an engine without models")
}

/// Runs `runs` worlds and returns the sum of their tallies.
fn check(runs: u64, atomic: bool) -> Tally {
    let engine = engine();
    let given = std::env::var("SIMULATION_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = given.map_or(0..runs, |seed: u64| seed..seed + 1);
    let mut total = Tally::default();
    for seed in seeds {
        let run = AssertUnwindSafe(|| Run::new(seed, atomic, engine.service()).run());
        match catch_unwind(run) {
            Ok(tally) => total.add(&tally),
            Err(panic) => {
                eprintln!("failed with SIMULATION_SEED={seed}, atomic: {atomic}");
                resume_unwind(panic);
            }
        }
    }
    total
}

#[test]
fn atomic_commits_answer_each_record_once_and_in_order() {
    let tally = check(500, true);
    assert!(tally.committed > 10_000 && tally.dead > 400, "{tally:?}");
    assert!(tally.refusals > 100 && tally.aborts > 500, "{tally:?}");
    assert!(tally.revoked > 100 && tally.lost > 100, "{tally:?}");
    assert!(
        tally.unknown_commits > 50 && tally.stale_commits > 20 && tally.restarts > 100,
        "{tally:?}"
    );
}

#[test]
fn commits_that_are_not_atomic_pass_no_record_without_an_answer() {
    let tally = check(500, false);
    assert!(tally.committed > 10_000 && tally.aborts > 500, "{tally:?}");
}

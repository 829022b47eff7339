//! A broker in memory: logs, a group whose members come and go, and a store that commits answers together with
//! positions. Every commit is checked against the rule of the whole: each record is answered once, in order.

pub mod pair;
pub mod scorer;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use penstock_core::Nanos;
use penstock_runtime::record::TopicPartition;
use penstock_runtime::source::Change;
use penstock_runtime::time::Time;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Topics of the route.
pub const INPUT: &str = "in";
pub const OUTPUT: &str = "out";
pub const DEAD: &str = "dead";

/// Partitions of the input.
pub const PARTITIONS: usize = 3;

/// Simulated time, which waits move forward.
pub struct Virtual {
    start: Instant,
    nanos: AtomicU64,
}

impl Virtual {
    pub fn new() -> Virtual {
        Virtual {
            start: Instant::now(),
            nanos: AtomicU64::new(0),
        }
    }
}

impl Time for Virtual {
    fn now(&self) -> Instant {
        self.start + Duration::from_nanos(self.nanos().0)
    }

    fn nanos(&self) -> Nanos {
        Nanos(self.nanos.load(Ordering::Relaxed))
    }

    fn sleep(&self, time: Duration) {
        self.nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// Counts of a run, so that a test can check that its case occurred.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub committed: usize,
    pub dead: usize,
    pub aborts: usize,
    pub unknown_commits: usize,
    pub stale_commits: usize,
    pub refusals: usize,
    pub revoked: usize,
    pub lost: usize,
    pub restarts: usize,
}

/// One partition of the input.
#[derive(Default)]
pub struct Log {
    /// Number of its records.
    pub end: i64,
    /// Committed position.
    pub committed: Option<i64>,
    /// Member that it is assigned to.
    owner: Option<usize>,
    /// Whether its owner was told to let go.
    revoking: bool,
    /// Offsets that have an answer, where answers are visible before their commit.
    pub answered: Vec<bool>,
}

/// One member of the group.
#[derive(Default)]
struct Member {
    changes: VecDeque<Change>,
    /// Incremented when the group excludes the member.
    generation: u64,
    excluded: bool,
}

/// The broker.
pub struct World {
    pub rng: SmallRng,
    pub logs: Vec<Log>,
    members: BTreeMap<usize, Member>,
    /// Whether answers and positions are committed atomically.
    pub atomic: bool,
    /// Whether faults still happen.
    pub faults: bool,
    pub tally: Tally,
}

/// The broker, shared by its clients.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub fn new(seed: u64, atomic: bool) -> Shared {
        Shared(Arc::new(Mutex::new(World {
            rng: SmallRng::seed_from_u64(seed),
            logs: (0..PARTITIONS).map(|_| Log::default()).collect(),
            members: BTreeMap::new(),
            atomic,
            faults: true,
            tally: Tally::default(),
        })))
    }

    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

/// A partition of the input by name.
pub fn name(partition: usize) -> TopicPartition {
    TopicPartition {
        topic: INPUT.into(),
        partition: partition as i32,
    }
}

/// Whether the output topic refuses the answer of this record.
pub fn is_poison(partition: usize, offset: i64) -> bool {
    (offset + partition as i64) % 23 == 11
}

impl World {
    /// Whether a fault of this probability happens.
    pub fn fails(&mut self, probability: f64) -> bool {
        self.faults && self.rng.random_bool(probability)
    }

    /// Adds records at the ends of the logs.
    pub fn append(&mut self, records: i64) {
        for log in &mut self.logs {
            log.end += records;
            log.answered.resize(log.end as usize, false);
        }
    }

    /// Whether every record is committed.
    pub fn is_done(&self) -> bool {
        self.logs.iter().all(|log| log.committed.unwrap_or(0) == log.end)
    }

    pub fn join(&mut self, member: usize) {
        self.members.insert(member, Member::default());
        self.rebalance();
    }

    /// A member is gone, with or without having said so.
    pub fn leave(&mut self, member: usize) {
        self.members.remove(&member);
        self.free(member);
        self.rebalance();
    }

    /// The group excludes a member that does not know yet: a zombie.
    pub fn exclude(&mut self, member: usize) {
        let partitions: Vec<_> = (0..PARTITIONS)
            .filter(|p| self.logs[*p].owner == Some(member))
            .collect();
        self.free(member);
        if let Some(one) = self.members.get_mut(&member) {
            one.generation += 1;
            one.excluded = true;
            one.changes.clear();
            one.changes.push_back(Change::Revoke {
                partitions: partitions.into_iter().map(name).collect(),
                lost: true,
            });
        }
        self.rebalance();
    }

    fn free(&mut self, member: usize) {
        for log in self.logs.iter_mut().filter(|log| log.owner == Some(member)) {
            log.owner = None;
            log.revoking = false;
        }
    }

    /// Spreads the partitions over the members; a partition moves once its owner has let go.
    fn rebalance(&mut self) {
        let members: Vec<usize> = self
            .members
            .iter()
            .filter(|(_, member)| !member.excluded)
            .map(|(id, _)| *id)
            .collect();
        if members.is_empty() {
            return;
        }
        for (p, log) in self.logs.iter_mut().enumerate() {
            let wanted = members[p % members.len()];
            match log.owner {
                None => {
                    log.owner = Some(wanted);
                    if let Some(member) = self.members.get_mut(&wanted) {
                        member.changes.push_back(Change::Assign(vec![name(p)]));
                    }
                }
                Some(owner) if owner != wanted && !log.revoking => {
                    log.revoking = true;
                    self.tally.revoked += 1;
                    if let Some(member) = self.members.get_mut(&owner) {
                        member.changes.push_back(Change::Revoke {
                            partitions: vec![name(p)],
                            lost: false,
                        });
                    }
                }
                Some(_) => {}
            }
        }
    }

    pub fn next_change(&self, member: usize) -> Option<Change> {
        self.members.get(&member)?.changes.front().cloned()
    }

    /// Takes the answered change away and returns it.
    pub fn answered(&mut self, member: usize) -> Option<Change> {
        let one = self.members.get_mut(&member)?;
        let change = one.changes.pop_front()?;
        if let Change::Revoke { partitions, lost } = &change {
            if *lost {
                self.tally.lost += 1;
                one.excluded = false;
            }
            for partition in partitions {
                let log = &mut self.logs[partition.partition as usize];
                if log.owner == Some(member) && log.revoking {
                    log.owner = None;
                    log.revoking = false;
                }
            }
            self.rebalance();
        }
        Some(change)
    }

    pub fn generation(&self, member: usize) -> u64 {
        self.members.get(&member).map_or(u64::MAX, |one| one.generation)
    }

    /// Whether the group lets this member commit positions of these partitions.
    pub fn admits(&self, member: usize, generation: u64, partitions: &[usize]) -> bool {
        let current = self.members.get(&member);
        current.is_some_and(|one| one.generation == generation && !one.excluded)
            && partitions.iter().all(|p| self.logs[*p].owner == Some(member))
    }

    /// Stores positions, with the offsets that are answered in the same commit. Each of these must be the next
    /// one of its partition, and none may be left out.
    pub fn commit(&mut self, positions: &[(usize, i64)], answers: &[(usize, i64)]) {
        for (p, to) in positions {
            let from = self.logs[*p].committed.unwrap_or(0);
            if self.atomic {
                let answered: Vec<i64> = answers
                    .iter()
                    .filter(|(of, _)| of == p)
                    .map(|(_, offset)| *offset)
                    .collect();
                assert_eq!(
                    answered,
                    (from..*to).collect::<Vec<_>>(),
                    "partition {p} goes from {from} to {to}: each record once, in order"
                );
            } else {
                let unanswered = (0..*to).find(|offset| !self.logs[*p].answered[*offset as usize]);
                assert_eq!(
                    unanswered, None,
                    "partition {p} passes a record without an answer"
                );
            }
            assert!(*to >= from, "partition {p} goes back from {from} to {to}");
            self.tally.committed += (*to - from) as usize;
            self.logs[*p].committed = Some(*to);
        }
        let strays: Vec<_> = answers
            .iter()
            .filter(|(of, _)| !positions.iter().any(|(p, _)| p == of))
            .collect();
        assert!(
            strays.is_empty() || !self.atomic,
            "answers without a position: {strays:?}"
        );
    }
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.committed += other.committed;
        self.dead += other.dead;
        self.aborts += other.aborts;
        self.unknown_commits += other.unknown_commits;
        self.stale_commits += other.stale_commits;
        self.refusals += other.refusals;
        self.revoked += other.revoked;
        self.lost += other.lost;
        self.restarts += other.restarts;
    }
}

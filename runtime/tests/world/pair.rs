//! A source and a sink of the broker in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use penstock_runtime::record::{Carried, Outgoing, Record, RecordValue, TopicPartition};
use penstock_runtime::sink::{Aborted, Open, Positions, Refusal, Refused, Sink};
use penstock_runtime::source::{
    Change, Committed, LogIdentity, LogStatistics, PartitionStatistics, SeekTo, Source, Start, Target,
};
use penstock_runtime::time::Time;
use penstock_runtime::trouble::Trouble;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::{DEAD, INPUT, PARTITIONS, Shared, is_poison, name};

/// Records that the store takes or refuses as one batch.
const BATCH: usize = 4;

/// A member of the group.
pub struct MemorySource {
    world: Shared,
    time: Arc<dyn Time>,
    member: usize,
    /// Generation that this member knows.
    generation: u64,
    /// Next offset to read of each assigned partition.
    next: BTreeMap<usize, i64>,
    paused: BTreeSet<usize>,
}

impl MemorySource {
    pub fn join(world: &Shared, time: &Arc<dyn Time>, member: usize) -> MemorySource {
        world.lock().join(member);
        MemorySource {
            world: world.clone(),
            time: Arc::clone(time),
            member,
            generation: 0,
            next: BTreeMap::new(),
            paused: BTreeSet::new(),
        }
    }
}

impl Source for MemorySource {
    type Group = u64;

    fn poll(&mut self, wait: Duration) -> Result<Option<Record>, Trouble> {
        let mut world = self.world.lock();
        if world.fails(0.0005) {
            return Err(Trouble::Restart("the connection is gone".into()));
        }
        let has_more = |(p, next): &(&usize, &i64)| !self.paused.contains(p) && **next < world.logs[**p].end;
        let readable: Vec<usize> = self.next.iter().filter(has_more).map(|(p, _)| *p).collect();
        let Some(p) = readable.choose(&mut world.rng).copied() else {
            self.time.sleep(wait);
            return Ok(None);
        };
        if world.rng.random_bool(0.2) {
            self.time.sleep(wait);
            return Ok(None);
        }
        let next = self.next.get_mut(&p).expect("an assigned partition");
        let offset = *next;
        *next += 1;
        let text = format!("{p}:{offset}").into_bytes();
        Ok(Some(Record {
            topic: INPUT.into(),
            partition: p as i32,
            offset,
            leader_epoch: None,
            // Some records are tombstones.
            value: if offset % 17 == 3 {
                RecordValue::Null
            } else {
                RecordValue::Bytes(text.clone())
            },
            carried: Carried {
                key: Some(text),
                ..Carried::default()
            },
            carried_bytes: 8,
            headers_valid: true,
        }))
    }

    fn next_change(&mut self) -> Option<Change> {
        self.world.lock().next_change(self.member)
    }

    fn answer(&mut self) -> Result<(), Trouble> {
        let mut world = self.world.lock();
        match world.answered(self.member) {
            Some(Change::Assign(partitions)) => {
                for partition in partitions {
                    let p = partition.partition as usize;
                    self.next.insert(p, world.logs[p].committed.unwrap_or(0));
                }
            }
            Some(Change::Revoke { partitions, .. }) => {
                for partition in partitions {
                    self.next.remove(&(partition.partition as usize));
                }
            }
            None => {}
        }
        self.generation = world.generation(self.member);
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), Trouble> {
        self.paused
            .extend(partitions.iter().map(|one| one.partition as usize));
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), Trouble> {
        for one in partitions {
            self.paused.remove(&(one.partition as usize));
        }
        Ok(())
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Committed>, Trouble> {
        let world = self.world.lock();
        let committed = partitions.iter().filter_map(|one| {
            let position = world.logs[one.partition as usize].committed?;
            Some(Committed {
                partition: one.clone(),
                position,
                leader_epoch: None,
            })
        });
        Ok(committed.collect())
    }

    fn seek(&mut self, targets: &[Target]) -> Result<(), Trouble> {
        for target in targets {
            let to = match target.to {
                SeekTo::Offset(position) => position,
                SeekTo::Beginning => 0,
            };
            if let Some(next) = self.next.get_mut(&(target.partition.partition as usize)) {
                *next = to;
            }
        }
        Ok(())
    }

    fn group(&self) -> u64 {
        self.generation
    }

    fn statistics(&mut self) -> Option<LogStatistics> {
        let mut world = self.world.lock();
        let partitions = (0..PARTITIONS).map(|p| {
            let figures = PartitionStatistics {
                prefetched: 0,
                next_offset: self.next.get(&p).copied().unwrap_or(-1),
                end: world.logs[p].end,
                beginning: 0,
                is_fetched: self.next.contains_key(&p),
            };
            (name(p), figures)
        });
        let partitions = partitions.collect();
        world.rng.random_bool(0.1).then_some(LogStatistics {
            connected: true,
            partitions,
        })
    }

    fn outlived(&mut self) -> Option<String> {
        let mut world = self.world.lock();
        world.fails(0.1).then(|| "the output has changed".into())
    }
}

impl LogIdentity for MemorySource {
    fn is_due(&self, _: bool) -> bool {
        false
    }

    fn ask(&mut self, _: &[String]) {}

    fn ask_now(&mut self, _: &[String]) -> Result<(), Trouble> {
        self.time.sleep(Duration::from_millis(2));
        Ok(())
    }

    fn hear(&mut self) -> Result<(), Trouble> {
        Ok(())
    }

    fn hurry(&mut self) {}

    fn vouches<'a>(&mut self, _: impl Iterator<Item = &'a str>) -> bool {
        !self.world.lock().fails(0.2)
    }

    fn is_settled(&self, _: &str) -> bool {
        true
    }

    fn identity(&self, topic: &str) -> Option<String> {
        Some(topic.to_owned())
    }

    fn starts(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Start>, Trouble> {
        let world = self.world.lock();
        let start = |one: &TopicPartition| Start {
            partition: one.clone(),
            from: world.logs[one.partition as usize].committed,
            leader_epoch: None,
            remade: false,
        };
        Ok(partitions.iter().map(start).collect())
    }

    fn remember(&mut self, _: &TopicPartition, _: Option<i64>) {}

    fn make_room(&mut self, _: impl Fn(&str) -> bool) {}
}

/// An answer that is written and not committed.
struct Written {
    partition: usize,
    offset: i64,
    number: usize,
    topic: Arc<str>,
}

/// A member's connection to the store.
pub struct MemorySink {
    world: Shared,
    time: Arc<dyn Time>,
    member: usize,
    written: Vec<Written>,
    /// Number of these that the store has taken.
    taken: usize,
    refused: Vec<Refused>,
    since: Option<std::time::Instant>,
}

impl MemorySink {
    pub fn new(world: &Shared, time: &Arc<dyn Time>, member: usize) -> MemorySink {
        MemorySink {
            world: world.clone(),
            time: Arc::clone(time),
            member,
            written: Vec::new(),
            taken: 0,
            refused: Vec::new(),
            since: None,
        }
    }

    fn refuse(&mut self, number: usize) {
        let refusal = Refusal {
            reason: "poison".into(),
            too_large: false,
        };
        self.refused.push(Refused { number, refusal });
    }

    /// Refuses every batch that holds a refused record, as a broker does.
    fn flush(&mut self) -> Result<(), Trouble> {
        let is_refused = |one: &Written| &*one.topic != DEAD && is_poison(one.partition, one.offset);
        let refused: Vec<usize> = self.written[self.taken..]
            .chunks(BATCH)
            .filter(|batch| batch.iter().any(is_refused))
            .flat_map(|batch| batch.iter().map(|one| one.number))
            .collect();
        self.taken = self.written.len();
        if refused.is_empty() {
            return Ok(());
        }
        self.world.lock().tally.refusals += 1;
        for number in refused {
            self.refuse(number);
        }
        Err(Trouble::Abort("records are refused".into()))
    }

    fn lasted(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| self.time.now() - since)
    }

    fn reset(&mut self) -> Duration {
        let lasted = self.lasted();
        self.written.clear();
        self.taken = 0;
        self.since = None;
        lasted
    }

    fn begin(&mut self, record: &Outgoing, from: i32, number: usize) -> Written {
        self.since.get_or_insert(self.time.now());
        let key = std::str::from_utf8(record.key.as_deref().expect("a key")).expect("text");
        let (partition, offset) = key.split_once(':').expect("a partition and an offset");
        let written = Written {
            partition: partition.parse().expect("a number"),
            offset: offset.parse().expect("a number"),
            number,
            topic: Arc::clone(&record.topic),
        };
        assert_eq!(written.partition, from as usize, "an answer keeps its partition");
        written
    }
}

impl Sink for MemorySink {
    type Group = u64;

    fn write(&mut self, record: Outgoing, from: i32, number: usize) -> Result<(), Trouble> {
        let written = self.begin(&record, from, number);
        self.written.push(written);
        Ok(())
    }

    fn write_apart(&mut self, record: Outgoing, from: i32, number: usize) -> Result<(), Trouble> {
        self.flush()?;
        let written = self.begin(&record, from, number);
        if &*written.topic != DEAD && is_poison(written.partition, written.offset) {
            self.refuse(number);
            return Err(Trouble::Abort("a record is refused".into()));
        }
        self.written.push(written);
        self.taken = self.written.len();
        Ok(())
    }

    fn open(&self) -> Option<Open> {
        self.since.map(|_| Open {
            lasted: self.lasted(),
            records: self.written.len(),
        })
    }

    fn is_atomic(&self) -> bool {
        self.world.lock().atomic
    }

    fn commit(&mut self, positions: Positions<u64>) -> Result<Duration, Trouble> {
        self.flush()?;
        let next = positions.partitions.iter();
        let next: Vec<(usize, i64)> = next.map(|one| (one.partition as usize, one.offset)).collect();
        let partitions: Vec<usize> = next.iter().map(|(p, _)| *p).collect();
        let mut world = self.world.lock();
        if world.fails(0.01) {
            // The group excludes the member just before its commit arrives.
            world.exclude(self.member);
        }
        if !world.admits(self.member, positions.group, &partitions) {
            world.tally.stale_commits += 1;
            return Err(Trouble::Abort("the group has another generation".into()));
        }
        if world.fails(0.02) {
            return Err(Trouble::Abort("a broker is away".into()));
        }
        if world.fails(0.01) {
            return Err(Trouble::Restart("the producer has failed".into()));
        }
        let answers: Vec<_> = self
            .written
            .iter()
            .map(|one| (one.partition, one.offset))
            .collect();
        for one in &self.written {
            let is_dead = &*one.topic == DEAD;
            assert_eq!(
                is_dead,
                is_poison(one.partition, one.offset),
                "{}:{} goes to {}",
                one.partition,
                one.offset,
                one.topic
            );
            world.logs[one.partition].answered[one.offset as usize] = true;
            world.tally.dead += usize::from(is_dead);
        }
        world.commit(&next, &answers);
        if world.fails(0.03) {
            world.tally.unknown_commits += 1;
            return Err(Trouble::Restart("the answer of the commit was lost".into()));
        }
        drop(world);
        Ok(self.reset())
    }

    fn abort(&mut self) -> Result<Aborted, Trouble> {
        let mut world = self.world.lock();
        world.tally.aborts += 1;
        if !world.atomic {
            // Written answers cannot be undone.
            for one in &self.written {
                world.logs[one.partition].answered[one.offset as usize] = true;
            }
        }
        drop(world);
        Ok(Aborted {
            lasted: self.reset(),
            refused: std::mem::take(&mut self.refused),
        })
    }
}

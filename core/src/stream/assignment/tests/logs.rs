//! A partition from a seed, whose log grows, is cut off and is made anew while transactions come and go.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

const P: char = 'p';

/// A record that was read and has not left.
struct Read {
    epoch: Epoch,
    offset: i64,
    record: u32,
    done: bool,
}

/// The broker's side and the consumer's.
struct World {
    rng: SmallRng,
    /// The records, each with a number of its own; their offsets are their places.
    log: Vec<u32>,
    made: u32,
    /// The position that the group has committed, perhaps of a log that is gone.
    broker: Option<i64>,
    /// Where the client reads next.
    next: i64,
    assignment: Assignment<char>,
    read: Vec<Read>,
    /// Records written in the transaction that is open.
    written: Vec<u32>,
    output: Vec<u32>,
    /// Where the epoch begins whatever the broker knows, until something was committed under it.
    begins: Option<i64>,
    went_back: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let mut assignment = Assignment::new(64);
        assignment.begin(P);
        World {
            rng: SmallRng::seed_from_u64(seed),
            log: Vec::new(),
            made: 0,
            broker: None,
            next: 0,
            assignment,
            read: Vec::new(),
            written: Vec::new(),
            output: Vec::new(),
            begins: None,
            went_back: 0,
        }
    }

    fn append(&mut self) {
        let records = self.rng.random_range(1..6);
        self.log.extend(self.made..self.made + records);
        self.made += records;
    }

    fn give_up(&mut self) {
        self.read.clear();
        self.written.clear();
    }

    fn read(&mut self) {
        let Some(record) = self.log.get(self.next as usize).copied() else {
            return;
        };
        match self.assignment.start(&P, self.next) {
            Ok(epoch) => {
                self.read.push(Read {
                    epoch,
                    offset: self.next,
                    record,
                    done: false,
                });
                self.next += 1;
            }
            Err(OffsetError::WentBack { offset, .. }) => {
                self.give_up();
                self.next = position_after_going_back(offset, self.sought());
                self.begins = Some(self.next);
                self.assignment.begin_back_at(P, self.next);
                self.went_back += 1;
            }
            Err(OffsetError::Full { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// One of the open records has its answer; those leave before which all have.
    fn finish(&mut self) {
        let at = self.rng.random_range(0..self.read.len().max(1));
        let Some(read) = self.read.get_mut(at).filter(|read| !read.done) else {
            return;
        };
        read.done = true;
        let (epoch, offset) = (read.epoch, read.offset);
        if let Some(safe) = self.assignment.finish(&P, epoch, offset) {
            let leaves = |read: &mut Read| read.offset < safe;
            let left = self.read.extract_if(.., leaves).map(|read| read.record);
            self.written.extend(left);
        }
    }

    fn commit(&mut self) {
        let positions = self.assignment.uncommitted();
        let positions: Vec<_> = positions.map(|(_, epoch, position)| (epoch, position)).collect();
        for (epoch, position) in positions {
            self.broker = Some(position);
            self.assignment.committed(&P, epoch, position);
            self.begins = None;
        }
        self.output.append(&mut self.written);
    }

    /// Where an abort seeks back to.
    fn sought(&self) -> i64 {
        self.begins.or(self.broker).unwrap_or(0)
    }

    fn abort(&mut self) {
        self.give_up();
        self.next = self.sought();
        if self.begins.is_some() {
            self.assignment.begin_back_at(P, self.next);
        } else {
            self.assignment.begin_at(P, self.next);
        }
    }

    /// The log loses its end, and grows again. The client, which knows the log by its leader's epoch, goes back with it.
    fn cut_off(&mut self) {
        let length = self.rng.random_range(0..=self.log.len());
        self.log.truncate(length);
        self.append();
        if self.next > length as i64 {
            self.next = length as i64;
            self.read();
        }
    }

    /// Another log under the same name, shorter or longer; the broker keeps what was committed of the first.
    fn make_anew(&mut self) {
        self.log.clear();
        for _ in 0..self.rng.random_range(0..12) {
            self.append();
        }
        self.give_up();
        self.next = 0;
        self.begins = Some(0);
        self.assignment.begin_back_at(P, 0);
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..15 => self.append(),
            15..50 => self.read(),
            50..85 => self.finish(),
            85..95 => self.commit(),
            95..98 => self.abort(),
            98 => self.cut_off(),
            _ => self.make_anew(),
        }
    }

    fn end(&mut self) {
        while self.next < self.log.len() as i64 || !self.read.is_empty() {
            self.read();
            self.finish();
        }
        self.commit();
    }
}

#[test]
fn whatever_becomes_of_the_log_each_record_that_stays_comes_out_once() {
    let mut went_back = 0;
    for seed in 0..2000 {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
        }
        world.end();
        let mut counts = BTreeMap::new();
        for record in &world.output {
            *counts.entry(*record).or_insert(0) += 1;
        }
        let lost = world.log.iter().find(|record| !counts.contains_key(record));
        assert_eq!(lost, None, "lost, seed {seed}");
        let twice = counts.iter().find(|(_, count)| **count > 1);
        assert_eq!(twice, None, "twice, seed {seed}");
        assert_eq!(world.broker.unwrap_or(0), world.log.len() as i64, "seed {seed}");
        went_back += world.went_back;
    }
    assert!(went_back > 1000, "{went_back}");
}
